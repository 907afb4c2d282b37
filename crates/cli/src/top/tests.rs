//! What `buoy top` shows and does, on a made-up terminal.

use super::*;
use buoy_api::{BackendView, EventView, NodeView, ServiceView, Traffic, VipView};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn status(packets: u64) -> ClusterStatus {
    let node = |name: &str, alive| NodeView {
        name: name.into(),
        alive,
        owns: usize::from(alive),
        state: if alive { "heard 3 ms ago" } else { "silent" }.into(),
        ..NodeView::default()
    };
    let backend = |name: &str, packets: u64, state: &str| BackendView {
        name: name.into(),
        state: state.into(),
        weight: 1,
        traffic: Some(Traffic { connections: packets / 10, packets, bytes: packets * 100 }),
        ..BackendView::default()
    };
    let service = ServiceView {
        name: "web:443/tcp".into(),
        up: 1,
        backends: vec![backend("web1", packets * 3, "up"), backend("web2", packets, "down")],
        ..ServiceView::default()
    };
    let vip = |name: &str, owner: Option<&str>, services| VipView {
        name: name.into(),
        owner: owner.map(str::to_owned),
        epoch: 7,
        services,
        problem: owner.is_none().then(|| "no majority".to_owned()),
        ..VipView::default()
    };
    ClusterStatus {
        cluster: "prod".into(),
        node: "lb1".into(),
        nodes: vec![node("lb1", true), node("lb2", false)],
        vips: vec![vip("web", Some("lb1"), vec![service]), vip("dns", None, Vec::new())],
        events: vec![EventView {
            seq: None,
            at: 0,
            node: None,
            vip: Some("dns".into()),
            kind: "released".into(),
            sentence: "lb1 gave it\x1b[2J up".into(),
            phases: None,
        }],
        ..ClusterStatus::default()
    }
}

fn top() -> Top {
    let (mut top, now) = (Top::default(), Instant::now());
    top.take(status(1000), now);
    top.take(status(3000), now + Duration::from_secs(2));
    top
}

fn screen(top: &Top) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(120, 18)).unwrap();
    terminal.draw(|frame| screen::draw(top, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..120).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..18).map(|y| line(y).trim_end().to_owned()).collect()
}

fn press(top: &mut Top, code: KeyCode) -> bool {
    top.press(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn owners_rates_and_problems_are_on_the_first_screen() {
    let lines = screen(&top());
    assert!(lines[0].contains("prod as lb1 sees it   nodes 1/2   VIPs owned 1/2"), "{lines:#?}");
    assert!(lines[1].contains("! dns: no majority"), "{lines:#?}");
    let web = lines.iter().find(|line| line.starts_with(" web")).unwrap();
    assert!(web.contains("lb1") && web.contains("1/2") && web.contains("400"), "{web}");
    let dns = lines.iter().find(|line| line.starts_with(" dns")).unwrap();
    assert!(dns.contains("nobody") && dns.contains("no majority"), "{dns}");
}

#[test]
fn a_vip_leads_to_its_backends_and_back() {
    let mut top = top();
    assert!(!press(&mut top, KeyCode::Enter));
    let lines = screen(&top);
    let row = |name: &str| lines.iter().find(|line| line.contains(name)).unwrap().clone();
    // Three of four packets, where all are due: the other backend is down.
    assert!(row("web1").contains("########..  75% of 100%"), "{lines:#?}");
    assert!(row("web2").contains("down") && row("web2").contains(" 25% of 0%"), "{lines:#?}");
    assert!(!press(&mut top, KeyCode::Esc), "back first");
    assert_eq!((top.panel, top.only.is_none()), (Panel::Vips, true));
    press(&mut top, KeyCode::Down);
    press(&mut top, KeyCode::Down);
    assert_eq!(top.row, 1, "the last one");
    press(&mut top, KeyCode::Enter);
    assert_eq!(top.rows(), 0, "dns has no backends");
    press(&mut top, KeyCode::Tab);
    let lines = screen(&top);
    assert!(lines.iter().any(|line| line.contains("lb1 gave it?[2J up")), "{lines:#?}");
    assert!(press(&mut top, KeyCode::Char('q')));
}

#[test]
fn an_agent_that_went_away_is_said_and_the_last_answer_stays() {
    let mut top = top();
    top.stale = Some("nobody listens".into());
    let lines = screen(&top);
    assert!(lines[1].contains("what is shown is old: nobody listens"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with(" web")));
}

#[test]
fn numbers_are_short() {
    let table = [
        (0.0, "0"),
        (999.0, "999"),
        (1_000.0, "1.00k"),
        (12_345.0, "12.3k"),
        (4.56e6, "4.56M"),
        (7e11, "700G"),
    ];
    for (value, text) in table {
        assert_eq!(rates::short(value), text);
    }
}
