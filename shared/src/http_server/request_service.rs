//! The service that hyper calls for each request of a connection: counts the request as in flight,
//! attaches the peer's address and calls the inner service.
//!
//! Invariant: a request counts until its response body is dropped, not only until the response's
//! head is complete, so a response that is still streaming is neither evicted nor cut by the drain.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use tower::ServiceExt;

use super::activity::{Activity, InFlight};
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
    type Response = Response<TrackedBody<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.activity.begin_request(request.version());
        request.extensions_mut().insert(self.peer);
        let response = self.inner.clone().oneshot(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(response.map(|inner| TrackedBody { inner, _in_flight: in_flight }))
        })
    }
}

/// A response body that keeps its request counted as in flight.
pub(super) struct TrackedBody<B> {
    inner: B,
    _in_flight: InFlight,
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
