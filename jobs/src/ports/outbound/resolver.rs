//! Looking names up, once for each connection, and refusing those that lead where no request may go.
//!
//! Invariant: the client connects to the addresses that were judged here and asks nobody again, so a name that answers
//! differently the second time (DNS rebinding) gains nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{OutboundPolicy, address};

/// Answers with the addresses of a name.
pub type LookedUp = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Looks names up; a fake one stands in tests.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of this name.
    fn lookup(&self, name: &str) -> LookedUp;
}

/// As the operating system does it.
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

/// A name leads where no request may go. Which address it was is not told: inside our network the name may mean something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name leads to an address that is not permitted")]
pub struct ForbiddenAddress;

/// The client's way to addresses.
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
            // One bad address is enough: a name that mixes them means no good.
            if !addresses.iter().all(|&address| address::is_permitted(address, &policy.allowed_networks)) {
                return Err(ForbiddenAddress.into());
            }
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
