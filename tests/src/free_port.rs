//! Ports for servers that need a fixed port before they start.
//!
//! Invariant: never a port from the kernel's ephemeral range (32768 and up). A client that keeps
//! reconnecting to a killed server would eventually be assigned that same port and connect to
//! itself, and the server could not bind it again. The fakes in this crate bind port 0 and do not
//! use this module.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Result, bail};

const RANGE: std::ops::Range<u16> = 15_000..32_000;
const TRIES: u32 = 1_000;

static HANDED_OUT: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A loopback port without a listener, different on each call within this process.
pub fn free_port() -> Result<u16> {
    let mut handed_out = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..TRIES {
        let port = rand::random_range(RANGE);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && handed_out.insert(port) {
            return Ok(port);
        }
    }
    bail!("no free port in {RANGE:?} after {TRIES} tries")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_distinct() {
        let ports: HashSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
