//! Requests in flight per host, across all tenants' endpoints.
//!
//! Invariant: this process has at most [`PER_HOST`] requests to one host, so a host that responds
//! slowly, or that many tenants use, occupies that many slots at most. Nothing waits here: a job
//! that finds the host busy releases its slot.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

/// Maximum number of concurrent requests to one host from this process.
pub const PER_HOST: usize = 10;
/// Once this many hosts are tracked, those without a request are removed.
const FORGET_FROM: usize = 1_024;

/// The tracked hosts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(Arc<Mutex<HashMap<String, Arc<Semaphore>>>>);

/// The permit for one request to a host, until it is dropped.
#[derive(Debug)]
pub struct HostPermit(#[expect(dead_code, reason = "held only for its drop")] OwnedSemaphorePermit);

impl Hosts {
    /// A permit for the host of this URL; `None` if the host already has the maximum number of
    /// requests.
    pub(super) fn take(&self, url: &str) -> Option<HostPermit> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= FORGET_FROM {
            hosts.retain(|_, permits| permits.available_permits() < PER_HOST);
        }
        let permits = hosts.entry(host_of(url)).or_insert_with(|| Arc::new(Semaphore::new(PER_HOST)));
        Arc::clone(permits).try_acquire_owned().ok().map(HostPermit)
    }
}

/// The host as its receiver would count it: names that differ only in case or a final dot are the
/// same, and ports are ignored.
fn host_of(url: &str) -> String {
    let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_ascii_lowercase));
    host.map_or_else(String::new, |host| host.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_limited_per_host_in_every_spelling() {
        let hosts = Hosts::default();
        let mut held: Vec<_> =
            (0..PER_HOST).map(|at| hosts.take(&format!("https://Example.com:{}/{at}", 443 + at))).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(hosts.take("https://example.com./other").is_none());
        assert!(hosts.take("https://example.org/").is_some(), "another host has its own limit");
        held.pop();
        assert!(hosts.take("https://example.com/").is_some());
    }

    #[test]
    fn hosts_without_requests_are_removed() {
        let hosts = Hosts::default();
        let held = hosts.take("https://kept.example/");
        for at in 0..FORGET_FROM {
            drop(hosts.take(&format!("https://h{at}.example/")));
        }
        let known = hosts.0.lock().unwrap().len();
        assert!(known < FORGET_FROM && hosts.0.lock().unwrap().contains_key("kept.example"), "{known}");
        drop(held);
    }
}
