//! One data row: the record checked field by field, or the error in it.
//!
//! Invariant: an accepted row has a valid address and values that the database and a mail can hold
//! (UTF-8, no NUL or other control characters but tab and newline); otherwise the values are
//! verbatim. [`super::report`] reports a [`RowProblem`] to the client.

use serde_json::{Map, Value};
use shared::email_address::{EmailAddress, EmailAddressError};

use super::fields::Fields;
use super::header::Header;
use super::problem::{Fault, RowProblem};
use super::records::Record;

/// A valid row.
#[derive(Debug, Clone, PartialEq)]
pub struct LeadRow {
    /// The physical line on which the row begins; the header is usually line 1.
    pub line: u64,
    pub email: EmailAddress,
    /// A string for each column but the address, including the empty ones.
    pub variables: Map<String, Value>,
    /// The line of the address's first appearance, if that was in an earlier batch: these variables
    /// must override the stored ones.
    pub duplicate_of_line: Option<u64>,
}

impl LeadRow {
    /// Bytes of the row's values.
    pub(super) fn size_bytes(&self) -> usize {
        let value_bytes = |value: &Value| value.as_str().map_or(0, str::len);
        self.email.as_str().len() + self.variables.values().map(value_bytes).sum::<usize>()
    }

    /// Drops empty variables, so that a repeated row does not erase the values of its first row.
    pub(super) fn keep_filled(&mut self) {
        self.variables.retain(|_, value| value.as_str() != Some(""));
    }
}

pub(super) fn read<'a>(record: &'a Record, header: &Header, max_field_bytes: usize) -> Result<LeadRow, Fault<'a>> {
    let whole = |problem| Fault { problem, column: None, value: &record.raw };
    let fields = record.fields.as_ref().map_err(|&problem| whole(problem))?;
    let (email, variables) = read_fields(fields, header, max_field_bytes)?;
    // The header has one address column, and the record has as many fields as the header.
    let email = email.ok_or_else(|| whole(RowProblem::Email(EmailAddressError::Empty)))?;
    Ok(LeadRow { line: record.line, email, variables, duplicate_of_line: None })
}

type Checked = (Option<EmailAddress>, Map<String, Value>);

fn read_fields<'a>(fields: &'a Fields, header: &Header, max_field_bytes: usize) -> Result<Checked, Fault<'a>> {
    let mut email = None;
    let mut variables = Map::new();
    for (index, (field, column)) in fields.iter().zip(header.columns()).enumerate() {
        let at = |problem| Fault { problem, column: Some(index), value: field };
        let value = check_value(field, max_field_bytes).map_err(at)?;
        if header.is_email(index) {
            email = Some(EmailAddress::parse(value).map_err(|error| at(RowProblem::Email(error)))?);
        } else {
            variables.insert(column.variable.clone(), Value::String(value.to_owned()));
        }
    }
    Ok((email, variables))
}

fn check_value(field: &[u8], max_bytes: usize) -> Result<&str, RowProblem> {
    if field.len() > max_bytes {
        return Err(RowProblem::FieldTooLong { limit: max_bytes });
    }
    let value = std::str::from_utf8(field).map_err(|_| RowProblem::NotUtf8)?;
    let control = |c: &char| c.is_control() && !matches!(c, '\t' | '\n');
    match value.chars().find(control) {
        Some(found) => Err(RowProblem::ControlCharacter(u32::from(found))),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_size_limit_is_exact() {
        assert!(check_value(&[b'x'; 8], 8).is_ok());
        assert_eq!(check_value(&[b'x'; 9], 8), Err(RowProblem::FieldTooLong { limit: 8 }));
        assert_eq!(check_value("=1+1\tä\n".as_bytes(), 80), Ok("=1+1\tä\n"));
    }

    #[test]
    fn invalid_utf8_and_control_characters_are_refused() {
        assert_eq!(check_value(b"Gr\xfc\xdfe", 80), Err(RowProblem::NotUtf8));
        for (bytes, code) in [(&b"a\0"[..], 0), (b"a\x1b[0m", 0x1b), (b"a\rb", 0xd), (b"a\x7f", 0x7f)] {
            assert_eq!(check_value(bytes, 80), Err(RowProblem::ControlCharacter(code)));
        }
    }
}
