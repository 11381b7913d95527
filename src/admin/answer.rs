//! Answers over HTTP: their bodies, and the headers that keep browsers from doing with them what they should not.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{
    Response, StatusCode,
    body::{Body as HttpBody, Bytes, Frame, SizeHint},
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Headers for browsers, with every answer: nothing is loaded from elsewhere, nothing inline is run, nobody frames it.
const FOR_BROWSERS: [(HeaderName, HeaderValue); 4] = [
    (
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static(
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// An answer to a request.
pub(super) type Answer = Response<Body>;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it; `None` once it has been taken.
    Whole(Option<Bytes>),
    /// Pieces, as they come, until the other end is dropped.
    Pieces(mpsc::Receiver<Bytes>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces(pieces) => pieces.poll_recv(cx).map(|piece| Some(Ok(Frame::data(piece?)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// A text.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    of_type(status, TEXT, Body::Whole(Some(body.into()).filter(|body: &Bytes| !body.is_empty())))
}

/// A body of a type.
pub(super) fn of_type(status: StatusCode, content_type: HeaderValue, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    for (name, value) in FOR_BROWSERS {
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// JSON, indented for people, with a line's end.
pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    let mut body = serde_json::to_vec_pretty(value).expect("it holds nothing that JSON cannot say");
    body.push(b'\n');
    of_type(status, JSON, Body::Whole(Some(body.into())))
}

/// An error of the API: what is wrong, and what to do about it.
pub(super) fn error(status: StatusCode, message: &str, hint: &str) -> Answer {
    error_with(status, &json!({ "message": message, "hint": hint }))
}

/// An error of the API with these fields.
pub(super) fn error_with(status: StatusCode, fields: &Json) -> Answer {
    json(status, &json!({ "error": fields }))
}
