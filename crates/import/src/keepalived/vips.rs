//! Writes instances as `[[vip]]`s: under VRRP, or under the lease, with checks and services.

use super::model::{Address, Failback, Instance, Model, SyncGroup, Tracked, Tracks};
use super::server::Service;
use super::tree::Place;
use crate::Options;
use crate::draft::{Table, duration, inline, list, name, one_or_list, quoted};
use crate::notes::Notes;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Routes, and rules, that a `[[vip]]` can have.
const VIP_ROUTES_MAX: usize = 64;

/// A `[[vip]]`, and whose it is.
pub(super) struct Vip {
    /// Of which instance.
    pub(super) instance: String,
    pub(super) name: String,
    pub(super) group: Option<String>,
    pub(super) table: Table,
    addresses: Vec<IpAddr>,
    /// Those of its services.
    ports: Vec<String>,
}

pub(super) fn write(
    model: &Model,
    services: Vec<Service>,
    options: &Options,
    notes: &mut Notes,
) -> Vec<Vip> {
    let mut vips: Vec<Vip> = Vec::new();
    let mut taken = BTreeSet::new();
    for instance in &model.instances {
        if instance.addresses.is_empty() {
            let what = format!("vrrp_instance {}", instance.name);
            notes.left_at(&instance.place, &what, "it has no address, and Buoy moves addresses");
            continue;
        }
        let group = model.groups.iter().find(|group| group.members.contains(&instance.name));
        let parts = parts(instance, &services, options.native);
        let is_split = parts.len() > 1;
        let label = match group {
            Some(group) => Some(group.name.clone()),
            None => is_split.then(|| instance.name.clone()),
        };
        for (place, part) in parts.iter().enumerate() {
            let is_first = !vips.iter().any(|vip| vip.group.is_some() && vip.group == label);
            let name = match is_split {
                true => name(&format!("{}-{}", instance.name, place + 1)),
                false => instance.name.clone(),
            };
            let mut vip = Vip {
                instance: instance.name.clone(),
                name,
                group: label.clone(),
                table: Table::new("[[vip]]"),
                addresses: part.iter().map(|address| address.ip).collect(),
                ports: Vec::new(),
            };
            write_head(&mut vip, instance, part);
            if is_first {
                write_failback(&mut vip.table, instance);
            }
            match options.native {
                true => write_prefer(&mut vip.table, instance, options, is_first, notes),
                false if place == 0 => write_vrrp(&mut vip.table, instance, model, options, notes),
                false => {}
            }
            if place == 0 {
                for (key, lines) in [("routes", &instance.routes), ("rules", &instance.rules)] {
                    write_routes(&mut vip.table, key, lines, &mut taken, notes);
                }
                write_checks(&mut vip.table, instance, group, model, options.native, notes);
            }
            vips.push(vip);
        }
    }
    say_untracked(model, notes);
    for group in &model.groups {
        for member in group
            .members
            .iter()
            .filter(|member| !model.instances.iter().any(|i| i.name == **member))
        {
            notes.left_at(&group.place, member, "there is no instance of that name");
        }
    }
    for service in services {
        attach(&service, &mut vips, notes);
    }
    vips
}

/// The addresses that one `[[vip]]` can have together: of one interface and, where they have services, of one version and with the same.
fn parts(instance: &Instance, services: &[Service], is_native: bool) -> Vec<Vec<Address>> {
    let mut parts: Vec<(String, Vec<Address>)> = Vec::new();
    for address in &instance.addresses {
        let own =
            address.interface.as_ref().filter(|own| Some(*own) != instance.interface.as_ref());
        // What is in no advertisement, or on another interface, goes with the others.
        let is_beside = address.is_excluded || own.is_some() && instance.interface.is_some();
        let here = |service: &&Service| service.places.iter().any(|(ip, _)| *ip == address.ip);
        let with: Vec<usize> =
            services.iter().enumerate().filter(|(_, s)| here(s)).map(|(at, _)| at).collect();
        let family = if with.is_empty() { false } else { address.ip.is_ipv6() };
        let key = match (is_native, is_beside) {
            (true, _) => format!("{own:?} {with:?} {family}"),
            (false, true) => format!("{own:?}"),
            (false, false) => String::new(),
        };
        match parts.iter_mut().find(|(known, _)| *known == key) {
            Some((_, part)) => part.push(address.clone()),
            None => parts.push((key, vec![address.clone()])),
        }
    }
    // The one that is advertised comes first, and has `vrrp`.
    parts.sort_by_key(|(key, _)| !is_native && !key.is_empty());
    parts.into_iter().map(|(_, part)| part).collect()
}

fn write_head(vip: &mut Vip, instance: &Instance, part: &[Address]) {
    vip.table.set("name", quoted(&vip.name));
    let addresses = part.iter().map(|a| quoted(&format!("{}/{}", a.ip, a.prefix))).collect();
    vip.table.set("address", one_or_list(addresses));
    let own = part.iter().find_map(|address| address.interface.as_ref());
    if let Some(interface) = own.or(instance.interface.as_ref()) {
        vip.table.set("interface", quoted(interface));
    }
    if let Some(group) = &vip.group {
        vip.table.set("group", quoted(group));
    }
}

/// `taken` are those of VIPs before: two of them would take away each other's.
fn write_routes(
    table: &mut Table,
    key: &'static str,
    lines: &[(Place, String)],
    taken: &mut BTreeSet<(&'static str, String)>,
    notes: &mut Notes,
) {
    let mut texts = Vec::new();
    for (place, text) in lines {
        if texts.len() == VIP_ROUTES_MAX {
            let why = format!(
                "a VIP has at most {VIP_ROUTES_MAX} `{key}`: give it to another one of its group"
            );
            notes.left_at(place, text, &why);
        } else if taken.insert((key, text.clone())) {
            texts.push(quoted(text));
        } else {
            let why = "a VIP before has it, and the first that goes would take it away: those that need it can be one `group`";
            notes.left_at(place, text, why);
        }
    }
    if !texts.is_empty() {
        table.set(key, one_or_list(texts));
    }
}

fn write_failback(table: &mut Table, instance: &Instance) {
    let failback = match instance.failback {
        Failback::Never => quoted("never"),
        Failback::Now => quoted("now"),
        Failback::After(millis) => duration(millis),
    };
    table.set("failback", failback);
}

/// Which host should have it: the file says it of the one host that it is for.
fn write_prefer(
    table: &mut Table,
    instance: &Instance,
    options: &Options,
    is_first_of_group: bool,
    notes: &mut Notes,
) {
    let named = options.peers.iter().filter_map(|(name, _)| name.as_ref());
    let me = options.host.as_ref().and_then(|host| named.into_iter().find(|name| *name == host));
    if let (true, Some(me), true) = (instance.is_master, me, is_first_of_group) {
        table.set("prefer", list([quoted(me)]));
    } else {
        let said = format!(
            "priority {} is not carried: write the hosts that should have {} into `prefer`, best first",
            instance.priority, instance.name
        );
        notes.say_at(&instance.place, said);
    }
    for what in [("use_vmac", instance.virtual_mac), ("no_accept", !instance.accept)] {
        if let (what, true) = what {
            notes.left_at(&instance.place, what, "under the lease the VIP is announced with the hardware address of its owner, which answers for it");
        }
    }
}

fn write_vrrp(
    table: &mut Table,
    instance: &Instance,
    model: &Model,
    options: &Options,
    notes: &mut Notes,
) {
    let Some(id) = instance.id.filter(|id| *id > 0) else {
        return notes
            .say_at(&instance.place, "it has no virtual_router_id: its VIP is owned by lease");
    };
    let mut pairs = vec![("id", id.to_string())];
    let named = options.peers.iter().filter_map(|(name, _)| name.as_ref());
    match options.host.as_ref().and_then(|host| named.into_iter().find(|name| *name == host)) {
        Some(me) => pairs.push(("priority", inline([(quoted(me), instance.priority.to_string())]))),
        None => {
            pairs.push(("priority", instance.priority.to_string()));
            let said = format!(
                "priority {} would hold on all hosts: write priority = {{ lb1 = 150, lb2 = 100 }}, or import with --host and --peers",
                instance.priority
            );
            notes.say_at(&instance.place, said);
        }
    }
    // keepalived's default: 2, unless the addresses that it says are IPv6.
    let mut said = instance.addresses.iter().filter(|address| !address.is_excluded);
    let has_v6 = said.any(|address| address.ip.is_ipv6());
    let is_v2 = !has_v6 && instance.version.or(model.version).unwrap_or(2) != 3;
    pairs.push(("version", if is_v2 { "2" } else { "3" }.to_owned()));
    pairs.extend(interval(instance, is_v2, notes).map(|interval| ("interval", duration(interval))));
    pairs.extend(unicast(instance, notes));
    if instance.is_message_checksum {
        pairs.push(("checksum", quoted("message")));
    }
    let auth = instance.hmac.as_ref().and_then(|hmac| hmac.written());
    let has_auth = auth.is_some();
    pairs.extend(auth.map(|auth| ("auth", auth)));
    match (&instance.password, is_v2) {
        (Some(_), _) if has_auth => {
            let why = "`auth_hmac` takes its place, as in keepalived";
            notes.left_at(&instance.place, "auth_pass", why);
        }
        (Some(password), true) => pairs.push(("password", quoted(password))),
        (Some(_), false) => {
            notes.left_at(&instance.place, "auth_pass", "version 3 has no passwords")
        }
        (None, _) => {}
    }
    if instance.virtual_mac {
        pairs.push(("virtual_mac", "true".to_owned()));
        if instance.addresses.iter().any(|address| address.is_excluded) {
            let said = "use_vmac is not carried for virtual_ipaddress_excluded: those are reached at the hardware address of their owner";
            notes.say_at(&instance.place, said);
        }
    }
    if !instance.accept {
        pairs.push(("accept", "false".to_owned()));
        if instance.addresses.iter().any(|address| address.is_excluded) {
            let said = "no_accept is not carried for virtual_ipaddress_excluded: the owner takes packets for those";
            notes.say_at(&instance.place, said);
        }
    }
    table.set("vrrp", inline(pairs));
}

/// What the version can say: whole seconds, or steps of 10 ms.
fn interval(instance: &Instance, is_v2: bool, notes: &mut Notes) -> Option<u64> {
    let wanted = instance.interval?;
    let step = if is_v2 { 1000 } else { 10 };
    let interval = wanted.div_ceil(step).max(1) * step;
    if interval != wanted {
        notes.say_at(
            &instance.place,
            format!(
                "advert_int of {wanted} ms is written as {interval} ms, which its version can say"
            ),
        );
    }
    Some(interval)
}

/// This host stands in the list too: the file is the same on all of them.
fn unicast(instance: &Instance, notes: &mut Notes) -> Vec<(&'static str, String)> {
    if instance.peers.is_empty() {
        if let Some(source) = &instance.source {
            if source.parse::<core::net::IpAddr>().is_err() {
                notes.left_at(&instance.place, source, "it is not an address");
                return Vec::new();
            }
            let said = "mcast_src_ip is this host's: add those of the other hosts to `source` of `vrrp`, so that the file is the same on all of them";
            notes.say_at(&instance.place, said);
            return vec![("source", quoted(source))];
        }
        return Vec::new();
    }
    let all = instance.source.iter().chain(&instance.peers);
    let mut peers: Vec<String> = Vec::new();
    for peer in all.map(|peer| quoted(peer)) {
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    if instance.source.is_none() {
        notes.say_at(&instance.place, "it has no unicast_src_ip: add this host's own address to `peers` of `vrrp`, so that the file is the same on all hosts");
    }
    let mut pairs = vec![("peers", list(peers))];
    // keepalived does not look at the TTL of peers unless it is told to.
    pairs.push(("min_ttl", instance.min_ttl.filter(|ttl| *ttl > 0).unwrap_or(1).to_string()));
    pairs
}

fn write_checks(
    table: &mut Table,
    instance: &Instance,
    group: Option<&SyncGroup>,
    model: &Model,
    is_native: bool,
    notes: &mut Notes,
) {
    let mut checks: Vec<String> = Vec::new();
    let all = core::iter::once(&instance.tracks).chain(group.map(|group| &group.tracks));
    for tracks in all {
        // In a group keepalived itself takes the weights for zero.
        let has_weights = !is_native && group.is_none();
        for check in read_tracks(tracks, instance, model, has_weights, notes) {
            if !checks.contains(&check) {
                checks.push(check);
            }
        }
    }
    if !checks.is_empty() {
        table.set("check", one_or_list(checks));
    }
}

fn read_tracks(
    tracks: &Tracks,
    instance: &Instance,
    model: &Model,
    has_weights: bool,
    notes: &mut Notes,
) -> Vec<String> {
    let mut checks = Vec::new();
    for (place, interface, weight) in &tracks.interfaces {
        if Some(interface) == instance.interface.as_ref() {
            notes.say_at(
                place,
                format!("{interface} needs no check: the interface of a VIP is always watched"),
            );
            continue;
        }
        let mut pairs = vec![("link", quoted(interface))];
        pairs.extend(weigh(weight.unwrap_or(0), has_weights, place, notes));
        checks.push(inline(pairs));
    }
    let scripts = tracks.scripts.iter().map(|track| (track, &model.scripts));
    let processes = tracks.processes.iter().map(|track| (track, &model.processes));
    let files = tracks.files.iter().map(|track| (track, &model.files));
    for ((place, called, weight), known) in scripts.chain(processes).chain(files) {
        let Some(tracked) = known.iter().find(|tracked| tracked.name == *called) else {
            notes.left_at(
                place,
                called,
                "there is no vrrp_script, vrrp_track_process or track_file of that name",
            );
            continue;
        };
        let weight = weight.unwrap_or(tracked.weight);
        if tracked.file.is_some() && weight > 0 && !has_weights {
            notes.left_at(
                place,
                called,
                "under the lease nothing makes a host better than another",
            );
            continue;
        }
        let Some(mut pairs) = ask(tracked, weight, notes) else { continue };
        pairs.extend(weigh(weight, has_weights, place, notes));
        checks.push(inline(pairs));
    }
    checks
}

/// A file has a number in it, which is multiplied by the weight. A check passes or fails, so it stands for 0 and 1; a
/// positive weight is added while it passes, a negative one while it fails.
fn ask_file(tracked: &Tracked, file: &str, weight: i32, notes: &mut Notes) -> String {
    let said = format!(
        "what is in {file} counts as 0 or 1, and a file that is not there {}",
        if weight > 0 { "as 0" } else { "as 1" }
    );
    notes.say_at(&tracked.place, said);
    let pattern = if weight > 0 { "[1-9]" } else { "^[[:space:]]*-?0+[[:space:]]*$" };
    list(["/bin/grep", "-qE", pattern, file].map(quoted))
}

/// Those that no instance and no group names: nothing would ask them.
fn say_untracked(model: &Model, notes: &mut Notes) {
    let instances = model.instances.iter().map(|instance| &instance.tracks);
    let tracks: Vec<&Tracks> =
        instances.chain(model.groups.iter().map(|group| &group.tracks)).collect();
    let named = |tracked: &Tracked| {
        let mut all =
            tracks.iter().flat_map(|t| t.scripts.iter().chain(&t.processes).chain(&t.files));
        all.any(|(_, name, _)| *name == tracked.name)
    };
    let all = model.scripts.iter().chain(&model.processes).chain(&model.files);
    for tracked in all.filter(|tracked| !named(tracked)) {
        notes.left_at(&tracked.place, &tracked.name, "nothing tracks it");
    }
}

/// What a script, process or file is as a check.
fn ask(tracked: &Tracked, weight: i32, notes: &mut Notes) -> Option<Vec<(&'static str, String)>> {
    let process = tracked.process.as_deref().or_else(|| tracked.script.process());
    let mut pairs = vec![("name", quoted(&name(&tracked.name)))];
    match process {
        Some(process) => {
            if tracked.process.is_none() {
                notes.say_at(
                    &tracked.place,
                    format!(
                        "{} looks for a process, which Buoy does without a program",
                        tracked.name
                    ),
                );
            }
            pairs.push(("process", quoted(process)));
        }
        None if tracked.file.is_some() => {
            let file = tracked.file.as_deref().unwrap_or_default();
            pairs.push(("exec", ask_file(tracked, file, weight, notes)));
        }
        None if tracked.script.argv.is_empty() => {
            notes.left_at(&tracked.place, &tracked.name, "it has nothing to run");
            return None;
        }
        None => {
            if !tracked.script.is_absolute() {
                notes.say_at(
                    &tracked.place,
                    format!(
                        "the script of {} is not an absolute path: a shell looks for it",
                        tracked.name
                    ),
                );
            }
            pairs.push(("exec", tracked.script.exec()));
        }
    }
    // Between 50 ms and an hour, as Buoy has it.
    let every = tracked.interval.clamp(50, 3_600_000);
    pairs.push(("every", duration(every)));
    if tracked.timeout.is_some_and(|wanted| wanted > every) {
        let said = format!(
            "the timeout of {} is longer than its interval, which is written",
            tracked.name
        );
        notes.say_at(&tracked.place, said);
    }
    pairs.push(("timeout", duration(tracked.timeout.unwrap_or(every).clamp(50, every))));
    pairs.push(("fall", tracked.fall.clamp(1, 100).to_string()));
    pairs.push(("rise", tracked.rise.clamp(1, 100).to_string()));
    Some(pairs)
}

fn weigh(
    weight: i32,
    has_weights: bool,
    place: &super::Place,
    notes: &mut Notes,
) -> Option<(&'static str, String)> {
    if weight == 0 {
        return None;
    }
    if has_weights {
        return Some(("weight", weight.clamp(-253, 253).to_string()));
    }
    notes.say_at(place, format!("weight {weight} is not carried: a host on which the check fails gives the VIP to one on which it passes"));
    None
}

/// Gives a service to the VIPs that have its addresses; those that nobody has become VIPs.
fn attach(service: &Service, vips: &mut Vec<Vip>, notes: &mut Notes) {
    for (address, _) in &service.places {
        if vips.iter().any(|vip| vip.addresses.contains(address)) {
            continue;
        }
        let whole = if address.is_ipv4() { 32 } else { 128 };
        notes.say_at(&service.place, format!("{address} is in no vrrp_instance: it becomes a VIP, with the prefix /{whole}; write that of its subnet"));
        let mut table = Table::new("[[vip]]");
        table.set("address", quoted(&format!("{address}/{whole}")));
        let name = address.to_string();
        vips.push(Vip {
            instance: name.clone(),
            name,
            group: None,
            table,
            addresses: vec![*address],
            ports: Vec::new(),
        });
    }
    for vip in vips.iter_mut() {
        let Some((ports, table)) = service.on(&vip.addresses) else { continue };
        if let Some(port) = ports.iter().find(|port| vip.ports.contains(port)) {
            let why = format!(
                "{} has it already, for all its addresses: --native gives each address its own services",
                vip.name
            );
            notes.left_at(&service.place, &format!("the service on {port}"), &why);
            continue;
        }
        let is_other = |own: &&IpAddr| !service.places.iter().any(|(ip, _)| ip == *own);
        if vip.addresses.iter().any(|own| is_other(&own)) {
            let said = format!("the service is there for all addresses of {}", vip.name);
            notes.say_at(&service.place, said);
        }
        vip.ports.extend(ports);
        vip.table.push(table);
    }
}
