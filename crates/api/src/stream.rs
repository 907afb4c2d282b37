//! Reads streams of events as they arrive (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use crate::{Client, ClientError, ClusterStatus, EventView, LAST_EVENT_ID, REPLY_MAX, STREAM_TYPE};
use http_body_util::BodyExt as _;
use hyper::Request;
use std::time::Duration;

/// The agent says at least that it is there in this time, several times over.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// One event of a stream.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StreamEvent {
    /// What the next question says as `Last-Event-ID`.
    pub id: Option<u64>,
    /// What it is.
    pub name: String,
    /// JSON.
    pub data: String,
}

/// Puts events together from the pieces that arrive.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// The beginning of a line.
    line: Vec<u8>,
    /// The beginning of an event.
    event: StreamEvent,
}

impl Pieces {
    /// Takes a piece; what is whole by now. An event of more bytes than any answer has is an error.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Result<Vec<StreamEvent>, String> {
        let mut whole = Vec::new();
        for byte in piece {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                if let Some(event) = self.line(&String::from_utf8_lossy(&line)) {
                    whole.push(event);
                }
            } else if *byte != b'\r' {
                if self.line.len() + self.event.data.len() >= REPLY_MAX {
                    return Err("an event has no end".into());
                }
                self.line.push(*byte);
            }
        }
        Ok(whole)
    }

    fn line(&mut self, line: &str) -> Option<StreamEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = value.parse().ok(),
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment, or a field that we do not know.
            _ => {}
        }
        None
    }
}

impl Client {
    /// Reads the stream of a list, until `seen` says false or the agent ends it; `known` is the last that the
    /// caller has.
    pub fn follow(
        &self,
        target: &str,
        known: Option<u64>,
        seen: impl FnMut(StreamEvent) -> bool,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(self.follow_in_runtime(target, known, seen))
    }

    async fn follow_in_runtime(
        &self,
        target: &str,
        known: Option<u64>,
        mut seen: impl FnMut(StreamEvent) -> bool,
    ) -> Result<(), ClientError> {
        let broken = |reason| ClientError::Broken { path: self.path.clone(), reason };
        let silent = |_| ClientError::Silent { path: self.path.clone(), waited: SILENCE_MAX };
        let mut request = Request::get(target).header("accept", STREAM_TYPE);
        if let Some(known) = known {
            request = request.header(LAST_EVENT_ID, known);
        }
        let sent = self.send(request, Vec::new());
        let mut response = tokio::time::timeout(SILENCE_MAX, sent).await.map_err(silent)??;
        if !response.status().is_success() {
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| broken(error.to_string()))?.to_bytes();
            return Err(crate::client::problem(format!("GET {target}"), &body));
        }
        let mut pieces = Pieces::default();
        loop {
            let next = tokio::time::timeout(SILENCE_MAX, response.body_mut().frame());
            let Some(frame) = next.await.map_err(silent)? else { return Ok(()) };
            let frame = frame.map_err(|error| broken(error.to_string()))?;
            let piece = frame.data_ref().map_or(&[][..], |bytes| bytes);
            for event in pieces.take(piece).map_err(broken)? {
                if !seen(event) {
                    return Ok(());
                }
            }
        }
    }

    /// A list, by its path.
    pub fn list<T: serde::de::DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.get(target)
    }

    /// The same now, each time something changes, and every so often.
    pub fn follow_list<T: serde::de::DeserializeOwned>(
        &self,
        target: &str,
        every: Duration,
        mut seen: impl FnMut(Result<T, ClientError>) -> bool,
    ) -> Result<(), ClientError> {
        let target = format!("{target}?every={}s", every.as_secs().max(1));
        self.follow(&target, None, |event| seen(read(&target, &event)))
    }

    /// The status now, each time something changes, and every so often.
    pub fn follow_status(
        &self,
        every: Duration,
        mut seen: impl FnMut(Result<ClusterStatus, ClientError>) -> bool,
    ) -> Result<(), ClientError> {
        let target = format!("/v1/status?every={}s", every.as_secs().max(1));
        self.follow(&target, None, |event| seen(read(&target, &event)))
    }

    /// Each record that comes after the known one, of one VIP or of all.
    pub fn follow_events(
        &self,
        vip: Option<&str>,
        known: u64,
        mut seen: impl FnMut(EventView) -> bool,
    ) -> Result<(), ClientError> {
        let vip =
            vip.map_or_else(String::new, |vip| format!("?vip={}", crate::client::segment(vip)));
        let target = format!("/v1/events{vip}");
        self.follow(&target, Some(known), |event| match event.name.as_str() {
            "event" => read(&target, &event).map_or(true, &mut seen),
            // What is told beside the records is for programs.
            _ => true,
        })
    }
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(
    target: &str,
    event: &StreamEvent,
) -> Result<T, ClientError> {
    if event.name == "problem" {
        return Err(crate::client::problem(format!("GET {target}"), event.data.as_bytes()));
    }
    serde_json::from_str(&event.data).map_err(|error| ClientError::NotUnderstood {
        asked: format!("GET {target}"),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_they_arrive() {
        let text = ": hello\n\nid: 7\nevent: status\ndata: {\"a\":1}\n\nretry: 5\r\ndata: x\r\ndata:y\r\n\r\nid: 9\ndata: half";
        let first = StreamEvent { id: Some(7), name: "status".into(), data: "{\"a\":1}".into() };
        let second = StreamEvent { id: None, name: String::new(), data: "x\ny".into() };
        for size in [1, 2, 3, 7, text.len()] {
            let mut pieces = Pieces::default();
            let mut all = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                all.extend(pieces.take(piece).unwrap());
            }
            assert_eq!(all, [first.clone(), second.clone()], "in pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_end_is_an_error() {
        let mut pieces = Pieces::default();
        let piece = vec![b'x'; REPLY_MAX];
        assert_eq!(pieces.take(&piece), Ok(vec![]));
        assert!(pieces.take(b"y").is_err());
    }
}
