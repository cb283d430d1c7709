//! Bounds how long a handler may take for the head of its answer; a body that streams afterwards is not bounded.
//!
//! Invariant: a handler that overruns is dropped, its transaction with it, and the client reads `timeout` (503): the
//! outcome is not known to it, a retry with the same idempotency key is right. A route that needs longer, such as an
//! import, says so with [`at_least`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use shared::patience;
use tokio::time::Instant;

use crate::problem::{Problem, ProblemCode};

/// When the present request must be answered, an extension of it.
#[derive(Clone)]
struct Deadline(Arc<Mutex<Instant>>);

impl Deadline {
    fn get(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extend(&self, to: Instant) {
        let mut deadline = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *deadline = to.max(*deadline);
    }

    /// Returns once the deadline has passed, wherever it has been moved to meanwhile.
    async fn passed(&self) {
        while Instant::now() < self.get() {
            tokio::time::sleep_until(self.get()).await;
        }
    }
}

/// The middleware around all routes.
pub async fn handle(State(limit): State<Duration>, mut request: Request, next: Next) -> Response {
    let deadline = Deadline(Arc::new(Mutex::new(Instant::now() + limit)));
    request.extensions_mut().insert(deadline.clone());
    tokio::select! {
        response = patience::from_now(next.run(request)) => response,
        () = deadline.passed() => Problem::new(ProblemCode::Timeout).into_response(),
    }
}

/// Middleware for one route that needs longer than the others:
/// `.layer(axum::middleware::from_fn_with_state(Duration::from_mins(5), time_limit::at_least))`.
pub async fn at_least(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    if let Some(deadline) = request.extensions().get::<Deadline>() {
        deadline.extend(Instant::now() + limit);
    }
    next.run(request).await
}
