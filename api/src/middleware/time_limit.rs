//! Limits how long a handler may take for the head of its response; a body streamed afterwards is
//! not limited.
//!
//! Invariant: a handler that exceeds the limit is dropped together with its transaction, and the
//! client receives `timeout` (503). The client does not know the outcome, and a retry with the same
//! idempotency key is safe. A route that needs longer, such as an import, extends its limit with
//! [`at_least`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use shared::patience;
use tokio::time::Instant;

use crate::problem::{Problem, ProblemCode};

/// When the current request must be answered, a request extension.
#[derive(Clone)]
pub struct Deadline(Arc<Mutex<Instant>>);

impl Deadline {
    /// A deadline after this time.
    pub fn after(limit: Duration) -> Self {
        Self(Arc::new(Mutex::new(Instant::now() + limit)))
    }

    /// The response, or `timeout` once the deadline has passed.
    pub async fn bound(&self, response: impl Future<Output = Response>) -> Response {
        tokio::select! {
            response = patience::from_now(response) => response,
            () = self.passed() => Problem::new(ProblemCode::Timeout).into_response(),
        }
    }

    fn get(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extend(&self, to: Instant) {
        let mut deadline = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *deadline = to.max(*deadline);
    }

    /// Returns once the deadline has passed, even if it was extended in the meantime.
    async fn passed(&self) {
        while Instant::now() < self.get() {
            tokio::time::sleep_until(self.get()).await;
        }
    }
}

/// Middleware for a route that needs longer than the others:
/// `.layer(axum::middleware::from_fn_with_state(Duration::from_mins(5), time_limit::at_least))`.
pub async fn at_least(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    if let Some(deadline) = request.extensions().get::<Deadline>() {
        deadline.extend(Instant::now() + limit);
    }
    next.run(request).await
}
