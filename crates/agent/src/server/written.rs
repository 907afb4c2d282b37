//! Writes an answer from the pieces that it is made of, a little at a time: a client who reads slowly has megabytes of
//! nobody's memory, and what is copied for him is still in the processor's cache when it goes.

use axum::body::{Body, Bytes};
use buoy_api::view::Pieces;
use hyper::body::{Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// So much at once: less than what the C library takes from the kernel anew each time.
const AT_ONCE: usize = 64 << 10;

/// The body of an answer with this text.
pub(super) fn written(text: Pieces) -> Body {
    Body::new(Written(text))
}

struct Written(Pieces);

impl hyper::body::Body for Written {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(self.0.take(AT_ONCE).into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.0.len()).unwrap_or(u64::MAX))
    }
}
