//! Mutated files, from a printed seed: never a panic, and always a verdict with a reason.

use crate::support;
use buoy_config::Code;

const INPUTS: usize = 20_000;

/// A small generator (xorshift64*): the same seed gives the same files everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }
}

const PIECES: &[&str] = &[
    "\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    "\n",
    "#",
    "\\",
    "'''",
    "\"\"\"",
    "0",
    "-1",
    "99999999999999999999",
    "1e9",
    "true",
    "false",
    "1979-05-27",
    "/",
    "/33",
    ":",
    "::",
    "%eth0",
    "fe80::1",
    "255.255.255.255",
    "0.0.0.0",
    "file:",
    "weight=",
    " backup",
    "ms",
    "\"10ms\"",
    "\u{6d6e}",
    "\u{1b}",
    "\u{202e}",
    "\r",
    "\t",
    "peers",
    "secret",
    "vip",
    "[[vip]]",
    "[vip]",
    "[[vip.service]]",
    "[[pool]]",
    "[[reservation]]\n",
    "auto_assign = true\n",
    "pool = \"*\"\n",
    "for = \"a\"\n",
    "witness = ",
    "weights = ",
    "group = \"a\"\n",
    "apart = \"a\"\n",
    "addresses = ",
    "10.0.0.1-10.0.0.9/24",
    "process",
    "-",
    "address",
    "service",
    "check",
    "nodes",
    "prefer",
    "bgp = 1\n",
    "port = ",
    "vip.service = 1\n",
    "a.b.c = 1\n",
    "[peers]\n",
];

fn mutate(text: &mut Vec<char>, random: &mut Random) {
    let at = random.below(text.len() + 1);
    let end = (at + 1 + random.below(12)).min(text.len());
    match random.below(6) {
        0 => drop(text.drain(at.min(end)..end)),
        1 => {
            let part: Vec<char> = text[at.min(end)..end].to_vec();
            let to = random.below(text.len() + 1);
            text.splice(to..to, part);
        }
        2 => {
            let piece = PIECES[random.below(PIECES.len())];
            text.splice(at..at, piece.chars());
        }
        3 => {
            let piece = PIECES[random.below(PIECES.len())];
            text.splice(at.min(end)..end, piece.chars());
        }
        4 => {
            if let Some(c) = text.get_mut(at) {
                *c = char::from(u8::try_from(random.below(128)).unwrap());
            }
        }
        _ => {
            // Move a whole line: keys end up in tables they do not belong to.
            let lines: Vec<String> =
                text.iter().collect::<String>().lines().map(str::to_owned).collect();
            let mut lines = lines;
            let line = lines.remove(random.below(lines.len()).min(lines.len().saturating_sub(1)));
            lines.insert(random.below(lines.len() + 1), line);
            *text = lines.join("\n").chars().collect();
        }
    }
    if text.is_empty() {
        text.push('\n');
    }
}

fn judge(text: &str) {
    match support::check(text) {
        Ok(checked) => {
            let desired = &checked.desired;
            assert!(desired.groups.is_sorted_by(|a, b| a.id < b.id));
            assert!(desired.nodes.is_sorted_by(|a, b| a.id < b.id));
            assert!(desired.node(desired.me).is_some());
            for group in &desired.groups {
                let mine = group.nodes.contains(&desired.me);
                assert!(!group.addresses.is_empty() && !group.nodes.is_empty());
                assert!(group.addresses.iter().all(|a| a.link.is_some() == mine));
                assert!(
                    group.services.iter().all(|s| !s.backends.is_empty() && s.ports.last() > 0)
                );
            }
            assert_eq!(checked.warnings.errors(), 0);
        }
        Err(report) => {
            assert!(report.errors() > 0, "refused without a reason");
            let lines = text.split('\n').count();
            for problem in report.problems() {
                assert!(problem.line <= lines && !problem.fix.is_empty(), "{problem:?}");
                assert!(!problem.message.contains('\u{1b}'), "{problem:?}");
            }
            assert!(report.to_string().contains("fix: "));
        }
    }
}

#[test]
fn no_text_makes_it_panic_and_every_refusal_has_a_reason() {
    let seed = std::env::var("BUOY_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x6275_6f79);
    println!("seed {seed}; BUOY_SEED={seed} repeats this run");
    let mut random = Random(seed | 1);
    let corpus: Vec<Vec<char>> =
        crate::examples::texts().iter().map(|(_, t)| t.chars().collect()).collect();
    for _ in 0..INPUTS {
        let mut text = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut text, &mut random);
        }
        let text: String = text.into_iter().collect();
        if let Err(panic) = std::panic::catch_unwind(|| judge(&text)) {
            eprintln!("seed {seed}, input:\n{text}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_deeply_nested_text_is_an_error_and_not_an_overflow() {
    for text in [
        "[".repeat(100_000),
        "a = ".to_owned() + &"[".repeat(100_000),
        "a".to_owned() + &".a".repeat(100_000) + " = 1",
        "x = ".to_owned() + &"{a=".repeat(50_000),
    ] {
        let report = support::report(&text);
        assert!(
            report.problems().iter().any(|p| p.code.severity() == buoy_config::Severity::Error)
        );
        assert!(
            report.problems().iter().any(|p| p.code == Code::Syntax || p.code == Code::UnknownKey),
            "{}",
            report.summary()
        );
    }
}
