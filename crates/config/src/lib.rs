//! Text to Desired: every problem at once, with line, column, reason and fix.
//!
//! ```text
//! text ─► tree (spans) ─► cluster, vip, pool, service, check ─► across, bundle ─► host, files ─► Desired
//!            each step adds what it finds to one list of problems and goes on ──────────► Report
//! ```
//!
//! Every wrong thing becomes a [`Problem`] with a [`Code`]; nothing stops at the first. What needs
//! this host (its interfaces, its key files) comes last and can be left out ([`check_offline`]).
//! A new key goes into `keys`, the file that reads its table, `digest`, and `docs/configuration.md`;
//! a new problem into `code` and the table of wrong files in `tests/config/cases.rs`. Tests and the
//! compiler name what was forgotten.
//! Absent on purpose: the kernel. The caller says what the host has.

#![forbid(unsafe_code)]

mod across;
mod allocate;
mod api;
mod backend;
mod balance;
mod bundle;
mod check;
mod cluster;
mod code;
mod digest;
mod discovery;
mod files;
pub mod format;
mod forward;
mod front;
mod hook;
mod host;
pub mod key;
pub mod keys;
pub mod layer;
mod legs;
mod life;
mod locality;
mod mask;
mod node_check;
pub mod origin;
mod peers;
mod persist;
mod pool;
mod ports;
mod quic;
mod range;
mod rate;
pub mod reference;
mod render;
mod report;
mod routes;
pub mod secret;
mod service;
mod settings;
mod source;
mod sources;
mod store;
mod syntax;
mod traces;
mod tree;
mod url;
mod value;
mod vip;
mod vrrp;

pub use api::{Api, Pem, Role, TOKEN_LEN, Tls, Token};
pub use check::http::expression;
pub use code::{Code, Severity};
pub use discovery::Found;
pub use files::{FileFacts, ReadFile};
pub use host::{Host, HostAddress, HostLink};
pub use mask::mask;
pub use report::{Problem, Report};
pub use routes::{route_fault, rule_fault};
pub use store::{EtcdTls, Store};
pub use value::nearest;

use allocate::Pools;
use bundle::Bundle;
use buoy_model::limits::{CONFIG_BYTES_MAX, GROUPS_MAX};
use buoy_model::{
    CheckKind, ClusterId, Desired, DiscoveryPlace, Group, Node, NodeCheck, NodeCheckKind, Pool,
    Timing, VipAddress, VirtualRoute, VirtualRouter,
};
use buoy_wire::Keyring;
use cluster::Cluster;
use report::{At, Problems};
use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use toml::de::DeTable;
use tree::Section;
use vip::Vip;

/// Bytes of the largest key or certificate file that is read.
const NAMED_FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration that passed every check on this host.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What people want. `generation` is 1; the agent counts on from its own.
    pub desired: Desired,
    /// The keys of the cluster.
    pub keyring: Keyring,
    /// Where the API is served over TCP, if it is.
    pub api: Option<Api>,
    /// What it was read from, to be checked again when backends are found.
    pub text: String,
    /// Where edits beside the file are kept.
    pub store: Store,
    /// What is taken, but somebody should know.
    pub warnings: Report,
}

/// A configuration that passed every check that needs no host.
#[derive(Clone, Debug)]
pub struct CheckedOffline {
    /// The cluster's name.
    pub cluster_name: String,
    /// All members, sorted by id.
    pub nodes: Vec<Node>,
    /// Beats and terms.
    pub timing: Timing,
    /// All groups, sorted by id; no address has an interface.
    pub groups: Vec<Group>,
    /// The same number as on every host that has this file.
    pub digest: u32,
    /// What is taken, but somebody should know.
    pub warnings: Report,
}

/// Reads and checks a file of this host.
pub fn load(path: &Path, host: &Host) -> Result<Checked, Report> {
    check_again(&read_text(path)?, path, host, &Found::new())
}

/// Checks a text of this host that was read before, with the backends that were found since.
pub fn check_again(text: &str, path: &Path, host: &Host, found: &Found) -> Result<Checked, Report> {
    check_found(text, &path.to_string_lossy(), (host, &read_file), found)
}

/// Reads and checks a file, wherever it will be used.
pub fn load_offline(path: &Path) -> Result<CheckedOffline, Report> {
    let text = read_text(path)?;
    check_offline(&text, &path.to_string_lossy())
}

/// Checks a text for this host. `name` is the path that messages show and that other paths are
/// relative to; `files` reads those.
pub fn check(text: &str, name: &str, host: &Host, files: &ReadFile<'_>) -> Result<Checked, Report> {
    check_found(text, name, (host, files), &Found::new())
}

/// The same with the backends that were found where the text says to look for them: they are held against all
/// that is asked of backends that are written down.
pub fn check_found(
    text: &str,
    name: &str,
    (host, files): (&Host, &ReadFile<'_>),
    found: &Found,
) -> Result<Checked, Report> {
    let mut problems = Problems::new(name, text);
    let (mut tree, errors) = parse(text, &mut problems);
    discovery::put_in(tree.get_mut(), found);
    let mut draft = Draft::read(&tree, &mut problems);
    if errors > 0 {
        problems.keep_what_a_syntax_error_leaves_certain();
        return Err(problems.into_report());
    }
    let keyring = files::read_keyring(name, &draft.secret, files, &mut problems);
    for path in files::authorities(tree.get_ref()) {
        files::check_authority(name, &path, files, &mut problems);
    }
    for program in files::programs(tree.get_ref()) {
        files::check_program(program.value, &program.span, files, &mut problems);
    }
    let api = draft.api.as_ref().and_then(|api| api::load(api, name, files, &mut problems));
    let me = host::find_me(&draft.cluster, host, &mut problems);
    let place = |bundle: &Bundle, problems: &mut Problems<'_>| {
        if !me.is_some_and(|me| bundle.nodes.contains(&me)) {
            return Placed::elsewhere(bundle, problems);
        }
        let place = |vip: &Vip| host::place(vip, host, problems);
        let addresses: Vec<VipAddress> = bundle.vips.iter().flat_map(place).collect();
        let link = addresses.iter().find_map(|a| a.link);
        let checks = node_check::place(&bundle.checks, link, name, host, files, problems);
        let here = (name, Some(host), me);
        let vrrp = vrrp::place(bundle, &addresses, here, files, problems);
        Placed { addresses, checks, vrrp, routes: routes::place(bundle, Some(host), problems) }
    };
    let groups = draft.groups(name, place, &mut problems);
    draft.cluster.settle_pace(&groups);
    let hooks = hook::place(&draft.hooks, name, files, &mut problems);
    let traces = traces::place(draft.traces.as_ref(), name, files, &mut problems);
    let store = store::place(&draft.cluster.store, name, files, &mut problems);
    let (Some(me), Some(keyring), false) = (me, keyring, problems.has_errors()) else {
        return Err(problems.into_report());
    };
    let Cluster { name: cluster_name, timing, haproxy_socket, metrics, metric_aliases, .. } =
        draft.cluster.clone();
    let nodes = draft.cluster.peers.nodes();
    let leg_links = legs::links(&draft.cluster.peers, me, host, &mut problems);
    let desired = Desired {
        generation: 1,
        digest: match found.is_empty() {
            true => digest::of(&draft.cluster, &nodes, &groups, &draft.pools),
            // What was found differs from host to host for a while.
            false => check_offline(text, name)?.digest,
        },
        cluster: ClusterId::of(&cluster_name),
        cluster_name,
        me,
        leg_links,
        nodes,
        timing,
        haproxy_socket,
        metrics,
        metric_aliases,
        traces,
        hooks,
        pools: draft.pools.clone(),
        groups,
    };
    let text = text.to_owned();
    Ok(Checked { desired, keyring, api, text, store, warnings: problems.into_report() })
}

/// Checks a text as far as that is possible without the host: no interfaces, no key files.
pub fn check_offline(text: &str, name: &str) -> Result<CheckedOffline, Report> {
    let mut problems = Problems::new(name, text);
    let (tree, errors) = parse(text, &mut problems);
    let mut draft = Draft::read(&tree, &mut problems);
    if errors > 0 {
        problems.keep_what_a_syntax_error_leaves_certain();
    }
    let groups = draft.groups(name, Placed::elsewhere, &mut problems);
    draft.cluster.settle_pace(&groups);
    if problems.has_errors() {
        return Err(problems.into_report());
    }
    let nodes = draft.cluster.peers.nodes();
    Ok(CheckedOffline {
        digest: digest::of(&draft.cluster, &nodes, &groups, &draft.pools),
        cluster_name: draft.cluster.name,
        timing: draft.cluster.timing,
        nodes,
        groups,
        warnings: problems.into_report(),
    })
}

/// The tree of what could be read, and the number of syntax errors.
fn parse<'t>(text: &'t str, problems: &mut Problems<'_>) -> (toml::Spanned<DeTable<'t>>, usize) {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        syntax::add(&errors, problems);
    }
    (tree, errors.len())
}

/// Everything the file says, before the host is looked at.
struct Draft<'t> {
    cluster: Cluster,
    secret: Vec<At<&'t str>>,
    api: Option<api::Draft<'t>>,
    bundles: Vec<Bundle>,
    pools: Vec<Pool>,
    hooks: Vec<hook::Named>,
    traces: Option<traces::Named>,
}

/// What depends on the host.
struct Placed {
    addresses: Vec<VipAddress>,
    checks: Vec<NodeCheck>,
    vrrp: Vec<Arc<VirtualRouter>>,
    routes: Vec<VirtualRoute>,
}

impl Placed {
    /// On a host that cannot own it, or on none.
    fn elsewhere(bundle: &Bundle, problems: &mut Problems<'_>) -> Self {
        let addresses: Vec<VipAddress> = bundle.vips.iter().flat_map(host::elsewhere).collect();
        let nowhere = ("", None, None);
        Self {
            vrrp: vrrp::place(bundle, &addresses, nowhere, &read_file, problems),
            addresses,
            checks: bundle.checks.iter().map(|c| c.check.clone()).collect(),
            routes: routes::place(bundle, None, problems),
        }
    }
}

impl<'t> Draft<'t> {
    fn read(tree: &'t toml::Spanned<DeTable<'t>>, problems: &mut Problems<'_>) -> Self {
        let top = Section::new(&keys::top::SCHEMA, tree.get_ref(), 0..0, problems);
        let cluster = cluster::read(&top, problems);
        let secret = files::read_secret(&top, problems);
        let api = api::read(&top, problems);
        let (vips, pools) = read_vips(&top, &cluster, problems);
        across::check(&vips, &cluster.peers, problems);
        let bundles = bundle::unite(vips, &cluster, problems);
        let hooks = hook::read(&top, &bundles, problems);
        let traces = traces::read(&top, problems);
        Self { cluster, secret, api, bundles, pools, hooks, traces }
    }

    /// The groups, sorted by id, with the addresses and checks where `place` puts them.
    fn groups(
        &self,
        config: &str,
        place: impl Fn(&Bundle, &mut Problems<'_>) -> Placed,
        problems: &mut Problems<'_>,
    ) -> Vec<Group> {
        let group = |bundle: &Bundle| {
            let Placed { mut addresses, checks, vrrp, routes } = place(bundle, problems);
            let mut seen = BTreeSet::new();
            addresses.retain(|address| seen.insert(address.cidr.address()));
            Group {
                id: bundle.id(),
                name: bundle.name.value.clone(),
                addresses,
                safety: bundle.safety,
                nodes: bundle.nodes.clone(),
                prefer: bundle.prefer.clone(),
                failback: bundle.failback,
                apart: bundle.apart.as_ref().map(|label| label.value.clone()),
                checks,
                services: bundle.vips.iter().flat_map(Vip::services).collect(),
                vrrp,
                shares: bundle.shares(),
                routes,
                rules: bundle.vips.iter().flat_map(Vip::rules).collect(),
            }
        };
        let mut groups: Vec<Group> = self.bundles.iter().map(group).collect();
        for kind in groups.iter_mut().flat_map(questions) {
            if let Some(path) = kind.authority_mut() {
                *path = files::resolve(config, path);
            }
        }
        let services = groups.iter_mut().flat_map(|group| &mut group.services);
        for discovery in services.flat_map(|service| &mut service.discovered) {
            discovery.resolvers.clone_from(&self.cluster.resolvers);
            if let DiscoveryPlace::File { path } = &mut discovery.place {
                *path = files::resolve(config, path);
            }
        }
        groups.sort_by_key(|g| g.id);
        groups
    }
}

/// What the checks of a group ask of servers.
fn questions(group: &mut Group) -> impl Iterator<Item = &mut CheckKind> {
    let services = group.services.iter_mut().filter_map(|s| Some(&mut s.check.as_mut()?.kind));
    let node = group.checks.iter_mut().filter_map(|check| match &mut check.kind {
        NodeCheckKind::Server { kind, .. } => Some(kind),
        NodeCheckKind::Process { .. }
        | NodeCheckKind::Exec { .. }
        | NodeCheckKind::File { .. }
        | NodeCheckKind::Link { .. }
        | NodeCheckKind::Gateway { .. } => None,
    });
    services.chain(node)
}

/// Every `[[vip]]` and every address of every `[[pool]]` whose addresses are VIPs, and the pools.
fn read_vips(
    top: &Section<'_>,
    cluster: &Cluster,
    problems: &mut Problems<'_>,
) -> (Vec<Vip>, Vec<Pool>) {
    let (vip, pool) = (&keys::top::VIP, &keys::top::POOL);
    let sections = top.sections(vip, &keys::vip::SCHEMA, problems);
    let pools = top.sections(pool, &keys::pool::SCHEMA, problems);
    // A file without a VIP is a fair start, and a host that only votes has one too.
    if !top.has(vip) && !top.has(pool) && !top.has_unknown(&[vip, pool]) {
        let fix = format!(
            "add {} and, below it, `address = {}`",
            keys::vip::SCHEMA.title,
            keys::vip::ADDRESS.example
        );
        problems.add_to_file(Code::NoVip, "there is no VIP in this file".to_owned(), "", &fix);
    }
    let mut spans: Vec<At<()>> = sections.iter().map(|s| At::new((), s.span().clone())).collect();
    pool::refuse_same_name(&pools, problems);
    let mut drafted = Vec::new();
    for pool in &pools {
        if spans.len() > GROUPS_MAX {
            break; // Said below, and the rest is not read.
        }
        let pool = pool::read(pool, cluster, problems);
        spans.extend(pool.vips.iter().map(|v| At::new((), v.name.span.clone())));
        drafted.push(pool);
    }
    let mut pools = Pools::read(top, drafted, problems);
    let sections = &sections[..sections.len().min(GROUPS_MAX)];
    let got = pools.give(sections, problems);
    let vips = sections.iter().zip(&got);
    let mut vips: Vec<Vip> =
        vips.filter_map(|(s, got)| vip::read(s, got, cluster, problems)).collect();
    allocate::refuse_reserved(&vips, &pools, problems);
    vips.extend(pools.take_each());
    let fix = "make a second cluster for the others";
    vip::refuse_too_many("VIPs", &spans, GROUPS_MAX, fix, problems);
    vips.truncate(GROUPS_MAX);
    (vips, pools.into_model())
}

/// The text of a configuration file, or why there is none.
pub fn read_text(path: &Path) -> Result<String, Report> {
    let name = path.to_string_lossy();
    let bytes = read_bytes(path, CONFIG_BYTES_MAX as u64 + 1).map_err(|error| {
        let fix = if error.kind() == io::ErrorKind::NotFound {
            "write the file, or name another one; examples are in examples/"
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            "run as root, or as a user who may read it"
        } else {
            "name a TOML file"
        };
        let message = format!("cannot read {name}");
        Report::of_file(&name, Code::FileUnreadable, message, &files::error_words(&error), fix)
    })?;
    text_of(bytes, &name)
}

fn text_of(bytes: Vec<u8>, name: &str) -> Result<String, Report> {
    if bytes.len() > CONFIG_BYTES_MAX {
        let message = format!("{name} is larger than 4 MiB");
        let fix = "is it the right file? A cluster of 1024 VIPs needs less than one MiB";
        return Err(Report::of_file(name, Code::FileTooLarge, message, "", fix));
    }
    let (at, what) = match std::str::from_utf8(&bytes) {
        Ok(text) => match text.find('\0') {
            None => return String::from_utf8(bytes).map_err(|_| Report::default()),
            Some(at) => (at, "a zero byte"),
        },
        Err(error) => (error.valid_up_to(), "a byte that is not UTF-8"),
    };
    let line = bytes[..at].iter().filter(|b| **b == b'\n').count() + 1;
    let message = format!("{name} is not a text file");
    let reason = format!("line {line} has {what} (byte {at} of the file)");
    let fix = "save it as UTF-8 text";
    Err(Report::of_file(name, Code::FileNotText, message, &reason, fix))
}

/// A file that the configuration names.
fn read_file(path: &str) -> io::Result<FileFacts> {
    let content = read_bytes(Path::new(path), NAMED_FILE_BYTES_MAX)?;
    let mode = std::fs::metadata(path)?.permissions().mode();
    Ok(FileFacts { content, mode })
}

/// At most so many bytes of a regular file: a pipe or a device would never end.
fn read_bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
