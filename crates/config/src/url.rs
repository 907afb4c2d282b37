//! Takes the URL of a server apart.

/// Whether there is TLS, host, port and path of a URL.
pub(crate) fn parts(url: &str) -> Result<(bool, String, u16, String), &'static str> {
    let (is_tls, rest) = match url.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        Some(_) | None => return Err("it begins with http:// or https://"),
    };
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    if authority.contains('@') {
        return Err("a name and a password in it would be read by many");
    }
    let sound = |c: char| c.is_ascii_graphic();
    if !path.chars().all(sound) || path.contains('#') {
        return Err("its path has characters that must be escaped");
    }
    let default = if is_tls { 443 } else { 80 };
    let bracketed = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port.map(str::parse::<u16>) {
        None => default,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err("its port is not a number from 1 to 65535"),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_address = host.parse::<core::net::IpAddr>().is_ok();
    if host.is_empty() || !(is_address || host.chars().all(is_name)) {
        return Err("it names no host");
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok((is_tls, host.to_owned(), port, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let good = [
            ("http://a", (false, "a", 80, "/")),
            ("https://a.example.org/x?y=1", (true, "a.example.org", 443, "/x?y=1")),
            ("http://10.0.0.1:8080/", (false, "10.0.0.1", 8080, "/")),
            ("https://[2001:db8::1]:8443/x", (true, "2001:db8::1", 8443, "/x")),
        ];
        for (url, (tls, host, port, path)) in good {
            assert_eq!(parts(url), Ok((tls, host.to_owned(), port, path.to_owned())), "{url}");
        }
        let bad = [
            "ftp://a",
            "a/b",
            "http://",
            "http://u:p@a/",
            "http://a:0/",
            "http://a:x/",
            "http://a/\u{e4}",
            "http://a b/",
            "http://a/#x",
        ];
        for url in bad {
            assert!(parts(url).is_err(), "{url}");
        }
    }
}
