//! Kernel settings that forwarding needs, as far as they are ours to change.

use super::Error;
use crate::sysctl;

/// Lets the kernel pass packets on. Returns what had to be changed, in a sentence each; it is not
/// changed back, because who else relies on it by then cannot be known.
pub fn enable_forwarding(v4: bool, v6: bool) -> Result<Vec<String>, Error> {
    let mut changed = Vec::new();
    if v4 {
        switch_on(sysctl::IPV4_FORWARD, "1", &mut changed)?;
    }
    if v6 && !is(sysctl::IPV6_FORWARD, "1") {
        // A router ignores router advertisements unless told otherwise, and so would lose its
        // default route: interfaces that listen to them now shall go on listening.
        for link in std::fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
            let name = link.file_name();
            let path = format!("net/ipv6/conf/{}/accept_ra", name.to_string_lossy());
            if is(&path, "1") {
                switch_on(&path, "2", &mut changed)?;
            }
        }
        switch_on(sysctl::IPV6_FORWARD, "1", &mut changed)?;
    }
    Ok(changed)
}

/// Makes conntrack accept connections in the middle, as far as that is ours to change; to be called
/// with a table in place, because conntrack has no settings before. Returns what was changed.
pub fn enable_pickup() -> Result<Vec<String>, Error> {
    let mut changed = Vec::new();
    // A connection that comes back to its first owner after a while on another has moved on from
    // the window that conntrack remembers here, and would be dropped for days.
    switch_on("net/netfilter/nf_conntrack_tcp_be_liberal", "1", &mut changed)?;
    Ok(changed)
}

/// What keeps connections from surviving a failover here, if anything does. Off is not the
/// kernel's default but somebody's decision, and so it is said and not overruled.
pub fn pickup_problem() -> Option<String> {
    is("net/netfilter/nf_conntrack_tcp_loose", "0").then(|| {
        "net.netfilter.nf_conntrack_tcp_loose is 0, so established connections do not survive a \
         failover to this host: set it to 1"
            .to_owned()
    })
}

fn is(setting: &str, value: &str) -> bool {
    sysctl::read(setting).is_ok_and(|present| present == value)
}

fn switch_on(setting: &str, value: &str, changed: &mut Vec<String>) -> Result<(), Error> {
    let before = sysctl::read(setting).ok();
    if before.as_deref() == Some(value) {
        return Ok(());
    }
    sysctl::write(setting, value).map_err(Error::Setting)?;
    let before = before.unwrap_or_default();
    changed.push(format!("{} was {before}, now {value}", setting.replace('/', ".")));
    Ok(())
}
