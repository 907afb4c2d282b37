//! Makes the interfaces that have the hardware address of a virtual router (RFC 9568 §7.3), and knows which address
//! belongs on which of them.
//!
//! All of Buoy but this crate's effects speaks of the interface that carries a VIP. Where its virtual router has a
//! hardware address of its own, `Apply` puts the VIP on the macvlan that is made here, and tells what happens there as
//! if it had happened on the interface below.
//!
//! The macvlan bridges: in the other modes the kernel keeps from the interface below what comes with this very hardware
//! address as its source, and so every advertisement of the active router.
//!
//! It stays when this process dies, as the addresses and the gate do; the next one finds it by what is written on it
//! (its alias), where the settings of the interface below as they were before are kept too.

use crate::host;
use crate::netlink::{MacvlanFacts, NetlinkError, Requests};
use crate::sysctl::{self, IPV6_FORWARD};
use buoy_model::{Desired, LinkId, VirtualRouter};
use nix::errno::Errno;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What an alias of ours begins with; then come the settings of the interface below, as they were.
const MARK: &str = "buoy vrrp";

/// One virtual router on one interface.
type Place = (LinkId, u8, bool);

/// A virtual router without its hardware address: this host must not be its owner.
#[derive(Debug)]
pub struct Unmade {
    /// Which.
    pub router: Arc<VirtualRouter>,
    /// Why, as a sentence.
    pub why: String,
}

/// Those that there are, and what belongs on them.
#[derive(Debug, Default)]
pub struct VirtualMacs {
    made: Vec<Made>,
    /// The interface below, the address, and the interface that the address belongs on; sorted.
    homes: Vec<(LinkId, IpAddr, LinkId)>,
    /// Which addresses this host may answer for there.
    open: Vec<(LinkId, IpAddr)>,
}

#[derive(Clone, Debug)]
struct Made {
    place: Place,
    router: Arc<VirtualRouter>,
    link: LinkId,
    name: String,
    /// What the interface below was like before the first one, where that was changed.
    before: Option<Settings>,
    /// Asked for by the configuration of now.
    is_wanted: bool,
}

/// The names of those that there are, whoever has made them.
pub(crate) fn left(requests: &mut Requests) -> Vec<String> {
    let there = requests.macvlans().unwrap_or_default().into_iter();
    there.filter(|facts| facts.alias.starts_with(MARK)).map(|facts| facts.name).collect()
}

impl VirtualMacs {
    /// Makes what the configuration asks for and is not there yet; what it does not ask for any more stays until
    /// `forget`. What could not be made has no home.
    pub fn make(&mut self, requests: &mut Requests, desired: &Desired) -> Vec<Unmade> {
        let routers = desired.groups.iter().flat_map(|group| &group.vrrp);
        let wanted: Vec<_> = routers.filter(|r| r.virtual_mac && r.link.is_some()).collect();
        self.made.iter_mut().for_each(|made| made.is_wanted = false);
        self.homes.clear();
        let mut unmade = Vec::new();
        for router in wanted {
            match self.make_one(requests, router) {
                Ok(link) => {
                    let home = |address: &IpAddr| Some((router.link?, *address, link));
                    self.homes.extend(router.addresses.iter().filter_map(home));
                }
                Err(why) => unmade.push(Unmade { router: Arc::clone(router), why }),
            }
        }
        self.homes.sort_unstable();
        unmade
    }

    fn make_one(
        &mut self,
        requests: &mut Requests,
        router: &Arc<VirtualRouter>,
    ) -> Result<LinkId, String> {
        let place = place(router);
        if let Some(made) = self.made.iter_mut().find(|made| Some(made.place) == place) {
            made.is_wanted = true;
            made.router = Arc::clone(router);
            return Ok(made.link);
        }
        // The first one has found what the last one must put back.
        let beside = self.made.iter().filter(|made| Some(made.place.0) == router.link);
        let before = beside.filter_map(|made| made.before).next();
        let made = Made::new(requests, router, before)?;
        let link = made.link;
        self.made.push(made);
        Ok(link)
    }

    /// Removes what the configuration does not ask for any more, and what an earlier run left and nobody asks for; what
    /// could not be done, as sentences.
    pub fn forget(&mut self, requests: &mut Requests) -> Vec<String> {
        self.made.retain(|made| made.is_wanted);
        self.open.retain(|(link, _)| self.made.iter().any(|made| made.link == *link));
        let is_kept = |link| self.made.iter().any(|made| made.link == link);
        let ours = |facts: &MacvlanFacts| facts.alias.starts_with(MARK) && !is_kept(facts.link);
        let there = requests.macvlans().unwrap_or_default();
        let left = there.iter().filter(|facts| ours(facts));
        let problems = left.filter_map(|facts| {
            let removed = requests.remove_link(facts.link).map_err(|error| error.to_string());
            let gone = removed.and_then(|()| restore(requests, facts));
            gone.err()
                .map(|error| format!("{} is not put away as it should be: {error}", facts.name))
        });
        problems.collect()
    }

    /// Removes all of them, at a clean stop.
    pub fn close(mut self, requests: &mut Requests) {
        if !self.made.is_empty() {
            self.made.clear();
            self.forget(requests);
        }
    }

    /// The interfaces that have such a hardware address, with what each belongs to.
    pub fn all(&self) -> impl Iterator<Item = (LinkId, &Arc<VirtualRouter>)> {
        self.made.iter().map(|made| (made.link, &made.router))
    }

    /// The same, with their names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (LinkId, &str, &VirtualRouter)> {
        self.made.iter().map(|made| (made.link, made.name.as_str(), &*made.router))
    }

    /// The interface below, the address, and the interface that it belongs on.
    pub(crate) fn homes(&self) -> &[(LinkId, IpAddr, LinkId)] {
        &self.homes
    }

    /// Whether this host may answer for an address there.
    pub(crate) fn is_open(&self, link: LinkId) -> bool {
        self.open.iter().any(|open| open.0 == link)
    }

    /// The address may be answered for there, or may not any more; whether no other one may.
    pub(crate) fn note(&mut self, link: LinkId, address: IpAddr, opens: bool) -> bool {
        let known = self.open.iter().position(|open| *open == (link, address));
        match (known, opens) {
            (None, true) => self.open.push((link, address)),
            (Some(at), false) => drop(self.open.swap_remove(at)),
            (Some(_), true) | (None, false) => {}
        }
        !self.is_open(link)
    }

    /// The interface that the address belongs on, which all others know as `link`.
    pub fn home(&self, link: LinkId, address: IpAddr) -> LinkId {
        let known = self.homes.binary_search_by_key(&(link, address), |home| (home.0, home.1));
        known.map_or(link, |index| self.homes[index].2)
    }

    /// The interface that all others know this one as.
    pub fn below(&self, link: LinkId) -> LinkId {
        self.made.iter().find(|made| made.link == link).map_or(link, |made| made.place.0)
    }

    /// What its advertisements leave from; `None`: there is no such interface.
    pub fn speaks_from(&self, router: &VirtualRouter) -> Option<LinkId> {
        if !router.virtual_mac {
            return router.link;
        }
        let place = place(router)?;
        self.made.iter().find(|made| made.place == place).map(|made| made.link)
    }

    /// The interface is down, or gone: brings it up, or makes it anew, if it is one of these and somebody has done that
    /// to it. Whether its addresses have to be put there again.
    pub(crate) fn mend(&mut self, requests: &mut Requests, link: LinkId) -> bool {
        let Some(index) = self.made.iter().position(|made| made.link == link) else { return false };
        if is_up(&self.made[index].name) {
            return false; // no carrier below
        }
        if requests.set_up(link).is_ok() {
            return true;
        }
        let Made { ref router, before, .. } = self.made[index];
        let Ok(anew) = Made::new(requests, router, before) else { return false };
        let new = anew.link;
        self.made[index] = anew;
        for home in self.homes.iter_mut().filter(|home| home.2 == link) {
            home.2 = new;
        }
        true
    }
}

impl Made {
    /// Makes it, or takes over that of an earlier run. `before` is what the interface below was like, where that is known.
    fn new(
        requests: &mut Requests,
        router: &Arc<VirtualRouter>,
        before: Option<Settings>,
    ) -> Result<Self, String> {
        let place = place(router).ok_or("it is on no interface here")?;
        let facts = host::facts().map_err(|error| error.to_string())?;
        let below = facts.link(place.0).ok_or("its interface is gone")?.name.clone();
        let say = |error: &dyn fmt::Display| {
            format!("VRID {} has no hardware address of its own on {below}: {error}", router.id)
        };
        let there = requests.macvlans().map_err(|error| say(&error))?;
        let mut left = there.iter().filter(|facts| facts.parent == place.0);
        let before = before.or_else(|| left.find_map(|facts| Settings::of_alias(&facts.alias)));
        let before = match before {
            // Nothing asks for an IPv6 address but on the interface that has it.
            _ if router.v6 => None,
            Some(before) => Some(before),
            None => Some(Settings::read(&below).map_err(|error| say(&error))?),
        };
        let (link, name) = find_or_make(requests, router, place.0, &there).map_err(|e| say(&e))?;
        prepare(requests, router, (link, &name), (&below, before)).map_err(|error| say(&error))?;
        Ok(Self { place, router: Arc::clone(router), link, name, before, is_wanted: true })
    }
}

fn place(router: &VirtualRouter) -> Option<Place> {
    Some((router.link?, router.id, router.v6))
}

/// Without the kernel's big lock, which the loop must not wait for.
fn is_up(name: &str) -> bool {
    let flags = std::fs::read_to_string(format!("/sys/class/net/{name}/flags"));
    let flags = flags.ok().and_then(|text| u32::from_str_radix(text.trim().get(2..)?, 16).ok());
    flags.is_some_and(|flags| flags & libc::IFF_UP as u32 != 0)
}

/// That of an earlier run, or a new one.
fn find_or_make(
    requests: &mut Requests,
    router: &VirtualRouter,
    below: LinkId,
    there: &[MacvlanFacts],
) -> Result<(LinkId, String), String> {
    let mac = router.mac();
    let same = there.iter().find(|facts| facts.parent == below && facts.mac == Some(mac));
    if let Some(facts) = same {
        if facts.bridges && (facts.alias.is_empty() || facts.alias.starts_with(MARK)) {
            return Ok((facts.link, facts.name.clone()));
        }
        return Err(format!(
            "{} has {mac} already, and Buoy did not make it: stop what made it, or `ip link delete {}`",
            facts.name, facts.name
        ));
    }
    let family = if router.v6 { "vrrp6" } else { "vrrp" };
    // The number is taken when another interface has a virtual router of that number too.
    let names = [format!("{family}.{}", router.id), format!("{family}.{}.{}", router.id, below.0)];
    for name in names {
        match requests.make_macvlan(&name, below, mac) {
            Err(NetlinkError::Refused { errno: Errno::EEXIST, .. }) => {}
            Err(error) if error.errno() == Errno::EOPNOTSUPP => {
                return Err(format!("{error}: this kernel has no macvlan (CONFIG_MACVLAN)"));
            }
            Err(error) => return Err(format!("no macvlan {name}: {error}")),
            Ok(()) => {
                let all = requests.macvlans().map_err(|error| error.to_string())?;
                let made = all.into_iter().find(|facts| facts.name == name);
                let made = made.ok_or_else(|| format!("{name} went as soon as it came"))?;
                return Ok((made.link, name));
            }
        }
    }
    Err(format!("there is another interface of the name {family}.{}: rename it", router.id))
}

/// Writes on it what it is for, sets what must be set, and brings it up.
fn prepare(
    requests: &mut Requests,
    router: &VirtualRouter,
    (link, name): (LinkId, &str),
    (below, before): (&str, Option<Settings>),
) -> Result<(), String> {
    let alias =
        format!("{MARK} {}{}", router.id, before.map(Settings::written).unwrap_or_default());
    requests.set_alias(link, &alias).map_err(|error| error.to_string())?;
    let set = |family: &str, settings: &[(&str, &str)]| {
        settings.iter().try_for_each(|(setting, value)| {
            let written = sysctl::write(&format!("net/{family}/conf/{name}/{setting}"), value);
            written.map_err(|error| error.to_string())
        })
    };
    let has_ipv6 = sysctl::read(IPV6_FORWARD).is_ok();
    // Also where its addresses are IPv6: else the kernel answers here for those of all other interfaces. Loose, for what
    // comes in here is answered through the interface below; of this setting and that for `all` the greater one holds.
    let v4 = [
        ("arp_ignore", "1"),
        ("arp_announce", "2"),
        ("rp_filter", "2"),
        ("promote_secondaries", "1"),
        // The fast path hands answers of backends on with the VIP as their source (`Fast::accept_answers`).
        ("accept_local", "1"),
    ];
    set("ipv4", &v4)?;
    if has_ipv6 {
        // No address of its own: none may be made from this hardware address (RFC 9568 §7.4).
        let v6 =
            [("addr_gen_mode", "1"), ("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0")];
        set("ipv6", &v6)?;
    }
    if router.v6 {
        copy(
            &format!("net/ipv6/conf/{below}/forwarding"),
            &format!("net/ipv6/conf/{name}/forwarding"),
        )?;
    } else {
        if has_ipv6 {
            set("ipv6", &[("disable_ipv6", "1")])?;
        }
        copy(
            &format!("net/ipv4/conf/{below}/forwarding"),
            &format!("net/ipv4/conf/{name}/forwarding"),
        )?;
        before.map_or(Ok(()), |before| before.raise(below))?;
    }
    requests.set_up(link).map_err(|error| error.to_string())?;
    let is_local = |address: &IpAddr| match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if router.addresses.iter().any(is_local) {
        requests.add_link_local_route(link).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn copy(from: &str, to: &str) -> Result<(), String> {
    let value = sysctl::read(from).map_err(|error| error.to_string())?;
    sysctl::write(to, &value).map_err(|error| error.to_string())
}

/// What is changed of an interface that has a virtual router on it, so that it does not answer for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Settings {
    arp_ignore: u32,
    arp_announce: u32,
}

impl Settings {
    const IGNORE: &str = "arp_ignore";
    const ANNOUNCE: &str = "arp_announce";

    fn read(interface: &str) -> Result<Self, String> {
        let read = |setting| {
            let text = sysctl::read(&of(interface, setting)).map_err(|error| error.to_string())?;
            text.parse().map_err(|_| format!("{setting} of {interface} is \"{text}\""))
        };
        Ok(Self { arp_ignore: read(Self::IGNORE)?, arp_announce: read(Self::ANNOUNCE)? })
    }

    /// What they must be at least, for as long as there is a virtual router.
    fn raise(self, interface: &str) -> Result<(), String> {
        let raised =
            Self { arp_ignore: self.arp_ignore.max(1), arp_announce: self.arp_announce.max(2) };
        raised.write(interface)
    }

    fn write(self, interface: &str) -> Result<(), String> {
        for (setting, value) in
            [(Self::IGNORE, self.arp_ignore), (Self::ANNOUNCE, self.arp_announce)]
        {
            let written = sysctl::write(&of(interface, setting), &value.to_string());
            written.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn written(self) -> String {
        let Self { arp_ignore, arp_announce } = self;
        format!(", below it was arp_ignore {arp_ignore} arp_announce {arp_announce}")
    }

    fn of_alias(alias: &str) -> Option<Self> {
        let mut words = alias.strip_prefix(MARK)?.split(' ');
        let mut after = |word| words.find(|w| *w == word).and(words.next())?.parse().ok();
        Some(Self { arp_ignore: after(Self::IGNORE)?, arp_announce: after(Self::ANNOUNCE)? })
    }
}

fn of(interface: &str, setting: &str) -> String {
    format!("net/ipv4/conf/{interface}/{setting}")
}

/// Gives the interface below its settings back, when the last of its virtual routers is gone.
fn restore(requests: &mut Requests, gone: &MacvlanFacts) -> Result<(), String> {
    let Some(before) = Settings::of_alias(&gone.alias) else { return Ok(()) };
    let is_another = |other: &MacvlanFacts| {
        other.parent == gone.parent && Settings::of_alias(&other.alias).is_some()
    };
    if requests.macvlans().unwrap_or_default().iter().any(is_another) {
        return Ok(());
    }
    let below = host::facts().ok().and_then(|f| Some(f.link(gone.parent)?.name.clone()));
    // An interface that is gone has no settings.
    below.map_or(Ok(()), |below| before.write(&below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_on_an_interface_is_read_back() {
        let settings = Settings { arp_ignore: 0, arp_announce: 1 };
        let alias = format!("{MARK} 51{}", settings.written());
        assert_eq!(alias, "buoy vrrp 51, below it was arp_ignore 0 arp_announce 1");
        assert_eq!(Settings::of_alias(&alias), Some(settings));
        for other in
            ["", "mine", "buoy vrrp", "buoy vrrp 51", "buoy vrrp 5 arp_ignore x arp_announce 1"]
        {
            assert_eq!(Settings::of_alias(other), None, "{other}");
        }
    }
}
