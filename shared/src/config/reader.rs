//! Reads variables one by one and collects what is wrong with them.
//!
//! Invariant: reading goes on after a problem, so that an operator fixes a configuration once and not line by line;
//! a section that comes back as `None` has left a problem. The processes in `process.rs` drive it.

use super::env::Env;
use super::errors::{ConfigErrors, Problem};
use crate::suggestion;

/// The prefix of names that are ours alone, where an unknown one must be a slip.
const OWN_PREFIX: &str = "ROTA_";

/// Every variable with our prefix, of whatever process: one env file serves them all. A test compares it with what
/// the sections read.
const OWN_NAMES: [&str; 16] = [
    "ROTA_FAULT",
    "ROTA_LEASE_MS",
    "ROTA_LINK_KEY",
    "ROTA_LOG_FORMAT",
    "ROTA_MAIL_TIMEOUT_MS",
    "ROTA_MAX_ARGS_BYTES",
    "ROTA_PUBLIC_URL",
    "ROTA_QUEUE_SHARDS",
    "ROTA_RECONCILE_MS",
    "ROTA_REDIS_PREFIX",
    "ROTA_SMTP_CONNECTIONS",
    "ROTA_SPOOL_BYTES",
    "ROTA_SPOOL_DIR",
    "ROTA_TEST_KINDS",
    "ROTA_TICK_MS",
    "ROTA_WEBHOOK_ALLOWED_NETWORKS",
];

/// Longer values are cut in a message.
const SHOWN_CHARS: usize = 60;

/// A variable: its name, what a value looks like, and whether a value may be shown.
#[derive(Clone, Copy)]
pub(super) struct Variable {
    name: &'static str,
    expected: &'static str,
    secret: bool,
}

impl Variable {
    pub(super) const fn new(name: &'static str, expected: &'static str) -> Self {
        Self { name, expected, secret: false }
    }

    pub(super) const fn secret(name: &'static str, expected: &'static str) -> Self {
        Self { name, expected, secret: true }
    }
}

pub(super) struct Reader<'a> {
    env: &'a Env,
    problems: Vec<Problem>,
    #[cfg(test)]
    pub(super) asked: std::collections::BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(env: &'a Env) -> Self {
        Self {
            env,
            problems: Vec::new(),
            #[cfg(test)]
            asked: std::collections::BTreeSet::new(),
        }
    }

    /// The value, if there is a good one. A bad one is reported and reads as absent.
    pub(super) fn optional<T>(&mut self, variable: Variable, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        #[cfg(test)]
        self.asked.insert(variable.name);
        let text = self.env.get(variable.name)?;
        let value = parse(text);
        if value.is_none() {
            let shown = if variable.secret { "the value (not shown here)".to_owned() } else { quoted(text) };
            self.report(variable, &format!("{shown} is not accepted"));
        }
        value
    }

    /// The value, or `default` when it is absent or bad.
    pub(super) fn or<T>(&mut self, variable: Variable, default: T, parse: impl FnOnce(&str) -> Option<T>) -> T {
        self.optional(variable, parse).unwrap_or(default)
    }

    /// The value; absence is a problem too.
    pub(super) fn required<T>(&mut self, variable: Variable, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = self.optional(variable, parse);
        if self.env.get(variable.name).is_none() {
            self.report(variable, "not set");
        }
        value
    }

    /// Reports a value that is well formed but refused. Two sections may read one variable; it is told once.
    pub(super) fn report(&mut self, variable: Variable, wrong: &str) {
        let message = format!("{wrong}; expected {}", variable.expected);
        let problem = Problem { variable: variable.name.to_owned(), message };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The configuration, or all that is wrong with it.
    pub(super) fn finish<C>(mut self, config: Option<C>) -> Result<C, ConfigErrors> {
        let unknown = self.env.names().filter(|name| name.starts_with(OWN_PREFIX) && !OWN_NAMES.contains(name));
        self.problems.extend(unknown.map(unknown_name).collect::<Vec<_>>());
        match config {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => Err(ConfigErrors(self.problems)),
        }
    }
}

fn unknown_name(name: &str) -> Problem {
    let known = OWN_NAMES.iter().map(|known| &known[OWN_PREFIX.len()..]);
    let closest = suggestion::nearest(&name[OWN_PREFIX.len()..], known);
    let message = match closest {
        Some(known) => format!("unknown variable; did you mean {OWN_PREFIX}{known}?"),
        None => format!("unknown variable; expected one of {}", OWN_NAMES.join(", ")),
    };
    Problem { variable: name.to_owned(), message }
}

fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{dots}")
}

#[cfg(test)]
mod tests {
    use super::super::{ApiConfig, MigrationConfig, SchedulerConfig, WorkerConfig};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_known_names_are_those_that_are_read() {
        let env = Env::default();
        let mut reader = Reader::new(&env);
        let _ = ApiConfig::read(&mut reader);
        let _ = WorkerConfig::read(&mut reader);
        let _ = SchedulerConfig::read(&mut reader);
        let _ = MigrationConfig::read(&mut reader);
        let read: BTreeSet<_> = reader.asked.iter().copied().filter(|name| name.starts_with(OWN_PREFIX)).collect();
        assert_eq!(read, BTreeSet::from(OWN_NAMES));
    }

    #[test]
    fn an_unknown_name_of_ours_gets_a_suggestion() {
        let message = |name| unknown_name(name).message;
        assert_eq!(message("ROTA_LEASEMS"), "unknown variable; did you mean ROTA_LEASE_MS?");
        assert_eq!(message("ROTA_LINKS_KEY"), "unknown variable; did you mean ROTA_LINK_KEY?");
        assert!(message("ROTA_ZZZZ").starts_with("unknown variable; expected one of ROTA_FAULT,"));
    }

    #[test]
    fn long_and_odd_values_are_shown_on_one_line() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert_eq!(quoted(&"ä".repeat(61)), format!("\"{}\"…", "ä".repeat(60)));
    }
}
