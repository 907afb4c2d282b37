//! Reads a `vrrp_instance`.

use super::hmac::Hmac;
use super::model::{
    Address, Failback, Instance, Notify, Tracks, may_be_often, number, say_mail, seconds,
};
use super::routes;
use super::tree::{Node, Place};
use crate::draft::name;
use crate::notes::Notes;
use crate::vaddrs::split;

/// keepalived's priority where none is written.
const PRIORITY_USUAL: u8 = 100;
/// What authentication has on one line.
const AUTHENTICATION: [&str; 2] = ["auth_type", "auth_pass"];

impl Instance {
    pub(super) fn read(node: &Node, notes: &mut Notes) -> Self {
        let mut instance = Self {
            place: node.place.clone(),
            name: name(node.word(1)),
            is_master: false,
            interface: None,
            id: None,
            priority: PRIORITY_USUAL,
            interval: None,
            version: None,
            addresses: Vec::new(),
            source: None,
            peers: Vec::new(),
            min_ttl: None,
            password: None,
            hmac: None,
            failback: Failback::Now,
            accept: true,
            virtual_mac: false,
            is_message_checksum: false,
            tracks: Tracks::default(),
            notifies: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
        };
        for line in node.lines_once(&[], may_be_often, notes) {
            instance.read_line(&line, notes);
        }
        instance
    }

    fn read_line(&mut self, line: &Node, notes: &mut Notes) {
        match line.keyword() {
            "state" => self.is_master = line.word(1).eq_ignore_ascii_case("MASTER"),
            "interface" => self.interface = interface(line, 1, notes),
            "virtual_router_id" => self.id = number(line, notes),
            "priority" => self.priority = number(line, notes).unwrap_or(PRIORITY_USUAL),
            "advert_int" => {
                self.interval = seconds(line.word(1));
                if self.interval.is_none() {
                    notes.left_at(&line.place, &line.text(), "it is no number of seconds");
                }
            }
            "version" => self.version = number(line, notes),
            "unicast_src_ip" | "mcast_src_ip" => self.source = Some(line.word(1).to_owned()),
            "unicast_peer" => self.read_peers(line, notes),
            "virtual_ipaddress" => self.read_addresses(line, false, notes),
            "virtual_ipaddress_excluded" => self.read_addresses(line, true, notes),
            "virtual_routes" => self.routes.extend(texts(line, routes::route, notes)),
            "virtual_rules" => self.rules.extend(texts(line, routes::rule, notes)),
            "authentication" => self.read_authentication(line, notes),
            "auth_hmac" => self.hmac = Some(Hmac::read(line, notes)),
            "nopreempt" => self.failback = Failback::Never,
            "preempt" => self.failback = Failback::Now,
            "preempt_delay" => {
                if let (Some(millis), true) =
                    (seconds(line.word(1)), self.failback != Failback::Never)
                {
                    self.failback =
                        if millis == 0 { Failback::Now } else { Failback::After(millis) };
                }
            }
            "accept" => {
                self.accept = true;
                notes.say_at(&line.place, "`accept` needs no key: the owner takes packets in Buoy");
            }
            "no_accept" => self.accept = false,
            "use_vmac" | "use_vmac_addr" => self.read_virtual_mac(line, notes),
            "v3_checksum_as_v2" => self.is_message_checksum = true,
            _ => self.read_rest(line, notes),
        }
    }

    fn read_rest(&mut self, line: &Node, notes: &mut Notes) {
        match line.keyword() {
            "smtp_alert" => say_mail(line, notes),
            "native_ipv6"
            | "unicast_fault_no_peer"
            | "check_unicast_src"
            | "track_src_ip"
            | "skip_check_adv_addr"
            | "promote_secondaries" => {
                notes.say_at(
                    &line.place,
                    format!("`{}` needs no key: it is so in Buoy", line.text()),
                );
            }
            "dont_track_primary" => {
                notes.left_at(&line.place, &line.text(), "the interface of a VIP is always watched")
            }
            "vmac_xmit_base" => {
                let why = "advertisements leave with the hardware address of the virtual router (RFC 9568 §7.3)";
                notes.left_at(&line.place, &line.text(), why);
            }
            "vrf"
            | "use_ipvlan"
            | "mcast_dst_ip"
            | "strict_mode"
            | "old_unicast_checksum"
            | "kernel_rx_buf_size"
            | "debug" => {
                notes.left_at(&line.place, &line.text(), "Buoy has nothing like it");
            }
            "unicast_ttl"
            | "down_timer_adverts"
            | "lower_prio_no_advert"
            | "higher_prio_send_advert"
            | "linkbeat_use_polling" => {
                notes.left_at(
                    &line.place,
                    &line.text(),
                    "how Buoy speaks follows RFC 9568 and is not set",
                );
            }
            "lvs_sync_daemon" | "lvs_sync_daemon_interface" => {
                notes.left_at(
                    &line.place,
                    &line.text(),
                    "Buoy does not use IPVS: flows that must be known are told by its exchange",
                );
            }
            word if word.starts_with("garp_") || word.starts_with("vrrp_garp") => {
                notes.left_at(&line.place, &line.text(), "addresses are announced at once, again after a while, and when somebody else claims them");
            }
            _ if self.tracks.take(line, notes) => {}
            _ => match Notify::read(line, notes) {
                Some(notify) => notify.put(&mut self.notifies),
                None => notes.left_at(
                    &line.place,
                    &line.text(),
                    "no such keyword of a vrrp_instance is known",
                ),
            },
        }
    }

    fn read_virtual_mac(&mut self, line: &Node, notes: &mut Notes) {
        self.virtual_mac = true;
        for name in line.words.iter().skip(1) {
            let why = "its interface is named after the virtual_router_id: vrrp.ID or vrrp6.ID";
            notes.left_at(&line.place, &format!("{} {name}", line.keyword()), why);
        }
    }

    fn read_peers(&mut self, line: &Node, notes: &mut Notes) {
        for entry in &line.nodes {
            let mut words = entry.words.iter();
            while let Some(word) = words.next() {
                match word.as_str() {
                    "min_ttl" => self.min_ttl = words.next().and_then(|word| word.parse().ok()),
                    "max_ttl" => {
                        let value = words.next().map_or("", String::as_str);
                        notes.left_at(
                            &entry.place,
                            &format!("max_ttl {value}"),
                            "Buoy looks at the least TTL only",
                        );
                    }
                    peer if peer.parse::<std::net::IpAddr>().is_ok() => {
                        self.peers.push(peer.to_owned())
                    }
                    word => notes.left_at(&entry.place, word, "a peer is an address"),
                }
            }
        }
    }

    fn read_addresses(&mut self, line: &Node, is_excluded: bool, notes: &mut Notes) {
        for entry in &line.nodes {
            self.read_address(entry, is_excluded, notes);
        }
    }

    /// `10.0.0.1/24 brd 10.0.0.255 dev eth1 scope global label eth1:1`, or several addresses on one line.
    fn read_address(&mut self, entry: &Node, is_excluded: bool, notes: &mut Notes) {
        let mut words = entry.words.iter();
        while let Some(word) = words.next() {
            if let Some((ip, prefix)) = split(word) {
                let prefix = prefix.unwrap_or_else(|| {
                    let whole = if ip.is_ipv4() { 32 } else { 128 };
                    notes.say_at(&entry.place, format!("{ip} has no prefix, which is /{whole} in keepalived: write that of its subnet"));
                    whole
                });
                let (place, interface) = (entry.place.clone(), None);
                self.addresses.push(Address { place, ip, prefix, interface, is_excluded });
                continue;
            }
            match word.as_str() {
                "dev" => {
                    let interface = words.next().cloned();
                    if let Some(last) = self.addresses.last_mut() {
                        last.interface = interface;
                    }
                }
                "brd" | "broadcast" | "scope" | "label" | "peer" | "preferred_lft" => {
                    let value = words.next().map_or("", String::as_str);
                    notes.left_at(
                        &entry.place,
                        &format!("{word} {value}"),
                        "an address has its prefix and its interface in Buoy",
                    );
                }
                "home" | "-nodad" | "mngtmpaddr" | "noprefixroute" | "autojoin" | "no_track"
                | "use_vmac" | "track_group" => {
                    notes.left_at(
                        &entry.place,
                        word,
                        "an address has its prefix and its interface in Buoy",
                    );
                }
                _ => notes.left_at(&entry.place, &entry.text(), "it is no address"),
            }
        }
    }

    fn read_authentication(&mut self, line: &Node, notes: &mut Notes) {
        for entry in line.lines_of(&AUTHENTICATION) {
            match (entry.keyword(), entry.word(1)) {
                ("auth_type", kind) if kind.eq_ignore_ascii_case("PASS") => {}
                ("auth_type", kind) if kind.eq_ignore_ascii_case("AH") => {
                    notes.left_at(
                        &entry.place,
                        "auth_type AH",
                        "it was given up by RFC 3768, and Buoy does not speak it",
                    );
                }
                ("auth_pass", password) => {
                    let kept: String = password.chars().take(8).collect();
                    if kept != password {
                        notes.say_at(
                            &entry.place,
                            "of a password keepalived uses the first eight characters",
                        );
                    }
                    self.password = Some(kept);
                }
                (keyword, _) => {
                    notes.left_at(&entry.place, keyword, "of authentication Buoy knows passwords")
                }
            }
        }
    }
}

/// The lines of a list that Buoy can have, each with its place.
fn texts(
    list: &Node,
    read: fn(&Node, &mut Notes) -> Option<String>,
    notes: &mut Notes,
) -> Vec<(Place, String)> {
    let text = |line: &Node| Some((line.place.clone(), read(line, notes)?));
    list.nodes.iter().filter_map(text).collect()
}

/// The name of an interface; what a template left there is none.
fn interface(line: &Node, at: usize, notes: &mut Notes) -> Option<String> {
    let word = line.word(at);
    if word.contains('{') || word.is_empty() {
        notes.left_at(&line.place, &line.text(), "it is a template and no name: fill it in");
        return None;
    }
    Some(word.to_owned())
}
