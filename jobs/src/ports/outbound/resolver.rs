//! Resolves names, once per connection, and refuses those that resolve to an address that is not
//! permitted.
//!
//! Invariant: the client connects to the addresses checked here without another look-up, so a name
//! that resolves differently the second time (DNS rebinding) gains nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{OutboundPolicy, address};

/// A future of the addresses of a name.
pub type LookedUp = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Resolves names; tests replace it.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of this name.
    fn lookup(&self, name: &str) -> LookedUp;
}

/// Resolves names through the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: &str) -> LookedUp {
        let name = name.to_owned();
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// A name resolves to an address that is not permitted. The address is not included, because in a
/// private network the name may have another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name resolves to an address that is not permitted")]
pub struct ForbiddenAddress;

/// Resolves names for the HTTP client and checks the addresses.
#[derive(Clone)]
pub(super) struct GuardedResolver {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) policy: Arc<OutboundPolicy>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (looked_up, policy) = (self.lookup.lookup(name.as_str()), Arc::clone(&self.policy));
        Box::pin(async move {
            let addresses = looked_up.await?;
            // One forbidden address is enough: a name that mixes them is suspicious.
            if !addresses.iter().all(|&address| address::is_permitted(address, &policy.allowed_networks)) {
                return Err(ForbiddenAddress.into());
            }
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
