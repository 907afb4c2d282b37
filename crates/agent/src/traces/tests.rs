//! A collector that is real HTTP, and decodes what comes with the types of OpenTelemetry itself.

use super::*;
use crate::sample;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use buoy_kernel::clock;
use buoy_model::NodeId;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(20);
/// A moment of the wall clock.
const AT: Duration = Duration::from_millis(1_800_000_000_000);

/// Who takes spans: with which answers, the last one for ever, and what came.
struct Collector {
    port: u16,
    come: mpsc::UnboundedReceiver<(String, HeaderMap, ExportTraceServiceRequest)>,
}

#[derive(Clone)]
struct Taking {
    answers: Arc<Mutex<VecDeque<StatusCode>>>,
    come: mpsc::UnboundedSender<(String, HeaderMap, ExportTraceServiceRequest)>,
}

async fn take(
    State(taking): State<Taking>,
    uri: Uri,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> StatusCode {
    let request = serde_json::from_slice(&body).expect("OTLP in JSON");
    taking.come.send((uri.to_string(), headers, request)).expect("the test listens");
    let mut answers = lock(&taking.answers);
    if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() }
        .expect("an answer")
}

impl Collector {
    async fn start(answers: &[StatusCode]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, come) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect()));
        let app = Router::new().fallback(take).with_state(Taking { answers, come: sender });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { port, come }
    }

    async fn next(&mut self) -> (String, HeaderMap, ExportTraceServiceRequest) {
        let come = time::timeout(LIMIT, self.come.recv()).await;
        come.expect("a request in time").expect("a collector")
    }
}

fn traces_at(port: u16) -> Traces {
    Traces { host: "127.0.0.1".into(), port, path: "/v1/traces".into(), ca: None }
}

fn tracing(traces: Option<Traces>) -> (Tracing, watch::Sender<Arc<Desired>>) {
    let desired = Desired { traces, ..sample::desired(&["10.0.0.100"], "eth0", Vec::new()) };
    let (sender, receiver) = watch::channel(Arc::new(desired));
    (Tracing::new(receiver), sender)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A takeover, and how it went on.
fn take_over(tracing: &Tracing, epoch: u32, first_packet: Option<Duration>) {
    let group = Some(sample::GROUP);
    let epoch = Epoch(epoch);
    let cause = Cause::OwnerSilent { node: NodeId::of("lb2"), silent: ms(36) };
    let acquired = Fact::Acquired { epoch, cause, took: ms(5) };
    let (detect, decide, address, announce) = (ms(36), ms(5), ms(7), ms(6));
    let served = Fact::Served { epoch, detect, decide, address, announce, first_packet };
    for fact in [acquired, served] {
        tracing.hear(&Record { at: clock::now(), group, fact }, UNIX_EPOCH + AT);
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        time::sleep(ms(5)).await;
    }
}

fn counts(tracing: &Tracing) -> [u64; 2] {
    tracing.counters().map(|(_, count)| count)
}

fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    let value = attribute.value.as_ref()?.value.as_ref()?;
    if let any_value::Value::IntValue(number) = value {
        return Some(number.to_string());
    }
    let any_value::Value::StringValue(text) = value else { return None };
    Some(text.clone())
}

fn spans(request: &ExportTraceServiceRequest) -> Vec<Span> {
    let all = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    all.flat_map(|scope| scope.spans.clone()).collect()
}

#[tokio::test]
async fn a_takeover_is_one_trace_with_its_phases_as_spans() {
    let mut collector = Collector::start(&[StatusCode::OK]).await;
    let (tracing, desired) = tracing(Some(traces_at(collector.port)));
    let sending = tokio::spawn(tracing.clone().keep());
    take_over(&tracing, 41, Some(ms(9)));
    let (path, headers, request) = collector.next().await;
    assert_eq!(path, "/v1/traces");
    assert_eq!(headers["content-type"], "application/json");
    let resource = &request.resource_spans[0].resource.as_ref().unwrap().attributes;
    let of = |key| value(resource, key);
    assert_eq!(of("service.name").as_deref(), Some("buoy"));
    assert_eq!(of("host.name"), Some(buoy_kernel::host::hostname()));
    let me = desired.borrow().node_name(desired.borrow().me).to_owned();
    assert_eq!(of("service.instance.id"), Some(me.clone()));
    assert_eq!(of("service.namespace"), Some(desired.borrow().cluster_name.clone()));

    let spans = spans(&request);
    let (whole, below) = spans.split_first().unwrap();
    assert_eq!(
        (whole.name.as_str(), whole.trace_id.len(), whole.span_id.len()),
        ("failover", 16, 8)
    );
    assert!(whole.parent_span_id.is_empty());
    let said = |key| value(&whole.attributes, key);
    assert_eq!(said("buoy.vip"), Some(desired.borrow().groups[0].name.clone()));
    assert_eq!(said("buoy.to"), Some(me));
    assert_eq!(said("buoy.epoch").as_deref(), Some("41"));
    assert!(said("buoy.from").is_some());
    assert!(said("buoy.reason").unwrap().ends_with("was silent for 36 ms"), "{whole:?}");
    // In milliseconds around the moment that it was wanted.
    let wanted = i128::try_from((AT - ms(5)).as_nanos()).unwrap();
    let at = |nanos: u64| (i128::from(nanos) - wanted) / 1_000_000;
    let times = |span: &Span| (at(span.start_time_unix_nano), at(span.end_time_unix_nano));
    assert_eq!(times(whole), (-36, 9));
    let told: Vec<_> = below.iter().map(|span| (span.name.as_str(), times(span))).collect();
    let expected = [
        ("detect", (-36, 0)),
        ("decide", (0, 5)),
        ("address", (5, 7)),
        ("announce", (5, 6)),
        ("first_packet", (5, 9)),
    ];
    assert_eq!(told, expected);
    let mut ids: Vec<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6, "no two have one id");
    for span in below {
        assert_eq!((&span.trace_id, &span.parent_span_id), (&whole.trace_id, &whole.span_id));
    }

    // The next one is a trace of its own, and what was not seen is not made up.
    take_over(&tracing, 42, None);
    let (_, _, request) = collector.next().await;
    let next = self::spans(&request);
    assert_ne!(next[0].trace_id, whole.trace_id);
    assert!(next.iter().all(|span| span.name != "first_packet"), "{next:?}");
    until("both are counted", || counts(&tracing) == [2, 0]).await;
    sending.abort();
}

#[tokio::test]
async fn a_collector_that_is_busy_is_told_again_and_one_that_refuses_is_not() {
    let answers = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK, StatusCode::BAD_REQUEST];
    let mut collector = Collector::start(&answers).await;
    let (tracing, desired) = tracing(Some(traces_at(collector.port)));
    let sending = tokio::spawn(tracing.clone().keep());
    take_over(&tracing, 1, None);
    let (_, _, first) = collector.next().await;
    until("it is a problem", || tracing.problem().is_some()).await;
    let problem = tracing.problem().unwrap();
    assert!(problem.contains(&format!("127.0.0.1:{} answered 503", collector.port)), "{problem}");
    let (_, _, again) = collector.next().await;
    assert_eq!(first, again, "the same ids, so that nobody counts it twice");
    until("it is taken", || counts(&tracing) == [1, 0]).await;
    assert_eq!(tracing.problem(), None);

    take_over(&tracing, 2, None);
    collector.next().await;
    until("it is dropped", || counts(&tracing) == [1, 1]).await;
    assert!(tracing.problem().unwrap().contains("answered 400 Bad Request to POST /v1/traces"));
    // Without the table there is nobody to fail, and nothing is kept.
    let without = Desired { traces: None, ..(**desired.borrow()).clone() };
    desired.send_replace(Arc::new(without));
    assert_eq!(tracing.problem(), None);
    take_over(&tracing, 3, None);
    assert!(lock(&tracing.0.waiting).is_empty() && lock(&tracing.0.begun).is_empty());
    sending.abort();
}

#[tokio::test]
async fn a_collector_that_is_down_costs_a_counted_drop_and_never_more_than_the_queue() {
    // Nobody sends: a collector that stands still looks the same to who has news.
    let (tracing, _desired) = tracing(Some(traces_at(9)));
    let surplus = 10;
    for epoch in 0..TRACES_QUEUE_MAX as u32 + surplus {
        take_over(&tracing, epoch, None);
    }
    assert_eq!(lock(&tracing.0.waiting).len(), TRACES_QUEUE_MAX);
    assert_eq!(counts(&tracing), [0, u64::from(surplus)]);
    let oldest = lock(&tracing.0.waiting).front().map(|(takeover, _)| takeover.epoch);
    assert_eq!(oldest, Some(surplus), "the oldest give way");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_for_a_minute_is_dropped() {
    // A port that was free a moment ago, and refuses.
    let port = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let (tracing, _desired) = tracing(Some(traces_at(port)));
    let sending = tokio::spawn(tracing.clone().keep());
    let began = Instant::now();
    take_over(&tracing, 1, None);
    while counts(&tracing) != [0, 1] {
        assert!(began.elapsed() < 2 * TRACES_RETRY, "it is dropped");
        time::sleep(ms(50)).await;
    }
    assert!(began.elapsed() > TRACES_RETRY / 3, "it was tried again for a while");
    let problem = tracing.problem().unwrap();
    assert!(problem.contains(&format!("127.0.0.1:{port}: ")), "{problem}");
    sending.abort();
}
