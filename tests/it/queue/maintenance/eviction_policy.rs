//! The eviction policy of Redis can be read, and hence warned about, even without permission to
//! read the configuration.

use anyhow::Result;
use shared::queue::{Index, IndexSettings, ShardCounts, index::eviction::is_evicting};
use tests::redis_server::{PrivateRedis, RedisOptions};

use crate::queue::support::PATIENCE;

fn index(url: String) -> Result<Index> {
    let (prefix, shards) = ("eviction".to_owned(), ShardCounts::default());
    Ok(Index::open(&IndexSettings { url, prefix, response_timeout: PATIENCE, shards })?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_is_read_with_and_without_permission_to_read_the_configuration() -> Result<()> {
    let redis = PrivateRedis::new(RedisOptions::default()).await?;
    let policy = index(redis.url())?.memory_policy().await?;
    assert!(policy.is_some_and(|policy| !is_evicting(&policy)));
    let mut set = redis::cmd("CONFIG");
    redis.command::<()>(set.arg("SET").arg("maxmemory-policy").arg("allkeys-lru")).await?;
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("modest").arg("on").arg(">secret").arg("~*").arg("&*").arg("+@all").arg("-config");
    redis.command::<()>(&user).await?;
    let modest = format!("redis://modest:secret@127.0.0.1:{}/", redis.port());
    for url in [redis.url(), modest] {
        assert_eq!(index(url)?.memory_policy().await?.as_deref(), Some("allkeys-lru"));
    }
    Ok(())
}
