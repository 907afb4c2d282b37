//! Reads and writes the kernel's network settings under `/proc/sys`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A setting by its path, with slashes, because an interface's name may have dots.
pub const IPV4_FORWARD: &str = "net/ipv4/ip_forward";
/// Whether IPv6 is forwarded.
pub const IPV6_FORWARD: &str = "net/ipv6/conf/all/forwarding";
/// Whether an address may be used that the host does not have (yet).
pub const IPV4_NONLOCAL_BIND: &str = "net/ipv4/ip_nonlocal_bind";

/// A setting that could not be read or written.
#[derive(Debug)]
pub struct SysctlError {
    setting: String,
    value: Option<String>,
    cause: io::Error,
}

impl fmt::Display for SysctlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, value, cause } = self;
        match value {
            Some(value) => write!(f, "cannot set {setting} to {value}: {cause}")?,
            None => write!(f, "cannot read {setting}: {cause}")?,
        }
        match (cause.kind(), value) {
            (io::ErrorKind::NotFound, _) => {
                f.write_str("; this kernel does not have it, or the interface is gone")
            }
            (_, Some(value)) => {
                write!(f, "; set it outside: `sysctl -w {setting}={value}`")
            }
            (_, None) => Ok(()),
        }
    }
}

impl std::error::Error for SysctlError {}

/// The value of a setting, as in `net/ipv4/ip_forward`.
pub fn read(setting: &str) -> Result<String, SysctlError> {
    fs::read_to_string(path(setting))
        .map(|text| text.trim().to_owned())
        .map_err(|cause| SysctlError { setting: setting.to_owned(), value: None, cause })
}

/// Sets it, unless it has that value: a container may read what it may not write.
pub fn write(setting: &str, value: &str) -> Result<(), SysctlError> {
    if read(setting).is_ok_and(|present| present == value) {
        return Ok(());
    }
    fs::write(path(setting), value).map_err(|cause| SysctlError {
        setting: setting.to_owned(),
        value: Some(value.to_owned()),
        cause,
    })
}

fn path(setting: &str) -> PathBuf {
    Path::new("/proc/sys").join(setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_not_there_is_named() {
        let error = read("net/ipv4/no_such_thing").unwrap_err().to_string();
        assert!(error.starts_with("cannot read net/ipv4/no_such_thing: "), "{error}");
        let error = write("net/ipv4/no_such_thing", "1").unwrap_err().to_string();
        assert!(error.contains("this kernel does not have it"), "{error}");
    }

    #[test]
    fn a_setting_that_is_there_is_read_without_its_newline() {
        assert!(["0", "1"].contains(&read(IPV4_FORWARD).unwrap().as_str()));
    }
}
