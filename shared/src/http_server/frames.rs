//! Splits one direction of an HTTP/2 connection into frames (RFC 9113, section 4) by their headers
//! alone.
//!
//! Invariant: only the bytes of an incomplete frame header are buffered, so the cost does not
//! depend on the content. A direction that does not start with the client's preface is not HTTP/2,
//! and no frames are reported for it.

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;

/// Frame types that are handled individually.
pub(super) mod kind {
    pub(in crate::http_server) const DATA: u8 = 0;
    pub(in crate::http_server) const HEADERS: u8 = 1;
    pub(in crate::http_server) const RST_STREAM: u8 = 3;
}

const FLAG_END_STREAM: u8 = 1;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) length: usize,
    flags: u8,
}

impl Frame {
    /// Whether the frame ends its stream.
    pub(super) fn ends_stream(self) -> bool {
        self.flags & FLAG_END_STREAM != 0
    }
}

/// Position of the next byte within the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// This many bytes of the preface have arrived.
    Preface(usize),
    /// This many bytes of a frame header have arrived.
    Head(usize),
    /// This many bytes of a frame payload are still missing.
    Payload(usize),
    /// The direction uses another protocol.
    Other,
}

/// Reads the frame headers of one direction.
#[derive(Debug)]
pub(super) struct Frames {
    place: Place,
    head: [u8; HEAD_BYTES],
}

impl Frames {
    /// The client's direction: the preface, then frames.
    pub(super) const fn of_client() -> Self {
        Self { place: Place::Preface(0), head: [0; HEAD_BYTES] }
    }

    /// The server's direction: frames from the first byte on.
    pub(super) const fn of_server() -> Self {
        Self { place: Place::Head(0), head: [0; HEAD_BYTES] }
    }

    /// Whether the preface has arrived.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.place, Place::Head(_) | Place::Payload(_))
    }

    /// Whether the last byte was the end of a frame.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.place == Place::Head(0)
    }

    /// Consumes bytes and calls `seen` for each frame whose header they complete.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        while !bytes.is_empty() && self.place != Place::Other {
            let taken = match self.place {
                Place::Preface(come) => self.take_preface(come, bytes),
                Place::Head(come) => self.take_head(come, bytes, &mut seen),
                Place::Payload(left) => {
                    let taken = left.min(bytes.len());
                    self.place = payload(left - taken);
                    taken
                }
                Place::Other => return,
            };
            bytes = &bytes[taken..];
        }
    }

    fn take_preface(&mut self, come: usize, bytes: &[u8]) -> usize {
        let taken = (PREFACE.len() - come).min(bytes.len());
        let expected = &PREFACE[come..come + taken];
        self.place = match come + taken {
            _ if bytes[..taken] != *expected => Place::Other,
            all if all == PREFACE.len() => Place::Head(0),
            part => Place::Preface(part),
        };
        taken
    }

    fn take_head(&mut self, come: usize, bytes: &[u8], seen: &mut impl FnMut(Frame)) -> usize {
        let taken = (HEAD_BYTES - come).min(bytes.len());
        self.head[come..come + taken].copy_from_slice(&bytes[..taken]);
        if come + taken < HEAD_BYTES {
            self.place = Place::Head(come + taken);
            return taken;
        }
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.place = payload(length);
        seen(Frame { kind, length, flags });
        taken
    }
}

fn payload(left: usize) -> Place {
    if left == 0 { Place::Head(0) } else { Place::Payload(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// The same frames are seen however the bytes are split.
    #[test]
    fn frames_are_parsed_from_chunks_of_any_size() {
        let long = vec![7; 70_000];
        let bytes =
            [PREFACE, &frame(4, 0, &[]), &frame(0, 1, &long), &frame(6, 0, &[0; 8]), &frame(3, 0, &[0; 4])].concat();
        for size in [1, 2, 8, 9, 10, 23, 24, 25, 1_000, bytes.len()] {
            let (mut frames, mut seen) = (Frames::of_client(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.take(piece, |frame| seen.push((frame.kind, frame.length, frame.ends_stream())));
            }
            assert_eq!(seen, [(4, 0, false), (0, 70_000, true), (6, 8, false), (3, 4, false)], "{size}");
            assert!(frames.is_http2() && frames.is_at_boundary());
        }
    }

    #[test]
    fn other_protocols_yield_no_frames() {
        for text in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n\r\n", b"P", b"\0\0\0\x04\0\0\0\0\0"] {
            let mut frames = Frames::of_client();
            frames.take(text, |frame| panic!("{frame:?} in {text:?}"));
            frames.take(&[0; 100], |frame| assert_eq!(text, b"P", "{frame:?}"));
            assert!(!frames.is_http2(), "{text:?}");
        }
    }

    #[test]
    fn a_partially_written_frame_is_not_a_boundary() {
        let mut frames = Frames::of_server();
        assert!(frames.is_at_boundary());
        let bytes = frame(0, 0, &[1, 2, 3]);
        for (at, byte) in bytes.iter().enumerate() {
            frames.take(&[*byte], drop);
            assert_eq!(frames.is_at_boundary(), at + 1 == bytes.len(), "{at}");
        }
    }
}
