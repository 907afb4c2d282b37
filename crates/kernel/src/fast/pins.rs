//! Where maps and links are kept while no process holds them: below `/sys/fs/bpf/buoy`.
//!
//! Each network namespace has its own folder there, because the indices of interfaces are its own.

use aya::maps::MapData;
use buoy_model::LinkId;
use buoy_xdp::forward::{DROPS, EXCEPTIONS, LAYOUT, LIMITS, MAPS, PROGRAMS_MAP};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const FILE_SYSTEM: &str = "/sys/fs/bpf";

/// How names of what earlier programs go on to begin.
const ASIDE: &str = "programs-";

/// How the program sees frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// In the driver, before the kernel has made anything of them.
    Driver,
    /// Behind the driver; slower, on every interface.
    Generic,
}

impl Mode {
    /// In the order in which they are tried.
    pub const ALL: [Self; 2] = [Self::Driver, Self::Generic];

    /// A word for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Generic => "generic",
        }
    }
}

/// A map and how many elements it has.
pub(super) type MapLength = (&'static str, u32);

/// The folder of this network namespace.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// Opens the folder, and mounts a bpffs if there is none; in words why not.
    pub(super) fn open() -> Result<Self, String> {
        let root = Path::new(FILE_SYSTEM);
        if !is_bpffs(root) {
            let none = None::<&str>;
            mount(Some("bpf"), root, Some("bpf"), MsFlags::empty(), none)
                .map_err(|errno| format!("no bpffs can be mounted: {}", errno.desc()))?;
        }
        let pins = Self { folder: Self::folder().map_err(|e| e.to_string())? };
        let maps = pins.maps();
        fs::create_dir_all(&maps).map_err(|e| format!("{}: {e}", maps.display()))?;
        Ok(pins)
    }

    fn folder() -> io::Result<PathBuf> {
        let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
        Ok(Path::new(FILE_SYSTEM).join("buoy").join(format!("net-{namespace}")))
    }

    /// The folder, if an earlier run has left something in it.
    pub(super) fn existing() -> Option<Self> {
        Self::folder().ok().filter(|folder| folder.exists()).map(|folder| Self { folder })
    }

    /// The folder of the maps of this layout.
    pub(super) fn maps(&self) -> PathBuf {
        self.folder.join(format!("layout-{LAYOUT}"))
    }

    /// Where a map of that name is.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Where the link of an interface is.
    pub(super) fn link(&self, link: LinkId, mode: Mode) -> PathBuf {
        self.folder.join(format!("link-{}-{}", link.0, mode.name()))
    }

    /// How long the maps of an earlier run are, if all are there and none is shorter than these.
    pub(super) fn lengths(&self, least: &[MapLength]) -> Option<Vec<MapLength>> {
        let length = |name: &str| {
            let map = MapData::from_pin(self.map(name)).ok()?;
            map.info().ok().map(|info| info.max_entries())
        };
        let all = MAPS.iter().chain([&PROGRAMS_MAP]);
        let is_there = all.clone().all(|&name| self.map(name).exists());
        let fits = |&(name, least): &MapLength| {
            length(name).filter(|is| least <= *is).map(|length| (name, length))
        };
        is_there.then(|| least.iter().map(fits).collect()).flatten()
    }

    /// A map of an earlier run, if it is there.
    pub(super) fn earlier(&self, name: &str) -> Option<MapData> {
        MapData::from_pin(self.map(name)).ok()
    }

    /// Whether an earlier run has left something.
    pub(super) fn kept() -> bool {
        Self::folder().is_ok_and(|folder| folder.exists())
    }

    /// Forgets the maps that are to have another length; who uses them keeps them. What was counted, and
    /// remembered of flows and clients, stays.
    pub(super) fn forget_maps(&self) {
        self.set_aside(&self.maps());
        for name in MAPS
            .iter()
            .chain([&PROGRAMS_MAP])
            .filter(|name| ![&DROPS, &EXCEPTIONS, &LIMITS].contains(name))
        {
            let _ = fs::remove_file(self.map(name));
        }
    }

    /// Forgets the maps of programs with another layout, and names those layouts; who runs keeps them.
    pub(super) fn forget_other_layouts(&self) -> Vec<String> {
        let maps = self.maps();
        self.forget_layouts(|folder| folder != maps)
    }

    /// Keeps what the programs of these maps go on to, until none of them is on an interface: the kernel empties such
    /// an array when nobody has it open or pinned, also while a program uses it.
    fn set_aside(&self, maps: &Path) {
        // An earlier run may have come no further than to here.
        let free = (0_u32..).map(|n| self.folder.join(format!("{ASIDE}{n}")));
        if let Some(aside) = free.into_iter().find(|path| !path.exists()) {
            let _ = fs::rename(maps.join(PROGRAMS_MAP), aside);
        }
    }

    /// Forgets what earlier programs went on to, if none of them is on an interface any more.
    pub(super) fn forget_set_aside(&self, is_earlier: impl Fn(LinkId) -> bool) {
        if self.links().into_iter().any(|(link, _)| is_earlier(link)) {
            return;
        }
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(ASIDE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn forget_layouts(&self, which: impl Fn(&Path) -> bool) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir() && which(path));
        let mut names = Vec::new();
        for folder in folders {
            names.extend(folder.file_name().map(|name| name.to_string_lossy().into_owned()));
            self.set_aside(&folder);
            // A file system of BPF objects removes no folder that holds some.
            for map in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let _ = fs::remove_file(map.path());
            }
            let _ = fs::remove_dir(folder);
        }
        names
    }

    /// The links that are kept, by interface.
    pub(super) fn links(&self) -> Vec<(LinkId, Mode)> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| link_of(&name)).collect()
    }

    /// Takes away everything of this namespace, and the folder of all if nobody else is in it.
    pub(super) fn remove(&self) {
        for (link, mode) in self.links() {
            let _ = fs::remove_file(self.link(link, mode));
        }
        let _ = self.forget_layouts(|_| true);
        self.forget_set_aside(|_| false);
        let _ = fs::remove_dir(&self.folder);
        if let Some(all) = self.folder.parent() {
            let _ = fs::remove_dir(all);
        }
    }
}

fn link_of(name: &str) -> Option<(LinkId, Mode)> {
    let (index, mode) = name.strip_prefix("link-")?.split_once('-')?;
    let mode = Mode::ALL.into_iter().find(|m| m.name() == mode)?;
    Some((LinkId(index.parse().ok()?), mode))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_known_by_the_name_of_its_file() {
        assert_eq!(link_of("link-12-driver"), Some((LinkId(12), Mode::Driver)));
        assert_eq!(link_of("link-3-generic"), Some((LinkId(3), Mode::Generic)));
        for name in ["link-3", "link-x-driver", "layout-1", "link-3-native", "link--driver"] {
            assert_eq!(link_of(name), None, "{name}");
        }
    }
}
