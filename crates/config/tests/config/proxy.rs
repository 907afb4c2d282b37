//! Wrong files about what a proxy hears of connections and sees of backends; the marks are those of `cases`.

use crate::cases::Case;
use buoy_config::Code;

/// Lines of a `[[vip.service]]` as in `cases`.
pub(crate) const PROXY: &[Case] = &[
    (Code::NeedsTcp, "port = »\"53/udp\"\naccept_proxy = true", "`accept_proxy` for udp"),
    (
        Code::NeedsTcp,
        "port = »\"53/udp\"\nbackends = [\"a 10.0.0.21:53\"]\nsni = { \"a.example\" = \"a\" }",
        "`sni` for udp",
    ),
    (Code::NeedsProxy, "forward = \"nat\"\n»accept_proxy = true", "remove the line"),
    (Code::NeedsProxy, "mode = \"kernel\"\n»eject_after = 3", "mode = \"proxy\""),
    (Code::NeedsTcp, "port = »\"53/udp\"\nforward = \"nat\"\neject_after = 3", "for tcp"),
    (Code::NeedsOther, "forward = \"nat\"\n»eject_time = \"5s\"", "eject_after"),
    (Code::NeedsOther, "mode = \"proxy\"\n»eject_time = \"5s\"", "eject_after"),
    (Code::OutOfRange, "mode = \"proxy\"\neject_after = »0", "1 to 1000"),
    (Code::BadSource, "accept_proxy = »\"10.0.0.1/8\"", "10.0.0.0/8"),
    (Code::WrongType, "accept_proxy = »1", "accept_proxy = ["),
    (Code::WrongType, "sni = »\"a.example\"", "sni = {"),
    (Code::WrongType, "sni = { \"a.example\" = »1 }", "sni = {"),
    (Code::EmptyList, "sni = »{}", "remove the line"),
    (
        Code::BadServerName,
        "backends = [\"a 10.0.0.21:80\"]\nsni = { »\"10.0.0.1\" = \"a\" }",
        "*.example.org",
    ),
    (
        Code::BadServerName,
        "backends = [\"a 10.0.0.21:80\"]\nsni = { \"a.example\" = \"a\", »\"A.example\" = \"a\" }",
        "one of the two",
    ),
    (
        Code::UnknownBackend,
        "backends = [\"web1 10.0.0.21:80\"]\nsni = { \"a.example\" = »\"web\" }",
        "did you mean \"web1\"?",
    ),
    (
        Code::Contradiction,
        "backends = [\"a 10.0.0.21:80 max=3\"]\nsni = { \"a.example\" = \"a\" }\n»queue = 9",
        "remove `queue`",
    ),
];
