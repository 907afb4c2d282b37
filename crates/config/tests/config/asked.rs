//! Wrong checks of backends, each with its code, its place and its fix.

use crate::cases::Case;
use buoy_config::Code;

/// Lines of a `[[vip.service]]` that hold a wrong `check`.
pub(crate) const BACKEND_CHECK: &[Case] = &[
    (Code::BadCheck, "check = »{ every = \"1s\" }", "check = false"),
    (Code::BadCheck, "check = { tcp = true, http = »\"GET /\" }", "remove `tcp"),
    (Code::BadCheck, "check = { http = »\"/health\" }", "\"GET /health\""),
    (Code::BadCheck, "check = { http = »\"FETCH /health\" }", "\"GET /health\""),
    (Code::BadCheck, "check = { http = »\"GET health\" }", "\"GET /health\""),
    (Code::BadCheck, "check = { http = »\"GET /a b\" }", "%20"),
    (Code::BadCheck, "check = { http = »\"HEAD /\", body = \"ready\" }", "GET /"),
    (Code::BadCheck, "check = { http = \"GET /\", tls_warn = »\"14d\" }", "tls = true"),
    (Code::BadCheck, "check = { tcp = true, »headers = \"A: b\" }", "http = \"GET /health\""),
    (Code::BadCheck, "check = { tls = true, »body = \"ready\" }", "http = \"GET /health\""),
    (Code::BadExpect, "check = { http = \"GET /\", expect = »\"2xx\" }", "\"200-399\""),
    (Code::BadExpect, "check = { http = \"GET /\", expect = [200, »\"399-300\"] }", "\"200-399\""),
    (Code::BadExpect, "check = { http = \"GET /\", expect = »[] }", "\"200-399\""),
    (Code::WrongType, "check = { http = \"GET /\", expect = »true }", "\"200-399\""),
    (Code::BadHeader, "check = { http = \"GET /\", headers = [»\"nothing\"] }", "X-Probe: buoy"),
    (Code::BadHeader, "check = { http = \"GET /\", headers = »\"a b: c\" }", "correct the name"),
    (Code::BadHeader, "check = { http = \"GET /\", headers = »\"Host: a.example\" }", "host = "),
    (
        Code::BadHeader,
        "check = { http = \"GET /\", headers = »\"Connection: close\" }",
        "remove it",
    ),
    (Code::BadHeader, "check = { http = \"GET /\", headers = »\"a: \\u0007\" }", "encode"),
    (Code::BadPattern, "check = { http = \"GET /\", body = »\"\" }", "body = \"ready\""),
    (Code::BadPattern, "check = { http = \"GET /\", body_regex = »\"(a\" }", "body_regex = "),
    (
        Code::BadPattern,
        "check = { http = \"GET /\", body_regex = »\"(a{1000}){1000}\" }",
        "body_regex = ",
    ),
    (
        Code::BadPattern,
        "check = { http = \"GET /\", body = \"a\", body_regex = »\"b\" }",
        "remove one",
    ),
    (
        Code::SlowCheck,
        "check = { tcp = true, every_down = \"200ms\", timeout = »\"1s\" }",
        "every_down = \"1s\"",
    ),
    (
        Code::BadCheck,
        "check = { http = »\"https://a.example/health\" }",
        "\"GET /health\", tls = true",
    ),
    (Code::BadCheck, "check = { tcp = true, »tls = true }", "http = \"GET /health\""),
    (Code::BadCheck, "check = { http = \"GET /\", ca = »\"ca.pem\" }", "tls = true"),
    (Code::BadCheck, "check = { http = \"GET /\", host = »\"a b\" }", "host = "),
    (
        Code::SlowCheck,
        "check = { tcp = true, every = \"1s\", timeout = »\"2s\" }",
        "every = \"2s\"",
    ),
    (Code::BadAuthority, "check = { http = \"GET /\", tls = true, ca = »\"gone.pem\" }", "PEM"),
    (Code::BadAuthority, "check = { http = \"GET /\", tls = true, ca = »\"empty.pem\" }", "PEM"),
];
