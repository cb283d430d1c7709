//! The Redis address, the prefix of Rota's keys, and the shard counts of queues.
//!
//! Invariant: the prefix cannot break a key apart (no braces, no colon), so that the hash tag of a
//! queue is the only one in its keys.

use std::fmt;

use url::Url;

use super::reader::{Reader, Variable};
use super::url_text::unencoded;
use crate::queue::{InvalidShardCounts, ShardCounts};

const URL: Variable = Variable::secret("REDIS_URL", "redis://host:port/database or rediss://… for TLS");
const PREFIX: Variable = Variable::new("ROTA_REDIS_PREFIX", "1 to 64 letters, digits, '-', '_' or '.'");
const SHARDS: Variable = Variable::new(
    "ROTA_QUEUE_SHARDS",
    "queues with their numbers of shards, 1 to 64, separated by commas, such as email:4,default:2",
);

const DEFAULT_PREFIX: &str = "rota";

/// The URL of Redis; `Debug` shows scheme, host and port only.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Url);

impl RedisUrl {
    /// Accepts `redis://`, `rediss://`, `redis+unix://` and `unix://` as the client does. The error
    /// says why a URL is refused and contains no part of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(advice) = unencoded(text) {
            return Err(advice);
        }
        let url = Url::parse(text)
            .map_err(|error| format!("{error}; reserved characters must be written in percent-encoding"))?;
        if !matches!(url.scheme(), "redis" | "rediss" | "redis+unix" | "unix") {
            return Err("it must begin with redis://, rediss://, redis+unix:// or unix://".into());
        }
        let database = url.path().trim_start_matches('/');
        if url.scheme().starts_with("redis")
            && url.has_host()
            && !database.is_empty()
            && database.parse::<u32>().is_err()
        {
            return Err("the path must be the number of a database, such as /0".into());
        }
        redis::Client::open(url.clone()).map_err(|error| error.category().to_owned())?;
        Ok(Self(url))
    }

    /// The whole URL, password included, for the client.
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

/// The prefix of every key of this installation.
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
    /// `ROTA_QUEUE_SHARDS`, `QUEUE:COUNT` separated by commas; by default no queue is sharded. The
    /// same for all processes.
    pub shards: ShardCounts,
}

impl RedisConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let prefix = reader.or(PREFIX, RedisPrefix(DEFAULT_PREFIX.to_owned()), RedisPrefix::parse);
        let shards = Self::read_shards(reader);
        Some(Self { url: reader.required_or_reason(URL, RedisUrl::parse)?, prefix, shards })
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
    fn a_prefix_cannot_contain_a_hash_tag() {
        assert!(RedisPrefix::parse("rota-test_1.a").is_some());
        for bad in ["", "a:b", "{a}", "a b", &"a".repeat(65)] {
            assert!(RedisPrefix::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn every_url_of_the_client_is_accepted_and_errors_give_the_reason() {
        for good in [
            "redis://cache",
            "rediss://user:p%2Fq%3F%23@cache:7000/3",
            "redis://:p@[::1]:6379/0",
            "redis+unix:///run/redis.sock?db=1&pass=p",
            "unix:///run/redis.sock",
        ] {
            assert!(RedisUrl::parse(good).is_ok(), "{good}");
        }
        for (bad, reason) in [
            ("redis://:hunter2/x@cache", "%2F"),
            ("redis://:hunter2#x@cache", "%23"),
            ("redis://:hunter2?x@cache", "%3F"),
            ("http://:hunter2@cache", "redis://"),
            ("redis://:hunter2@cache/zero", "number of a database"),
            ("redis://:hunter2@cache:99999", "port"),
        ] {
            let told = RedisUrl::parse(bad).unwrap_err();
            assert!(told.contains(reason) && !told.contains("hunter2"), "{bad}: {told}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let url = RedisUrl::parse("rediss://user:hunter2@cache:7000/3").unwrap();
        assert_eq!(format!("{url:?}"), "RedisUrl(rediss://cache:7000)");
    }
}
