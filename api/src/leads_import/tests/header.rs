//! Which column is the address, and which variables the others fill.

use super::*;

async fn columns(text: &str, mapping: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let mapping = mapping.iter().map(|&(name, column)| (name.into(), column.into())).collect();
    let options = ImportOptions { mapping, ..ImportOptions::default() };
    match LeadsReader::open(text.as_bytes(), options).await {
        Ok(reader) => Ok(reader.columns().iter().map(|column| column.variable.clone()).collect()),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn common_names_of_the_address_column_are_recognized() {
    for name in ["email", "EMAIL", "E-Mail", " mail ", "Email Address", "E-Mail-Adresse", "\"e-mail\""] {
        assert_eq!(columns(&format!("Vorname,{name}\n"), &[]).await.unwrap(), ["vorname", "email"]);
    }
    assert_eq!(columns("mail;Email\n", &[]).await.unwrap(), ["mail", "email"]);
    assert_eq!(columns("sep=\t\nmail\tx,y\n", &[]).await.unwrap(), ["email", "x_y"]);
}

#[tokio::test]
async fn the_mapping_renames_columns() {
    let mapping = [("email", "spalte 3"), ("first_name", "Vorname")];
    let found = columns("Vorname;Ort;Spalte 3\n", &mapping).await.unwrap();
    assert_eq!(found, ["first_name", "ort", "email"]);
    let renamed = columns("email,mail\n", &[("email", "mail"), ("old", "email")]).await.unwrap();
    assert_eq!(renamed, ["old", "email"]);
}

#[tokio::test]
async fn an_ambiguous_header_is_refused() {
    let long = "x".repeat(65);
    let wide = "a,".repeat(64) + "email\n";
    for (text, mapping, part) in [
        ("", vec![], "empty"),
        ("\u{feff}\r\n\n", vec![], "empty"),
        ("name,ort\n", vec![], "columns found: \"name\", \"ort\""),
        ("mail,e-mail\n", vec![], "several columns"),
        ("email,First Name,first_name\n", vec![], "would both become the variable \"first_name\""),
        ("email,Email\n", vec![], "would both become the variable \"email\""),
        ("email,loop\n", vec![], "reserved"),
        ("email,a\n", vec![("tenant", "a")], "reserved"),
        ("email,a\n", vec![("First", "a")], "is not a valid variable name"),
        ("email,a\n", vec![("b", "c")], "columns found: \"email\", \"a\""),
        ("email,a\n", vec![("b", "a"), ("c", "a")], "twice"),
        ("email,\"a\n", vec![], "cannot be read"),
        (&format!("email,{long}\n"), vec![], "longer than 64"),
        (&wide, vec![], "65 columns, at most 64"),
    ] {
        let error = columns(text, &mapping).await.unwrap_err();
        assert!(error.contains(part), "{text:?}: {error}");
    }
    assert!(columns(&format!("email,{}\n", &long[1..]), &[]).await.is_ok());
}

#[tokio::test]
async fn other_encodings_are_detected() {
    for bytes in [&b"\xff\xfee\0m\0"[..], b"email,Stra\xdfe\n", b"e\0m\0a\0i\0l\0\n"] {
        let error = LeadsReader::open(bytes, ImportOptions::default()).await.err();
        assert!(matches!(error, Some(ImportError::NotUtf8 { .. })), "{error:?}");
    }
}
