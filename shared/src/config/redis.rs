//! How to reach Redis, under which prefix our keys live, and into how many shards queues are split there.
//!
//! Invariant: the prefix cannot break a key apart (no braces, no colon), so that the hash tag of a queue stays the
//! only one in its keys.

use std::fmt;

use url::Url;

use super::reader::{Reader, Variable};
use crate::queue::{InvalidShardCounts, ShardCounts};

const URL: Variable = Variable::secret("REDIS_URL", "redis://host:port/database or rediss://… for TLS");
const PREFIX: Variable = Variable::new("ROTA_REDIS_PREFIX", "1 to 64 letters, digits, '-', '_' or '.'");
const SHARDS: Variable = Variable::new(
    "ROTA_QUEUE_SHARDS",
    "queues with their numbers of shards, 1 to 64, separated by commas, such as email:4,default:2",
);

/// The prefix when none is set.
const DEFAULT_PREFIX: &str = "rota";

/// The address of Redis; `Debug` shows host and port only.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Url);

impl RedisUrl {
    /// Accepts `redis://`, `rediss://`, `redis+unix://` and `unix://`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        matches!(url.scheme(), "redis" | "rediss" | "redis+unix" | "unix").then_some(Self(url))
    }

    /// The whole address, password included, for the client.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.host_str().unwrap_or_default();
        write!(out, "RedisUrl({}://{host}:{})", self.0.scheme(), self.0.port().unwrap_or(6379))
    }
}

/// What every key of this installation begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisPrefix(String);

impl RedisPrefix {
    /// Accepts 1 to 64 letters, digits, `-`, `_` and `.`.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        ((1..=64).contains(&text.len()) && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }

    /// The prefix, without a separator.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The Redis section.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `REDIS_URL`; required.
    pub url: RedisUrl,
    /// `ROTA_REDIS_PREFIX`; default `rota`. Several installations may share one Redis.
    pub prefix: RedisPrefix,
    /// `ROTA_QUEUE_SHARDS`, `QUEUE:COUNT` separated by commas; by default no queue is split. The same for all processes.
    pub shards: ShardCounts,
}

impl RedisConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let prefix = reader.or(PREFIX, RedisPrefix(DEFAULT_PREFIX.to_owned()), RedisPrefix::parse);
        let shards = Self::read_shards(reader);
        Some(Self { url: reader.required(URL, RedisUrl::parse)?, prefix, shards })
    }

    fn read_shards(reader: &mut Reader<'_>) -> ShardCounts {
        let text = reader.or(SHARDS, String::new(), |text| Some(text.to_owned()));
        text.parse().unwrap_or_else(|error: InvalidShardCounts| {
            reader.report(SHARDS, &error.to_string());
            ShardCounts::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_can_not_carry_a_hash_tag() {
        assert!(RedisPrefix::parse("rota-test_1.a").is_some());
        for bad in ["", "a:b", "{a}", "a b", &"a".repeat(65)] {
            assert!(RedisPrefix::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let url = RedisUrl::parse("rediss://user:hunter2@cache:7000/3").unwrap();
        assert_eq!(format!("{url:?}"), "RedisUrl(rediss://cache:7000)");
    }
}
