//! A request body sent piece by piece, at the pace of its source.

use axum::body::Bytes;
use futures::{Stream, StreamExt as _};
use http_body::Frame;
use http_body_util::StreamBody;

/// A body of these pieces, without a Content-Length.
pub fn streamed_body(pieces: impl Stream<Item = String> + Send + Sync + 'static) -> reqwest::Body {
    let frames = pieces.map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from(piece))));
    reqwest::Body::wrap(StreamBody::new(frames))
}
