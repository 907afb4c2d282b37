//! Wrong files of `[api]`, as in `cases`.

use crate::cases::Case;
use buoy_config::Code;

/// `[api]`, before `[[vip]]`.
pub(crate) const API: &[Case] = &[
    (
        Code::BadApiAddress,
        "api = { listen = »\"4749\", tokens = \"file:tokens\" }",
        "10.0.0.11:4749",
    ),
    (
        Code::BadApiAddress,
        "api = { listen = »\"127.0.0.1:0\", tokens = \"file:tokens\" }",
        "a port",
    ),
    (
        Code::ApiInTheClear,
        "api = { listen = »\"10.0.0.11:4749\", tokens = \"file:tokens\" }",
        "tls = ",
    ),
    (
        Code::ApiInTheClear,
        "api = { listen = »\"[::]:4749\", tokens = \"file:tokens\" }",
        "127.0.0.1",
    ),
    (Code::ApiForAnyone, "api = »{ listen = \"127.0.0.1:4749\" }", "buoy token new"),
    (Code::MissingKey, "api = »{ tokens = \"file:tokens\" }", "listen = "),
    (Code::WrongType, "api = »\"127.0.0.1:4749\"", "listen = "),
    (
        Code::UnknownKey,
        "api = { listen = \"127.0.0.1:4749\", tokens = \"file:tokens\", »bind = 1 }",
        "`listen`",
    ),
    (Code::BadToken, "api = { listen = \"127.0.0.1:4749\", tokens = »\"buoy_00\" }", "file:tokens"),
    (
        Code::BadToken,
        "api = { listen = \"127.0.0.1:4749\", tokens = »\"file:tokens.bad\" }",
        "NAME ROLE SHA256",
    ),
    (
        Code::BadToken,
        "api = { listen = \"127.0.0.1:4749\", tokens = »\"file:tokens.twice\" }",
        "buoy token new",
    ),
    (
        Code::BadToken,
        "api = { listen = \"127.0.0.1:4749\", tokens = »\"file:tokens.none\" }",
        "buoy token new",
    ),
    (
        Code::BadApiFile,
        "api = { listen = \"127.0.0.1:4749\", tokens = »\"file:absent\" }",
        "buoy token new",
    ),
    (
        Code::BadApiFile,
        "api = { listen = \"127.0.0.1:4749\", tokens = »\"file:tokens.open\" }",
        "chmod 600",
    ),
    (
        Code::BadApiFile,
        "api = { listen = \"10.0.0.11:4749\", tokens = \"file:tokens\", tls = { cert = »\"empty.pem\", key = \"api.key\" } }",
        "PEM",
    ),
    (
        Code::BadApiFile,
        "api = { listen = \"10.0.0.11:4749\", tokens = \"file:tokens\", tls = { cert = \"ca.pem\", key = »\"absent.key\" } }",
        "PEM",
    ),
    (
        Code::BadApiFile,
        "api = { listen = \"10.0.0.11:4749\", tls = { cert = \"ca.pem\", key = »\"world.key\", client_ca = \"ca.pem\" } }",
        "chmod 600",
    ),
    (
        Code::MissingKey,
        "api = { listen = \"10.0.0.11:4749\", tokens = \"file:tokens\", tls = »{ cert = \"ca.pem\" } }",
        "key = ",
    ),
];

#[test]
fn a_file_with_users_and_certificates_is_taken() {
    let text = "api = { listen = \"10.0.0.11:4749\", tokens = \"file:tokens\", \
                tls = { cert = \"ca.pem\", key = \"api.key\", client_ca = \"ca.pem\" } }\n";
    let checked = crate::support::accepted(&format!("{text}{}", crate::support::SMALL));
    let api = checked.api.expect("there is one");
    assert_eq!(api.listen.to_string(), "10.0.0.11:4749");
    assert_eq!(
        (api.tokens[0].name.as_str(), api.tokens[0].role),
        ("ann", buoy_config::Role::Operate)
    );
    assert!(api.tls.is_some_and(|tls| tls.client_ca.is_some()));
    let without = crate::support::accepted(crate::support::SMALL);
    assert_eq!(without.desired.digest, checked.desired.digest, "each host has its own");
}
