//! What is shown: counters in the columns of HAProxy 2.6, the state of servers, the process.

use super::super::names;
use super::Agent;
use super::set::weighed;
use buoy_api::view::{BackendReport, ServiceReport};
use buoy_api::{FlowsView, haproxy_name, words};
use buoy_kernel::clock;
use buoy_model::{Backend, BackendState, Desired, Duty, Group, Mode, OrderedWeight, Service};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// The columns of `show stat` in HAProxy 2.6, with those of its modules.
const COLUMNS: &str = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,\
weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,\
rate_lim,rate_max,check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,\
hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,\
comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,rtime,ttime,agent_status,agent_code,\
agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health,agent_rise,agent_fall,\
agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew,\
connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,\
eint,idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est,uweight,agg_server_status,\
agg_server_check_status,agg_check_status,-,ssl_sess,ssl_reused_sess,ssl_failed_handshake,\
h2_headers_rcvd,h2_data_rcvd,h2_settings_rcvd,h2_rst_stream_rcvd,h2_goaway_rcvd,\
h2_detected_conn_protocol_errors,h2_detected_strm_protocol_errors,h2_rst_stream_resp,h2_goaway_resp,\
h2_open_connections,h2_backend_open_streams,h2_total_connections,h2_backend_total_streams,\
h1_open_connections,h1_open_streams,h1_total_connections,h1_total_streams,h1_bytes_in,h1_bytes_out,\
h1_spliced_bytes_in,h1_spliced_bytes_out,";

/// The form of `show servers state`, and its columns.
const STATE_COLUMNS: &str = "1\n\
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl \
srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n";

/// HAProxy numbers its proxies from here; the first is its own socket.
const FIRST_PROXY: usize = 2;

/// A service as a proxy of HAProxy.
struct Proxy<'d> {
    name: String,
    id: usize,
    group: &'d Group,
    service: &'d Service,
    report: Option<Arc<ServiceReport>>,
}

/// A backend as a server of HAProxy.
struct Server<'d> {
    id: usize,
    backend: &'d Backend,
    report: Option<&'d BackendReport>,
}

impl Server<'_> {
    fn duty(&self) -> Duty {
        let order = self.report.and_then(|report| report.order.as_ref());
        order.map_or(Duty::Configured, |order| order.duty)
    }

    /// The weight that holds.
    fn weight(&self) -> u32 {
        let order = self.report.and_then(|report| report.order.as_ref());
        let ordered = order.map(|order| order.weight).unwrap_or_default();
        let share = self.report.map(|report| OrderedWeight::Percent(report.share));
        match ordered {
            OrderedWeight::Configured => weighed(self.backend.weight, share.unwrap_or(ordered)),
            OrderedWeight::Fixed(_) | OrderedWeight::Percent(_) => {
                weighed(self.backend.weight, ordered)
            }
        }
    }

    fn state(&self) -> BackendState {
        self.report.map_or(BackendState::Unknown, |report| report.state)
    }

    fn status(&self, is_checked: bool) -> &'static str {
        match (self.duty(), self.state()) {
            (Duty::Maint, _) => "MAINT",
            (Duty::Configured | Duty::Ready, BackendState::Down) => "DOWN",
            (Duty::Drain { .. }, _) => "DRAIN",
            (Duty::Configured | Duty::Ready, _) if !is_checked => "no check",
            (Duty::Configured | Duty::Ready, BackendState::Up | BackendState::Unknown) => "UP",
        }
    }

    /// Whether it takes connections.
    fn is_up(&self) -> bool {
        matches!(self.status(true), "UP")
    }

    /// How long it has been in its state.
    fn lasts(&self) -> Option<u64> {
        let since = self.report.and_then(|report| report.since);
        since.map(|since| clock::now().since(since).as_secs())
    }
}

impl Proxy<'_> {
    fn servers(&self) -> Vec<Server<'_>> {
        let reports = self.report.as_ref().map_or(&[][..], |report| &report.backends);
        let all = self.service.backends.iter().enumerate();
        all.map(|(n, backend)| Server {
            id: n + 1,
            backend,
            report: reports.iter().find(|report| report.name == backend.name),
        })
        .collect()
    }

    fn is_checked(&self) -> bool {
        self.service.check.is_some()
    }
}

/// All services, in the order of their names, by which they are numbered.
fn proxies<'d, A: Agent>(agent: &A, desired: &'d Desired) -> Vec<Proxy<'d>> {
    let mut reports = agent.services(None);
    let mut report = |group: &Group, service: &Service| {
        let is_it = |r: &Arc<ServiceReport>| {
            (r.group, r.protocol, r.ports, Some(&r.address))
                == (group.id, service.protocol, service.ports, service.addresses.first())
        };
        let place = reports.iter().position(is_it)?;
        Some(reports.swap_remove(place))
    };
    let mut all: Vec<Proxy<'d>> = names::services(desired)
        .map(|(group, service)| Proxy {
            name: haproxy_name(group, service),
            id: 0,
            group,
            service,
            report: report(group, service),
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    (FIRST_PROXY..).zip(&mut all).for_each(|(id, proxy)| proxy.id = id);
    all
}

/// Which rows of `show stat` are wanted.
struct Filter<'c> {
    /// A number or a name of a proxy; `None`: all.
    proxy: Option<&'c str>,
    /// 1 frontends, 2 backends, 4 servers, added up.
    kinds: i64,
    server: Option<usize>,
    up: bool,
    no_maint: bool,
}

impl<'c> Filter<'c> {
    fn of(options: &[&'c str]) -> Option<Self> {
        let mut filter = Self { proxy: None, kinds: -1, server: None, up: false, no_maint: false };
        let mut rest = options;
        if let [proxy, kinds, server, more @ ..] = options
            && let (Ok(kinds), Ok(server)) = (kinds.parse(), server.parse::<i64>())
        {
            filter.proxy = Some(*proxy).filter(|proxy| *proxy != "-1");
            filter.kinds = kinds;
            filter.server = usize::try_from(server).ok();
            rest = more;
        }
        for option in rest {
            match *option {
                "up" => filter.up = true,
                "no-maint" => filter.no_maint = true,
                _ => return None,
            }
        }
        Some(filter)
    }

    fn wants(&self, proxy: &Proxy<'_>) -> bool {
        self.proxy.is_none_or(|asked| asked == proxy.name || asked == proxy.id.to_string())
    }

    const fn wants_kind(&self, kind: i64) -> bool {
        self.kinds == -1 || self.kinds & kind != 0
    }

    fn wants_server(&self, server: &Server<'_>) -> bool {
        self.wants_kind(4)
            && self.server.is_none_or(|id| id == server.id)
            && (!self.up || server.state() != BackendState::Down)
            && (!self.no_maint || server.duty() != Duty::Maint)
    }
}

/// One row: what is set, in its column; all else is empty.
#[derive(Default)]
struct Row(BTreeMap<&'static str, String>);

impl Row {
    fn set(&mut self, column: &'static str, value: impl ToString) {
        debug_assert!(columns().any(|known| known == column), "{column} is a column");
        self.0.insert(column, value.to_string());
    }

    fn set_known(&mut self, column: &'static str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.set(column, value);
        }
    }

    fn written(&self) -> String {
        let cell = |column| self.0.get(column).map_or_else(String::new, |value| quoted(value));
        let cells: Vec<String> = columns().map(cell).collect();
        format!("{},\n", cells.join(","))
    }
}

fn columns() -> impl Iterator<Item = &'static str> {
    COLUMNS.trim_start_matches("# ").split_terminator(',')
}

/// As a cell of a table in text (RFC 4180), where it has to be.
fn quoted(cell: &str) -> String {
    let plain: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if plain.contains([',', '"']) { format!("\"{}\"", plain.replace('"', "\"\"")) } else { plain }
}

pub(super) async fn stat<A: Agent>(agent: &A, options: &[&str]) -> String {
    let Some(filter) = Filter::of(options) else {
        return "Only 'show stat [{<iid>|<proxy>} <type> <sid>] [up|no-maint]' is known here.\n"
            .into();
    };
    let desired = agent.desired();
    let mut text = format!("{COLUMNS}\n");
    let proxies = proxies(agent, &desired);
    let wanted: Vec<&Proxy<'_>> = proxies.iter().filter(|proxy| filter.wants(proxy)).collect();
    let services: Vec<_> = wanted.iter().map(|proxy| (proxy.group, proxy.service)).collect();
    let mut counted = agent.flows(&services).await.into_iter();
    for proxy in wanted {
        let flows = counted.next().unwrap_or_default();
        let all: Vec<(Server<'_>, FlowsView)> = proxy.servers().into_iter().zip(flows).collect();
        let sums = sums(&all);
        if filter.wants_kind(1) {
            text.push_str(&frontend(proxy, &sums).written());
        }
        for (server, flows) in all.iter().filter(|(server, _)| filter.wants_server(server)) {
            text.push_str(&row(proxy, server, flows).written());
        }
        if filter.wants_kind(2) {
            let servers: Vec<&Server<'_>> = all.iter().map(|(server, _)| server).collect();
            text.push_str(&backend(proxy, &servers, &sums).written());
        }
    }
    text
}

/// What the servers have together; not known where one is not.
fn sums(all: &[(Server<'_>, FlowsView)]) -> FlowsView {
    let sum = |of: &dyn Fn(&FlowsView) -> Option<u64>| all.iter().map(|(_, flows)| of(flows)).sum();
    FlowsView {
        open: sum(&|flows| flows.open),
        opened: sum(&|flows| flows.opened),
        packets: None,
        bytes: sum(&|flows| flows.bytes),
        bytes_back: sum(&|flows| flows.bytes_back),
        source: String::new(),
    }
}

fn common(proxy: &Proxy<'_>, name: &str, flows: &FlowsView) -> Row {
    let mut row = Row::default();
    row.set("pxname", &proxy.name);
    row.set("svname", name);
    row.set_known("scur", flows.open);
    row.set_known("stot", flows.opened);
    row.set_known("bin", flows.bytes);
    row.set_known("bout", flows.bytes_back);
    row.set("pid", 1);
    row.set("iid", proxy.id);
    row.set("mode", proxy.service.protocol.name());
    row
}

fn frontend(proxy: &Proxy<'_>, sums: &FlowsView) -> Row {
    let mut row = common(proxy, "FRONTEND", sums);
    row.set("status", "OPEN");
    row.set("sid", 0);
    row.set("type", 0);
    match proxy.service.mode {
        Mode::Proxy => row.set("slim", proxy.service.connections_max),
        Mode::Kernel | Mode::Xdp { .. } => {}
    }
    row.set_known("dcon", proxy.report.as_ref().and_then(|report| report.limited));
    row
}

fn row(proxy: &Proxy<'_>, server: &Server<'_>, flows: &FlowsView) -> Row {
    let mut row = common(proxy, &server.backend.name, flows);
    row.set("status", server.status(proxy.is_checked()));
    row.set("weight", server.weight());
    row.set("uweight", server.weight());
    row.set("act", u8::from(!server.backend.backup));
    row.set("bck", u8::from(server.backend.backup));
    row.set_known("slim", server.backend.connections_max);
    row.set_known("lastchg", server.lasts());
    row.set_known("lbtot", flows.opened);
    row.set("sid", server.id);
    row.set("type", 2);
    row.set("addr", server.backend.address);
    let said = server.report.map(|report| report.reason.clone());
    row.set_known("last_chk", said.filter(|said| proxy.is_checked() && !said.is_empty()));
    row
}

fn backend(proxy: &Proxy<'_>, servers: &[&Server<'_>], sums: &FlowsView) -> Row {
    let mut row = common(proxy, "BACKEND", sums);
    let up = || servers.iter().filter(|server| server.is_up());
    row.set("status", if up().next().is_some() { "UP" } else { "DOWN" });
    row.set("weight", up().map(|server| server.weight()).sum::<u32>());
    row.set("act", up().filter(|server| !server.backend.backup).count());
    row.set("bck", up().filter(|server| server.backend.backup).count());
    row.set_known("lbtot", sums.opened);
    row.set("sid", 0);
    row.set("type", 1);
    row.set("algo", words::balance(proxy.service.balance));
    row
}

pub(super) fn servers_state<A: Agent>(agent: &A, backend: Option<&str>) -> String {
    let desired = agent.desired();
    let proxies = proxies(agent, &desired);
    let is_meant = |proxy: &&Proxy<'_>| backend.is_none_or(|name| name == proxy.name);
    let meant: Vec<&Proxy<'_>> = proxies.iter().filter(is_meant).collect();
    if meant.is_empty() && backend.is_some() {
        return "Can't find backend.\n".into();
    }
    let mut text = STATE_COLUMNS.to_owned();
    for proxy in meant {
        for server in proxy.servers() {
            text.push_str(&state(proxy, &server));
        }
    }
    text
}

/// The numbers are those of HAProxy's `server-t.h` and `check-t.h`.
fn state(proxy: &Proxy<'_>, server: &Server<'_>) -> String {
    let is_down = server.state() == BackendState::Down || server.duty() == Duty::Maint;
    // 0 stopped, 2 running.
    let runs = if is_down { 0 } else { 2 };
    // Forced maintenance, forced drain.
    let forced = match server.duty() {
        Duty::Maint => 0x01,
        Duty::Drain { .. } => 0x08,
        Duty::Configured | Duty::Ready => 0,
    };
    // Not known, failed, passed.
    let result = match (proxy.is_checked(), server.state()) {
        (true, BackendState::Down) => 2,
        (true, BackendState::Up) => 3,
        (true, BackendState::Unknown) | (false, _) => 0,
    };
    // Configured and enabled.
    let checks = if proxy.is_checked() { 6 } else { 0 };
    let address = server.backend.address;
    format!(
        "{} {} {} {} {} {runs} {forced} {} {} {} 0 {result} 0 {checks} 0 0 0 - {} - 0 0 - - 0\n",
        proxy.id,
        proxy.name,
        server.id,
        server.backend.name,
        address.ip(),
        server.weight(),
        server.backend.weight,
        server.lasts().unwrap_or_default(),
        address.port(),
    )
}

pub(super) fn backends<A: Agent>(agent: &A) -> String {
    let desired = agent.desired();
    let names = proxies(agent, &desired).into_iter().map(|proxy| format!("{}\n", proxy.name));
    format!("# name\n{}", names.collect::<String>())
}

/// The day of HAProxy 2.6.12, whose forms these are: `hatop` ends without one, and exporters show it.
const RELEASE_DATE: &str = "2023/03/28";

/// What the proxies of this host may have at once.
fn connections_max(desired: &Desired) -> u64 {
    let all = names::services(desired).map(|(_, service)| match service.mode {
        Mode::Proxy => u64::from(service.connections_max),
        Mode::Kernel | Mode::Xdp { .. } => 0,
    });
    all.sum()
}

/// Which HAProxy's commands these are, and who speaks them.
fn version_text() -> String {
    format!("2.6.12-buoy-{}", env!("CARGO_PKG_VERSION"))
}

pub(super) fn version() -> String {
    format!("{}\n", version_text())
}

/// Tools refuse to speak with what is not called HAProxy; the version says what it is.
pub(super) fn info<A: Agent>(agent: &A, started: Instant) -> String {
    let host = agent.host();
    let desired = agent.desired();
    let counted = |name: &str| host.counters.get(name).copied().unwrap_or_default();
    let runtime = Handle::current().metrics();
    let lines = [
        ("Name", "HAProxy".to_owned()),
        ("Version", version_text()),
        ("Release_date", RELEASE_DATE.into()),
        ("Nbproc", "1".into()),
        ("Process_num", "1".into()),
        ("Pid", host.pid.unwrap_or_default().to_string()),
        ("Uptime", uptime(started.elapsed())),
        ("Uptime_sec", started.elapsed().as_secs().to_string()),
        ("Maxconn", connections_max(&desired).to_string()),
        ("CurrConns", counted("proxy_active").to_string()),
        ("CumConns", counted("proxy_accepted").to_string()),
        ("Maxpipes", "0".into()),
        ("PipesUsed", "0".into()),
        ("PipesFree", "0".into()),
        ("Tasks", runtime.num_alive_tasks().to_string()),
        ("Run_queue", runtime.global_queue_depth().to_string()),
        ("node", desired.node_name(desired.me).to_owned()),
        ("description", format!("Buoy {}", env!("CARGO_PKG_VERSION"))),
    ];
    lines.map(|(name, value)| format!("{name}: {value}\n")).concat()
}

/// As in `0d 0h00m01s`.
fn uptime(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    format!("{days}d {hours}h{:02}m{:02}s", seconds / 60 % 60, seconds % 60)
}
