//! Whether Redis is usable, and if not, why.
//!
//! Invariant: the reasons are a closed set of texts; none contains an address or a secret.

use std::{borrow::Cow, sync::LazyLock};

use redis::{ErrorKind, RedisError, Script};

use super::Index;
use crate::queue::index::keys;

/// Major version of the oldest supported Redis.
const OLDEST_SERVER: u32 = 7;

static PROBE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/probe.lua")));

impl Index {
    /// Readiness probe. A ping is not enough: a replica, a Redis with full memory and a read-only
    /// login also respond to it, so the probe writes a key and publishes a message.
    pub async fn fitness(&self) -> Result<(), Cow<'static, str>> {
        let version: String = PROBE
            .key(keys::probe(self.prefix()))
            .invoke_async(&mut self.connection())
            .await
            .map_err(|error| cause(&error))?;
        let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(OLDEST_SERVER);
        if major < OLDEST_SERVER { Err("Redis is older than 7.0".into()) } else { Ok(()) }
    }
}

fn cause(error: &RedisError) -> &'static str {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return "the user name or password is refused";
    }
    // An error inside a script carries its code in the text.
    let text = error.to_string();
    let says = |code: &str| error.code() == Some(code) || text.contains(code);
    for (code, cause) in [
        ("READONLY", "it is a read-only replica"),
        ("NOREPLICAS", "it rejects writes because too few replicas are connected (min-replicas-to-write)"),
        ("NOPERM", "the login lacks permissions (ACL)"),
        ("ACL failure", "the login lacks permissions (ACL)"),
        ("can't run this command", "the login lacks permissions (ACL)"),
        ("OOM", "its memory is full (maxmemory)"),
        ("MISCONF", "it rejects writes because it cannot save to disk"),
        ("NOAUTH", "it requires a password"),
        ("WRONGPASS", "the user name or password is refused"),
        ("LOADING", "it is loading its data"),
        ("MASTERDOWN", "it is a replica without its primary server"),
        ("CLUSTERDOWN", "the cluster is down"),
        ("DB index", "the database number does not exist"),
    ] {
        if says(code) {
            return cause;
        }
    }
    if error.is_connection_refusal() {
        "the connection is refused"
    } else if error.is_timeout() {
        "no answer in time"
    } else if error.is_io_error() || error.is_connection_dropped() {
        "it cannot be reached"
    } else {
        "the check failed"
    }
}
