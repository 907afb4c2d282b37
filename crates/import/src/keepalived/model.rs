//! What keepalived's file says of addresses and who has them: `vrrp_instance`, `vrrp_sync_group`, and what they track.

use super::hmac::Hmac;
use super::script::Script;
use super::tree::{Node, Place};
use crate::draft::name;
use crate::notes::Notes;
use std::net::IpAddr;

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) scripts: Vec<Tracked>,
    pub(super) processes: Vec<Tracked>,
    pub(super) files: Vec<Tracked>,
    pub(super) instances: Vec<Instance>,
    pub(super) groups: Vec<SyncGroup>,
    pub(super) fifos: Vec<(Place, String)>,
    pub(super) script_user: Option<String>,
    pub(super) version: Option<u8>,
}

/// A `vrrp_script`, a `vrrp_track_process` or a `track_file`.
#[derive(Clone, Debug)]
pub(super) struct Tracked {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) script: Script,
    pub(super) process: Option<String>,
    /// The file that has a number in it.
    pub(super) file: Option<String>,
    /// Milliseconds.
    pub(super) interval: u64,
    pub(super) timeout: Option<u64>,
    pub(super) fall: u32,
    pub(super) rise: u32,
    pub(super) weight: i32,
}

#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) is_master: bool,
    pub(super) interface: Option<String>,
    pub(super) id: Option<u8>,
    pub(super) priority: u8,
    /// Milliseconds.
    pub(super) interval: Option<u64>,
    pub(super) version: Option<u8>,
    pub(super) addresses: Vec<Address>,
    pub(super) source: Option<String>,
    pub(super) peers: Vec<String>,
    pub(super) min_ttl: Option<u8>,
    pub(super) password: Option<String>,
    pub(super) hmac: Option<Hmac>,
    pub(super) failback: Failback,
    pub(super) accept: bool,
    pub(super) virtual_mac: bool,
    pub(super) is_message_checksum: bool,
    pub(super) tracks: Tracks,
    pub(super) notifies: Vec<Notify>,
    /// As Buoy writes them, each with its line.
    pub(super) routes: Vec<(Place, String)>,
    pub(super) rules: Vec<(Place, String)>,
}

/// When a host with a higher priority takes over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Failback {
    #[default]
    Now,
    Never,
    /// After so many milliseconds.
    After(u64),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Address {
    pub(super) place: Place,
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
    pub(super) interface: Option<String>,
    /// Not in the adverts.
    pub(super) is_excluded: bool,
}

/// What must be so for a host to have the addresses, each with its weight where it has one of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracks {
    pub(super) interfaces: Vec<(Place, String, Option<i32>)>,
    pub(super) scripts: Vec<(Place, String, Option<i32>)>,
    pub(super) processes: Vec<(Place, String, Option<i32>)>,
    pub(super) files: Vec<(Place, String, Option<i32>)>,
}

/// A program that is told.
#[derive(Clone, Debug)]
pub(super) struct Notify {
    pub(super) place: Place,
    /// The state that it is told of; none: all.
    pub(super) state: Option<&'static str>,
    pub(super) script: Script,
}

#[derive(Clone, Debug)]
pub(super) struct SyncGroup {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) members: Vec<String>,
    pub(super) tracks: Tracks,
    pub(super) notifies: Vec<Notify>,
}

/// Seconds with a fraction, in milliseconds.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let seconds: f64 = text.parse().ok()?;
    let millis = (seconds * 1000.0).round();
    // Within what a u64 holds exactly.
    (millis.is_finite() && (0.0..1e15).contains(&millis)).then_some(millis as u64)
}

/// A number, also where something stands behind it, as in `priority 100,text`: keepalived reads on.
pub(super) fn number<T: std::str::FromStr>(node: &Node, notes: &mut Notes) -> Option<T> {
    let word = node.word(1);
    if let Ok(number) = word.parse() {
        return Some(number);
    }
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let number = word[..end].parse().ok();
    match number {
        Some(_) => notes.say_at(
            &node.place,
            format!("of `{}` the number is read, and not what follows it", node.text()),
        ),
        None => notes.left_at(&node.place, &node.text(), "there is no number in it that would do"),
    }
    number
}

impl Tracked {
    pub(super) fn script(node: &Node, notes: &mut Notes) -> Self {
        let mut tracked = Self::new(node);
        for line in node.lines_once(&[], |_| false, notes) {
            match line.keyword() {
                "script" => {
                    let user = tracked.script.user.take();
                    tracked.script = Script { user, ..Script::whole(&line) };
                }
                "interval" => tracked.interval = seconds(line.word(1)).unwrap_or(tracked.interval),
                "timeout" => tracked.timeout = seconds(line.word(1)),
                "fall" => tracked.fall = number(&line, notes).unwrap_or(1),
                "rise" => tracked.rise = number(&line, notes).unwrap_or(1),
                "weight" => tracked.read_weight(&line, notes),
                "user" => {
                    notes.left_at(
                        &line.place,
                        &line.text(),
                        "a check of a VIP is run by the agent's own user",
                    );
                }
                "init_fail" => notes.left_at(
                    &line.place,
                    "init_fail",
                    "a check that has not been answered passes: a restart moves nothing",
                ),
                _ => notes.left_at(
                    &line.place,
                    &line.text(),
                    "no such keyword of a vrrp_script is known",
                ),
            }
        }
        tracked
    }

    pub(super) fn process(node: &Node, notes: &mut Notes) -> Self {
        let mut tracked = Self { weight: 1, ..Self::new(node) };
        for line in node.lines_once(&[], |_| false, notes) {
            match line.keyword() {
                "process" => {
                    tracked.process =
                        Some(line.word(1).rsplit('/').next().unwrap_or_default().to_owned());
                    if line.words.len() > 2 {
                        notes.left_at(
                            &line.place,
                            &line.text(),
                            "Buoy looks for the process by its name, not by its parameters",
                        );
                    }
                }
                "weight" => tracked.read_weight(&line, notes),
                _ => notes.left_at(
                    &line.place,
                    &line.text(),
                    "Buoy asks only whether a process of that name runs",
                ),
            }
        }
        tracked
    }

    pub(super) fn file(node: &Node, notes: &mut Notes) -> Self {
        let mut tracked = Self { weight: 1, ..Self::new(node) };
        for line in node.lines_once(&[], |_| false, notes) {
            match line.keyword() {
                "file" => tracked.file = Some(line.word(1).to_owned()),
                "weight" => tracked.read_weight(&line, notes),
                _ => notes.left_at(
                    &line.place,
                    &line.text(),
                    "Buoy reads the file, and never writes it",
                ),
            }
        }
        tracked
    }

    fn new(node: &Node) -> Self {
        Self {
            place: node.place.clone(),
            name: node.word(1).to_owned(),
            script: Script::default(),
            process: None,
            file: None,
            interval: 1000,
            timeout: None,
            fall: 1,
            rise: 1,
            weight: 0,
        }
    }

    fn read_weight(&mut self, line: &Node, notes: &mut Notes) {
        self.weight = line.word(1).parse().unwrap_or(0);
        if line.words.len() > 2 {
            notes.left_at(
                &line.place,
                &line.text(),
                "a check passes or fails, it cannot be turned round",
            );
        }
    }
}

/// Lists, which grow with each of their blocks.
pub(super) fn may_be_often(keyword: &str) -> bool {
    keyword.starts_with("virtual_ipaddress")
        || keyword.starts_with("track_")
        || matches!(keyword, "group" | "virtual_routes" | "virtual_rules")
}

impl SyncGroup {
    pub(super) fn read(node: &Node, notes: &mut Notes) -> Self {
        let mut group = Self {
            place: node.place.clone(),
            name: name(node.word(1)),
            members: Vec::new(),
            tracks: Tracks::default(),
            notifies: Vec::new(),
        };
        for line in node.lines_once(&[], may_be_often, notes) {
            match line.keyword() {
                "group" => group.members.extend(line.all_words().map(|(_, word)| word.to_owned())),
                "smtp_alert" => say_mail(&line, notes),
                "global_tracking" | "sync_group_tracking_weight" => {
                    notes.left_at(
                        &line.place,
                        &line.text(),
                        "what one VIP of a group asks for holds for all of it",
                    );
                }
                _ if group.tracks.take(&line, notes) => {}
                _ => match Notify::read(&line, notes) {
                    Some(notify) => notify.put(&mut group.notifies),
                    None => notes.left_at(
                        &line.place,
                        &line.text(),
                        "no such keyword of a vrrp_sync_group is known",
                    ),
                },
            }
        }
        group
    }
}

impl Tracks {
    /// Whether this is one of its lines.
    pub(super) fn take(&mut self, line: &Node, notes: &mut Notes) -> bool {
        let list = match line.keyword() {
            "track_interface" => &mut self.interfaces,
            "track_script" => &mut self.scripts,
            "track_process" => &mut self.processes,
            "track_file" => &mut self.files,
            "track_bfd" => {
                notes.left_at(&line.place, line.keyword(), "Buoy has no BFD");
                return true;
            }
            _ => return false,
        };
        for entry in &line.nodes {
            let mut words = entry.words.iter().peekable();
            while let Some(word) = words.next() {
                let mut weight = None;
                if words.next_if(|word| *word == "weight").is_some() {
                    weight = words.next().and_then(|word| word.parse().ok());
                    if words.next_if(|word| word.contains("reverse")).is_some() {
                        notes.left_at(
                            &entry.place,
                            &entry.text(),
                            "a check passes or fails, it cannot be turned round",
                        );
                    }
                }
                list.push((entry.place.clone(), word.clone(), weight));
            }
        }
        true
    }
}

impl Notify {
    pub(super) fn read(line: &Node, notes: &mut Notes) -> Option<Self> {
        let state = match line.keyword() {
            "notify" => None,
            "notify_master" => Some("MASTER"),
            "notify_backup" => Some("BACKUP"),
            "notify_fault" => Some("FAULT"),
            "notify_stop" => Some("STOP"),
            "notify_deleted" | "notify_master_rx_lower_pri" | "notify_priority_changes" => {
                notes.left_at(&line.place, &line.text(), "Buoy tells of no such state");
                return Some(Self {
                    place: line.place.clone(),
                    state: None,
                    script: Script::default(),
                });
            }
            _ => return None,
        };
        Some(Self { place: line.place.clone(), state, script: Script::notify(line) })
    }

    /// The last one of a state holds.
    pub(super) fn put(self, notifies: &mut Vec<Self>) {
        if !self.script.argv.is_empty() {
            notifies.retain(|before| before.state != self.state);
            notifies.push(self);
        }
    }
}

pub(super) fn say_mail(line: &Node, notes: &mut Notes) {
    notes.left_at(
        &line.place,
        &line.text(),
        "Buoy sends no mail: a [[hook]] tells a program or a server",
    );
}
