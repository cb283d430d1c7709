//! The current phase of a connection, and its start.
//!
//! Invariant: the phase is `Serving` exactly while a request is in flight, counted from the call of
//! the service to the drop of the response body. `watched_stream.rs` and `request_service.rs`
//! report the phase, `open_connections.rs` reviews it, and `connection.rs` closes the connection
//! accordingly.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Version;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ServerLimits;

/// After a graceful shutdown: time for a request that was already on its way to arrive.
const LINGER: Duration = Duration::from_millis(250);

/// Result of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The connection stays open.
    Keep,
    /// The keep-alive time is over: shut down gracefully, since a request may be on its way.
    Close,
    /// A time-out has passed: close without a response.
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No byte has arrived.
    Fresh,
    /// Part of a request's head has arrived.
    Head,
    /// At least one request is in flight.
    Serving,
    /// Between two requests.
    Idle,
}

pub(super) struct Activity {
    state: Mutex<State>,
    close: CancellationToken,
    cut: CancellationToken,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let (close, cut) = (CancellationToken::new(), CancellationToken::new());
        Arc::new(Self { state: Mutex::new(State::new(Instant::now())), close, cut })
    }

    /// Records that bytes arrived.
    pub(super) fn bytes_read(&self) {
        self.state().bytes_read(Instant::now());
    }

    /// Records whether the client currently blocks writes by not reading.
    pub(super) fn write_blocked(&self, blocked: bool) {
        self.state().write_blocked(blocked, Instant::now());
    }

    /// Starts a request, which is in flight until the guard is dropped.
    pub(super) fn begin_request(self: &Arc<Self>, version: Version) -> InFlight {
        self.state().begin_request(version, Instant::now());
        InFlight(Arc::clone(self))
    }

    /// Since when no request is in flight and no write is blocked; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.state().idle_since()
    }

    /// Closes or cuts the connection if its current phase has reached its limit in `limits`.
    pub(super) fn review(&self, limits: &ServerLimits) {
        let verdict = self.state().verdict(limits, Instant::now());
        match verdict {
            Verdict::Keep => {}
            Verdict::Close => self.close(),
            Verdict::Cut => self.cut(),
        }
    }

    /// Shuts the connection down gracefully: a request in flight, or one that crosses the shutdown,
    /// is still answered.
    pub(super) fn close(&self) {
        self.state().closing_since.get_or_insert_with(Instant::now);
        self.close.cancel();
    }

    /// Closes the connection immediately.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Whether the connection has been cut.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// Returns once the connection should shut down gracefully.
    pub(super) async fn closing(&self) {
        self.close.cancelled().await;
    }

    /// Runs `connection` until it ends or is cut.
    pub(super) async fn until_cut(&self, connection: impl Future<Output = ()>) {
        self.cut.run_until_cancelled(connection).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics under this lock, and the state would be consistent even then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request in flight.
pub(super) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.state().end_request(Instant::now());
    }
}

struct State {
    phase: Phase,
    since: Instant,
    in_flight: usize,
    multiplexed: bool,
    write_blocked_since: Option<Instant>,
    closing_since: Option<Instant>,
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Fresh,
            since: now,
            in_flight: 0,
            multiplexed: false,
            write_blocked_since: None,
            closing_since: None,
        }
    }

    /// Between requests of a multiplexed connection, bytes may be control frames and do not start a
    /// head.
    fn bytes_read(&mut self, now: Instant) {
        if self.phase == Phase::Fresh || (self.phase == Phase::Idle && !self.multiplexed) {
            self.enter(Phase::Head, now);
        }
    }

    fn write_blocked(&mut self, blocked: bool, now: Instant) {
        self.write_blocked_since = blocked.then(|| self.write_blocked_since.unwrap_or(now));
    }

    fn begin_request(&mut self, version: Version, now: Instant) {
        self.multiplexed = version == Version::HTTP_2;
        self.in_flight += 1;
        self.enter(Phase::Serving, now);
    }

    fn end_request(&mut self, now: Instant) {
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.enter(Phase::Idle, now);
        }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }

    fn verdict(&self, limits: &ServerLimits, now: Instant) -> Verdict {
        if self.write_blocked_since.is_some_and(|since| now - since >= limits.write_timeout) {
            return Verdict::Cut;
        }
        if let Some(since) = self.closing_since {
            let over = self.idle_since().is_some() && now - since >= LINGER;
            return if over { Verdict::Cut } else { Verdict::Keep };
        }
        let (limit, verdict) = match self.phase {
            Phase::Serving => return Verdict::Keep,
            Phase::Fresh => (limits.first_byte_timeout, Verdict::Cut),
            Phase::Head => (limits.header_timeout, Verdict::Cut),
            Phase::Idle => (limits.keep_alive, Verdict::Close),
        };
        if now - self.since >= limit { verdict } else { Verdict::Keep }
    }

    fn idle_since(&self) -> Option<Instant> {
        let busy = self.phase == Phase::Serving || self.write_blocked_since.is_some();
        (!busy).then_some(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_phase_has_its_limit() {
        let (limits, mut now) = (ServerLimits::default(), Instant::now());
        let mut state = State::new(now);
        assert_eq!(state.verdict(&limits, now + limits.first_byte_timeout - SECOND), Verdict::Keep);
        assert_eq!(state.verdict(&limits, now + limits.first_byte_timeout), Verdict::Cut);
        state.bytes_read(now);
        now += limits.header_timeout;
        state.bytes_read(now - SECOND);
        assert_eq!(state.verdict(&limits, now - SECOND), Verdict::Keep);
        assert_eq!(state.verdict(&limits, now), Verdict::Cut, "a trickle of bytes does not extend the limit");
        state.begin_request(Version::HTTP_11, now);
        now += SECOND * 3_600;
        assert_eq!((state.verdict(&limits, now), state.idle_since()), (Verdict::Keep, None));
        state.end_request(now);
        assert_eq!(state.verdict(&limits, now + limits.keep_alive - SECOND), Verdict::Keep);
        assert_eq!(state.verdict(&limits, now + limits.keep_alive), Verdict::Close);
    }

    #[test]
    fn control_frames_do_not_start_a_request_head() {
        let (limits, now) = (ServerLimits::default(), Instant::now());
        let mut state = State::new(now);
        state.begin_request(Version::HTTP_2, now);
        state.end_request(now);
        state.bytes_read(now);
        assert_eq!(state.verdict(&limits, now + limits.header_timeout + SECOND), Verdict::Keep);
    }

    #[test]
    fn a_client_that_does_not_read_is_cut_even_while_served() {
        let (limits, now) = (ServerLimits::default(), Instant::now());
        let mut state = State::new(now);
        state.begin_request(Version::HTTP_11, now);
        state.write_blocked(true, now);
        state.write_blocked(true, now + SECOND);
        assert_eq!(state.verdict(&limits, now + limits.write_timeout - SECOND), Verdict::Keep);
        assert_eq!(state.verdict(&limits, now + limits.write_timeout), Verdict::Cut);
        state.write_blocked(false, now);
        assert_eq!(state.verdict(&limits, now + limits.write_timeout), Verdict::Keep);
    }

    #[test]
    fn after_goaway_only_a_request_keeps_the_connection_open() {
        let (limits, now) = (ServerLimits::default(), Instant::now());
        let mut state = State::new(now);
        state.closing_since = Some(now);
        assert_eq!(state.verdict(&limits, now + LINGER), Verdict::Cut);
        state.begin_request(Version::HTTP_11, now);
        assert_eq!(state.verdict(&limits, now + SECOND), Verdict::Keep);
        state.end_request(now + SECOND);
        assert_eq!(state.verdict(&limits, now + SECOND), Verdict::Cut);
    }
}
