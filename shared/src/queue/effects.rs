//! Notes on effects outside (a mail, a charge), from before they are tried until the ledger knows of them.
//!
//! Invariant: a note that an effect happened is written after the effect and never taken back. All notes may be lost with
//! the index; an effect must bear a repeat.

use std::time::Duration;

use chrono::{DateTime, Utc};
use redis::RedisError;

use super::{index::Index, keys};

/// What is known of an effect that is about to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It happened.
    Happened,
    /// It was first tried then, or is now.
    Begun(DateTime<Utc>),
}

impl Index {
    /// Notes that an effect is tried, unless that is noted already, and returns what is known of it.
    pub async fn begin_effect(&self, effect: &str, now: DateTime<Utc>, ttl: Duration) -> Result<Effect, RedisError> {
        let (happened, before): (bool, Option<i64>) = redis::pipe()
            .cmd("EXISTS")
            .arg(keys::effect_mark(self.prefix(), effect))
            .cmd("SET")
            .arg(keys::effect_begun(self.prefix(), effect))
            .arg(now.timestamp_millis())
            .arg("NX")
            .arg("GET")
            .arg("PX")
            .arg(millis(ttl))
            .query_async(&mut self.connection())
            .await?;
        Ok(if happened {
            Effect::Happened
        } else {
            Effect::Begun(before.and_then(DateTime::from_timestamp_millis).unwrap_or(now))
        })
    }

    /// Remembers for `ttl` that an effect happened, so that a repeat of the job need not do it again.
    pub async fn mark_effect(&self, effect: &str, ttl: Duration) -> Result<(), RedisError> {
        redis::pipe()
            .cmd("SET")
            .arg(keys::effect_mark(self.prefix(), effect))
            .arg("1")
            .arg("PX")
            .arg(millis(ttl))
            .ignore()
            .cmd("DEL")
            .arg(keys::effect_begun(self.prefix(), effect))
            .ignore()
            .query_async(&mut self.connection())
            .await
    }

    /// The effect was surely not made: the next try is the first one.
    pub async fn forget_begun_effect(&self, effect: &str) -> Result<(), RedisError> {
        redis::cmd("DEL").arg(keys::effect_begun(self.prefix(), effect)).query_async(&mut self.connection()).await
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
