//! Asks the health service of gRPC (`grpc.health.v1.Health/Check`), whose two messages are a few bytes each.

use super::http::{AGENT, unsendable};
use super::http2::{self, Exchanged};
use super::{Answer, Said};
use buoy_wire::answer::{grpc, shown};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, TE, USER_AGENT};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
    host: Option<&str>,
    service: &str,
    secure: bool,
) -> Answer {
    let scheme = if secure { "https" } else { "http" };
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let request = Request::post(format!("{scheme}://{host}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT)
        .body(())
        .map_err(|e| unsendable(&e))?;
    let answer =
        http2::exchange(stream, request, Some(grpc::question(service).into()), true).await?;
    judge(&answer)
}

fn judge(answer: &Exchanged) -> Answer {
    if answer.status != 200 {
        return Err(format!("HTTP {} instead of 200", answer.status));
    }
    let header = |name: &str| answer.trailers.get(name).or_else(|| answer.headers.get(name));
    let code = header("grpc-status").map(|value| value.as_bytes());
    match code {
        Some(b"0") => {}
        Some(b"5") => return Err("gRPC does not know that service".into()),
        Some(b"12") => return Err("the server has no grpc.health.v1".into()),
        Some(code) => {
            let words = header("grpc-message").map_or(&[][..], |value| value.as_bytes());
            return Err(format!("gRPC says error {} {}", shown(code), shown(words)).trim().into());
        }
        None => return Err("the answer is not gRPC".into()),
    }
    match grpc::status(&answer.body.bytes) {
        Some(1) => Ok(Said::default()),
        Some(2) => Err("gRPC says NOT_SERVING".into()),
        Some(0) => Err("gRPC says UNKNOWN".into()),
        Some(3) => Err("gRPC does not know that service".into()),
        Some(other) => Err(format!("gRPC says status {other}")),
        None => Err("the answer is not gRPC".into()),
    }
}
