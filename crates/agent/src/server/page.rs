//! Serves the web page; what it shows it asks of the API like any other client.

use super::Agent;
use super::failure::Failure;
use axum::Router;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

pub(super) fn routes<A: Agent>() -> Router<Arc<A>> {
    Router::new().route("/", get(file)).route("/page/{name}", get(file))
}

async fn file(uri: Uri, headers: HeaderMap) -> Response {
    let Some(file) = buoy_page::file(uri.path()) else {
        return Failure::unknown_path().into_response();
    };
    let known = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let mut response = match known {
        Some(tags) if tags.split(',').any(|tag| tag.trim() == file.etag) => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        Some(_) | None => file.bytes.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.mime));
    headers.insert(ETAG, HeaderValue::from_static(file.etag));
    for (name, value) in buoy_page::HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
