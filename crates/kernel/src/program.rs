//! What of this program is kept in memory, and what is given back once it runs: a takeover must not wait for a disk,
//! and what only the start, the command line or the API need is none of its business.
//!
//! The linker gathers the code of a takeover in a section of its own (`crates/cli/takeover.ld`). A program that was
//! linked without it (a test, say) is kept whole.

use crate::sys;
use object::read::{Object as _, ObjectSection as _, ObjectSegment as _, ReadCache};
use object::{SegmentFlags, elf};
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;
use std::{fs, io};

/// The code that a takeover runs, and what it reads.
const TAKEOVER: [&str; 2] = [".takeover", ".takeover.rodata"];
/// What the C library takes for a large block at the start.
const LARGE: i32 = 128 << 10;
/// The smallest page of any machine.
const PAGE: usize = 4096;

/// Where in memory this program is, from page to page.
#[derive(Debug, Default, Eq, PartialEq)]
struct Places {
    /// What a takeover needs.
    kept: Vec<Range<usize>>,
    /// What else there is, and is as it was in the file: it can be read again.
    rest: Vec<Range<usize>>,
}

/// Bytes of the file, `(start, length)`, as `object` has it.
type FileRange = (u64, u64);

/// Where in its file the program has what.
#[derive(Debug)]
struct Parts {
    /// Sections that a takeover needs; none in a program that was linked without them.
    takeover: Vec<FileRange>,
    /// Segments that nobody writes to.
    read_only: Vec<FileRange>,
}

/// Brings into memory what a takeover needs of the program, and keeps it there.
pub(crate) fn keep() -> io::Result<()> {
    places()?.kept.iter().try_for_each(|range| sys::lock_memory(range.start, range.len()))
}

/// For the first thing that the agent does: what it needs for a moment, such as a whole ruleset or answer, it does
/// not keep.
pub fn begin() {
    sys::return_blocks_from(LARGE);
    sys::share_heap();
}

/// Gives back memory that was freed: after work that needs much for a moment.
pub fn trim() {
    sys::trim_heap();
}

/// Gives back what has run and is not kept, such as the code of a start: what still runs comes back by itself. No
/// thread waits for it: the kernel changes no mapping here (which a page fault of the loop would have to wait for, and
/// locking or unlocking memory while the loop runs does).
pub fn give_back() {
    // A program that cannot say where it is keeps all of it, and under a kernel before 5.18 what is locked stays.
    for range in places().unwrap_or_default().rest {
        let _ = sys::forget_unchanged(range.start, range.len());
    }
}

/// Libraries come and go, so where all of it is in memory is asked anew.
fn places() -> io::Result<Places> {
    let parts = parts()?;
    let path = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mappings: Vec<Mapping> = maps.lines().filter_map(|line| mapping(line, &path)).collect();
    let loaded = |part: &FileRange| loaded(&mappings, *part);
    let kept: Vec<_> = parts.takeover.iter().flat_map(loaded).map(|range| pages(&range)).collect();
    if kept.is_empty() {
        let whole = mappings.into_iter().map(|mapping| mapping.memory).collect();
        return Ok(Places { kept: whole, rest: Vec::new() });
    }
    let own = parts.read_only.iter().flat_map(loaded);
    let rest = own
        .chain(maps.lines().filter_map(|line| library(line, &path)))
        .flat_map(|range| without(range, &kept))
        .map(|range| range.start.next_multiple_of(PAGE)..range.end / PAGE * PAGE)
        .filter(|range| !range.is_empty())
        .collect();
    Ok(Places { kept, rest })
}

/// All pages that a range has a part of.
const fn pages(range: &Range<usize>) -> Range<usize> {
    range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE)
}

/// What the program's file says of itself, which stays as it is: read once.
fn parts() -> io::Result<&'static Parts> {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    if let Some(parts) = PARTS.get() {
        return Ok(parts);
    }
    let file = ReadCache::new(fs::File::open("/proc/self/exe")?);
    let program = object::File::parse(&file).map_err(io::Error::other)?;
    let section = |name: &&str| program.section_by_name(name)?.file_range();
    // What can be written to is not as it was in the file.
    let read_only = program.segments().filter(|segment| is_read_only(segment.flags()));
    let read_only = read_only.map(|segment| segment.file_range()).collect();
    let takeover = TAKEOVER.iter().filter_map(section).collect();
    Ok(PARTS.get_or_init(|| Parts { takeover, read_only }))
}

fn is_read_only(flags: SegmentFlags) -> bool {
    matches!(flags, SegmentFlags::Elf { p_flags } if p_flags & elf::PF_W == 0)
}

/// A part of the file, and where it is in memory.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Mapping {
    memory: Range<usize>,
    offset: usize,
}

/// What a line of `/proc/self/maps` says of this file (proc_pid_maps(5)).
fn mapping(line: &str, file: &Path) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let hex = |hex| usize::from_str_radix(hex, 16).ok();
    let offset = words.nth(1).and_then(hex)?;
    // The rest of the line is the path, with whatever spaces it has; `(deleted)` stands behind both.
    let at = line.find('/')?;
    let is_it = Path::new(&line[at..]) == file;
    is_it.then_some(Mapping { memory: hex(from)?..hex(to)?, offset })
}

/// Code of a shared library, if that is what a line of `/proc/self/maps` is about.
fn library(line: &str, program: &Path) -> Option<Range<usize>> {
    let path = Path::new(&line[line.find('/')?..]);
    let is_code = line.split_ascii_whitespace().nth(1) == Some("r-xp") && path != program;
    if is_code { mapping(line, path).map(|mapping| mapping.memory) } else { None }
}

/// Where these bytes of the file are in memory.
fn loaded(mappings: &[Mapping], (start, length): FileRange) -> Vec<Range<usize>> {
    let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let (start, end) = (place(start), place(start.saturating_add(length)));
    let part = |Mapping { memory, offset }: &Mapping| {
        let from = start.max(*offset);
        let to = end.min(offset + memory.len());
        (from < to).then(|| memory.start + (from - offset)..memory.start + (to - offset))
    };
    mappings.iter().filter_map(part).collect()
}

/// What is left of a range.
fn without(range: Range<usize>, taken: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut left = vec![range];
    for taken in taken {
        let cut = |range: Range<usize>| {
            let before = range.start..range.end.min(taken.start);
            let after = range.start.max(taken.end)..range.end;
            [before, after].into_iter().filter(|range| !range.is_empty())
        };
        left = left.into_iter().flat_map(cut).collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: usize, to: usize) -> Range<usize> {
        from..to
    }

    fn check<const N: usize>(found: Vec<Range<usize>>, expected: [(usize, usize); N]) {
        let found: Vec<_> = found.iter().map(|range| (range.start, range.end)).collect();
        assert_eq!(found, expected);
    }

    fn at(memory: Range<usize>, offset: usize) -> Mapping {
        Mapping { memory, offset }
    }

    #[test]
    fn a_mapping_is_found_by_its_file() {
        let line = "55d0c0a00000-55d0c0a21000 r-xp 00001000 fe:00 1234    /usr/bin/buoy";
        let found = Some(at(0x55d0_c0a0_0000..0x55d0_c0a2_1000, 0x1000));
        assert_eq!(mapping(line, Path::new("/usr/bin/buoy")), found);
        assert_eq!(mapping(line, Path::new("/usr/bin/true")), None);
        // An upgrade has put another file there, in a folder with a space.
        let old = "7f00-7f02 r--p 00000000 fe:00 9   /opt/my buoy/buoy (deleted)";
        let path = Path::new("/opt/my buoy/buoy (deleted)");
        assert_eq!(mapping(old, path), Some(at(0x7f00..0x7f02, 0)));
        for other in ["7f00-7f01 rw-p 0 00:00 0", "", "zz-7f01 r-xp 0 00:00 1 /usr/bin/buoy"] {
            assert_eq!(mapping(other, Path::new("/usr/bin/buoy")), None, "{other}");
        }
    }

    #[test]
    fn bytes_of_the_file_are_where_their_mapping_is() {
        let mappings =
            [at(0x5000..0x7000, 0), at(0x7000..0x9000, 0x2000), at(0xa000..0xb000, 0x3000)];
        check(loaded(&mappings, (0x100, 0x10)), [(0x5100, 0x5110)]);
        assert_eq!(loaded(&mappings, (0x1ff0, 0x20)), [0x6ff0..0x7000, 0x7000..0x7010]);
        check(loaded(&mappings, (0x9000, 0x10)), []);
        // The kernel shows the last page of one segment and the first of the next from one page of the file.
        assert_eq!(loaded(&mappings, (0x3f00, 0x10)), [0x8f00..0x8f10, 0xaf00..0xaf10]);
    }

    #[test]
    fn what_is_kept_is_not_given_back() {
        check(without(0..9, &[]), [(0, 9)]);
        check(without(0..9, &[range(3, 5)]), [(0, 3), (5, 9)]);
        check(without(0..9, &[0..2, 8..12]), [(2, 8)]);
        check(without(4..6, &[range(0, 9)]), []);
        check(without(4..6, &[6..9, 0..4]), [(4, 6)]);
    }

    #[test]
    fn a_library_is_code_of_another_file() {
        let program = Path::new("/usr/bin/buoy");
        let code = "7f00-7f02 r-xp 00002000 fe:00 9   /usr/lib/libc.so.6";
        assert_eq!(library(code, program), Some(0x7f00..0x7f02));
        for other in [
            "7f00-7f02 r--p 00000000 fe:00 9   /usr/lib/libc.so.6",
            "7f00-7f02 rw-p 00003000 fe:00 9   /usr/lib/libc.so.6",
            "7f00-7f02 r-xp 00001000 fe:00 7   /usr/bin/buoy",
            "7f00-7f02 r-xp 00000000 00:00 0   [vdso]",
        ] {
            assert_eq!(library(other, program), None, "{other}");
        }
    }

    #[test]
    fn a_program_goes_on_without_what_was_given_back() {
        give_back();
        let text = format!("{:?}", places().unwrap());
        assert!(text.contains("kept"), "{text}");
        assert!(std::ptr::eq(parts().unwrap(), parts().unwrap()), "the file is read once");
    }

    #[test]
    fn a_program_without_the_section_is_kept_whole() {
        let Places { kept, rest } = places().unwrap();
        assert!(rest.is_empty(), "{rest:?}");
        let here = a_program_without_the_section_is_kept_whole as fn() as usize;
        assert!(kept.iter().any(|range| range.contains(&here)), "{kept:?}");
    }
}
