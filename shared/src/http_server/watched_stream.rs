//! A TCP stream that reports reads and blocked writes to [`Activity`], and ends floods of HTTP/2
//! frames.
//!
//! Invariant: the stream changes no byte and no result until [`FloodMeter`] reports a flood; then
//! it sends `GOAWAY` and reads nothing more. `activity.rs` evaluates the reports.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::activity::Activity;
use super::flood::{FloodMeter, GOAWAY};
use crate::telemetry::names;

pub(super) struct WatchedStream {
    stream: TcpStream,
    activity: Arc<Activity>,
    flood: FloodMeter,
}

impl WatchedStream {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity, flood: FloodMeter::new() }
    }

    /// Does not interrupt a partly written frame; in that case the connection ends without
    /// `GOAWAY`.
    fn end_flood(&self) -> io::Error {
        metrics::counter!(names::HTTP_FLOODS_TOTAL).increment(1);
        if self.flood.may_interject() {
            // A peer that does not read even this frame has a full buffer of responses to its
            // flood.
            let _ = self.stream.try_write(&GOAWAY);
        }
        io::Error::other("a flood of HTTP/2 control frames")
    }

    fn note_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.write_blocked(written.is_pending());
        written
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let come = &buffer.filled()[before..];
        if !come.is_empty() {
            self.activity.bytes_read();
            if self.flood.received(come, Instant::now()) {
                return Poll::Ready(Err(self.end_flood()));
            }
        }
        read
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.flood.sent(&bytes[..*count]);
        }
        self.note_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if let Poll::Ready(Ok(count)) = &written {
            let mut left = *count;
            for slice in slices {
                let taken = left.min(slice.len());
                self.flood.sent(&slice[..taken]);
                left -= taken;
            }
        }
        self.note_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
