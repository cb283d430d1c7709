//! The parts of an error that may appear in logs, and in a job's own list of errors.
//!
//! Invariant: a log line gets classes and codes, never words that another system wrote: relays
//! repeat addresses, PostgreSQL repeats values, HTTP clients repeat URLs with their secrets. The
//! ledger, which only the tenant reads, gets the words with these parts removed.

use shared::{db::sql_state, foreign_text};

use crate::ports::{mail::MailError, outbound::OutboundError};

/// Maximum characters of an error in the ledger.
const MAX_CHARS: usize = 2_000;
const ADDRESS: &str = "<address>";

/// The error's class and codes, for logs.
pub fn for_log(error: &anyhow::Error) -> String {
    error.chain().find_map(class).unwrap_or_else(|| "an error of the job's own".to_owned())
}

/// The error's text, for the ledger.
pub fn for_ledger(error: &anyhow::Error) -> String {
    match error.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>()) {
        Some(error) => sql_state(error),
        None => text_for_ledger(&format!("{error:#}")),
    }
}

/// A text for the ledger that may contain parts of another system's text.
pub fn text_for_ledger(text: &str) -> String {
    foreign_text::cleaned(text, ADDRESS, MAX_CHARS)
}

fn class(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<MailError>() {
        return Some(format!("mail: {}", error.summary()));
    }
    if let Some(error) = cause.downcast_ref::<sqlx::Error>() {
        return Some(sql_state(error));
    }
    if let Some(error) = cause.downcast_ref::<reqwest::Error>() {
        let status = error.status().map(|status| format!(" with {}", status.as_u16())).unwrap_or_default();
        let class = match error {
            error if error.is_timeout() => "no answer in time",
            error if error.is_connect() => "no connection",
            error if error.is_status() => "refused",
            _ => "failed",
        };
        return Some(format!("HTTP: {class}{status}"));
    }
    if cause.is::<OutboundError>() {
        return Some("HTTP: the endpoint could not be called".to_owned());
    }
    cause.downcast_ref::<std::io::Error>().map(|error| format!("input or output: {}", error.kind()))
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn logs_get_error_classes_and_the_ledger_gets_redacted_text() {
        let error = Err::<(), _>(std::io::Error::other("https://u:hunter2@h/x?token=secret for anna@example.org"));
        let error = error.context("calling").expect_err("an error");
        assert_eq!(for_log(&error), "input or output: other error");
        assert_eq!(for_ledger(&error), "calling: https://h/x… for <address>");
        let own = anyhow!("the endpoint answered 500");
        assert_eq!(for_log(&own), "an error of the job's own");
        assert_eq!(for_ledger(&own), "the endpoint answered 500");
        let missing = anyhow::Error::from(sqlx::Error::RowNotFound);
        assert_eq!((for_log(&missing), for_ledger(&missing)), ("a row is missing".into(), "a row is missing".into()));
        assert_eq!(text_for_ledger(&"ä".repeat(3_000)).chars().count(), MAX_CHARS);
    }
}
