//! Limits of a tenant's requests, and the spool directory for uploads.
//!
//! Invariant: every limit has an upper bound, so that no value of a variable disables a protection.

use std::path::PathBuf;

use super::reader::{Reader, Variable};

const MAX_ARGS_BYTES: Variable = Variable::new("ROTA_MAX_ARGS_BYTES", "whole bytes from 1024 to 1048576");
const SPOOL_DIR: Variable =
    Variable::new("ROTA_SPOOL_DIR", "an absolute path of a directory that the API may write to");
const SPOOL_BYTES: Variable = Variable::new("ROTA_SPOOL_BYTES", "whole bytes from 1048576");

const ARGS_RANGE: std::ops::RangeInclusive<usize> = 1_024..=1_048_576;
const LEAST_SPOOL: u64 = 1 << 20;
const DEFAULT_SPOOL: u64 = 2 << 30;

/// The limits section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// `ROTA_MAX_ARGS_BYTES`, from 1024 to 1048576; default 65536. Bytes of a job's args as sent.
    pub max_args_bytes: usize,
    /// `ROTA_SPOOL_DIR`; defaults to the system's directory for temporary files. Uploads are stored
    /// here until they are imported.
    pub spool_dir: PathBuf,
    /// `ROTA_SPOOL_BYTES`, from 1048576; default 2147483648. Maximum bytes of all concurrent
    /// uploads of this process.
    pub spool_bytes: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { max_args_bytes: 64 * 1024, spool_dir: std::env::temp_dir(), spool_bytes: DEFAULT_SPOOL }
    }
}

impl LimitsConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        Self {
            max_args_bytes: reader.or(MAX_ARGS_BYTES, default.max_args_bytes, parse_args_bytes),
            spool_dir: reader.or(SPOOL_DIR, default.spool_dir, parse_directory),
            spool_bytes: reader
                .or(SPOOL_BYTES, default.spool_bytes, |text| text.parse().ok().filter(|bytes| *bytes >= LEAST_SPOOL)),
        }
    }
}

fn parse_args_bytes(text: &str) -> Option<usize> {
    text.parse().ok().filter(|bytes| ARGS_RANGE.contains(bytes))
}

fn parse_directory(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_include_both_ends() {
        for (text, expected) in [
            ("1023", None),
            ("1024", Some(1_024)),
            ("1048576", Some(1_048_576)),
            ("1048577", None),
            ("-1", None),
            ("64k", None),
        ] {
            assert_eq!(parse_args_bytes(text), expected, "{text}");
        }
        assert_eq!(parse_directory("/var/spool/rota"), Some("/var/spool/rota".into()));
        assert_eq!(parse_directory("spool"), None);
    }
}
