//! The programs that measure others as an object file, and the layout of their maps. No part of the product.
//!
//! What they do is in `bpf/bench.bpf.c`; the same layouts are there.

/// Object file; 8-byte aligned, as ELF readers want it.
pub static BENCH: &[u8] = &ALIGNED.bytes;

const LENGTH: usize = include_bytes!("../prebuilt/bench.bpf.o").len();
static ALIGNED: crate::Aligned<LENGTH> =
    crate::Aligned { bytes: *include_bytes!("../prebuilt/bench.bpf.o") };

/// Makes packets and has another program run on them.
pub const DISPATCH: &str = "bench_dispatch";
/// Makes packets to be sent.
pub const GENERATE: &str = "bench_generate";
/// Counts what comes and drops it.
pub const SINK: &str = "bench_sink";
/// Passes everything to the kernel.
pub const PASS: &str = "bench_pass";
/// Does nothing but say that the frame goes back.
pub const NOTHING: &str = "bench_nothing";
/// Swaps the Ethernet addresses.
pub const SWAP: &str = "bench_swap";
/// Parses TCP over IPv4 and looks a backend up in an array.
pub const ARRAY: &str = "bench_array";
/// The same, and wraps the packet.
pub const IPIP: &str = "bench_ipip";
/// All of them.
pub const PROGRAMS: [&str; 8] = [DISPATCH, GENERATE, SINK, PASS, NOTHING, SWAP, ARRAY, IPIP];

/// Name of the array of one plan.
pub const PLAN: &str = "bench_plan";
/// Name of the array of the backends of [`ARRAY`] and [`IPIP`].
pub const REALS: &str = "bench_reals";
/// Name of the per-CPU array of one counter, of what [`SINK`] saw.
pub const ARRIVED: &str = "bench_arrived";
/// Name of the array of the one program that [`DISPATCH`] runs.
pub const TARGET: &str = "bench_target";

/// Backends of [`ARRAY`] and [`IPIP`].
pub const REALS_LEN: usize = 128;
/// Words of one of them: its Ethernet address; its address with the outer source above.
pub const REAL_WORDS: usize = 8;

/// Words of the plan: the number of the next packet.
pub const NEXT: usize = 0;
/// To the one after it; odd.
pub const STEP: usize = 1;
/// Flows, a power of two, less one.
pub const MASK: usize = 2;
/// Services whose packets take turns.
pub const SERVICES: usize = 3;
/// The verdict that is right.
pub const VERDICT: usize = 4;
/// How many others there were.
pub const WRONG: usize = 5;
/// Whether the frame is IPv6.
pub const IS_IPV6: usize = 6;
/// The sum over the IPv4 header without checksum and addresses.
pub const SUM: usize = 7;
/// The first word of the frame.
pub const FRAME: usize = 8;
/// Words of the plan.
pub const PLAN_WORDS: usize = FRAME + 16;

/// Length of an IPv4 frame.
pub const FRAME_IPV4: usize = 64;
/// Length of an IPv6 frame.
pub const FRAME_IPV6: usize = 80;

/// So many flows of one address, in bits.
const FLOWS_OF_ADDRESS: u32 = 12;
const PORT_FIRST: u16 = 0x8000;
/// Services are on so many VIPs, and then on their next port.
pub const ADDRESSES: u32 = 1000;
const GOLDEN: u32 = 0x9e37_79b1;

/// What tells the packet of that number from others: how far its source is above the first one, its source
/// port, and which service it is for.
pub const fn packet(number: u64, mask: u64, services: u64) -> (u32, u16, u32) {
    #[allow(clippy::cast_possible_truncation, reason = "what the program does")]
    let flow = (number & mask) as u32;
    #[allow(clippy::cast_possible_truncation, reason = "the high half of a product")]
    let service = ((flow.wrapping_mul(GOLDEN) as u64).wrapping_mul(services) >> 32) as u32;
    #[allow(clippy::cast_possible_truncation, reason = "12 bits")]
    let port = PORT_FIRST | (flow & ((1 << FLOWS_OF_ADDRESS) - 1)) as u16;
    (flow >> FLOWS_OF_ADDRESS, port, service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_object_is_elf_for_bpf() {
        assert_eq!(&BENCH[..4], b"\x7fELF");
        assert_eq!(BENCH.as_ptr().align_offset(8), 0);
    }

    #[test]
    fn packets_are_of_as_many_flows_and_services_as_are_asked_for() {
        let step = 0x9e37_79b1;
        let all: Vec<_> = (0..1 << 16).map(|n| packet(n * step, 0xffff, 1000)).collect();
        let flows: BTreeSet<_> = all.iter().map(|&(source, port, _)| (source, port)).collect();
        let services: BTreeSet<_> = all.iter().map(|&(_, _, service)| service).collect();
        assert_eq!(flows.len(), 1 << 16);
        assert_eq!(services, (0..1000).collect());
        assert_eq!(packet(77, 0, 1), (0, PORT_FIRST, 0));
    }
}
