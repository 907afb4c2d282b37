//! Reads keepalived's file: its virtual routers become VIPs under VRRP or, where all hosts will run Buoy, under the lease; its
//! virtual servers become services.
//!
//! `lines` reads as keepalived reads, `tree` finds the blocks, `model`, `instance`, `server` and `check` what they say, and
//! `vips` and `hooks` write it.

mod check;
mod hmac;
mod hooks;
mod instance;
mod lines;
mod model;
mod routes;
mod script;
mod server;
mod tree;
mod vips;

pub use lines::Include;
pub(crate) use tree::Place;

use crate::draft::Table;
use crate::notes::Notes;
use crate::{Imported, Options, finish};
use lines::Reader;
use model::{Instance, Model, SyncGroup, Tracked, say_mail};
use server::Service;
use tree::Node;

/// Reads `text`, which is called `file`; `include` finds the files that it includes, by their pattern and the file that asks.
pub fn keepalived(text: &str, file: &str, options: &Options, include: &Include<'_>) -> Imported {
    let mut notes = Notes::new(file);
    let lines = Reader::new(options.host.as_deref(), include, &mut notes).read(text, file);
    let nodes = tree::read(&lines, &mut notes);
    let mut model = Model::default();
    let mut groups = server::Groups::new();
    for node in &nodes {
        read_block(node, &mut model, &mut groups, &mut notes);
    }
    // Servers may stand before the groups and the users that they speak of.
    let user = model.script_user.clone();
    let servers = nodes.iter().filter(|node| node.keyword() == "virtual_server");
    let services: Vec<Service> = servers
        .filter_map(|node| server::read(node, &groups, user.as_deref(), &mut notes))
        .collect();
    let mut options = options.clone();
    if options.native && options.peers.is_empty() {
        options.peers = hosts(&model, &mut notes);
    }
    let written = vips::write(&model, services, &options, &mut notes);
    let mut tables = hooks::write(&model, &written, &mut notes);
    if written.is_empty() {
        tables.clear();
    }
    tables.extend(written.into_iter().map(|vip| vip.table));
    finish(tables, Table::new(""), &options, notes)
}

fn read_block(node: &Node, model: &mut Model, groups: &mut server::Groups, notes: &mut Notes) {
    match node.keyword() {
        "global_defs" => read_global(node, model, notes),
        "vrrp_script" => model.scripts.push(Tracked::script(node, notes)),
        "vrrp_track_process" | "track_process" => {
            model.processes.push(Tracked::process(node, notes))
        }
        "vrrp_instance" => {
            let instance = Instance::read(node, notes);
            if model.instances.iter().any(|known| known.name == instance.name) {
                notes.left_at(
                    &node.place,
                    &node.text(),
                    "an instance of that name was there before",
                );
            } else {
                model.instances.push(instance);
            }
        }
        "vrrp_sync_group" => model.groups.push(SyncGroup::read(node, notes)),
        "virtual_server_group" => server::read_group(node, groups, notes),
        "virtual_server" => {}
        "static_ipaddress" | "static_routes" | "static_rules" | "track_group" => {
            notes.left_at(
                &node.place,
                node.keyword(),
                "Buoy sets no addresses, routes or rules that stay: leave them to the system",
            );
        }
        "vrrp_track_file" | "track_file" => model.files.push(Tracked::file(node, notes)),
        "bfd_instance" => notes.left_at(&node.place, &node.text(), "Buoy has no BFD"),
        "garp_group"
        | "interface_up_down_delays"
        | "linkbeat_interfaces"
        | "linkbeat_use_polling" => {
            notes.left_at(
                &node.place,
                node.keyword(),
                "links and announcements have a rhythm of their own in Buoy",
            );
        }
        "net_namespace" | "net_namespace_ipvs" | "instance" | "use_pid_dir" | "child_wait_time"
        | "SSL" | "include_check" => {
            notes.left_at(&node.place, &node.text(), "it is about keepalived itself");
        }
        _ => notes.left_at(&node.place, &node.text(), "no such block of keepalived is known"),
    }
}

fn read_global(node: &Node, model: &mut Model, notes: &mut Notes) {
    for line in node.lines_of(&[]) {
        match line.keyword() {
            "script_user" => model.script_user = Some(line.word(1).to_owned()),
            "vrrp_version" => model.version = model::number(&line, notes),
            "notify_fifo" | "vrrp_notify_fifo" => model.fifos.push((line.place.clone(), line.word(1).to_owned())),
            "notification_email" | "notification_email_from" | "smtp_server" | "smtp_connect_timeout" | "smtp_helo_name" | "smtp_alert" | "smtp_alert_vrrp" | "smtp_alert_checker" | "no_email_faults" | "no_checker_emails" => {
                say_mail(&line, notes);
            }
            "router_id" => notes.left_at(&line.place, &line.text(), "a host has the name that it has in `peers`"),
            "enable_script_security" => notes.say_at(&line.place, "`enable_script_security` needs no key: programs are run without rights, and checked"),
            "dynamic_interfaces" | "vrrp_skip_check_adv_addr" | "reload_check_config" => {
                notes.say_at(&line.place, format!("`{}` needs no key: it is so in Buoy", line.text()));
            }
            "vrrp_startup_delay" => notes.left_at(&line.place, &line.text(), "Buoy waits until it has heard the others"),
            "max_auto_priority" | "vrrp_rt_priority" | "vrrp_priority" | "vrrp_no_swap" | "checker_priority" | "checker_no_swap" | "vrrp_process_priority" | "vrrp_cpu_affinity" => {
                notes.left_at(&line.place, &line.text(), "Buoy's loop runs in real time with locked memory by itself");
            }
            "vrrp_strict" => notes.left_at(&line.place, &line.text(), "Buoy filters nothing, and its VIPs answer"),
            "vrrp_iptables" | "vrrp_ipsets" | "vrrp_nftables" | "nftables" | "nftables_ipvs" => {
                notes.left_at(&line.place, &line.text(), "Buoy has rules of its own, for services and for the fence");
            }
            "enable_snmp_vrrp" | "enable_snmp_keepalived" | "enable_snmp_checker" | "enable_snmp_rfc" | "enable_traps" | "snmp_socket" | "enable_dbus" | "dbus_service_name" => {
                notes.left_at(&line.place, &line.text(), "Buoy is asked by its API and by Prometheus: see metrics_aliases = [\"keepalived\"]");
            }
            "lvs_sync_daemon" | "lvs_flush" | "lvs_flush_onstop" | "lvs_timeouts" => {
                notes.left_at(&line.place, &line.text(), "Buoy does not use IPVS");
            }
            word if word.starts_with("vrrp_garp") || word.starts_with("vrrp_gna") => {
                notes.left_at(&line.place, &line.text(), "addresses are announced at once, again after a while, and when somebody else claims them");
            }
            _ => notes.left_at(&line.place, &line.text(), "Buoy has nothing like it"),
        }
    }
}

/// The hosts that speak to each other by unicast: those will run Buoy.
fn hosts(model: &Model, notes: &mut Notes) -> Vec<(Option<String>, String)> {
    let found = model.instances.iter().find_map(|instance| {
        let source = instance.source.clone().filter(|_| !instance.peers.is_empty())?;
        Some((
            &instance.place,
            core::iter::once(source).chain(instance.peers.iter().cloned()).collect::<Vec<_>>(),
        ))
    });
    let Some((place, mut hosts)) = found else { return Vec::new() };
    hosts.retain(|host| host.parse::<std::net::IpAddr>().is_ok());
    notes.say_at(
        place,
        format!(
            "its unicast addresses are taken for the hosts that will run Buoy: {}",
            hosts.join(", ")
        ),
    );
    hosts.into_iter().map(|host| (None, host)).collect()
}
