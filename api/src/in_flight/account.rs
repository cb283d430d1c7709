//! The bytes that one request has in flight: a request extension, from the middleware to the end of
//! the response.
//!
//! Invariant: authentication (`auth/permit.rs`) opens the account before a body is read. A request
//! without a credential has no tenant to charge, and its route bounds its body. Counted bytes are
//! released when the response has been sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{
    body::{Body, HttpBody as _},
    response::Response,
};
use shared::{http_server::HeldBody, tenancy::TenantId};

use super::bytes::{Counted, InFlightBytes};
use crate::tenant_counts::Full;

/// The account of one request. Cheap to clone.
#[derive(Clone, Default)]
pub struct RequestAccount(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    owner: Option<(InFlightBytes, TenantId)>,
    counted: Option<Counted>,
}

impl RequestAccount {
    /// Charges the account to a tenant. Fails if the tenant's responses that are still being sent
    /// leave no room.
    pub fn open(&self, bytes: &InFlightBytes, tenant: TenantId) -> Result<(), Full> {
        let mut state = self.state();
        state.counted = Some(bytes.reserve(tenant, 0)?);
        state.owner = Some((bytes.clone(), tenant));
        Ok(())
    }

    /// Counts bytes of the body that were just received.
    pub fn read(&self, bytes: usize) -> Result<(), Full> {
        self.state().counted.as_mut().map_or(Ok(()), |counted| counted.grow(bytes))
    }

    /// Counts a response in place of the request's body, until it is sent. A response of unknown
    /// size (an event stream) is never in memory as a whole and is not counted.
    pub fn count_response(self, response: Response) -> Response {
        let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        self.replace(bytes.unwrap_or(0));
        response.map(|inner| Body::new(HeldBody::new(inner, self)))
    }

    /// Replaces the count of the body by that of the response.
    fn replace(&self, bytes: usize) {
        let mut state = self.state();
        let State { owner, counted } = &mut *state;
        // The body is released first: a body and its response are not in memory together.
        *counted = None;
        *counted = owner.as_ref().map(|(counts, tenant)| counts.note(*tenant, bytes));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
