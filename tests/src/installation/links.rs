//! A faulty network: one proxy between each kind of process and each store, so that a test can
//! delay or cut any link.
//!
//! Invariant: every connection from a role to a store goes through its link. Links forward
//! unchanged until a test sets a mode.

use anyhow::Result;

use crate::{
    postgres::{DatabaseUrls, PrivatePostgres},
    redis_server::PrivateRedis,
    tcp_proxy::{Mode, TcpProxy},
};

/// The links of all roles.
#[derive(Debug)]
pub struct Links {
    pub api: Link,
    /// Shared by all workers.
    pub worker: Link,
    pub scheduler: Link,
}

/// The links from one kind of process to its stores.
#[derive(Debug)]
pub struct Link {
    pub postgres: TcpProxy,
    pub redis: TcpProxy,
}

impl Links {
    pub(super) async fn start(postgres: &PrivatePostgres, redis: &PrivateRedis) -> Result<Self> {
        let link = async || -> Result<Link> {
            Ok(Link {
                postgres: TcpProxy::start(([127, 0, 0, 1], postgres.port()).into()).await?,
                redis: TcpProxy::start(([127, 0, 0, 1], redis.port()).into()).await?,
            })
        };
        Ok(Self { api: link().await?, worker: link().await?, scheduler: link().await? })
    }

    /// Every link with its name.
    pub fn all(&self) -> [(&'static str, &TcpProxy); 6] {
        [
            ("api-postgres", &self.api.postgres),
            ("api-redis", &self.api.redis),
            ("worker-postgres", &self.worker.postgres),
            ("worker-redis", &self.worker.redis),
            ("scheduler-postgres", &self.scheduler.postgres),
            ("scheduler-redis", &self.scheduler.redis),
        ]
    }

    /// Sets the mode of every link.
    pub fn set_all(&self, mode: Mode) {
        for (_, proxy) in self.all() {
            proxy.set(mode);
        }
    }
}

impl Link {
    pub(super) fn redis_url(&self) -> String {
        format!("redis://{}/", self.redis.address())
    }

    /// The same databases, reached through this link.
    pub(super) fn database_urls(&self, urls: &DatabaseUrls) -> Result<DatabaseUrls> {
        let through = |url: &str| self.postgres.url(url);
        Ok(DatabaseUrls { owner: through(&urls.owner)?, app: through(&urls.app)?, system: through(&urls.system)? })
    }
}
