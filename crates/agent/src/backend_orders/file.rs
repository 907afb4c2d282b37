//! Keeps orders of backends in a file, replaced as a whole, so that a restart of the agent forgets none.
//!
//! A file that cannot be read costs the orders and not the agent: it is moved aside, and that is said.

use buoy_model::limits::{
    BACKEND_ORDERS_MAX, BACKEND_WEIGHT_MAX, CHECK_SHARE_MAX, NAME_MAX, ORDER_REASON_MAX,
};
use buoy_model::{
    BackendId, BackendOrder, Duty, NodeId, OrderVersion, OrderedWeight, Ports, Protocol,
};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The form of the file.
const FORM: u32 = 1;
/// More is not read: no order takes so much.
const BYTES_MAX: u64 = (BACKEND_ORDERS_MAX * (2 * ORDER_REASON_MAX + 1024)) as u64;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    form: u32,
    orders: Vec<WrittenOrder>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenOrder {
    address: IpAddr,
    protocol: WrittenProtocol,
    ports: (u16, u16),
    backend: String,
    duty: WrittenDuty,
    weight: WrittenWeight,
    micros: u64,
    node: u32,
    reason: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum WrittenProtocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum WrittenDuty {
    Configured,
    Ready,
    Drain { until: Option<u64> },
    Maint,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum WrittenWeight {
    Configured,
    Fixed(u16),
    Percent(u16),
}

/// The orders in the file; none where there is no file. Why they are lost, in words.
pub(super) fn read(path: &Path) -> Result<Vec<BackendOrder>, String> {
    let text = match text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(lost(path, &error.to_string())),
    };
    let read: Result<Written, _> = serde_json::from_str(&text);
    let orders = match read {
        Ok(Written { form: FORM, orders }) => {
            orders.into_iter().map(order).collect::<Option<Vec<BackendOrder>>>()
        }
        Ok(Written { form, .. }) => {
            return Err(lost(path, &format!("its form {form} is not known")));
        }
        Err(error) => return Err(lost(path, &error.to_string())),
    };
    orders.ok_or_else(|| lost(path, "an order in it is not one"))
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Moves the file aside, so that it can be looked at.
fn lost(path: &Path, why: &str) -> String {
    let aside = beside(path, "bad");
    let place = match fs::rename(path, &aside) {
        Ok(()) => format!("it is {} now", aside.display()),
        Err(error) => format!("it stays where it is: {error}"),
    };
    format!(
        "the orders of backends in {} are lost on this node: {why}; {place}. Peers that have them tell \
         them again; else give them again",
        path.display()
    )
}

/// Puts the orders into the file, in the place of all that was in it. Why not, in words.
pub(super) fn write<'o>(
    path: &Path,
    orders: impl Iterator<Item = &'o BackendOrder>,
) -> Result<(), String> {
    let written = Written { form: FORM, orders: orders.map(written).collect() };
    replace(path, &written).map_err(|error| {
        format!(
            "orders of backends end with this agent: {} cannot be written: {error}; name another \
             file with --orders",
            path.display()
        )
    })
}

fn replace(path: &Path, written: &Written) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(written)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = beside(path, "new");
    let mut file = File::create(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{end}"));
    name.into()
}

fn written(order: &BackendOrder) -> WrittenOrder {
    let BackendId { address, protocol, ports, name } = &order.backend;
    WrittenOrder {
        address: *address,
        protocol: match protocol {
            Protocol::Tcp => WrittenProtocol::Tcp,
            Protocol::Udp => WrittenProtocol::Udp,
        },
        ports: (ports.first(), ports.last()),
        backend: name.clone(),
        duty: match order.duty {
            Duty::Configured => WrittenDuty::Configured,
            Duty::Ready => WrittenDuty::Ready,
            Duty::Drain { until } => WrittenDuty::Drain { until },
            Duty::Maint => WrittenDuty::Maint,
        },
        weight: match order.weight {
            OrderedWeight::Configured => WrittenWeight::Configured,
            OrderedWeight::Fixed(weight) => WrittenWeight::Fixed(weight),
            OrderedWeight::Percent(share) => WrittenWeight::Percent(share),
        },
        micros: order.version.micros,
        node: order.version.node.0,
        reason: order.reason.clone(),
    }
}

/// `None`: nobody could have given it.
fn order(written: WrittenOrder) -> Option<BackendOrder> {
    let (first, last) = written.ports;
    let weight = match written.weight {
        WrittenWeight::Configured => OrderedWeight::Configured,
        WrittenWeight::Fixed(weight) if weight <= BACKEND_WEIGHT_MAX => {
            OrderedWeight::Fixed(weight)
        }
        WrittenWeight::Percent(share) if share <= CHECK_SHARE_MAX => OrderedWeight::Percent(share),
        WrittenWeight::Fixed(_) | WrittenWeight::Percent(_) => return None,
    };
    if written.backend.len() > NAME_MAX || written.reason.len() > ORDER_REASON_MAX {
        return None;
    }
    let protocol = match written.protocol {
        WrittenProtocol::Tcp => Protocol::Tcp,
        WrittenProtocol::Udp => Protocol::Udp,
    };
    Some(BackendOrder {
        backend: BackendId {
            address: written.address,
            protocol,
            ports: Ports::new(first, last)?,
            name: written.backend,
        },
        duty: match written.duty {
            WrittenDuty::Configured => Duty::Configured,
            WrittenDuty::Ready => Duty::Ready,
            WrittenDuty::Drain { until } => Duty::Drain { until },
            WrittenDuty::Maint => Duty::Maint,
        },
        weight,
        version: OrderVersion { micros: written.micros, node: NodeId(written.node) },
        reason: written.reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(duty: Duty, weight: OrderedWeight) -> BackendOrder {
        BackendOrder {
            backend: BackendId {
                address: [10, 0, 0, 100].into(),
                protocol: Protocol::Tcp,
                ports: Ports::one(443),
                name: "web1".into(),
            },
            duty,
            weight,
            version: OrderVersion { micros: 1_795_000_000_000_000, node: NodeId(0xdead_beef) },
            reason: "patching \"it\" (by ann)".into(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/orders.json");
        assert_eq!(read(&path), Ok(vec![]), "there is no file yet");
        let duties = [
            Duty::Configured,
            Duty::Ready,
            Duty::Drain { until: None },
            Duty::Drain { until: Some(7) },
            Duty::Maint,
        ];
        let weights = [
            OrderedWeight::Configured,
            OrderedWeight::Fixed(0),
            OrderedWeight::Fixed(256),
            OrderedWeight::Percent(255),
        ];
        let all: Vec<_> =
            duties.iter().flat_map(|d| weights.iter().map(|w| sample(*d, *w))).collect();
        write(&path, all.iter()).unwrap();
        assert_eq!(read(&path), Ok(all));
        let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(files.len(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_not_one_is_moved_aside_and_told() {
        let good = |weight: &str, ports: &str| {
            format!(
                r#"{{"form":1,"orders":[{{"address":"10.0.0.1","protocol":"tcp","ports":{ports},"backend":"a","duty":"maint","weight":{weight},"micros":1,"node":1,"reason":""}}]}}"#
            )
        };
        let table = [
            String::new(),
            "{".into(),
            r#"{"form":2,"orders":[]}"#.into(),
            good(r#"{"fixed":257}"#, "[1,1]"),
            good(r#"{"percent":256}"#, "[1,1]"),
            good(r#""configured""#, "[2,1]"),
            good(r#""configured""#, "[1,65536]"),
        ];
        for text in table {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("orders.json");
            fs::write(&path, &text).unwrap();
            let told = read(&path).unwrap_err();
            assert!(told.contains("are lost on this node"), "{told}");
            assert!(!path.exists(), "{text}");
            assert_eq!(fs::read_to_string(folder.path().join("orders.json.bad")).unwrap(), text);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.json");
        fs::write(&path, good(r#""configured""#, "[1,1]")).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1, "the text above is right otherwise");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let told = write(folder.path(), std::iter::empty()).unwrap_err();
        assert!(told.contains("cannot be written") && told.contains("--orders"), "{told}");
    }
}
