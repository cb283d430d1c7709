//! What the caller of an import may choose, and the limits that bound its memory.
//!
//! Invariant: the defaults are the limits documented in the API; nothing else in this module holds a number of them.
//! Next: [`super::LeadsReader`], which takes these.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How to read a file. `Default` finds everything out by itself and skips bad rows.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// What separates fields; found from the header when absent.
    pub delimiter: Option<Delimiter>,
    /// Variable name to the column that fills it, for example `{"email": "Kontakt", "first_name": "Vorname"}`. Columns
    /// not named here keep their own name, in `snake_case`.
    pub mapping: BTreeMap<String, String>,
    /// What a bad row does to the import.
    pub on_error: OnError,
    /// How large a file may be.
    pub limits: ImportLimits,
}

/// What separates the fields of a row.
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

/// What a bad row does to the import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The row is reported and left out; the others are imported.
    #[default]
    Skip,
    /// One bad row refuses the whole file; all bad rows are still reported.
    Refuse,
}

/// How large a file may be. Beyond `rows` and `columns` the import fails, beyond the others the row is bad.
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
