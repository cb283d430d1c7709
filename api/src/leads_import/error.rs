//! Why a file as a whole cannot be imported.
//!
//! Invariant: every variant but [`ImportError::Io`] is the client's to mend, and its message says how, naming the
//! columns that were found. What is wrong with one row is a [`super::RowProblem`] instead.

/// Why a file as a whole cannot be imported.
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
        "the mapping of {variable:?} names a column {column:?} that the file has not; columns found: {}",
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
    #[error("{name:?} cannot name a variable: use a-z, 0-9 and _, beginning with a letter")]
    InvalidName { name: String },
    #[error("the file has more than {limit} rows; split it")]
    TooManyRows { limit: u64 },
    #[error("the file could not be read to its end")]
    Io(#[from] std::io::Error),
}

impl ImportError {
    /// Whether sending another file or another mapping would help: false when the connection broke.
    pub fn is_from_the_file(&self) -> bool {
        !matches!(self, Self::Io(_))
    }
}

fn quoted(columns: &[String]) -> String {
    let names: Vec<String> = columns.iter().map(|column| format!("{column:?}")).collect();
    names.join(", ")
}
