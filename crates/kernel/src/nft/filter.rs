//! Which chains of other people's tables drop what no rule of theirs accepts on its way into this host.

use super::run;

/// As in `inet filter input`; none where nftables is not there or does not say.
pub(crate) fn dropping_input() -> Vec<String> {
    run(&["list", "chains"], "").map(|listed| dropping(&listed)).unwrap_or_default()
}

/// Reads what `nft list chains` prints.
fn dropping(listed: &str) -> Vec<String> {
    let (mut table, mut chain, mut found) = ("", "", Vec::new());
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", .., "{"] => {
                table = line.trim().trim_start_matches("table ").trim_end_matches(" {");
            }
            ["chain", name, "{"] => chain = name,
            ["type", "filter", "hook", hook, ..]
                if ["input", "prerouting", "ingress"].contains(hook)
                    && line.contains("policy drop") =>
            {
                found.push(format!("{table} {chain}"));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chains_that_drop_what_comes_in_are_named() {
        let listed = "\
table inet filter {
\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t}
\tchain output {
\t\ttype filter hook output priority filter; policy drop;
\t}
\tchain services {
\t}
}
table ip raw {
\tchain early {
\t\ttype filter hook prerouting priority raw; policy accept;
\t}
\tchain first {
\t\ttype filter hook prerouting priority raw + 1; policy drop;
\t}
}
";
        assert_eq!(dropping(listed), ["inet filter input", "ip raw first"]);
        assert_eq!(dropping(""), Vec::<String>::new());
    }
}
