//! Malicious files: none causes a panic, a hang or growth beyond the limits, and every row is
//! counted.

use std::fmt::Write as _;

use super::*;

/// Lines that each leave a quote open, whether or not they begin inside one, are read a bounded
/// number of times.
#[tokio::test]
async fn unclosed_quotes_cost_linear_time() {
    let text = "email,a,b\n".to_owned() + &"a\",\",\n".repeat(90_000);
    let started = std::time::Instant::now();
    let (rows, report) = import_text(&text).await;
    assert_eq!(rows.len(), 0);
    assert_eq!(report.rows_read, report.invalid);
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_quote_over_a_million_blank_lines_is_one_bad_row() {
    let text = "email\n\"".to_owned() + &"\n".repeat(1_000_000) + "a@example.com\n";
    let (rows, report) = import_text(&text).await;
    assert_eq!(counts(&report), [2, 1, 0, 1]);
    assert_eq!((rows[0].line, report.errors[0].line), (1_000_002, 2));
}

#[tokio::test]
async fn long_rows_make_short_batches() {
    let mut text = "email,a,b,c,d,e,f,g\n".to_owned();
    let fields = format!(",{}", "x".repeat(8_000)).repeat(7);
    for row in 0..200 {
        writeln!(text, "p{row}@example.com{fields}").unwrap();
    }
    let mut reader = LeadsReader::open(text.as_bytes(), ImportOptions::default()).await.unwrap();
    let mut sizes = Vec::new();
    loop {
        match reader.next_batch(1_000).await.unwrap().len() {
            0 => break,
            size => sizes.push(size),
        }
    }
    assert_eq!(sizes, [75, 75, 50]);
}

/// A generator with a fixed seed, so that failures can be reproduced: xorshift64*.
struct Hostile(u64);

impl Hostile {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % bound
    }

    fn file(&mut self) -> Vec<u8> {
        const PIECES: &[&[u8]] = &[
            b",",
            b";",
            b"\t",
            b"\"",
            b"\"\"",
            b"\n",
            b"\n",
            b"\r\n",
            b"\r",
            b"\0",
            b"\xff",
            b"\xc3",
            b"\xb6",
            b" ",
            b"\xef\xbb\xbf",
            b"a@example.com",
            b"B@example.com",
            b"=cmd|x",
            b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            b"\na@example.com,b,c\n",
            b"\n\"b@EXAMPLE.com\",\"x\ny\",\n",
            b"\n,,\n",
            b"sep=;\n",
            b"@",
        ];
        let mut file = if self.below(8) == 0 { Vec::new() } else { b"email,b,c\n".to_vec() };
        for _ in 0..self.below(60) {
            file.extend_from_slice(PIECES[self.below(PIECES.len())]);
        }
        file
    }
}

#[tokio::test]
async fn hostile_files_never_panic_and_every_row_is_accounted_for() {
    let mut hostile = Hostile(0x5eed);
    let (mut read, mut accepted, mut merged) = (0, 0, 0);
    for round in 0..2_000 {
        let file = hostile.file();
        let limits = ImportLimits { field_bytes: 64, row_bytes: 128, ..ImportLimits::default() };
        let on_error = if round % 5 == 0 { OnError::Refuse } else { OnError::Skip };
        let options = ImportOptions { on_error, limits, ..ImportOptions::default() };
        let Ok((rows, report)) = import(&file, 1 + round % 4, options).await else {
            continue;
        };
        let [all, good, again, bad] = counts(&report);
        assert_eq!(good + again + bad, all, "{:?}", String::from_utf8_lossy(&file));
        if !report.refused {
            let first = rows.iter().filter(|row| row.duplicate_of_line.is_none()).count();
            assert_eq!(first as u64, good);
        }
        assert!(rows.is_sorted_by_key(|row| row.line));
        (read, accepted, merged) = (read + all, accepted + good, merged + again);
    }
    assert!(read > 8_000 && accepted > 800 && merged > 400, "{read} {accepted} {merged}");
}

/// `cargo test --release -p api leads_import -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement: 100,000 rows in under 2 s, in release mode"]
async fn reading_100_000_rows_takes_at_most_two_seconds() {
    let mut text = "email,first_name,last_name,company,city\n".to_owned();
    for row in 0..100_000 {
        let tail = "Wolfgang \"\"Wolle\"\"\",\"Größl\",\"Groß, Klein & Söhne\",Düsseldorf";
        writeln!(text, "person.{row}@mail{}.example.com,\"{tail}", row % 97).unwrap();
    }
    let started = std::time::Instant::now();
    let (rows, _) = import(text.as_bytes(), 1_000, ImportOptions::default()).await.unwrap();
    let elapsed = started.elapsed();
    assert_eq!(rows.len(), 100_000);
    assert!(elapsed.as_secs_f64() < 2.0, "{elapsed:?}");
}
