//! Clients without a credential, at operations that require none.

use std::net::IpAddr;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use shared::rate_limit::{ClientNetwork, Subject};

use super::RequestRate;
use crate::{client_address::ClientAddress, problem::Problem, state::AppState};

/// Proof that the request of an anonymous client was counted for its network and is admitted.
pub struct AnonymousClient {
    /// The address of the client.
    pub address: IpAddr,
}

impl<S: Send + Sync> FromRequestParts<S> for AnonymousClient
where
    AppState: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let ClientAddress(address) = ClientAddress::from_request_parts(parts, state).await?;
        let subject = || Subject::anonymous(ClientNetwork::of(address));
        RequestRate::charge(&AppState::from_ref(state), parts, subject).await?;
        Ok(Self { address })
    }
}
