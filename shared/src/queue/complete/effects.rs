//! Marks for external effects (a mail, a charge), kept from before the first try until the ledger
//! records the effect.
//!
//! Invariant: the mark that an effect happened is written after the effect and never revoked. All
//! marks may be lost with the index, so an effect must tolerate a repeat.

use std::time::Duration;

use chrono::{DateTime, Utc};
use redis::RedisError;

use crate::queue::{index::Index, index::keys};

/// What is known about an effect before it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The effect happened.
    Happened,
    /// The time of the first try; now, if this is the first.
    Begun(DateTime<Utc>),
}

impl Index {
    /// Marks that an effect is being tried, unless it is marked already, and returns what is known
    /// about it.
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

    /// Marks for `ttl` that an effect happened, so that a repeat of the job can skip it.
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

    /// Removes the mark of a try that certainly had no effect: the next try counts as the first.
    pub async fn forget_begun_effect(&self, effect: &str) -> Result<(), RedisError> {
        redis::cmd("DEL").arg(keys::effect_begun(self.prefix(), effect)).query_async(&mut self.connection()).await
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
