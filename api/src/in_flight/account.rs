//! What one request has in flight: an extension of it, from the middleware to the end of its answer.
//!
//! Invariant: the account is opened by the credential (`auth/permit.rs`), before a body is read; a request without one has no tenant
//! whose memory it could use, and its body is bounded by its route. What was counted is given back when the answer has been sent.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use shared::tenancy::TenantId;

use super::bytes::{Counted, Full, InFlightBytes};

/// The account of one request. Cheap to clone.
#[derive(Clone, Default)]
pub struct RequestAccount(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    owner: Option<(InFlightBytes, TenantId)>,
    counted: Option<Counted>,
}

impl RequestAccount {
    /// Names whose bytes these are. Refused if the tenant's answers that are still being sent leave no room.
    pub fn open(&self, bytes: &InFlightBytes, tenant: TenantId) -> Result<(), Full> {
        let mut state = self.state();
        state.counted = Some(bytes.reserve(tenant, 0)?);
        state.owner = Some((bytes.clone(), tenant));
        Ok(())
    }

    /// Counts bytes of the body that have just come.
    pub fn read(&self, bytes: usize) -> Result<(), Full> {
        self.state().counted.as_mut().map_or(Ok(()), |counted| counted.grow(bytes))
    }

    /// Takes the place of the body's bytes by those of the answer.
    fn answered(&self, bytes: usize) {
        let mut state = self.state();
        let State { owner, counted } = &mut *state;
        // The old count goes first: a body and its answer are not in memory together.
        *counted = None;
        *counted = owner.as_ref().map(|(counts, tenant)| counts.note(*tenant, bytes));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The middleware. An answer without a known size (a stream of events) is never in memory as a whole and is not counted.
pub async fn handle(mut request: Request, next: Next) -> Response {
    let account = RequestAccount::default();
    request.extensions_mut().insert(account.clone());
    let response = next.run(request).await;
    let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    account.answered(bytes.unwrap_or(0));
    response.map(|inner| Body::new(CountedBody { inner, _account: account }))
}

/// An answer's body that keeps its bytes counted until it is dropped.
struct CountedBody {
    inner: Body,
    _account: RequestAccount,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
