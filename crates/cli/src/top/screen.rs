//! Draws `buoy top`: a line of summary, the nodes, and one of three panels.

use super::rates::{Rate, short};
use super::{Panel, Top};
use crate::events::moment;
use crate::status::span;
use crate::table::plain;
use buoy_api::{BackendView, NodeView, ServiceView, VipView};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table, TableState};

/// Rows of nodes that are shown.
const NODES_SHOWN: usize = 8;
/// Columns of the bar of a share.
const BAR: usize = 10;

pub(super) fn draw(top: &Top, frame: &mut Frame<'_>) {
    let nodes = u16::try_from(top.status.nodes.len().min(NODES_SHOWN)).unwrap_or(1) + 1;
    let problems = u16::try_from(problems(top).len().min(3)).unwrap_or(0);
    let [head, warnings, map, tabs, panel, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(problems),
        Constraint::Length(nodes),
        Constraint::Length(2),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(heading(top), head);
    frame.render_widget(Paragraph::new(problems_lines(top)), warnings);
    frame.render_widget(node_table(&top.status.nodes), map);
    frame.render_widget(tab_line(top), tabs);
    match top.panel {
        Panel::Vips => vips(top, frame, panel),
        Panel::Backends => backends(top, frame, panel),
        Panel::Events => events(top, frame, panel),
    }
    let keys =
        " Tab or 1 2 3: panel   Up Down: row   Enter: backends of a VIP   Esc: back   q: end";
    frame.render_widget(Paragraph::new(keys).dark_gray(), foot);
}

fn heading(top: &Top) -> Paragraph<'static> {
    let status = &top.status;
    let alive = status.nodes.iter().filter(|node| node.alive || node.me).count();
    let owned = status.vips.iter().filter(|vip| vip.owner.is_some()).count();
    let text = format!(
        " {} as {} sees it   nodes {alive}/{}   VIPs owned {owned}/{}   digest {}",
        plain(&status.cluster),
        plain(&status.node),
        status.nodes.len(),
        status.vips.len(),
        status.digest
    );
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::REVERSED))
}

fn problems(top: &Top) -> Vec<String> {
    let stale = top.stale.iter().map(|why| format!("what is shown is old: {why}"));
    let vips = top.status.vips.iter();
    let vips =
        vips.filter_map(|vip| vip.problem.as_ref().map(|why| format!("{}: {why}", vip.name)));
    stale.chain(top.status.problems.iter().cloned()).chain(vips).map(|line| plain(&line)).collect()
}

fn problems_lines(top: &Top) -> Vec<Line<'static>> {
    problems(top).into_iter().map(|line| Line::from(format!(" ! {line}")).red()).collect()
}

fn head(cells: &[&'static str]) -> Row<'static> {
    Row::new(cells.to_vec()).style(Style::new().bold())
}

fn node_table(nodes: &[NodeView]) -> Table<'static> {
    let row = |node: &NodeView| {
        let style = if node.alive || node.me { Style::new() } else { Style::new().red() };
        Row::new([
            format!(" {}", plain(&node.name)),
            node.owns.to_string(),
            node.round_trip_ms.map(span).unwrap_or_default(),
            plain(&node.state),
        ])
        .style(style)
    };
    let widths =
        [Constraint::Max(24), Constraint::Length(5), Constraint::Length(8), Constraint::Fill(1)];
    Table::new(nodes.iter().take(NODES_SHOWN).map(row), widths)
        .header(head(&[" NODE", "OWNS", "RTT", "STATE"]))
}

fn tab_line(top: &Top) -> Paragraph<'static> {
    let mut spans = vec![Span::raw("\n ")];
    for (place, panel) in Panel::ALL.into_iter().enumerate() {
        let name = match panel {
            Panel::Vips => "VIPs",
            Panel::Backends => "Backends",
            Panel::Events => "Events",
        };
        let name = format!(" {} {name} ", place + 1);
        let is_shown = panel == top.panel;
        spans.push(if is_shown { Span::from(name).reversed() } else { Span::raw(name) });
    }
    if let Some(only) = &top.only {
        spans.push(Span::raw(format!("   only of {}", plain(only))));
    }
    Paragraph::new(Line::from(spans)).block(Block::new().padding(ratatui::widgets::Padding::top(1)))
}

fn panel<const N: usize>(
    top: &Top,
    frame: &mut Frame<'_>,
    area: Rect,
    columns: [(&'static str, Constraint); N],
    rows: Vec<Row<'static>>,
) {
    let table = Table::new(rows, columns.map(|(_, width)| width))
        .header(head(&columns.map(|(name, _)| name)))
        .row_highlight_style(Style::new().bg(Color::DarkGray));
    let mut state = TableState::new().with_selected(Some(top.row));
    frame.render_stateful_widget(table, area, &mut state);
}

fn vips(top: &Top, frame: &mut Frame<'_>, area: Rect) {
    let rows = top.status.vips.iter().map(|vip| vip_row(top, vip)).collect();
    let columns = [
        (" VIP", Constraint::Max(20)),
        ("ADDRESS", Constraint::Max(28)),
        ("OWNER", Constraint::Max(16)),
        ("EPOCH", Constraint::Length(6)),
        ("SINCE", Constraint::Length(8)),
        ("UP", Constraint::Length(8)),
        ("CONN/s", Constraint::Length(7)),
        ("BIT/s", Constraint::Length(7)),
        ("PROBLEM", Constraint::Fill(1)),
    ];
    panel(top, frame, area, columns, rows);
}

fn vip_row(top: &Top, vip: &VipView) -> Row<'static> {
    let address = vip.addresses.first().map(|first| match vip.addresses.len() {
        1 => first.address.clone(),
        more => format!("{} +{}", first.address, more - 1),
    });
    let (up, all) = vip
        .services
        .iter()
        .fold((0, 0), |(up, all), service| (up + service.up, all + service.backends.len()));
    let rates = vip.services.iter().flat_map(|service| rates(top, service));
    let sum = rates.flatten().reduce(|a, b| Rate {
        connections: a.connections + b.connections,
        packets: a.packets + b.packets,
        bits: a.bits + b.bits,
    });
    let style = match (&vip.owner, &vip.problem) {
        (None, _) => Style::new().red(),
        (_, Some(_)) => Style::new().yellow(),
        (Some(_), None) => Style::new(),
    };
    let owner = vip.owner.clone().or_else(|| vip.router.clone()).unwrap_or_else(|| "nobody".into());
    Row::new([
        format!(" {}", plain(&vip.name)),
        address.unwrap_or_default(),
        plain(&owner),
        vip.epoch.to_string(),
        vip.since_ms.map(span).unwrap_or_default(),
        if all == 0 { String::new() } else { format!("{up}/{all}") },
        sum.map(|sum| short(sum.connections)).unwrap_or_default(),
        sum.map(|sum| short(sum.bits)).unwrap_or_default(),
        plain(vip.problem.as_deref().unwrap_or_default()),
    ])
    .style(style)
}

fn rates(top: &Top, service: &ServiceView) -> Vec<Option<Rate>> {
    service.backends.iter().map(|backend| top.rates.of(&service.name, &backend.name)).collect()
}

fn backends(top: &Top, frame: &mut Frame<'_>, area: Rect) {
    let mut rows = Vec::new();
    for vip in top.status.vips.iter().filter(|vip| top.shows(Some(&vip.name))) {
        for service in &vip.services {
            let rates = rates(top, service);
            let all: f64 = rates.iter().flatten().map(|rate| rate.packets).sum();
            let weights: f64 = service.backends.iter().map(wants).sum();
            for (backend, rate) in service.backends.iter().zip(rates) {
                let share = rate.filter(|_| all > 0.0).map(|rate| rate.packets / all);
                let due = if weights > 0.0 { wants(backend) / weights } else { 0.0 };
                rows.push(backend_row(service, backend, rate, (share, due)));
            }
        }
    }
    let columns = [
        (" SERVICE", Constraint::Max(28)),
        ("BACKEND", Constraint::Max(20)),
        ("STATE", Constraint::Length(8)),
        ("CONN/s", Constraint::Length(7)),
        ("PKT/s", Constraint::Length(7)),
        ("BIT/s", Constraint::Length(7)),
        ("SHARE OF PACKETS", Constraint::Length(24)),
        ("WHY", Constraint::Fill(1)),
    ];
    panel(top, frame, area, columns, rows);
}

/// The weight that counts at the moment.
fn wants(backend: &BackendView) -> f64 {
    let takes = matches!(backend.state.as_str(), "up" | "unknown") && !backend.backup;
    let share = f64::from(backend.share.unwrap_or(100)) / 100.0;
    if takes { f64::from(backend.weight) * share } else { 0.0 }
}

fn backend_row(
    service: &ServiceView,
    backend: &BackendView,
    rate: Option<Rate>,
    (share, due): (Option<f64>, f64),
) -> Row<'static> {
    let style = match backend.state.as_str() {
        "down" => Style::new().red(),
        "drain" | "maint" => Style::new().yellow(),
        _ => Style::new(),
    };
    let bar = share.map(|share| {
        let full = (share * BAR as f64).round() as usize;
        let bar = format!("{}{}", "#".repeat(full.min(BAR)), ".".repeat(BAR - full.min(BAR)));
        format!("{bar} {:>3.0}% of {:.0}%", share * 100.0, due * 100.0)
    });
    let rate = |of: fn(&Rate) -> f64| rate.as_ref().map(|rate| short(of(rate))).unwrap_or_default();
    Row::new([
        format!(" {}", plain(&service.name)),
        plain(&backend.name),
        backend.state.clone(),
        rate(|rate| rate.connections),
        rate(|rate| rate.packets),
        rate(|rate| rate.bits),
        bar.unwrap_or_default(),
        plain(&backend.reason),
    ])
    .style(style)
}

fn events(top: &Top, frame: &mut Frame<'_>, area: Rect) {
    let shown = top.status.events.iter().rev().filter(|event| top.shows(event.vip.as_deref()));
    let rows = shown.map(|event| {
        let vip = event.vip.clone().unwrap_or_else(|| "-".into());
        Row::new([format!(" {}", moment(event.at)), plain(&vip), plain(&event.sentence)])
    });
    let columns = [
        (" TIME (UTC), LATEST FIRST", Constraint::Length(26)),
        ("VIP", Constraint::Max(20)),
        ("WHAT HAPPENED", Constraint::Fill(1)),
    ];
    let rows = rows.collect();
    panel(top, frame, area, columns, rows);
}
