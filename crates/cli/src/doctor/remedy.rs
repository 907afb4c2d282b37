//! `buoy doctor --fix`: does what a finding advises, where that needs no decision.
//!
//! A setting of the kernel holds at once, and after the next start by a file below `/etc/sysctl.d`. What takes an
//! address away, and so moves traffic, is done only with `--yes`.

use super::Finding;
use buoy_api::Client;
use buoy_kernel::netlink::Requests;
use buoy_kernel::sysctl;
use buoy_model::{Cidr, LinkId};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Where settings are kept over a start of the host.
const KEPT: &str = "/etc/sysctl.d/60-buoy.conf";
/// The first line of that file.
const KEPT_HEAD: &str = "# Written by `buoy doctor --fix`; it goes with Buoy.";

/// What mends a finding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Remedy {
    /// These settings get these values.
    Settings(Vec<(String, &'static str)>),
    /// An address that somebody else put here is taken off.
    RemoveAddress { link: LinkId, name: String, cidr: Cidr },
    /// The agent reads the file again.
    Reload,
}

impl Remedy {
    /// Whether clients may notice.
    const fn moves_traffic(&self) -> bool {
        match self {
            Self::Settings(_) => false,
            // Reload applies whatever was written into the file.
            Self::RemoveAddress { .. } | Self::Reload => true,
        }
    }

    fn apply(&self, client: &Client, kept: &Path) -> Result<String, String> {
        match self {
            Self::Settings(settings) => {
                for (setting, value) in settings {
                    sysctl::write(setting, value).map_err(|error| error.to_string())?;
                }
                keep(settings, kept).map_err(|error| format!("{}: {error}", kept.display()))?;
                let said = settings.iter().map(|(setting, value)| format!("{setting} = {value}"));
                let said: Vec<_> = said.collect();
                Ok(format!(
                    "{}, also after a start of this host ({})",
                    said.join(", "),
                    kept.display()
                ))
            }
            Self::RemoveAddress { link, name, cidr } => Requests::open()
                .and_then(|mut requests| requests.remove_address(*link, *cidr))
                .map(|_| format!("{cidr} is off {name}"))
                .map_err(|error| error.to_string()),
            Self::Reload => client
                .reload()
                .map(|reply| format!("the agent runs generation {} of the file", reply.generation))
                .map_err(|error| error.to_string()),
        }
    }
}

/// Mends what can be mended, and says of each what became of it.
pub(super) fn apply(findings: &[Finding], client: &Client, yes: bool) -> Vec<Finding> {
    let remedies = findings.iter().filter_map(|f| f.remedy.as_ref().map(|remedy| (f, remedy)));
    let one = |(finding, remedy): (&Finding, &Remedy)| {
        if remedy.moves_traffic() && !yes {
            return Finding::warn(
                "left alone",
                format!("{}: {}", finding.about, finding.fix),
                "this may move traffic: `buoy doctor --fix --yes` does it",
            );
        }
        match remedy.apply(client, Path::new(KEPT)) {
            Ok(done) => Finding::ok("mended", format!("{}: {done}", finding.about)),
            Err(error) => {
                let found = format!("{}: {error}", finding.about);
                Finding::fail("not mended", found, "run it as root")
            }
        }
    };
    remedies.map(one).collect()
}

/// Writes settings where the host finds them when it starts; what is there already stays.
fn keep(settings: &[(String, &'static str)], file: &Path) -> std::io::Result<()> {
    let before = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let lines = before.lines().filter_map(|line| line.split_once(" = "));
    let mut all: BTreeMap<String, String> =
        lines.map(|(setting, value)| (setting.to_owned(), value.to_owned())).collect();
    for (setting, value) in settings {
        // With slashes, a dot in the name of an interface is no separator.
        all.insert(setting.clone(), (*value).to_owned());
    }
    let lines: String =
        all.iter().map(|(setting, value)| format!("{setting} = {value}\n")).collect();
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, format!("{KEPT_HEAD}\n{lines}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_beside_earlier_ones() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sysctl.d/60-buoy.conf");
        let setting = |name: &str| format!("net/ipv4/conf/{name}/rp_filter");
        keep(&[(setting("eth1.7"), "2")], &file).unwrap();
        keep(&[(setting("all"), "2"), (setting("eth1.7"), "0")], &file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let expected = format!(
            "{KEPT_HEAD}\nnet/ipv4/conf/all/rp_filter = 2\nnet/ipv4/conf/eth1.7/rp_filter = 0\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn what_moves_traffic_waits_for_a_yes() {
        let finding =
            Finding::warn("configuration", "differs", "buoy reload").mended_by(Remedy::Reload);
        let client = Client::connect("/nowhere").unwrap();
        let said = apply(std::slice::from_ref(&finding), &client, false);
        assert_eq!((said[0].about, said[0].fix.contains("--yes")), ("left alone", true));
        let said = apply(&[finding], &client, true);
        assert_eq!(said[0].about, "not mended");
    }
}
