//! Whether Redis can be worked with, and if not, why.
//!
//! Invariant: the reasons are a closed set of texts; none has an address or a secret in it.

use std::{borrow::Cow, sync::LazyLock};

use redis::{ErrorKind, RedisError, Script};

use super::Index;
use crate::queue::keys;

/// The first part of the version of the oldest Redis that works.
const OLDEST_SERVER: u32 = 7;

static PROBE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../lua/probe.lua")));

impl Index {
    /// Whether Redis can be worked with: for readiness. Answering is not enough: a replica, one whose memory is full and one that
    /// permits this login to read alone answer too, so a key is written and a message published.
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
    // A refusal inside a script carries its code in the text.
    let text = error.to_string();
    let says = |code: &str| error.code() == Some(code) || text.contains(code);
    for (code, cause) in [
        ("READONLY", "it is a replica, which takes no writes"),
        ("NOREPLICAS", "it takes no writes for want of replicas (min-replicas-to-write)"),
        ("NOPERM", "the login lacks permissions (ACL)"),
        ("ACL failure", "the login lacks permissions (ACL)"),
        ("can't run this command", "the login lacks permissions (ACL)"),
        ("OOM", "its memory is full (maxmemory)"),
        ("MISCONF", "it takes no writes because it cannot save to disk"),
        ("NOAUTH", "it wants a password"),
        ("WRONGPASS", "the user name or password is refused"),
        ("LOADING", "it is loading its data"),
        ("MASTERDOWN", "it is a replica without its primary server"),
        ("CLUSTERDOWN", "the cluster is down"),
        ("DB index", "there is no database of that number"),
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
        "it refuses the check"
    }
}
