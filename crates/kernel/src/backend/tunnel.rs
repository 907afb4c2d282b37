//! What packets for a VIP come wrapped into on their way to a real server.

use buoy_model::GUE_PORT;
use std::fmt;
use std::str::FromStr;

/// The encapsulations that are taken off; none: packets come as they are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tunnel {
    /// IP packets.
    pub ipip: bool,
    /// UDP packets to this port (GUE).
    pub gue: Option<u16>,
}

impl Tunnel {
    /// As they are (dsr).
    pub const NONE: Self = Self { ipip: false, gue: None };
    /// In IP packets alone.
    pub const IPIP: Self = Self { ipip: true, gue: None };

    /// Whether anything is taken off.
    pub const fn is_any(self) -> bool {
        self.ipip || self.gue.is_some()
    }

    /// What either has; the port of this one.
    pub(super) fn or(self, other: Self) -> Self {
        Self { ipip: self.ipip || other.ipip, gue: self.gue.or(other.gue) }
    }

    /// Whether all of the other is taken off.
    pub(super) fn covers(self, other: Self) -> bool {
        (self.ipip || !other.ipip) && (self.gue == other.gue || other.gue.is_none())
    }

    /// How many bytes an outer header takes at most, over IPv4 and IPv6.
    pub const fn overhead(self) -> (u8, u8) {
        if self.gue.is_some() { (28, 48) } else { (20, 40) }
    }

    /// The option of `buoy backend` that says it.
    pub fn option(self) -> String {
        match self {
            Self::NONE => String::new(),
            Self::IPIP => " --tunnel".to_owned(),
            other => format!(" --tunnel={other}"),
        }
    }
}

/// As in `ipip,gue:9886`.
impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ipip {
            f.write_str(if self.gue.is_some() { "ipip," } else { "ipip" })?;
        }
        match self.gue {
            None => Ok(()),
            Some(GUE_PORT) => f.write_str("gue"),
            Some(port) => write!(f, "gue:{port}"),
        }
    }
}

impl FromStr for Tunnel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut tunnel = Self::NONE;
        for word in text.split(',') {
            let port = match word.split_once(':') {
                None if word == "ipip" && !tunnel.ipip => {
                    tunnel.ipip = true;
                    continue;
                }
                None if word == "gue" => Some(GUE_PORT),
                Some(("gue", port)) if !port.starts_with('+') => port.parse().ok(),
                None | Some(_) => None,
            };
            if tunnel.gue.is_some() || port.is_none_or(|port| port == 0) {
                return Err("ipip, gue or gue:PORT, or ipip and one of gue as in ipip,gue");
            }
            tunnel.gue = port;
        }
        Ok(tunnel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_again() {
        let table = [
            ("ipip", true, None),
            ("gue", false, Some(6080)),
            ("gue:9886", false, Some(9886)),
            ("ipip,gue", true, Some(6080)),
            ("ipip,gue:1", true, Some(1)),
        ];
        for (text, ipip, gue) in table {
            let tunnel = Tunnel { ipip, gue };
            assert_eq!(text.parse(), Ok(tunnel));
            assert_eq!(tunnel.to_string(), text);
        }
        assert_eq!("gue,ipip".parse(), "ipip,gue".parse::<Tunnel>());
        assert_eq!(Tunnel::NONE.to_string(), "");
        for text in ["", "gre", "gue:", "gue:0", "gue:+1", "gue:65536", "ipip:4", "ipip,ipip"] {
            assert!(text.parse::<Tunnel>().is_err(), "{text}");
        }
        assert!("gue,gue:1".parse::<Tunnel>().is_err());
    }

    #[test]
    fn one_covers_another_that_has_no_more() {
        let of = |text: &str| text.parse::<Tunnel>().unwrap();
        for (one, other, covers) in [
            ("ipip,gue", "ipip", true),
            ("ipip,gue", "gue", true),
            ("ipip,gue", "gue:1", false),
            ("gue", "ipip", false),
            ("ipip", "gue", false),
        ] {
            assert_eq!(of(one).covers(of(other)), covers, "{one} {other}");
            assert!(of(one).or(of(other)).covers(of(one)));
        }
        assert!(Tunnel::NONE.covers(Tunnel::NONE) && !Tunnel::NONE.is_any());
    }
}
