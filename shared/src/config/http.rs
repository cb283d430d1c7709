//! The address that a process listens on.
//!
//! Invariant: metrics are never served on the port of the API, which a proxy may pass on to anyone.
//! Every process serves the probe ([`crate::http_server::probe`]) on `METRICS_PORT`; an API without
//! that variable serves no metrics. A range of ports lets several instances share one
//! configuration: each takes the first free port of the range.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::reader::{Reader, Variable};

const HOST: Variable = Variable::new("HOST", "an IP address such as 127.0.0.1, 0.0.0.0 or ::");
const EXPECTED_PORT: &str = "a port from 0 (any free one) to 65535, or a range such as 8080-8099";
const PORT: Variable = Variable::new("PORT", EXPECTED_PORT);
const METRICS_PORT: Variable = Variable::new("METRICS_PORT", EXPECTED_PORT);

const DEFAULT_PORT: u16 = 8080;

/// An address with one port, or with a range of ports of which the first free one is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    ip: IpAddr,
    first: u16,
    last: u16,
}

impl Listen {
    /// Every address to try, in order; never empty.
    pub fn addresses(self) -> impl Iterator<Item = SocketAddr> {
        (self.first..=self.last).map(move |port| SocketAddr::new(self.ip, port))
    }

    /// The first address to try.
    pub fn first(self) -> SocketAddr {
        SocketAddr::new(self.ip, self.first)
    }

    /// Whether only this machine can connect.
    pub fn is_loopback(self) -> bool {
        self.ip.is_loopback()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.first())?;
        if self.last > self.first { write!(out, "-{}", self.last) } else { Ok(()) }
    }
}

/// The HTTP section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// `HOST`, default 127.0.0.1, with `PORT`, default 8080 (api); or with `METRICS_PORT`, default
    /// 9464 (worker) and 9465 (scheduler), without a default for the API.
    pub listen: Listen,
}

impl HttpConfig {
    pub(super) fn read_api(reader: &mut Reader<'_>) -> Self {
        Self { listen: api_address(reader) }
    }

    /// The API's probe, if it is configured.
    pub(super) fn read_api_metrics(reader: &mut Reader<'_>) -> Option<Self> {
        let (first, last) = reader.optional(METRICS_PORT, parse_ports)?;
        Some(Self { listen: Listen { ip: host(reader), first, last } })
    }

    pub(super) fn read_probe(reader: &mut Reader<'_>, default_port: u16) -> Self {
        let (first, last) = reader.or(METRICS_PORT, (default_port, default_port), parse_ports);
        Self { listen: Listen { ip: host(reader), first, last } }
    }
}

/// The address of the API. Every process derives the public URL from it.
pub(super) fn api_address(reader: &mut Reader<'_>) -> Listen {
    let (first, last) = reader.or(PORT, (DEFAULT_PORT, DEFAULT_PORT), parse_ports);
    Listen { ip: host(reader), first, last }
}

/// One port, or a range `FIRST-LAST`. 0 means any free port and is not valid in a range.
fn parse_ports(text: &str) -> Option<(u16, u16)> {
    match text.split_once('-') {
        None => text.parse().ok().map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first > 0 && first <= last).then_some((first, last))
        }
    }
}

fn host(reader: &mut Reader<'_>) -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    reader.or(HOST, loopback, |text| if text == "localhost" { Some(loopback) } else { text.parse().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_or_a_range() {
        for (text, ports) in
            [("0", (0, 0)), ("65535", (65_535, 65_535)), ("80-80", (80, 80)), ("8080 - 8099", (8_080, 8_099))]
        {
            assert_eq!(parse_ports(text), Some(ports), "{text}");
        }
        for text in ["", "-", "80-", "-80", "0-10", "81-80", "80-65536", "65536", "80-81-82", "http"] {
            assert_eq!(parse_ports(text), None, "{text}");
        }
    }

    #[test]
    fn every_port_of_a_range_is_tried() {
        let listen = Listen { ip: Ipv4Addr::LOCALHOST.into(), first: 65_534, last: 65_535 };
        assert_eq!(listen.addresses().map(|address| address.port()).collect::<Vec<_>>(), [65_534, 65_535]);
        assert_eq!(listen.to_string(), "127.0.0.1:65534-65535");
    }
}
