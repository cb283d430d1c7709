//! The text of an error with its causes, on one line.
//!
//! Invariant: each cause is written once. Many errors put their source into their own text and name it as source too.

use std::error::Error;

/// The error and its causes from the outside in, without those whose text is in an earlier one.
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

/// Ends a process: the reason goes to standard error as one line (a configuration has a line for each problem). No backtrace:
/// what stops a start is for an operator to put right.
pub fn exit<E: AsRef<dyn Error>>(result: Result<(), E>) -> std::process::ExitCode {
    use std::io::Write as _;
    let Err(error) = result else { return std::process::ExitCode::SUCCESS };
    // There is nobody left to tell when standard error cannot be written.
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
