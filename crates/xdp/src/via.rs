//! The programs that send checks the way of clients' packets as an object file, and their maps' layout.
//!
//! What they do is in `bpf/via.bpf.c`; the same layouts are there.

use core::net::IpAddr;

/// Object file; 8-byte aligned, as ELF readers want it.
pub static VIA: &[u8] = &ALIGNED.bytes;

const LENGTH: usize = include_bytes!("../prebuilt/via.bpf.o").len();
static ALIGNED: crate::Aligned<LENGTH> =
    crate::Aligned { bytes: *include_bytes!("../prebuilt/via.bpf.o") };

/// Name of the program for what goes out.
pub const EGRESS: &str = "via_egress";
/// Name of the program for what comes in.
pub const INGRESS: &str = "via_ingress";
/// Name of the array of [`Target`].
pub const TARGETS: &str = "via_targets";
/// Its length.
pub const TARGETS_MAX: u32 = 16_384;

/// What the upper half of a mark is; the lower half is a place in [`TARGETS`].
pub const MARK: u32 = 0x6275_0000;

/// Words of 32 bits that a target takes.
pub const TARGET_WORDS: usize = 10;

/// How packets get to a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wrap {
    /// As they are.
    Not,
    /// In IP packets.
    InIp,
    /// In UDP packets to this port.
    InUdp(u16),
}

/// Who is asked on which address; both are of one IP version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target {
    /// What packets are for.
    pub vip: IpAddr,
    /// Whom they go to.
    pub backend: IpAddr,
    /// How.
    pub wrap: Wrap,
}

impl Target {
    /// As it lies in the map.
    pub fn to_words(self) -> [u32; TARGET_WORDS] {
        let (how, port) = match self.wrap {
            Wrap::Not => (0_u16, 0_u16),
            Wrap::InIp => (1, 0),
            Wrap::InUdp(port) => (2, port),
        };
        let [how, port] = [how.to_ne_bytes(), port.to_be_bytes()];
        let mut words = [0; TARGET_WORDS];
        let addresses = [self.vip, self.backend].map(crate::backend::key).concat();
        let bytes = addresses.into_iter().chain(how).chain(port).collect::<Vec<u8>>();
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_lies_in_the_map_as_the_program_reads_it() {
        let [vip, backend] = ["10.0.0.100", "10.0.0.21"].map(|ip| ip.parse().unwrap());
        let words = Target { vip, backend, wrap: Wrap::InUdp(6080) }.to_words();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(bytes[..16], crate::backend::key(vip));
        assert_eq!(bytes[16..32], crate::backend::key(backend));
        assert_eq!(u16::from_ne_bytes([bytes[32], bytes[33]]), 2);
        assert_eq!(bytes[34..36], 6080_u16.to_be_bytes());
        assert_eq!(bytes[36..], [0; 4]);
        assert_eq!(VIA.as_ptr().align_offset(8), 0);
    }
}
