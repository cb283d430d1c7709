//! The importer as its caller uses it: whole files in, batches and a report out.

mod header;
mod hostile;

use serde_json::json;

use super::*;

const DEMO: &[u8] = include_bytes!("../../../../docs/demo/leads.csv");

type Imported = (Vec<LeadRow>, ImportReport);

async fn import(bytes: &[u8], batch: usize, options: ImportOptions) -> Result<Imported, ImportError> {
    let mut reader = LeadsReader::open(bytes, options).await?;
    let mut rows = Vec::new();
    loop {
        let next = reader.next_batch(batch).await?;
        if next.is_empty() {
            return Ok((rows, reader.finish()));
        }
        assert!(next.len() <= batch);
        rows.extend(next);
    }
}

async fn import_text(text: &str) -> Imported {
    import(text.as_bytes(), 500, ImportOptions::default()).await.unwrap()
}

fn refuse() -> ImportOptions {
    ImportOptions { on_error: OnError::Refuse, ..ImportOptions::default() }
}

fn counts(report: &ImportReport) -> [u64; 4] {
    [report.rows_read, report.accepted, report.duplicates_merged, report.invalid]
}

#[tokio::test]
async fn the_demo_file_has_995_leads() {
    let (rows, report) = import(DEMO, 100, ImportOptions::default()).await.unwrap();
    assert_eq!(counts(&report), [1000, 995, 3, 2]);
    let variables: Vec<&str> = report.columns.iter().map(|c| c.variable.as_str()).collect();
    assert_eq!(variables, ["email", "first_name", "last_name", "company", "city"]);
    assert_eq!(report.errors.iter().map(|error| error.line).collect::<Vec<_>>(), [321, 874]);
    assert_eq!(rows.iter().filter(|row| row.duplicate_of_line.is_none()).count(), 995);

    let company = |address: &str| {
        let row = rows.iter().find(|row| row.email.as_str() == address).unwrap();
        row.variables["company"].as_str().unwrap().to_owned()
    };
    assert_eq!(company("empfang@werk.example.net"), "Größl Kältetechnik GmbH\nNiederlassung Süd");
    assert_eq!(company("pat.o'hara@team.example.com"), "\"O'Hara & Sons\", Ltd.");
    assert_eq!(company("sum@buero.example.com"), "=Summe & Partner");
}

#[tokio::test]
async fn the_chunk_size_of_the_source_does_not_affect_the_result() {
    let whole = import(DEMO, 500, ImportOptions::default()).await.unwrap();
    let pieces = futures::stream::iter(DEMO.chunks(7).map(Ok::<_, std::io::Error>));
    let source = tokio_util::io::StreamReader::new(pieces);
    let mut reader = LeadsReader::open(source, ImportOptions::default()).await.unwrap();
    let mut rows = reader.next_batch(500).await.unwrap();
    rows.extend(reader.next_batch(500).await.unwrap());
    assert!(reader.next_batch(500).await.unwrap().is_empty());
    assert_eq!((rows, reader.finish()), whole);
}

#[tokio::test]
async fn bad_rows_are_reported_by_physical_line() {
    let text = "\u{feff}E-Mail;Vorname\r\n\
        ann@example.com;\"Ann\r\nMarie\"\r\n\
        \r\n\
        bob@example;Bob\r\n\
        cem@example.com\r\n\
        dan@example.com;\"Dan\r\n\
        eve@example.com;E\u{7}ve\r\n\
        fay@example.com;Fay";
    let (rows, report) = import_text(text).await;
    assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 6, 9]);
    assert_eq!(rows[0].variables["vorname"], "Ann\nMarie");
    assert_eq!(rows[1].variables["vorname"], "");
    let told = serde_json::to_value(&report.errors).unwrap();
    assert_eq!(
        told,
        json!([
            {"line": 5, "column": "E-Mail", "code": "invalid_email", "value": "bob@example",
             "reason": "the domain has no dot, so it is not a public domain"},
            {"line": 7, "code": "unclosed_quote", "value": "dan@example.com;\"Dan",
             "reason": "a quote is left open, or the row runs over several lines that do not make one row"},
            {"line": 8, "column": "Vorname", "code": "control_character", "value": "E\u{fffd}ve",
             "reason": "the value contains the control character U+0007"},
        ])
    );
}

#[tokio::test]
async fn rows_as_written_by_spreadsheets_are_valid() {
    let rows = "ann@example.com;Ann;Ulm\nbob@example.com;Bob\n;;\n \t;;\n\t\t\ncem@example.com;Cem;Kiel;;;\n\u{a0}\n";
    let unix = format!("E-Mail;Name;Ort\n{rows}");
    for text in [
        unix.clone(),
        unix.replace('\n', "\r\n"),
        unix.replace('\n', "\r\r\n"),
        unix.replace('\n', "\r"),
        format!("{unix}\x1a"),
        format!("{unix}\x1a\r\n"),
        format!("\u{feff}{unix}"),
        format!("sep=;\n{unix}"),
        format!("SEP=;\r\n{unix}"),
        format!("\u{feff}\"sep=;\"\n{unix}"),
        format!(";;\n{unix}"),
    ] {
        let (rows, report) = import(text.as_bytes(), 10, refuse()).await.unwrap();
        assert_eq!((counts(&report), report.refused), ([3, 3, 0, 0], false), "{text:?}: {:?}", report.errors);
        let towns: Vec<_> = rows.iter().map(|row| row.variables["ort"].as_str().unwrap()).collect();
        assert_eq!(towns, ["Ulm", "", "Kiel"], "{text:?}");
    }
    let error = import(b"sep=:\nemail:name\n", 10, refuse()).await.unwrap_err();
    assert!(error.to_string().contains("separates fields with ':'"), "{error}");
    let (rows, _) = import_text("email|name\nann@example.com|Ann\n").await;
    assert_eq!(rows[0].variables["name"], "Ann");
    let (_, report) = import_text("email,name,\nann@example.com,Ann\n").await;
    assert_eq!((counts(&report), report.columns.len()), ([1, 1, 0, 0], 3));
}

#[tokio::test]
async fn a_latin_1_row_is_reported_as_such() {
    let bytes = b"email,city\nann@example.com,Gie\xdfen\nbob@example.com,Kiel\n";
    let (rows, report) = import(bytes, 10, ImportOptions::default()).await.unwrap();
    assert_eq!((rows.len(), report.invalid), (1, 1));
    assert_eq!((report.errors[0].line, report.errors[0].code), (2, RowCode::NotUtf8));
    assert!(report.errors[0].reason.contains("Latin-1"));
}

#[tokio::test]
async fn duplicates_within_a_batch_are_merged() {
    let text = "email,name,city\nann@example.com,Ann,\nbob@example.com,Bob,Ulm\nANN@Example.com,,Kiel\n";
    let (rows, report) = import_text(text).await;
    assert_eq!(counts(&report), [3, 2, 1, 0]);
    assert_eq!(report.duplicates, [Duplicate { line: 4, first_line: 2 }]);
    assert_eq!(rows.len(), 2);
    assert_eq!(json!(rows[0].variables), json!({"name": "Ann", "city": "Kiel"}));
}

#[tokio::test]
async fn duplicates_across_batches_are_returned_flagged() {
    let text = "email,name\na@example.com,A\nb@example.com,B\nA@example.com,C\na@example.com,\na@example.com,D\n";
    let (rows, report) = import(text.as_bytes(), 2, ImportOptions::default()).await.unwrap();
    assert_eq!(counts(&report), [5, 2, 3, 0]);
    let again: Vec<_> = rows[2..].iter().map(|row| (row.duplicate_of_line, json!(row.variables))).collect();
    assert_eq!(again, [(Some(2), json!({"name": "D"}))]);
}

#[tokio::test]
async fn refuse_returns_no_rows_after_a_bad_one_but_reports_all() {
    let text = "email\na@example.com\nbad\nb@example.com\nworse\nc@example.com\n";
    let (rows, report) = import(text.as_bytes(), 1, refuse()).await.unwrap();
    assert_eq!(rows.len(), 1, "returned before the bad row was reached");
    assert!(report.refused);
    assert_eq!(counts(&report), [5, 3, 0, 2]);
    let (_, report) = import(b"email\na@example.com\n", 1, refuse()).await.unwrap();
    assert!(!report.refused);
}

#[tokio::test]
async fn limits_are_exact() {
    let limits = ImportLimits { rows: 2, columns: 2, field_bytes: 20, ..ImportLimits::default() };
    let options = || ImportOptions { limits, ..ImportOptions::default() };
    let text = format!("email,x\na@example.com,{}\nb@example.com,{}\n", "x".repeat(20), "x".repeat(21));
    let (_, report) = import(text.as_bytes(), 10, options()).await.unwrap();
    assert_eq!(counts(&report), [2, 1, 0, 1]);
    assert_eq!(report.errors[0].code, RowCode::FieldTooLong);
    let over = import((text + "bad\n").as_bytes(), 10, options()).await;
    assert!(matches!(over, Err(ImportError::TooManyRows { limit: 2 })));
    let over = import(b"email,x,y\n", 10, options()).await;
    assert!(matches!(over, Err(ImportError::TooManyColumns { found: 3, limit: 2 })));
}

#[tokio::test]
async fn all_bad_rows_are_counted_and_a_thousand_listed() {
    let text = "email\n".to_owned() + &"bad\n".repeat(1_001) + "a@example.com\n";
    let (_, report) = import_text(&text).await;
    assert_eq!(counts(&report), [1_002, 1, 0, 1_001]);
    assert_eq!(report.errors.len(), 1_000);
}

#[tokio::test]
async fn a_file_with_only_a_header_has_no_rows() {
    let (rows, report) = import_text("email").await;
    assert_eq!((rows.len(), counts(&report)), (0, [0; 4]));
}
