//! Where a process listens.
//!
//! Invariant: metrics are never on an address that is meant for the public. Every process serves the probe
//! ([`crate::http_server::probe`]) on `METRICS_PORT`; an API without that variable shows `/metrics` to its own machine alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::reader::{Reader, Variable};

const HOST: Variable = Variable::new("HOST", "an IP address such as 127.0.0.1, 0.0.0.0 or ::");
const PORT: Variable = Variable::new("PORT", "a port from 0 (any free one) to 65535");
const METRICS_PORT: Variable = Variable::new("METRICS_PORT", "a port from 0 (any free one) to 65535");

const DEFAULT_PORT: u16 = 8080;

/// The listening section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// `HOST`, default 127.0.0.1, with `PORT`, default 8080 (api); or with `METRICS_PORT`, default 9464 (worker) and
    /// 9465 (scheduler), without a default for the API.
    pub listen: SocketAddr,
}

impl HttpConfig {
    pub(super) fn read_api(reader: &mut Reader<'_>) -> Self {
        Self { listen: api_address(reader) }
    }

    /// The API's probe, if it is to have one.
    pub(super) fn read_api_metrics(reader: &mut Reader<'_>) -> Option<Self> {
        let port = reader.optional(METRICS_PORT, |text| text.parse().ok())?;
        Some(Self { listen: SocketAddr::new(host(reader), port) })
    }

    pub(super) fn read_probe(reader: &mut Reader<'_>, default_port: u16) -> Self {
        let port = reader.or(METRICS_PORT, default_port, |text| text.parse().ok());
        Self { listen: SocketAddr::new(host(reader), port) }
    }
}

/// Where the API listens, as every process derives the public address from it.
pub(super) fn api_address(reader: &mut Reader<'_>) -> SocketAddr {
    let port = reader.or(PORT, DEFAULT_PORT, |text| text.parse().ok());
    SocketAddr::new(host(reader), port)
}

fn host(reader: &mut Reader<'_>) -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    reader.or(HOST, loopback, |text| if text == "localhost" { Some(loopback) } else { text.parse().ok() })
}
