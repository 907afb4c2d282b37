//! Files as they are on a disk: absent, odd, too large, open to everybody.

use crate::support::{KEY, SMALL, host};
use buoy_config::Code;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

fn codes(path: &Path) -> Vec<Code> {
    let report = buoy_config::load(path, &host()).map_or_else(|r| r, |checked| checked.warnings);
    assert!(
        report.problems().iter().all(|p| !p.message.is_empty() && !p.fix.is_empty()),
        "{report}"
    );
    report.problems().iter().map(|p| p.code).collect()
}

#[test]
fn a_file_with_its_key_beside_it_is_taken() {
    let directory = Directory::new();
    directory.write("cluster.key", KEY.as_bytes(), 0o600);
    let path = directory.write("buoy.toml", SMALL.as_bytes(), 0o644);
    assert_eq!(codes(&path), []);
}

#[test]
fn a_key_that_everybody_can_read_is_refused_and_one_that_a_group_can_read_is_told() {
    for (mode, expected) in [
        (0o600, None),
        (0o400, None),
        (0o640, Some(Code::KeyGroup)),
        (0o644, Some(Code::KeyOpen)),
        (0o606, Some(Code::KeyOpen)),
    ] {
        let directory = Directory::new();
        directory.write("cluster.key", KEY.as_bytes(), mode);
        let path = directory.write("buoy.toml", SMALL.as_bytes(), 0o644);
        assert_eq!(codes(&path), expected.into_iter().collect::<Vec<_>>(), "{mode:o}");
    }
}

#[test]
fn what_is_no_readable_text_is_said_so() {
    let directory = Directory::new();
    assert_eq!(codes(&directory.0.path().join("absent.toml")), [Code::FileUnreadable]);
    assert_eq!(codes(directory.0.path()), [Code::FileUnreadable]);
    // A device would never end; it is refused before it is read.
    assert_eq!(codes(Path::new("/dev/zero")), [Code::FileUnreadable]);
    let table: [(&str, Vec<u8>, Code); 4] = [
        ("latin1", b"# caf\xe9\n".to_vec(), Code::FileNotText),
        ("utf16", "peers".encode_utf16().flat_map(u16::to_le_bytes).collect(), Code::FileNotText),
        ("zero", b"peers = 1\n\0".to_vec(), Code::FileNotText),
        ("large", vec![b'#'; (4 << 20) + 1], Code::FileTooLarge),
    ];
    for (name, content, code) in table {
        let path = directory.write(name, &content, 0o644);
        assert_eq!(codes(&path), [code], "{name}");
    }
}

#[test]
fn the_line_of_a_byte_that_is_no_text_is_told() {
    let directory = Directory::new();
    let path = directory.write("latin1", b"# one\n# caf\xe9\n", 0o644);
    let report = buoy_config::load(&path, &host()).unwrap_err();
    assert!(report.problems()[0].reason.contains("line 2"), "{report}");
    assert!(report.to_string().contains("save it as UTF-8"), "{report}");
}

/// Four times as much takes four times as long, not sixteen times.
#[test]
fn what_a_file_costs_to_check_grows_with_it_and_no_faster() {
    let directory = Directory::new();
    let cost = |bytes: usize| {
        let mut text = String::new();
        while text.len() + 40 < bytes {
            text.push_str("[[vip]]\nadress = \"10.0.0.100/24\"\nx = 1\n");
        }
        let path = directory.write("buoy.toml", text.as_bytes(), 0o644);
        let start = std::time::Instant::now();
        let report = buoy_config::load_offline(&path).unwrap_err();
        let took = start.elapsed();
        assert_eq!(report.problems().len(), 100);
        assert!(report.left_out() > bytes / 40);
        assert!(report.to_string().contains("more problems, not shown"));
        took
    };
    let (quarter, whole) = (cost(1 << 18), cost(1 << 20));
    assert!(whole < 10 * quarter, "{quarter:?} and {whole:?}");
}
