//! The text of an error and its causes, on one line.
//!
//! Invariant: each cause is written once. Many errors include their source in their own text and
//! also return it as source.

use std::error::Error;

/// The error and its causes, outermost first, without causes whose text an earlier one contains.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let cause = error.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// The exit status of a process. An error is written to standard error as one line (a configuration
/// error has one line per problem). There is no backtrace, since an operator has to fix what
/// prevents a start.
pub fn exit<E: AsRef<dyn Error>>(result: Result<(), E>) -> std::process::ExitCode {
    use std::io::Write as _;
    let Err(error) = result else { return std::process::ExitCode::SUCCESS };
    // Standard error cannot be written, so there is no place left to report it.
    let _ = writeln!(std::io::stderr().lock(), "error: {}", with_causes(error.as_ref()));
    std::process::ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Repeating(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("outermost")]
    struct Plain(#[source] Repeating);

    #[test]
    fn a_cause_is_written_once() {
        let error = Plain(Repeating(std::io::Error::other("port taken")));
        assert_eq!(with_causes(&error), "outermost: outer: port taken");
    }
}
