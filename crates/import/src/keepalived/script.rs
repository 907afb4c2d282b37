//! Makes programs of what keepalived calls scripts: Buoy runs them without a shell, by their absolute path.

use super::tree::Node;
use crate::draft::{list, one_or_list, quoted};

/// A program with its arguments, and the user that it runs as.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Script {
    pub(super) argv: Vec<String>,
    pub(super) user: Option<String>,
}

impl Script {
    /// `KEYWORD "/path argument" user group`, or `KEYWORD /path`, where a user may follow.
    pub(super) fn notify(node: &Node) -> Self {
        let argv = split(node.word(1));
        Self { argv, user: node.words.get(2).cloned() }
    }

    /// `KEYWORD "/path argument"`, or the same without quotes.
    pub(super) fn whole(node: &Node) -> Self {
        let argv = match node.after(1) {
            [one] => split(one),
            several => several.to_vec(),
        };
        Self { argv, user: None }
    }

    pub(super) fn is_absolute(&self) -> bool {
        self.argv.first().is_some_and(|program| program.starts_with('/'))
    }

    /// The process that it looks for, as in `killall -0 haproxy`, `pidof nginx` and `pgrep -x named`.
    pub(super) fn process(&self) -> Option<&str> {
        let words: Vec<&str> = self.argv.iter().map(String::as_str).collect();
        let program = words.first()?.rsplit('/').next()?;
        let name = match (program, words.get(1..)?) {
            ("killall", ["-0", name]) | ("pidof", [name]) | ("pidof", ["-s" | "-x", name]) => *name,
            ("pgrep", [name]) | ("pgrep", ["-x", name]) => *name,
            _ => return None,
        };
        let name = name.rsplit('/').next()?;
        // As long as the kernel keeps it.
        (!name.is_empty() && name.len() <= 15 && !name.starts_with('-')).then_some(name)
    }

    /// As TOML has it. What is no path goes through a shell, which looks for it.
    pub(super) fn exec(&self) -> String {
        match self.is_absolute() {
            true => one_or_list(self.argv.iter().map(|word| quoted(word)).collect()),
            false => {
                let words = ["/bin/sh", "-c"].into_iter().map(str::to_owned);
                list(words.chain([self.argv.join(" ")]).map(|word| quoted(&word)))
            }
        }
    }
}

/// Words separated by blanks, where single quotes keep them together.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for c in text.chars() {
        match c {
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Script {
        Script { argv: split(text), user: None }
    }

    #[test]
    fn who_looks_for_a_process_is_known() {
        let cases = [
            ("killall -0 haproxy", Some("haproxy")),
            ("/usr/bin/killall -0 nginx", Some("nginx")),
            ("/bin/pidof named", Some("named")),
            ("pgrep -x dnsmasq", Some("dnsmasq")),
            ("killall -0 a-name-longer-than-the-kernel-keeps", None),
            ("/etc/keepalived/check.sh", None),
            ("pgrep -f java", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(script(text).process(), expected, "{text}");
        }
    }

    #[test]
    fn a_script_is_run_by_its_path_or_by_a_shell() {
        assert_eq!(script("/a/b").exec(), "\"/a/b\"");
        assert_eq!(script("/a/b 'c d' e").exec(), "[\"/a/b\", \"c d\", \"e\"]");
        assert_eq!(
            script("curl -f http://x/").exec(),
            "[\"/bin/sh\", \"-c\", \"curl -f http://x/\"]"
        );
    }
}
