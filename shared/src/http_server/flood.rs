//! Protection against floods of HTTP/2 frames that cost the server work and the client nothing:
//! each `SETTINGS` and `PING` requires a response, others are read and discarded. hyper limits some
//! of these (streams that are reset before they are served), but not the frames counted here.
//!
//! Invariant: a client that sends requests and reads responses never comes near the limit: each
//! request and each part of a response earns more control frames than a client can use. A token
//! bucket counts the other frames.

use std::time::Instant;

use super::frames::{Frame, Frames, kind};

/// Capacity of the bucket in control frames.
const BURST: f64 = 500.0;
/// Tokens added per second, without a request.
const PER_SECOND: f64 = 20.0;
/// Tokens that a request earns.
const PER_REQUEST: f64 = 4.0;
/// Response bytes that earn one token: a client may acknowledge each response frame on the stream
/// and on the connection.
const BYTES_EACH: f64 = 2_048.0;
/// Cost of a withdrawn request: a client may withdraw up to half of its requests indefinitely, and
/// a burst more.
const RESET_COST: f64 = 8.0;

/// Meters the control frames of a client against its allowance.
#[derive(Debug)]
pub(super) struct FloodMeter {
    received: Frames,
    sent: Frames,
    tokens: f64,
    counted: Option<Instant>,
}

impl FloodMeter {
    pub(super) const fn new() -> Self {
        Self { received: Frames::of_client(), sent: Frames::of_server(), tokens: BURST, counted: None }
    }

    /// Counts bytes received from the client; returns `true` once the limit is exceeded.
    pub(super) fn received(&mut self, bytes: &[u8], now: Instant) -> bool {
        let mut balance = 0.0;
        let mut lowest: f64 = 0.0;
        self.received.take(bytes, |frame| {
            balance += worth(frame);
            lowest = lowest.min(balance);
        });
        if !self.received.is_http2() {
            return false;
        }
        let elapsed = self.counted.replace(now).map_or(0.0, |then| now.duration_since(then).as_secs_f64());
        self.tokens = (self.tokens + elapsed * PER_SECOND).min(BURST);
        let is_flood = self.tokens + lowest < 0.0;
        self.tokens = (self.tokens + balance).min(BURST);
        is_flood
    }

    /// Counts bytes sent to the client.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        if !self.received.is_http2() {
            return;
        }
        self.sent.take(bytes, drop);
        #[expect(clippy::cast_precision_loss, reason = "a buffer has fewer than 2^52 bytes")]
        let earned = bytes.len() as f64 / BYTES_EACH;
        self.tokens = (self.tokens + earned).min(BURST);
    }

    /// Whether the server may write a frame of its own now, because no other frame is partly
    /// written.
    pub(super) fn may_interject(&self) -> bool {
        self.received.is_http2() && self.sent.is_at_boundary()
    }
}

/// Tokens that a frame earns (positive) or costs (negative).
fn worth(frame: Frame) -> f64 {
    match frame.kind {
        kind::HEADERS => PER_REQUEST,
        // A body in very small pieces is a flood too; pieces of 100 bytes or more are free.
        kind::DATA if frame.length >= 100 || frame.ends_stream() => 0.0,
        kind::RST_STREAM => -RESET_COST,
        _ => -1.0,
    }
}

/// `GOAWAY` with `ENHANCE_YOUR_CALM`. The last stream id is the highest possible, because accepted
/// requests must not be sent again.
pub(super) const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0x0b];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        [&[0, 0, length, kind, 0, 0, 0, 0, 1][..], &vec![0; usize::from(length)]].concat()
    }

    fn meter() -> (FloodMeter, Instant) {
        let (mut meter, now) = (FloodMeter::new(), Instant::now());
        assert!(!meter.received(PREFACE, now));
        (meter, now)
    }

    /// Number of such frames accepted at once.
    fn limit_of(kind: u8, length: u8) -> usize {
        let (mut meter, now) = meter();
        (1..2_000).find(|_| meter.received(&frame(kind, length), now)).unwrap_or(usize::MAX)
    }

    #[test]
    fn every_frame_other_than_requests_is_limited() {
        // PRIORITY, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION, PRIORITY_UPDATE, an
        // unknown type, and a body in tiny pieces.
        for (kind, length) in
            [(2, 5), (4, 0), (4, 6), (6, 8), (7, 8), (8, 4), (9, 0), (9, 200), (16, 4), (99, 0), (0, 0), (0, 99)]
        {
            assert_eq!(limit_of(kind, length), 501, "{kind}");
        }
        assert_eq!(limit_of(kind::RST_STREAM, 4), 63);
        assert_eq!((limit_of(kind::HEADERS, 5), limit_of(kind::DATA, 100)), (usize::MAX, usize::MAX));
    }

    #[test]
    fn a_flood_in_one_read_is_detected_even_if_requests_follow() {
        let (mut meter, now) = meter();
        let flood = [frame(6, 8).repeat(600), frame(kind::HEADERS, 5).repeat(600)].concat();
        assert!(meter.received(&flood, now));
    }

    #[test]
    fn a_well_behaved_client_is_never_limited() {
        let (mut meter, now) = meter();
        for _ in 0..10_000 {
            // A request with a body, a PING to measure the round trip, and both windows after the
            // response.
            let request =
                [frame(kind::HEADERS, 50), frame(kind::DATA, 200), frame(6, 8), frame(8, 4), frame(8, 4)].concat();
            assert!(!meter.received(&request, now));
            meter.sent(&frame(1, 20));
        }
        // A long response whose every frame is acknowledged twice.
        for _ in 0..10_000 {
            meter.sent(&[&[0, 64, 0, 0, 0, 0, 0, 0, 1][..], &[0; 16_384]].concat());
            assert!(!meter.received(&frame(8, 4).repeat(2), now));
        }
    }

    #[test]
    fn tokens_are_refilled_up_to_the_burst() {
        let (mut meter, mut now) = meter();
        for _ in 0..500 {
            assert!(!meter.received(&frame(6, 8), now));
        }
        now += Duration::from_secs(1);
        for _ in 0..20 {
            assert!(!meter.received(&frame(6, 8), now));
        }
        assert!(meter.received(&frame(6, 8), now));
    }

    #[test]
    fn http1_bytes_are_not_counted() {
        let (mut meter, now) = (FloodMeter::new(), Instant::now());
        assert!(!meter.received(&b"GET / HTTP/1.1\r\n\r\n".repeat(10_000), now));
        assert!(!meter.may_interject());
    }

    #[test]
    fn goaway_is_one_valid_frame() {
        let (mut frames, mut seen) = (Frames::of_server(), Vec::new());
        frames.take(&GOAWAY, |frame| seen.push((frame.kind, frame.length)));
        assert_eq!(seen, [(7, 8)]);
        assert!(frames.is_at_boundary());
    }
}
