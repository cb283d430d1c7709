//! Reads variables one by one and collects the problems.
//!
//! Invariant: reading continues after a problem, so that an operator can fix a configuration in one
//! go instead of line by line. A section that returns `None` has recorded a problem. The processes
//! in `process.rs` call this.

use super::env::Env;
use super::errors::{ConfigErrors, Problem};
use crate::suggestion;

/// Prefix of Rota's own variables. An unknown name with this prefix must be a typo.
const OWN_PREFIX: &str = "ROTA_";

/// All variables with this prefix, for all processes: one env file serves them all. A test compares
/// the list with what the sections read.
const OWN_NAMES: [&str; 24] = [
    "ROTA_CORE_DUMPS",
    "ROTA_DATABASE_POOLER",
    "ROTA_FAULT",
    "ROTA_LEASE_MS",
    "ROTA_LINK_KEY",
    "ROTA_LOG_FORMAT",
    "ROTA_MAIL_FROM",
    "ROTA_MAIL_TIMEOUT_MS",
    "ROTA_MAX_ARGS_BYTES",
    "ROTA_MAX_DEPENDENCIES_PER_REQUEST",
    "ROTA_MAX_OPEN_DEPENDENCIES",
    "ROTA_PUBLIC_URL",
    "ROTA_QUEUE_SHARDS",
    "ROTA_RECONCILE_MS",
    "ROTA_REDIS_PREFIX",
    "ROTA_RELAY_PATIENCE_MS",
    "ROTA_RELAY_PROBE_MS",
    "ROTA_SMTP_CONNECTIONS",
    "ROTA_SPOOL_BYTES",
    "ROTA_SPOOL_DIR",
    "ROTA_TEST_KINDS",
    "ROTA_TICK_MS",
    "ROTA_TRUSTED_PROXIES",
    "ROTA_WEBHOOK_ALLOWED_NETWORKS",
];

/// The secret ones among them, whose value may come from a file: `ROTA_LINK_KEY_FILE`.
const OWN_SECRETS: [&str; 1] = ["ROTA_LINK_KEY"];
/// Suffix to the name of a secret variable, for the path of a file that holds its value.
const FILE_SUFFIX: &str = "_FILE";

/// Longer values are truncated in messages.
const SHOWN_CHARS: usize = 60;

/// A variable: its name, a description of valid values, and whether the value is secret.
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
    pub(super) read_names: std::collections::BTreeSet<&'static str>,
    /// The secret ones among them.
    #[cfg(test)]
    pub(super) read_secrets: std::collections::BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(env: &'a Env) -> Self {
        Self {
            env,
            problems: Vec::new(),
            #[cfg(test)]
            read_names: std::collections::BTreeSet::new(),
            #[cfg(test)]
            read_secrets: std::collections::BTreeSet::new(),
        }
    }

    /// The value, if it is valid. An invalid value is reported and treated as absent.
    pub(super) fn optional<T>(&mut self, variable: Variable, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.optional_or_reason(variable, |text| parse(text).ok_or_else(String::new))
    }

    /// Like [`Self::optional`], with the reason why a value is invalid; the reason must not contain
    /// a secret.
    pub(super) fn optional_or_reason<T>(
        &mut self,
        variable: Variable,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        #[cfg(test)]
        {
            self.read_names.insert(variable.name);
            if variable.secret {
                self.read_secrets.insert(variable.name);
            }
        }
        let text = self.text(variable)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                let shown = if variable.secret { "the value (not shown here)".to_owned() } else { quoted(&text) };
                let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
                self.report(variable, &format!("{shown} is not accepted{reason}"));
                None
            }
        }
    }

    /// The text of the variable, or for a secret the content of the file named by `…_FILE`.
    fn text(&mut self, variable: Variable) -> Option<String> {
        let given = self.env.get(variable.name).map(str::to_owned);
        let path = self.file_of(variable).map(str::to_owned);
        let (file, Some(path)) = (format!("{}{FILE_SUFFIX}", variable.name), path) else { return given };
        if given.is_some() {
            self.report(variable, &format!("{file} is also set, and only one of them may be"));
            return None;
        }
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => {
                self.report(variable, &format!("{file}: the file {} is empty", quoted(&path)));
                None
            }
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) => {
                self.report(variable, &format!("{file}: the file {} cannot be read ({error})", quoted(&path)));
                None
            }
        }
    }

    fn file_of(&self, variable: Variable) -> Option<&str> {
        if variable.secret { self.env.get(&format!("{}{FILE_SUFFIX}", variable.name)) } else { None }
    }

    /// The value, or `default` if it is absent or invalid.
    pub(super) fn or<T>(&mut self, variable: Variable, default: T, parse: impl FnOnce(&str) -> Option<T>) -> T {
        self.optional(variable, parse).unwrap_or(default)
    }

    /// Like [`Self::optional_or_reason`], but absence is a problem too.
    pub(super) fn required_or_reason<T>(
        &mut self,
        variable: Variable,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.optional_or_reason(variable, parse);
        if !self.is_set(variable) {
            self.report(variable, "not set");
        }
        value
    }

    /// Whether the variable has a value, valid or not.
    pub(super) fn is_set(&self, variable: Variable) -> bool {
        self.env.get(variable.name).is_some() || self.file_of(variable).is_some()
    }

    /// Reports a value that is well formed but refused. Two sections may read the same variable;
    /// the problem is reported once.
    pub(super) fn report(&mut self, variable: Variable, wrong: &str) {
        let message = format!("{wrong}; expected {}", variable.expected);
        let problem = Problem { variable: variable.name.to_owned(), message };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The configuration, or all problems.
    pub(super) fn finish<C>(mut self, config: Option<C>) -> Result<C, ConfigErrors> {
        let known = |name: &str| {
            OWN_NAMES.contains(&name) || name.strip_suffix(FILE_SUFFIX).is_some_and(|name| OWN_SECRETS.contains(&name))
        };
        let unknown = self.env.names().filter(|name| name.starts_with(OWN_PREFIX) && !known(name));
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
    fn the_listed_names_are_those_that_are_read() {
        let env = Env::default();
        let mut reader = Reader::new(&env);
        let _ = ApiConfig::read(&mut reader);
        let _ = WorkerConfig::read(&mut reader);
        let _ = SchedulerConfig::read(&mut reader);
        let _ = MigrationConfig::read(&mut reader);
        let read: BTreeSet<_> = reader.read_names.iter().copied().filter(|name| name.starts_with(OWN_PREFIX)).collect();
        assert_eq!(read, BTreeSet::from(OWN_NAMES));
        let secrets = reader.read_secrets.iter().copied().filter(|name| name.starts_with(OWN_PREFIX));
        assert_eq!(secrets.collect::<BTreeSet<_>>(), BTreeSet::from(OWN_SECRETS));
    }

    /// `.env.sample` names every variable that a process reads, so it can be relied on to be
    /// complete.
    #[test]
    fn the_sample_names_every_variable_that_is_read() {
        let env = Env::default();
        let mut reader = Reader::new(&env);
        let _ = ApiConfig::read(&mut reader);
        let _ = WorkerConfig::read(&mut reader);
        let _ = SchedulerConfig::read(&mut reader);
        let _ = MigrationConfig::read(&mut reader);
        let sample = include_str!("../../../.env.sample");
        let named: BTreeSet<_> = sample
            .lines()
            .filter_map(|line| line.strip_prefix('#')?.split_once('='))
            .map(|(name, _)| name)
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
            .collect();
        let missing: Vec<_> = reader.read_names.iter().filter(|name| !named.contains(*name)).collect();
        assert_eq!(missing, Vec::<&&str>::new());
        let unknown = named.iter().filter(|name| name.starts_with(OWN_PREFIX) && !reader.read_names.contains(*name));
        assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    #[test]
    fn a_secret_may_come_from_a_file_but_from_one_source_only() {
        const SECRET: Variable = Variable::secret("SMTP_URL", "a secret");
        const PLAIN: Variable = Variable::new("HOST", "a host");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "hunter2\n").unwrap();
        let path = path.to_str().unwrap();
        let read = |variable, pairs: &[(&str, &str)]| {
            let env: Env = pairs.iter().copied().collect();
            let mut reader = Reader::new(&env);
            let value = reader.required_or_reason(variable, |text| Ok(text.to_owned()));
            let problems = reader.finish(Some(())).err().map(|errors| errors.to_string());
            (value, problems.unwrap_or_default())
        };
        assert_eq!(read(SECRET, &[("SMTP_URL_FILE", path)]), (Some("hunter2".to_owned()), String::new()));
        let (value, told) = read(SECRET, &[("SMTP_URL", "other"), ("SMTP_URL_FILE", path)]);
        assert!(value.is_none() && told.contains("SMTP_URL_FILE is also set"), "{told}");
        assert!(!told.contains("other") && !told.contains("hunter2"), "{told}");
        let (value, told) = read(SECRET, &[("SMTP_URL_FILE", "/nonexistent/secret")]);
        assert!(value.is_none() && told.contains("cannot be read") && !told.contains("not set"), "{told}");
        std::fs::write(path, " \n").unwrap();
        assert!(read(SECRET, &[("SMTP_URL_FILE", path)]).1.contains("is empty"));
        assert!(read(PLAIN, &[("HOST_FILE", path)]).1.contains("not set"));
    }

    #[test]
    fn an_unknown_rota_variable_gets_a_suggestion() {
        let message = |name| unknown_name(name).message;
        assert_eq!(message("ROTA_LEASEMS"), "unknown variable; did you mean ROTA_LEASE_MS?");
        assert_eq!(message("ROTA_LINKS_KEY"), "unknown variable; did you mean ROTA_LINK_KEY?");
        assert!(message("ROTA_ZZZZ").starts_with("unknown variable; expected one of ROTA_CORE_DUMPS,"));
    }

    #[test]
    fn long_and_multiline_values_are_quoted_on_one_line() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert_eq!(quoted(&"ä".repeat(61)), format!("\"{}\"…", "ä".repeat(60)));
    }
}
