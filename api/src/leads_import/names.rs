//! Names of variables: how they derive from column names, and which names are reserved.
//!
//! Invariant: a name accepted here is an ASCII identifier that a template reads as a variable, so
//! every column can be written as `{{ name }}`. [`super::header`] applies it to a whole header.

/// Maximum length of a name, in characters.
pub const MAX_NAME_LENGTH: usize = 64;

/// Words that a template reads as something other than a variable, and names that Rota fills in
/// itself.
pub const RESERVED_NAMES: &[&str] = &[
    "and",
    "block",
    "call",
    "caller",
    "campaign",
    "do",
    "elif",
    "else",
    "email",
    "extends",
    "false",
    "filter",
    "for",
    "from",
    "if",
    "import",
    "in",
    "include",
    "is",
    "lead",
    "loop",
    "macro",
    "message_id",
    "none",
    "not",
    "or",
    "recursive",
    "self",
    "set",
    "super",
    "tenant",
    "true",
    "unsubscribe_url",
    "with",
];

pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED_NAMES.contains(&name)
}

pub(super) fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// The column's name in `snake_case`: `E-Mail-Adresse` is `e_mail_adresse`, `firstName` is
/// `first_name`, `Straße` is `strasse`. A column without a usable character is named by its
/// position, counted from 1: `column_4`.
pub(super) fn from_column(column: &str, place: usize) -> String {
    let mut name = String::with_capacity(column.len());
    let mut after_lower = false;
    for character in column.trim().chars() {
        if character.is_uppercase() && after_lower {
            name.push('_');
        }
        after_lower = character.is_lowercase() || character.is_ascii_digit();
        push_ascii(character, &mut name);
    }
    let name = name.trim_end_matches('_');
    if name.is_empty() {
        format!("column_{place}")
    } else if name.starts_with(|first: char| first.is_ascii_digit()) {
        format!("column_{name}")
    } else {
        name.to_owned()
    }
}

/// Appends the character's form in an identifier; other characters become a single underscore
/// between words.
fn push_ascii(character: char, name: &mut String) {
    for lower in character.to_lowercase() {
        let folded = fold(lower);
        if !folded.is_empty() {
            name.push_str(folded);
        } else if lower.is_ascii_alphanumeric() {
            name.push(lower);
        } else if !is_combining_mark(lower) && !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
}

/// Accents that are characters of their own, as macOS writes them, do not change the letter before
/// them.
fn is_combining_mark(character: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&character)
}

/// Latin letters of European languages without their accents; German letters as German spells them
/// out.
fn fold(lower: char) -> &'static str {
    match lower {
        'ä' | 'æ' => "ae",
        'ö' | 'œ' => "oe",
        'ü' => "ue",
        'ß' => "ss",
        'þ' => "th",
        'à' | 'á' | 'â' | 'ã' | 'å' | 'ā' | 'ă' | 'ą' => "a",
        'ç' | 'ć' | 'č' | 'ĉ' | 'ċ' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ė' | 'ę' | 'ě' => "e",
        'ğ' | 'ģ' | 'ĝ' | 'ġ' => "g",
        'ì' | 'í' | 'î' | 'ï' | 'ī' | 'į' | 'ı' => "i",
        'ķ' => "k",
        'ĺ' | 'ļ' | 'ľ' | 'ł' => "l",
        'ñ' | 'ń' | 'ņ' | 'ň' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ø' | 'ō' | 'ő' => "o",
        'ŕ' | 'ř' => "r",
        'ś' | 'š' | 'ş' | 'ș' => "s",
        'ť' | 'ţ' | 'ț' => "t",
        'ù' | 'ú' | 'û' | 'ū' | 'ů' | 'ű' | 'ų' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_names_become_snake_case() {
        for (column, name) in [
            ("email", "email"),
            ("E-Mail-Adresse", "e_mail_adresse"),
            ("EMAIL", "email"),
            ("Email Address", "email_address"),
            ("firstName", "first_name"),
            ("FIRST_NAME", "first_name"),
            ("  Straße / Nr. ", "strasse_nr"),
            ("Größe (cm)", "groesse_cm"),
            ("Prénom", "prenom"),
            ("Pre\u{301}nom", "prenom"),
            ("Line2Text", "line2_text"),
            ("2nd name", "column_2nd_name"),
            ("", "column_7"),
            ("名前", "column_7"),
            ("__x__", "x"),
        ] {
            assert_eq!(from_column(column, 7), name, "{column:?}");
            assert!(is_identifier(name));
        }
    }

    #[test]
    fn identifiers_are_recognized() {
        for bad in ["", "_x", "1x", "X", "a-b", "a b", "ä"] {
            assert!(!is_identifier(bad), "{bad:?}");
        }
        assert!(RESERVED_NAMES.iter().all(|name| is_identifier(name)));
        assert!(is_reserved("loop") && !is_reserved("loops"));
    }
}
