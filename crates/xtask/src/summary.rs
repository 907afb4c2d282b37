//! Counts what a test run came to, so that a test without its privilege or its peer never reads as passed.
//!
//! A test that cannot run prints `SKIPPED: its name: the reason` and returns. To the test runner it
//! passed; here it is taken out of the passed ones and listed with its reason.

/// How a line of a test's output begins that says why it was not run.
pub(crate) const MARK: &str = "SKIPPED: ";

/// What a run came to. Every test is counted once.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    /// The lines that say why, in the order of the run.
    pub(crate) skips: Vec<String>,
}

impl Count {
    /// The line that CI reads.
    pub(crate) fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |mut all, one| {
            all.passed += one.passed;
            all.failed += one.failed;
            all.skipped += one.skipped;
            all.skips.extend(one.skips);
            all
        })
    }
}

/// Counts the JUnit report of `cargo nextest`, which escapes every `<` of the tests' own output.
pub(crate) fn count(junit: &str) -> Count {
    let mut count = Count::default();
    for case in junit.split("<testcase ").skip(1) {
        let case = case.split("</testsuite>").next().unwrap_or(case);
        let skips = skips(case);
        if case.contains("<failure") || case.contains("<error") {
            count.failed += 1;
        } else if skips.is_empty() {
            count.passed += 1;
        } else {
            count.skipped += 1;
        }
        count.skips.extend(skips);
    }
    count
}

/// The lines of one test's output that begin with the mark.
fn skips(case: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in case.split(['\n', '>']) {
        // Said to the standard output it stands behind the runner's own `test its_name ... `.
        let line = line.rsplit_once(" ... ").map_or(line, |(_, said)| said);
        let Some(line) = line.strip_prefix(MARK) else { continue };
        let line = plain(line.split('<').next().unwrap_or(line));
        let line = format!("{MARK}{}", line.trim_end());
        // One reason said by each of a table's cases is one reason.
        if !found.contains(&line) {
            found.push(line);
        }
    }
    found
}

/// Undoes the escapes of XML.
fn plain(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4" failures="1" errors="0">
    <testsuite name="buoy-lab" tests="4" disabled="0" errors="0" failures="1">
        <testcase name="holds" classname="buoy-lab" time="0.1">
            <system-out>running 1 test, not SKIPPED: at all
test holds ... ok</system-out>
        </testcase>
        <testcase name="needs_root" classname="buoy-lab" time="0.1">
            <system-out>test needs_root ... SKIPPED: needs_root: no CAP_NET_ADMIN &lt;here&gt;
</system-out>
        </testcase>
        <testcase name="needs_peer" classname="buoy-lab" time="0.1">
            <system-err>starting
SKIPPED: needs_peer: keepalived is not installed
SKIPPED: needs_peer: keepalived is not installed</system-err>
        </testcase>
        <testcase name="breaks" classname="buoy-lab" time="0.1">
            <failure type="test failure">assertion failed</failure>
            <system-err>SKIPPED: breaks: half of it</system-err>
        </testcase>
    </testsuite>
</testsuites>"#;

    #[test]
    fn a_skipped_test_is_never_counted_as_passed() {
        let count = count(REPORT);
        assert_eq!(count.line(), "1 passed, 1 failed, 2 skipped");
        assert_eq!(
            count.skips,
            [
                "SKIPPED: needs_root: no CAP_NET_ADMIN <here>",
                "SKIPPED: needs_peer: keepalived is not installed",
                "SKIPPED: breaks: half of it",
            ]
        );
    }

    #[test]
    fn the_counts_of_several_runs_add_up() {
        let sum: Count = [count(REPORT), count(REPORT), Count::default()].into_iter().sum();
        assert_eq!(sum.line(), "2 passed, 2 failed, 4 skipped");
        assert_eq!(sum.skips.len(), 6);
    }

    #[test]
    fn an_empty_report_counts_nothing() {
        assert_eq!(count(""), Count::default());
    }
}
