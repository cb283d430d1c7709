//! Binds a listening port.
//!
//! Invariant: a port is tested by binding it, so two processes that start at the same moment never
//! get the same one.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use crate::config::Listen;

/// No address could be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen} ({variable})")]
pub struct ListenError {
    listen: Listen,
    variable: &'static str,
    source: io::Error,
}

/// Binds the first free port of `listen` and returns the bound address. `variable` is the source of
/// the port, for the error message.
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
