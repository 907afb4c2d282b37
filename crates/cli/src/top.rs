//! `buoy top`: the cluster in a terminal, live: who owns what, what runs through, what happened.

mod rates;
mod screen;

use crate::AgentSocket;
use crate::failure::Failure;
use buoy_api::{Client, ClusterStatus};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rates::Rates;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Records that are asked for.
const EVENTS: usize = 200;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
}

/// What the lower part of the screen shows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Panel {
    #[default]
    Vips,
    Backends,
    Events,
}

impl Panel {
    const ALL: [Self; 3] = [Self::Vips, Self::Backends, Self::Events];

    fn next(self) -> Self {
        match self {
            Self::Vips => Self::Backends,
            Self::Backends => Self::Events,
            Self::Events => Self::Vips,
        }
    }
}

/// What is known, and what the person looks at.
#[derive(Debug, Default)]
struct Top {
    status: ClusterStatus,
    /// Why `status` is of earlier.
    stale: Option<String>,
    rates: Rates,
    panel: Panel,
    /// Only backends and events of this VIP.
    only: Option<String>,
    row: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() {
        return Err(Failure::failed(
            "`buoy top` is for a terminal; for programs: buoy status --watch -o json",
        ));
    }
    let client = arguments.agent.client()?;
    let mut top = Top::default();
    // An agent that does not answer at the start is a failure like that of any command.
    top.take(client.status()?, Instant::now());
    let mut terminal = ratatui::try_init()
        .map_err(|error| Failure::failed(format!("this terminal cannot be drawn on: {error}")))?;
    let ended = watch(&mut terminal, &client, &mut top);
    ratatui::restore();
    ended.map_err(|error| Failure::failed(format!("the terminal: {error}")))
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    client: &Client,
    top: &mut Top,
) -> std::io::Result<()> {
    let mut look_at = Instant::now();
    loop {
        let now = Instant::now();
        if look_at <= now {
            look_at = now + LOOK_EVERY;
            top.look(client);
        }
        terminal.draw(|frame| screen::draw(top, frame))?;
        if event::poll(look_at.saturating_duration_since(Instant::now()))?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && top.press(key)
        {
            return Ok(());
        }
    }
}

impl Top {
    fn look(&mut self, client: &Client) {
        match client.status() {
            Ok(mut status) => {
                status.events = client.events(EVENTS).map(|reply| reply.events).unwrap_or_default();
                self.take(status, Instant::now());
            }
            Err(error) => self.stale = Some(error.to_string()),
        }
    }

    fn take(&mut self, status: ClusterStatus, now: Instant) {
        self.rates.take(&status, now);
        self.status = status;
        self.stale = None;
        self.row = self.row.min(self.rows().saturating_sub(1));
    }

    /// Whether this ends the command.
    fn press(&mut self, key: KeyEvent) -> bool {
        let is = |code: KeyCode| key.code == code;
        let last = self.rows().saturating_sub(1);
        let is_first = self.only.is_none() && self.panel == Panel::Vips;
        let is_interrupt = is(KeyCode::Char('c')) && key.modifiers.contains(KeyModifiers::CONTROL);
        if is(KeyCode::Char('q')) || is_interrupt || (is(KeyCode::Esc) && is_first) {
            return true;
        }
        let panels = [('1', Panel::Vips), ('2', Panel::Backends), ('3', Panel::Events)];
        if let Some((_, panel)) = panels.into_iter().find(|(name, _)| is(KeyCode::Char(*name))) {
            self.show(panel);
        } else if is(KeyCode::Tab) {
            self.show(self.panel.next());
        } else if is(KeyCode::Esc) {
            self.only = None;
            self.show(Panel::Vips);
        } else if is(KeyCode::Enter) && self.panel == Panel::Vips {
            self.only = self.status.vips.get(self.row).map(|vip| vip.name.clone());
            self.show(Panel::Backends);
        } else if is(KeyCode::Home) {
            self.row = 0;
        } else if is(KeyCode::End) {
            self.row = last;
        }
        let steps = [
            (KeyCode::Down, 1),
            (KeyCode::Char('j'), 1),
            (KeyCode::PageDown, 10),
            (KeyCode::Up, -1),
            (KeyCode::Char('k'), -1),
            (KeyCode::PageUp, -10),
        ];
        if let Some((_, step)) = steps.into_iter().find(|(code, _)| is(*code)) {
            self.row = self.row.saturating_add_signed(step).min(last);
        }
        false
    }

    fn show(&mut self, panel: Panel) {
        self.panel = panel;
        self.row = 0;
    }

    /// Whether something of this VIP is shown.
    fn shows(&self, vip: Option<&str>) -> bool {
        self.only.as_deref().is_none_or(|only| vip == Some(only))
    }

    /// How many rows the panel has.
    fn rows(&self) -> usize {
        match self.panel {
            Panel::Vips => self.status.vips.len(),
            Panel::Backends => {
                let vips = self.status.vips.iter().filter(|vip| self.shows(Some(&vip.name)));
                vips.flat_map(|vip| &vip.services).map(|service| service.backends.len()).sum()
            }
            Panel::Events => {
                let events = self.status.events.iter();
                events.filter(|event| self.shows(event.vip.as_deref())).count()
            }
        }
    }
}

#[cfg(test)]
mod tests;
