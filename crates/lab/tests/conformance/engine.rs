//! The engines, and the file that asks each of them for the same services.

use crate::world::Answer;

/// Who forwards, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Engine {
    /// XDP, by the Ethernet address alone.
    Dsr,
    /// XDP, in an IP packet.
    Tunnel,
    /// XDP, in a UDP datagram.
    Gue,
    /// XDP, with another destination.
    Nat,
    /// nftables.
    Kernel,
    /// The agent itself.
    Proxy,
}

/// Whose address a backend sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    Client,
    Vip,
    Host,
}

/// What of the file the cases change.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    /// Words behind the first and the second backend; `None`: it is not in the file.
    pub(crate) backends: [Option<&'static str>; 2],
    /// Lines of both services on port 7.
    pub(crate) lines: String,
    /// Lines of the one of TCP.
    pub(crate) of_tcp: String,
}

impl File {
    /// Both backends, and nothing else.
    pub(crate) fn plain() -> Self {
        Self { backends: [Some(""); 2], ..Self::default() }
    }
}

/// Both families, and four services: lines and datagrams, HTTP by client, and HTTP behind the PROXY protocol.
pub(crate) fn vips(engine: Engine, file: &File) -> String {
    let mut text =
        "[[vip]]\nname = \"web\"\naddress = [\"10.77.0.100/24\", \"fd77::100/64\"]\n".to_owned();
    let both = format!("balance = \"hash\"\n{}\n", file.lines);
    text += &service(engine, file, "7/tcp", &format!("{both}{}\n", file.of_tcp));
    text += &service(engine, file, "7/udp", &both);
    let persist = if engine.is_xdp() { "persist = \"client\"\n" } else { "" };
    text += &service(engine, file, "80/tcp", persist);
    if engine == Engine::Proxy {
        text += &service(engine, file, "8080/tcp", "send_proxy = \"v2\"\n");
    }
    text
}

fn service(engine: Engine, file: &File, port: &str, lines: &str) -> String {
    let (number, _) = port.split_once('/').unwrap();
    let number = match engine {
        Engine::Dsr | Engine::Tunnel | Engine::Gue => String::new(),
        Engine::Nat | Engine::Kernel | Engine::Proxy => format!(":{number}"),
    };
    let mut backends = Vec::new();
    for (n, words) in (21..).zip(file.backends) {
        let Some(words) = words else { continue };
        let v6 = if number.is_empty() { format!("fd77::{n}") } else { format!("[fd77::{n}]") };
        backends.push(format!("\"10.77.0.{n}{number}{words}\""));
        backends.push(format!("\"{v6}{number}{words}\""));
    }
    let check = "{ http = \"GET /health\", port = 80, every = \"100ms\", fall = 2, rise = 1 }";
    format!(
        "[[vip.service]]\nport = \"{port}\"\n{}\nbackends = [{}]\ncheck = {check}\n{lines}",
        engine.mode(),
        backends.join(", ")
    )
}

impl Engine {
    pub(crate) const fn is_xdp(self) -> bool {
        match self {
            Self::Dsr | Self::Tunnel | Self::Gue | Self::Nat => true,
            Self::Kernel | Self::Proxy => false,
        }
    }

    const fn mode(self) -> &'static str {
        match self {
            Self::Dsr => "forward = \"dsr\"",
            Self::Tunnel => "forward = \"tunnel\"",
            Self::Gue => "forward = \"tunnel\"\nencapsulation = \"gue:9886\"",
            Self::Nat => "forward = \"nat\"",
            Self::Kernel => "mode = \"kernel\"",
            Self::Proxy => "mode = \"proxy\"",
        }
    }

    /// What the status calls it.
    pub(crate) const fn shown(self) -> &'static str {
        match self {
            Self::Dsr | Self::Tunnel | Self::Gue | Self::Nat => "XDP (eth0: driver)",
            Self::Kernel => "nftables",
            Self::Proxy => "proxy",
        }
    }

    /// What a client hears that is refused for who it is, or for its rate.
    pub(crate) const fn refusal(self) -> Answer {
        match self {
            Self::Dsr | Self::Tunnel | Self::Gue | Self::Nat | Self::Kernel => Answer::Silence,
            Self::Proxy => Answer::Refusal,
        }
    }

    /// What a client hears where no backend is up.
    pub(crate) const fn no_backend(self) -> Answer {
        match self {
            Self::Dsr | Self::Tunnel | Self::Gue | Self::Nat => Answer::Silence,
            Self::Kernel | Self::Proxy => Answer::Refusal,
        }
    }

    /// Whether an established connection of a client goes on that is refused now.
    pub(crate) const fn lets_go_on(self) -> bool {
        match self {
            Self::Dsr | Self::Tunnel | Self::Gue | Self::Nat | Self::Kernel => false,
            Self::Proxy => true,
        }
    }

    /// Whether connections go on whose backend left the file.
    pub(crate) const fn keeps_who_left(self) -> bool {
        match self {
            Self::Dsr | Self::Tunnel | Self::Gue | Self::Nat => false,
            Self::Kernel | Self::Proxy => true,
        }
    }

    /// Whose address a backend sees.
    pub(crate) const fn seen(self) -> Seen {
        match self {
            Self::Dsr | Self::Tunnel | Self::Gue | Self::Nat => Seen::Client,
            Self::Kernel => Seen::Vip,
            Self::Proxy => Seen::Host,
        }
    }

    /// The counter of packets or connections that were refused for who sent them.
    pub(crate) const fn denied(self) -> &'static str {
        match self {
            Self::Dsr | Self::Tunnel | Self::Gue | Self::Nat => "xdp_dropped_source",
            Self::Kernel => "forward_denied",
            Self::Proxy => "proxy_denied",
        }
    }
}
