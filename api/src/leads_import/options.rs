//! Options of an import, and the limits that bound its memory.
//!
//! Invariant: the defaults are the limits documented in the API; no other file of this module
//! repeats them. Next: [`super::LeadsReader`], which takes these options.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How to read a file. `Default` detects everything and skips bad rows.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The separator of fields; detected from the header if `None`.
    pub delimiter: Option<Delimiter>,
    /// Maps a variable to the column that fills it, for example
    /// `{"email": "Kontakt", "first_name": "Vorname"}`. Columns not listed keep their own name, in
    /// `snake_case`.
    pub mapping: BTreeMap<String, String>,
    /// How a bad row affects the import.
    pub on_error: OnError,
    /// Limits on the size of a file.
    pub limits: ImportLimits,
}

/// The separator of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delimiter {
    Comma,
    Semicolon,
    Tab,
    Pipe,
}

impl Delimiter {
    pub(super) const ALL: [Self; 4] = [Self::Comma, Self::Semicolon, Self::Tab, Self::Pipe];

    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
            Self::Pipe => b'|',
        }
    }
}

/// How a bad row affects the import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The row is reported and left out; the other rows are imported.
    #[default]
    Skip,
    /// One bad row rejects the whole file; all bad rows are still reported.
    Refuse,
}

/// Limits on the size of a file. Exceeding `rows` or `columns` fails the import; exceeding another
/// limit makes the row bad.
#[derive(Debug, Clone, Copy)]
pub struct ImportLimits {
    /// Data rows of a file, bad ones included. Default 100,000.
    pub rows: u64,
    /// Columns of the header. Default 64.
    pub columns: usize,
    /// Bytes of one field, after unquoting. Default 8 KiB.
    pub field_bytes: usize,
    /// Bytes of one row as it stands in the file. Default 64 KiB.
    pub row_bytes: usize,
}

impl Default for ImportLimits {
    fn default() -> Self {
        Self { rows: 100_000, columns: 64, field_bytes: 8 * 1024, row_bytes: 64 * 1024 }
    }
}
