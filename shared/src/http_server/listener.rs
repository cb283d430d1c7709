//! Taking a port.
//!
//! Invariant: a port is found free by binding it, so two processes that start at the same moment never get the same one.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use crate::config::Listen;

/// No port could be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen} ({variable})")]
pub struct ListenError {
    listen: Listen,
    variable: &'static str,
    source: io::Error,
}

/// Binds the first port of `listen` that is free, and returns the address that was taken. `variable`: where the port
/// comes from, for the error.
pub async fn bind(listen: Listen, variable: &'static str) -> Result<(TcpListener, SocketAddr), ListenError> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in listen.addresses() {
        let bound = TcpListener::bind(address).await.and_then(|bound| Ok((bound.local_addr()?, bound)));
        match bound {
            Ok((address, listener)) => return Ok((listener, address)),
            Err(error) => {
                let taken = error.kind() == io::ErrorKind::AddrInUse;
                failed = error;
                if !taken {
                    break;
                }
            }
        }
    }
    Err(ListenError { listen, variable, source: failed })
}
