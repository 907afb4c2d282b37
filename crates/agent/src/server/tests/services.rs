//! What is told of services, and what is ordered of their backends.

use super::*;
use buoy_api::BackendOrderRequest;
use buoy_model::{Duty, OrderedWeight};
use serde_json::json;

const WEB1: (&str, &str) = ("web:443", "web1");

fn request() -> BackendOrderRequest {
    BackendOrderRequest::default()
}

#[test]
fn services_are_told_with_their_names_and_backends() {
    let server = Running::start();
    let all = server.client().services().unwrap();
    assert_eq!((all.node.as_str(), all.services.len()), ("lb1", 1));
    let one = server.client().service("10.0.0.100:443").unwrap();
    assert_eq!(one, all.services[0]);
    assert_eq!((one.service.name.as_str(), one.haproxy.as_str()), ("web:443/tcp", "web:443-tcp"));
    assert_eq!((one.addresses.as_slice(), one.service.up), (&["10.0.0.100".to_owned()][..], 2));
    let flows = server.client().flows("web", "web1").unwrap();
    assert_eq!((flows.flows.open, flows.engine.as_str()), (Some(3), "nftables"));
    let all = server.client().flows_of_all("web").unwrap();
    assert_eq!((all.service.as_str(), all.engine.as_str()), ("web:443/tcp", "nftables"));
    let open: Vec<_> = all.backends.iter().map(|b| (b.backend.as_str(), b.flows.open)).collect();
    assert_eq!(open, [("web1", Some(3)), ("web2", None), ("web3", None)]);
}

#[test]
fn lists_are_read_in_pages_of_so_many_vips() {
    let server = Running::start();
    let client = server.client();
    let all = client.vips().unwrap();
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let page = client.vips_page(1, after.as_deref()).unwrap();
        assert_eq!((page.vips.len(), page.node.as_str()), (1, "lb1"));
        pages.extend(page.vips);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, all.vips, "the pages are the list");
    assert_eq!(all.next, None);

    let ask = |target: &str| -> serde_json::Value {
        serde_json::from_slice(&client.text(target).unwrap()).unwrap()
    };
    for list in ["services", "backends"] {
        let target = format!("/v1/{list}?limit=1");
        let first = ask(&target);
        // Of two VIPs the first has nothing to balance.
        assert_eq!((&first[list], &first["next"]), (&json!([]), &json!("db")), "{list}");
        let second = ask(&format!("{target}&after=db"));
        assert_eq!((&second[list], second.get("next")), (&ask(&format!("/v1/{list}"))[list], None));
        assert!(second[list].as_array().is_some_and(|all| !all.is_empty()), "{list}");
    }
    for wrong in ["0", "-1", "x", "4294967296"] {
        let refused = client.text(&format!("/v1/vips?limit={wrong}")).unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(p) if p.status == 400), "{refused}");
    }
}

#[test]
fn a_backend_is_drained_with_who_asked_and_shown_so_everywhere() {
    let server = Running::start();
    let client = server.client();
    let by = format!("patching (by {})", account::user_name(nix::unistd::getuid().as_raw()));
    let drain = BackendOrderRequest { reason: Some("patching".into()), ..request() };
    let reply = client.order_backend(WEB1, "drain", &drain).unwrap();
    assert_eq!((reply.service.as_str(), reply.backend.as_str()), ("web:443/tcp", "web1"));
    assert_eq!((reply.order.duty.as_str(), &reply.order.reason), ("drain", &by));
    assert_eq!((reply.order.at, reply.order.node.as_str()), (7_000, "lb1"));

    let vips = client.status().unwrap().vips;
    let service = &vips.iter().find(|v| v.name == "web").unwrap().services[0];
    let web1 = &service.backends[0];
    let said = format!("takes no new connections by order: {by}, on lb1");
    assert_eq!((web1.state.as_str(), &web1.reason, service.up), ("drain", &said, 1));
    let why = client.why("web").unwrap().vip.services.remove(0);
    assert_eq!(&why, service);

    client.order_backend(WEB1, "enable", &request()).unwrap();
    let service = client.service("web:443").unwrap().service;
    assert_eq!((service.backends[0].state.as_str(), service.up), ("up", 2));
    assert_eq!(service.backends[0].order, None, "nothing holds any more");
}

#[test]
fn every_order_is_what_it_says() {
    let server = Running::start();
    let client = server.client();
    let before = wall_clock();
    let timed = BackendOrderRequest { for_ms: Some(60_000), ..request() };
    client.order_backend(WEB1, "drain", &timed).unwrap();
    let Some(Duty::Drain { until: Some(until) }) = server.fake.ordered("web1").map(|o| o.duty)
    else {
        panic!("{:?}", server.fake.ordered("web1"));
    };
    assert!((before + 60_000..=wall_clock() + 60_000).contains(&until));
    for (verb, duty) in
        [("disable", Duty::Maint), ("ready", Duty::Ready), ("enable", Duty::Configured)]
    {
        client.order_backend(WEB1, verb, &request()).unwrap();
        assert_eq!(server.fake.ordered("web1").unwrap().duty, duty, "{verb}");
    }
    for (text, weight) in [
        ("0", OrderedWeight::Fixed(0)),
        ("50%", OrderedWeight::Percent(50)),
        ("configured", OrderedWeight::Configured),
    ] {
        let weighs = BackendOrderRequest { weight: Some(text.into()), ..request() };
        let reply = client.order_backend(WEB1, "weight", &weighs).unwrap();
        assert_eq!(server.fake.ordered("web1").unwrap().weight, weight, "{text}");
        let shown = (text != "configured").then(|| text.to_owned());
        assert_eq!(reply.order.weight, shown);
    }
}

#[test]
fn what_is_no_order_is_refused_with_what_would_be() {
    let server = Running::start();
    let client = server.client();
    let refused = |backend, verb: &str, request: BackendOrderRequest| {
        let problem = problem(client.order_backend(backend, verb, &request));
        (problem.code, format!("{}: {}", problem.title, problem.detail))
    };
    let weighs = |text: &str| BackendOrderRequest { weight: Some(text.into()), ..request() };
    let timed = || BackendOrderRequest { for_ms: Some(0), ..request() };
    let table = [
        (("web:443", "web-1"), "drain", request(), "unknown_backend", "did you mean web1?"),
        (("web:80", "web1"), "drain", request(), "unknown_service", "the file has web:443/tcp"),
        (WEB1, "stop", request(), "unknown_verb", "drain, disable, enable, ready and weight"),
        (WEB1, "weight", request(), "weight", "0 to 256"),
        (WEB1, "weight", weighs("300"), "weight", "0 to 256"),
        (WEB1, "drain", timed(), "for", "more than nothing"),
        (WEB1, "enable", timed(), "not_of_it", "`for_ms` is of drain"),
        (WEB1, "drain", weighs("1"), "not_of_it", "`weight` of weight"),
    ];
    for (backend, verb, request, code, part) in table {
        let (said_code, said) = refused(backend, verb, request);
        assert_eq!(said_code, code, "{said}");
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(server.fake.ordered("web1"), None, "nothing was ordered");
    assert_eq!(problem(client.flows("web", "web9")).code, "unknown_backend");
    assert_eq!(problem(client.service("mail")).code, "unknown_service");
    assert_eq!(problem(client.flows_of_all("mail")).code, "unknown_service");
}

#[test]
fn who_asks_about_some_vips_costs_the_loop_no_other() {
    let server = Running::start();
    let client = server.client();
    client.why("web").unwrap();
    client.owner("web").unwrap();
    client.service("web:443/tcp").unwrap();
    server.raw("GET /v1/vips/web HTTP/1.0\r\n\r\n");
    server.raw("POST /v1/vips/web/hold?dry_run=1 HTTP/1.0\r\n\r\n");
    let looked = || std::mem::take(&mut *server.fake.looked.lock().unwrap());
    assert_eq!(looked(), vec![Some(vec![web_id()]); 5]);
    client.vips_page(1, Some("db")).unwrap();
    assert_eq!(looked(), [Some(vec![web_id()])], "a page of VIPs");
    for list in ["services", "backends", "services?limit=1", "backends?limit=1"] {
        client.text(&format!("/v1/{list}")).unwrap();
        assert_eq!(looked(), [Some(vec![])], "{list}: what is behind VIPs is not the loop's");
    }
}
