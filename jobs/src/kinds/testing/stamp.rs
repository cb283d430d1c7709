//! Reports the start and end of a run to a measuring program, without the cost and delay of an HTTP
//! request.
//!
//! Invariant: the time is taken before the datagram is built, so sending and receiving it are not
//! part of the measurement; and nothing leaves the machine.

use std::net::{SocketAddr, UdpSocket};

use schemars::JsonSchema;
use serde::Deserialize;
use shared::clock::Clock;

use crate::context::JobContext;

/// Where to report a run, and as which job. A datagram is `start TOKEN UNIX_NANOSECONDS`, and
/// `end …` when the run is over, also if it was cancelled.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// A UDP port on this machine.
    port: u16,
    /// Identifies this job.
    token: u64,
}

/// Reports the end of the run when it is dropped.
pub struct Stamped {
    socket: UdpSocket,
    token: u64,
    clock: Clock,
}

impl Stamp {
    /// Reports the start. Without a socket nothing is reported, which the measuring program
    /// notices.
    pub fn start(&self, context: &JobContext) -> Option<Stamped> {
        let clock = context.environment().clock.clone();
        let started_ns = unix_ns(&clock);
        let socket = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).ok()?;
        socket.connect(SocketAddr::from(([127, 0, 0, 1], self.port))).ok()?;
        let stamped = Stamped { socket, token: self.token, clock };
        stamped.send("start", started_ns);
        Some(stamped)
    }
}

impl Stamped {
    fn send(&self, event: &str, at_ns: i64) {
        // A datagram without a receiver is not a failure of the job.
        let _ = self.socket.send(format!("{event} {} {at_ns}", self.token).as_bytes());
    }
}

impl Drop for Stamped {
    fn drop(&mut self) {
        self.send("end", unix_ns(&self.clock));
    }
}

fn unix_ns(clock: &Clock) -> i64 {
    clock.now().timestamp_nanos_opt().unwrap_or_default()
}
