//! Warns if Redis evicts keys when its memory is full.
//!
//! Invariant: an evicting policy loses no acknowledged job, because the ledger has it and the
//! leader repairs the index. But jobs are delayed, and running jobs may be leased again, so every
//! process logs a warning at its start.

use std::time::Duration;

use redis::RedisError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::queue::Index;

/// Retry interval while Redis is unavailable.
const AGAIN: Duration = Duration::from_secs(5);

impl Index {
    /// The eviction policy, from `CONFIG GET`, or from `INFO` if the login may not read the
    /// configuration.
    pub async fn memory_policy(&self) -> Result<Option<String>, RedisError> {
        let mut connection = self.connection();
        let asked = redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(&mut connection).await;
        if let Ok::<Vec<String>, _>(answer) = asked
            && let Some(policy) = answer.into_iter().nth(1)
        {
            return Ok(Some(policy));
        }
        let told: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
        Ok(policy_in(&told).map(str::to_owned))
    }
}

/// Logs a warning once if Redis may evict keys.
pub async fn warn(index: Index, stop: CancellationToken) {
    let known = async {
        loop {
            match index.memory_policy().await {
                Ok(policy) => return policy,
                Err(error) => tracing::debug!(%error, "cannot read the eviction policy of Redis yet"),
            }
            sleep(AGAIN).await;
        }
    };
    if let Some(Some(policy)) = stop.run_until_cancelled(known).await
        && is_evicting(&policy)
    {
        tracing::warn!(%policy, "Redis evicts keys when its memory is full, which delays jobs; set maxmemory-policy noeviction");
    }
}

/// Every policy but `noeviction`.
pub fn is_evicting(policy: &str) -> bool {
    policy != "noeviction"
}

fn policy_in(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eviction_policy_is_parsed_from_info_memory() {
        let info = "# Memory\r\nused_memory:1\r\nmaxmemory_policy:allkeys-lru\r\nmem_allocator:libc\r\n";
        assert_eq!(policy_in(info), Some("allkeys-lru"));
        assert_eq!(policy_in("# Memory\r\n"), None);
        assert!(is_evicting("allkeys-lru") && is_evicting("volatile-ttl") && !is_evicting("noeviction"));
    }
}
