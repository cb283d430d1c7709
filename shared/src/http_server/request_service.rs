//! The service that hyper calls for each request of a connection: counts the request as in flight,
//! attaches the peer's address and calls the inner service.
//!
//! Invariant: a request counts until its response body is dropped, not only until the response's
//! head is complete, so a response that is still streaming is neither evicted nor cut by the drain.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use tower::ServiceExt;

use super::activity::{Activity, InFlight};
use super::held_body::HeldBody;
use super::{HttpService, PeerAddr};

pub(super) struct RequestService<S> {
    pub(super) inner: S,
    pub(super) peer: PeerAddr,
    pub(super) activity: Arc<Activity>,
}

impl<S, B> Service<Request<Incoming>> for RequestService<S>
where
    S: tower::Service<Request<Incoming>, Response = Response<B>> + HttpService<B>,
    B: 'static,
{
    type Response = Response<HeldBody<B, InFlight>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.activity.begin_request(request.version());
        request.extensions_mut().insert(self.peer);
        let response = self.inner.clone().oneshot(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(response.map(|inner| HeldBody::new(inner, in_flight)))
        })
    }
}
