//! The report on a file, for the client that sent it.
//!
//! Invariant: `accepted + duplicates_merged + invalid = rows_read`, and the size of a report is
//! bounded whatever the file contains: a maximum number of errors, each with a short value free of
//! control characters.

use serde::Serialize;
use utoipa::ToSchema;

use super::error::ImportError;
use super::options::OnError;
use super::problem::{Fault, RowCode};

/// Errors and duplicates listed one by one; the rest are only counted.
const MAX_LISTED: usize = 1_000;
/// Maximum characters of a value that is shown.
const MAX_SHOWN: usize = 80;

/// The result of an import.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ImportReport {
    /// Data rows in the file, without the header and rows without a value.
    pub rows_read: u64,
    /// Rows with a valid address that no earlier row had.
    pub accepted: u64,
    /// Valid rows whose address an earlier row had; their non-empty values override.
    pub duplicates_merged: u64,
    /// Bad rows.
    pub invalid: u64,
    /// Whether bad rows caused the whole file to be rejected, so that nothing is stored.
    pub refused: bool,
    /// The columns in the order of the file, with the variables they fill.
    pub columns: Vec<Column>,
    /// The first 1,000 bad rows.
    pub errors: Vec<RowError>,
    /// The first 1,000 merged rows.
    pub duplicates: Vec<Duplicate>,
}

/// A column and the variable it fills; the variable of the address is `email`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Column {
    /// The name in the file.
    pub column: String,
    /// The name in templates.
    pub variable: String,
}

/// A bad row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RowError {
    /// The line of the file on which the row begins, as an editor counts.
    pub line: u64,
    /// The column at fault, unless the row as a whole is bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The error for programs.
    pub code: RowCode,
    /// The error for people.
    pub reason: String,
    /// The start of the value at fault; control characters and bytes that are not UTF-8 are shown
    /// as U+FFFD.
    pub value: String,
}

/// A row whose address appeared in the file before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Duplicate {
    pub line: u64,
    pub first_line: u64,
}

/// Counts rows while the file is read.
pub(super) struct Reporter {
    report: ImportReport,
    on_error: OnError,
}

impl Reporter {
    pub fn new(columns: &[Column], on_error: OnError) -> Self {
        let report = ImportReport {
            rows_read: 0,
            accepted: 0,
            duplicates_merged: 0,
            invalid: 0,
            refused: false,
            columns: columns.to_vec(),
            errors: Vec::new(),
            duplicates: Vec::new(),
        };
        Self { report, on_error }
    }

    pub fn count_row(&mut self, limit: u64) -> Result<(), ImportError> {
        if self.report.rows_read == limit {
            return Err(ImportError::TooManyRows { limit });
        }
        self.report.rows_read += 1;
        Ok(())
    }

    pub fn rows_read(&self) -> u64 {
        self.report.rows_read
    }

    pub fn accept(&mut self) {
        self.report.accepted += 1;
    }

    pub fn merge(&mut self, line: u64, first_line: u64) {
        self.report.duplicates_merged += 1;
        if self.report.duplicates.len() < MAX_LISTED {
            self.report.duplicates.push(Duplicate { line, first_line });
        }
    }

    pub fn refuse(&mut self, line: u64, fault: &Fault<'_>) {
        self.report.invalid += 1;
        self.report.refused |= self.on_error == OnError::Refuse;
        if self.report.errors.len() < MAX_LISTED {
            let column = fault.column.map(|index| self.report.columns[index].column.clone());
            self.report.errors.push(RowError {
                line,
                column,
                code: fault.problem.code(),
                reason: fault.problem.to_string(),
                value: shown_bytes(fault.value),
            });
        }
    }

    pub fn is_refused(&self) -> bool {
        self.report.refused
    }

    pub fn finish(self) -> ImportReport {
        self.report
    }
}

/// A text from the file, shortened and cleaned for a response.
pub(super) fn shown(text: &str) -> String {
    let clean = |c: char| {
        if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }
    };
    let mut characters = text.trim_end().chars().map(clean);
    let mut short: String = characters.by_ref().take(MAX_SHOWN).collect();
    if characters.next().is_some() {
        short.push('…');
    }
    short
}

fn shown_bytes(bytes: &[u8]) -> String {
    // Four bytes per character at most; one character more than is shown, to detect that there are
    // more.
    let start = &bytes[..bytes.len().min(4 * (MAX_SHOWN + 1))];
    shown(&String::from_utf8_lossy(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_values_are_truncated_and_sanitized() {
        assert_eq!(shown("Müller \u{1b}[2J\n"), "Müller \u{fffd}[2J");
        assert_eq!(shown_bytes(b"Gr\xfc\xdfe"), "Gr\u{fffd}\u{fffd}e");
        assert_eq!(shown(&"x".repeat(80)), "x".repeat(80));
        assert_eq!(shown_bytes("💥".repeat(81).as_bytes()), "💥".repeat(80) + "…");
    }
}
