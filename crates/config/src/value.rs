//! Reads the small languages inside strings: time spans, names, addresses and what is wrong with them.

use buoy_model::limits::NAME_MAX;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

/// `10ms`, `30s`, `5m`, `1h`, `14d`; the error is what is wrong with it.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("it does not begin with a number");
    }
    let unit_millis: u64 = match unit {
        "" => return Err("the unit is missing"),
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ if unit.starts_with('.') => return Err("it must be a whole number of a smaller unit"),
        _ => return Err("the units are ms, s, m, h and d"),
    };
    let number: u64 = number.parse().map_err(|_| "the number is too large")?;
    let millis = number.checked_mul(unit_millis).ok_or("the number is too large")?;
    Ok(Duration::from_millis(millis))
}

/// A time span as people write it, in the largest unit that holds it exactly.
pub(crate) fn written(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0ms".to_owned(),
        // Two days and less are hours to people.
        _ if millis.is_multiple_of(86_400_000) && millis > 2 * 86_400_000 => {
            format!("{}d", millis / 86_400_000)
        }
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// What keeps a text from being the path of a request.
pub(crate) fn path_fault(path: &str) -> Option<&'static str> {
    let sound = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b);
    if path.bytes().all(sound) { None } else { Some("a path has no spaces or special characters") }
}

/// What keeps a text from being a name.
pub(crate) fn name_fault(text: &str) -> Option<&'static str> {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if text.is_empty() {
        Some("it is empty")
    } else if text.len() > NAME_MAX {
        Some("it is longer than 63 bytes")
    } else if !text.chars().all(sound) {
        Some("a name is made of letters a-z, digits, and `-`, `_`, `.`, `:`")
    } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some("a name begins with a letter or a digit")
    } else {
        None
    }
}

/// What keeps an address from being one host's: loopback is told apart, as some may have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unfit {
    Unspecified,
    Loopback,
    Multicast,
    Broadcast,
    Mapped,
    LinkLocal,
    Reserved,
}

impl Unfit {
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Unspecified => "it means \"any address\"",
            Self::Loopback => "it is a loopback address, which no other host can reach",
            Self::Multicast => "it is a multicast address",
            Self::Broadcast => "it is the broadcast address",
            Self::Mapped => "it is an IPv4 address written as IPv6",
            Self::LinkLocal => "it is a link-local address, which is valid on one segment only",
            Self::Reserved => "it is in a range that is reserved and not routed",
        }
    }
}

/// What is unusual about an address; `None`: an ordinary unicast address.
pub(crate) fn unfit(address: IpAddr) -> Option<Unfit> {
    match address {
        IpAddr::V4(v4) => unfit_v4(v4),
        IpAddr::V6(v6) => unfit_v6(v6),
    }
}

fn unfit_v4(address: Ipv4Addr) -> Option<Unfit> {
    match address.octets() {
        [0, 0, 0, 0] => Some(Unfit::Unspecified),
        [255, 255, 255, 255] => Some(Unfit::Broadcast),
        // RFC 1122 §3.2.1.3: {0, <host>} is a source during start-up only; RFC 1112 §4: class E.
        [0, ..] | [240..=255, ..] => Some(Unfit::Reserved),
        [127, ..] => Some(Unfit::Loopback),
        [169, 254, ..] => Some(Unfit::LinkLocal),
        [224..=239, ..] => Some(Unfit::Multicast),
        _ => None,
    }
}

fn unfit_v6(address: Ipv6Addr) -> Option<Unfit> {
    if address.is_unspecified() {
        Some(Unfit::Unspecified)
    } else if address.is_loopback() {
        Some(Unfit::Loopback)
    } else if address.is_multicast() {
        Some(Unfit::Multicast)
    } else if address.to_ipv4_mapped().is_some() {
        Some(Unfit::Mapped)
    } else if address.is_unicast_link_local() {
        Some(Unfit::LinkLocal)
    } else {
        None
    }
}

/// Why a text is not an address, in words that help more than "invalid".
pub(crate) fn address_fault(text: &str) -> &'static str {
    let numeric = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if text.is_empty() {
        "it is empty"
    } else if text.contains('-') && text.bytes().all(|b| b.is_ascii_digit() || b".-".contains(&b)) {
        "it is a range, and this takes one address"
    } else if text.contains('%') {
        "it names an interface; write the address alone"
    } else if !numeric && !text.contains(':') {
        "names are not resolved; write the address"
    } else if !numeric {
        "it is not an IPv6 address"
    } else if text.split('.').count() != 4 {
        "an IPv4 address has four numbers"
    } else if text.split('.').any(|part| part.len() > 1 && part.starts_with('0')) {
        "a number of an IPv4 address has no leading zero"
    } else {
        "each number of an IPv4 address is 0 to 255"
    }
}

/// `address:port` with the port optional; IPv6 with a port is written `[address]:port`.
pub(crate) fn host_port(text: &str) -> Result<(IpAddr, Option<u16>), &'static str> {
    const PORT: &str = "a port is a number from 1 to 65535";
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        // The standard parser also takes a scope, `[fe80::1%2]:80`, which means another thing on each host.
        return match socket.port() {
            _ if text.contains('%') => Err(address_fault(text)),
            0 => Err(PORT),
            port => Ok((socket.ip(), Some(port))),
        };
    }
    if let Some(inner) = text.strip_prefix('[') {
        let Some((inside, rest)) = inner.split_once(']') else {
            return Err("the `]` of the IPv6 address is missing");
        };
        return match inside.parse::<Ipv6Addr>() {
            Err(_) => Err("it is not an IPv6 address"),
            Ok(address) if rest.is_empty() => Ok((address.into(), None)),
            Ok(_) => Err(PORT),
        };
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.parse::<Ipv4Addr>().is_ok() => Err(PORT),
        Some((host, _)) if !host.contains(':') => Err(address_fault(host)),
        Some(_) | None => Err(address_fault(text)),
    }
}

/// The nearest of `known`, when it is near enough to be meant.
pub fn nearest<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Distances cost the product of the lengths, and nobody mistypes forty letters.
    if text.len() > 40 {
        return None;
    }
    let text = text.to_lowercase();
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&text, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= 1 + k.len().min(text.len()) / 4)
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    match near.as_slice() {
        [] => None,
        // Two equally near: lb3 is no more lb1 than lb2.
        [(first, _), (second, _), ..] if first == second => None,
        [(_, one), ..] => Some(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        for (text, millis) in [
            ("10ms", 10),
            ("0s", 0),
            ("30s", 30_000),
            ("5m", 300_000),
            ("48h", 172_800_000),
            ("14d", 1_209_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
            if text != "0s" {
                assert_eq!(written(Duration::from_millis(millis)), text);
            }
        }
        for text in [
            "",
            "10",
            "ms",
            "-5s",
            "1.5s",
            "5 s",
            "5S",
            "10us",
            "18446744073709551615h",
            "99999999999999999999s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_behind_an_address_is_told_from_the_address() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        for (text, port) in
            [("2001:db8::1", None), ("[2001:db8::1]", None), ("[2001:db8::1]:80", Some(80))]
        {
            assert_eq!(host_port(text), Ok((v6, port)), "{text}");
        }
        for text in [
            "10.0.0.1:0",
            "10.0.0.1:",
            "10.0.0.1:99999",
            "[::1",
            "[::g]:1",
            "[::1]:",
            "host:80",
            "10.0.0:80",
            "10.0.0.300",
            "[fe80::1%2]:80",
            "",
        ] {
            assert!(host_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_near_word_is_proposed() {
        let known = ["failback", "prefer", "address", "port"];
        assert_eq!(nearest("fallback", known), Some("failback"));
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("Port", known), Some("port"));
        assert_eq!(nearest("zebra", known), None);
        assert_eq!(nearest("lb3", ["lb1", "lb2"]), None, "equally near to both");
    }
}
