//! The error in one row.
//!
//! Invariant: the codes are a closed set; codes are added, never changed.

use serde::Serialize;
use shared::email_address::EmailAddressError;
use utoipa::ToSchema;

/// An error in one row: `Display` is the message for people, [`RowProblem::code`] the code for
/// programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowProblem {
    #[error("the row has {found} fields, the header has {expected}")]
    FieldCount { found: usize, expected: usize },
    #[error("a quote is left open, or the row runs over several lines that do not make one row")]
    UnclosedQuote,
    #[error("the row is too long")]
    RowTooLong,
    #[error("the value is longer than {limit} bytes")]
    FieldTooLong { limit: usize },
    #[error("the value is not UTF-8; it may be Latin-1: save the file as \"CSV UTF-8\"")]
    NotUtf8,
    #[error("the value contains the control character U+{0:04X}")]
    ControlCharacter(u32),
    #[error("{0}")]
    Email(EmailAddressError),
}

/// The closed set of codes of bad rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowCode {
    FieldCount,
    UnclosedQuote,
    RowTooLong,
    FieldTooLong,
    NotUtf8,
    ControlCharacter,
    InvalidEmail,
}

impl RowProblem {
    pub fn code(self) -> RowCode {
        match self {
            Self::FieldCount { .. } => RowCode::FieldCount,
            Self::UnclosedQuote => RowCode::UnclosedQuote,
            Self::RowTooLong => RowCode::RowTooLong,
            Self::FieldTooLong { .. } => RowCode::FieldTooLong,
            Self::NotUtf8 => RowCode::NotUtf8,
            Self::ControlCharacter(_) => RowCode::ControlCharacter,
            Self::Email(_) => RowCode::InvalidEmail,
        }
    }
}

/// A problem and its position in the row.
#[derive(Debug, PartialEq)]
pub(super) struct Fault<'a> {
    pub problem: RowProblem,
    /// Index of the column, unless the row as a whole is bad.
    pub column: Option<usize>,
    pub value: &'a [u8],
}
