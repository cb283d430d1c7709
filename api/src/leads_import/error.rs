//! Errors that prevent the import of a whole file.
//!
//! Invariant: the client can correct every variant but [`ImportError::Io`]; the message says how
//! and names the columns that were found. An error in one row is a [`super::RowProblem`] instead.

/// An error that prevents the import of a whole file.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the file is empty: its first line must name the columns")]
    Empty,
    #[error("the file is not UTF-8 but {encoding}: save it as \"CSV UTF-8\"")]
    NotUtf8 { encoding: &'static str },
    #[error("the header in line {line} cannot be read: {reason}")]
    Header { line: u64, reason: String },
    #[error("the header has {found} columns, at most {limit} are allowed")]
    TooManyColumns { found: usize, limit: usize },
    #[error(
        "no column looks like the email address; name it in the mapping, as in {{\"email\": \"…\"}}; columns found: {}",
        quoted(columns)
    )]
    NoEmailColumn { columns: Vec<String> },
    #[error("several columns may be the email address: {}; name one in the mapping", quoted(columns))]
    AmbiguousEmailColumn { columns: Vec<String> },
    #[error(
        "the mapping of {variable:?} names a column {column:?} that the file does not have; columns found: {}",
        quoted(columns)
    )]
    UnknownColumn { variable: String, column: String, columns: Vec<String> },
    #[error("the mapping names the column {column:?} twice, for {first:?} and {second:?}")]
    ColumnMappedTwice { column: String, first: String, second: String },
    #[error("the columns {first:?} and {second:?} would both become the variable {name:?}; rename one or map it")]
    NameTaken { name: String, first: String, second: String },
    #[error("the column {column:?} would become {name:?}, a reserved name; map it to another")]
    ReservedName { name: String, column: String },
    #[error("the variable name {name:?} of the column {column:?} is longer than {limit} characters")]
    NameTooLong { name: String, column: String, limit: usize },
    #[error("{name:?} is not a valid variable name: use a-z, 0-9 and _, beginning with a letter")]
    InvalidName { name: String },
    #[error("the file has more than {limit} rows; split it")]
    TooManyRows { limit: u64 },
    #[error("the file could not be read to its end")]
    Io(#[from] std::io::Error),
}

impl ImportError {
    /// Whether another file or mapping could succeed; false if the file could not be read.
    pub fn is_from_the_file(&self) -> bool {
        !matches!(self, Self::Io(_))
    }
}

fn quoted(columns: &[String]) -> String {
    let names: Vec<String> = columns.iter().map(|column| format!("{column:?}")).collect();
    names.join(", ")
}
