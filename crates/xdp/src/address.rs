//! Puts the map of the settings into the instructions of the fast path, whose address the kernel writes there.
//!
//! A map of one element needs no look: an instruction that loads a constant can have the element's address (from Linux
//! 5.2). Loaders of ELF do so for variables only, whose maps can be neither taken over nor shared with user space. So
//! the programs load a number that is nowhere else, and here it becomes the descriptor of the map.

use crate::forward::FORWARD;

/// `SETTINGS_HERE` of bpf/forward/layout.h.
const HERE: u64 = 0x6275_6f79_5f73_6574;

/// Half of a word.
const HALF: u32 = 32;

/// `BPF_LD | BPF_IMM | BPF_DW`: takes two words, each with one half of the constant as its high half.
const LOAD_CONSTANT: u64 = 0x18;
/// `BPF_PSEUDO_MAP_VALUE` as the source register: the constant is a descriptor, and where in the element it is.
const OF_MAP: u64 = 2 << 12;
/// In the first word: the register that is loaded.
const REGISTER: u64 = 0xf00;
/// Both words, but for the register.
const PAIR: [u64; 2] = [LOAD_CONSTANT | (HERE & 0xffff_ffff) << HALF, HERE >> HALF << HALF];

const WORD: usize = size_of::<u64>();

/// The object of the fast path for one map of settings.
#[derive(Debug)]
pub struct Object {
    memory: Vec<u8>,
    /// Where in it the object begins.
    first: usize,
}

impl Object {
    /// With the settings in the map of this descriptor, which must stay open until the programs are loaded.
    pub fn new(settings: u32) -> Self {
        let mut memory = vec![0; FORWARD.len() + WORD];
        let first = memory.as_ptr().align_offset(WORD) % WORD;
        let object = &mut memory[first..first + FORWARD.len()];
        object.copy_from_slice(FORWARD);
        for at in places() {
            let register = word(at) & REGISTER;
            let what = LOAD_CONSTANT | register | OF_MAP | u64::from(settings) << HALF;
            object[at..at + WORD].copy_from_slice(&what.to_le_bytes());
            object[at + WORD..at + 2 * WORD].fill(0);
        }
        Self { memory, first }
    }

    /// As an ELF file; 8-byte aligned, as readers want it.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.first..self.first + FORWARD.len()]
    }
}

/// Where the number is loaded. Sections of instructions are aligned as these are.
fn places() -> impl Iterator<Item = usize> {
    let is_here = |&at: &usize| [word(at) & !REGISTER, word(at + WORD)] == PAIR;
    (0..FORWARD.len() - 2 * WORD).step_by(WORD).filter(is_here)
}

fn word(at: usize) -> u64 {
    FORWARD[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::NEXT_PROGRAMS;

    #[test]
    fn all_programs_have_the_map_where_the_number_was_and_nothing_else_is_another() {
        let object = Object::new(0x1234);
        assert_eq!(object.bytes().as_ptr().align_offset(WORD), 0);
        let [low, high] =
            [HERE & 0xffff_ffff, HERE >> HALF].map(|half| u32::try_from(half).unwrap());
        let has = |bytes: &[u8], half: u32| {
            bytes.windows(4).filter(|four| *four == half.to_le_bytes()).count()
        };
        let places: Vec<usize> = places().collect();
        // All programs but the one that only records.
        assert!(NEXT_PROGRAMS.len() <= places.len(), "{places:?}");
        for half in [low, high] {
            assert_eq!(has(FORWARD, half), places.len(), "none is elsewhere");
            assert_eq!(has(object.bytes(), half), 0);
        }
        let differ = |at: &usize| object.bytes()[*at] != FORWARD[*at];
        for at in (0..FORWARD.len()).filter(differ) {
            assert!(places.iter().any(|place| (*place..place + 2 * WORD).contains(&at)), "{at}");
        }
        for at in places {
            let is = &object.bytes()[at..at + 2 * WORD];
            assert_eq!((is[0], is[1] & 0xf0, &is[2..4]), (0x18, 0x20, &[0, 0][..]));
            assert_eq!(is[1] & 0xf, FORWARD[at + 1] & 0xf, "the same register");
            assert_eq!(is[4..], [0x34, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
    }
}
