//! Stands before every route: bounds what a request may be and how long it may take, whoever answers it.
//!
//! A path that means different things to different programs is refused here, a body is read here as a whole,
//! within its limits, and an answer that does not come is an answer too. So a handler sees no stranger's
//! half-sent megabyte, and need not think of it.

use super::failure::Failure;
use super::listen::HEAD_MAX;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use buoy_api::BODY_MAX;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::time::Duration;

/// How long the body of a request may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a body that is too large that are read all the same, and for how long.
const POURED_MAX: usize = 4 * BODY_MAX;
const POUR_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer may take to begin: more than the longest wait for news, and than a reload.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// Levels of arrays and objects in a body: nothing in this API needs ten.
const DEPTH_MAX: usize = 32;

pub(super) async fn guard(request: Request, next: Next) -> Response {
    match admitted(request).await {
        Ok(request) => tokio::time::timeout(ANSWER_TIMEOUT, next.run(request))
            .await
            .unwrap_or_else(|_| Failure::timeout(ANSWER_TIMEOUT).into_response()),
        Err(failure) => failure.into_response(),
    }
}

/// The request with all of its body, if it is one.
async fn admitted(request: Request) -> Result<Request, Failure> {
    check_path(request.uri().path())?;
    // A head that comes in one piece is not cut off by the connection.
    let lines = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    if HEAD_MAX < lines.sum::<usize>() + request.uri().to_string().len() {
        return Err(Failure::head(HEAD_MAX));
    }
    let (parts, body) = request.into_parts();
    // Said before anything of it is read.
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse().ok()).is_some_and(|n: usize| BODY_MAX < n) {
        if !parts.headers.contains_key(EXPECT) {
            let _ = tokio::time::timeout(POUR_TIMEOUT, pour(body)).await;
        }
        return Err(Failure::too_large());
    }
    let read = Limited::new(body, BODY_MAX).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Failure::too_large()),
        Ok(Err(error)) => return Err(Failure::broken_body(&*error)),
        Err(_) => return Err(Failure::slow_body(BODY_TIMEOUT)),
    };
    if DEPTH_MAX < depth(&body) {
        return Err(Failure::depth(DEPTH_MAX));
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// Throws away what a client sends who did not wait for the answer, or he would be cut off before he reads it.
async fn pour(body: Body) {
    let mut body = Limited::new(body, POURED_MAX);
    while let Some(Ok(_)) = body.frame().await {}
}

/// Refuses what some program on the way might take for another path.
fn check_path(path: &str) -> Result<(), Failure> {
    if path.contains("//") {
        return Err(Failure::path("it has an empty segment"));
    }
    for segment in path.split('/') {
        let Some(decoded) = decoded(segment) else {
            return Err(Failure::path("a %XX in it is no text in UTF-8"));
        };
        if decoded.chars().any(char::is_control) {
            return Err(Failure::path("it has a control character"));
        }
        if decoded.split('/').any(|part| part == "." || part == "..") {
            return Err(Failure::path("it has a segment of dots"));
        }
    }
    Ok(())
}

fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            let digits = core::str::from_utf8(digits).ok()?;
            let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
            bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// How deep brackets are nested, outside of strings, if the text is JSON; 0 of other text.
fn depth(text: &[u8]) -> usize {
    if !text.trim_ascii_start().starts_with(b"{") && !text.trim_ascii_start().starts_with(b"[") {
        return 0;
    }
    let (mut deepest, mut depth, mut in_string, mut escaped) = (0, 0_usize, false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (true, _) => {}
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (false, _) => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_be_another_one_is_refused() {
        let fine = ["/", "/v1/status", "/v1/vips/10.0.0.100%2F24/why", "/v1/vips/a..b/why"];
        for path in fine {
            assert!(check_path(path).is_ok(), "{path}");
        }
        let tricks = [
            "//v1/status",
            "/v1//status",
            "/v1/../v1/status",
            "/v1/%2e%2E/status",
            "/v1/vips/x%2f..%2fweb/why",
            "/v1/./status",
            "/v1/vips/a%00b/why",
            "/v1/vips/a%0d%0aX/why",
            "/v1/vips/%ff/why",
            "/v1/vips/%/why",
            "/v1/vips/%+1/why",
        ];
        for path in tricks {
            let failure = check_path(path).expect_err(path);
            assert_eq!(failure.problem().code, "path", "{path}");
        }
    }

    #[test]
    fn brackets_in_strings_are_not_depth() {
        let table: [(&str, usize); 7] = [
            ("", 0),
            ("vip = [[1]]", 0),
            ("{}", 1),
            (r#" {"a": [[1], 2]}"#, 3),
            (r#"{"a": "[[[[", "b": "\"[["}"#, 1),
            ("[[[", 3),
            ("]]][", 0),
        ];
        for (text, expected) in table {
            assert_eq!(depth(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(depth("[".repeat(100_000).as_bytes()), 100_000);
    }
}
