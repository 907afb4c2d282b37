// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The maps of the fast path as they lie in memory. User space has all but the counters mapped into its own
// memory and changes them with plain stores while the programs read, so what must change together is one
// 64-bit word: an entry of a bucket, a next hop, a remembered flow. A service with its slots and backends is
// never changed but in single slots: a new one is written beside it, and the entry that leads to it is
// replaced. src/forward.rs has the same layouts; asserts on both sides pin the sizes.

#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#define SERVICES_MAX 4096
#define BUCKETS_MAX 4096
#define REVERSE_MAX 4096
#define LINES_MAX 65536
#define BACKENDS_MAX 16384
#define LINKS_MAX 256 // a power of two
#define EXCEPTIONS_MAX 65536
#define FRAGMENTS_MAX 1024
#define SOURCES_MAX 65536
#define LIMITS_MAX 16384
#define CLIENTS_MAX 16384
#define LOST_MAX 4096
#define POOLS_MAX 1

#define BUCKET_WAYS 8
#define BUCKET_PROBES 4
#define SLOTS_IN_LINE 16
#define BITMAP_WORDS 512
#define OWN_MAX 8
#define EXACT_BITS 14
#define EXACT_MAX (1 << EXACT_BITS) // of each family
#define BACK_BY_REDIRECT 1 // of flags
#define WATCHED 2          // of flags: somebody captures (watch.h)
#define HAS_LIMITS 4       // of flags: some service is LIMITED
#define HAS_POOLS 8        // of flags: some service is POOLED
#define POOL_ADDRESSES_MAX 8 // of one service
#define POOL_PORTS 32768     // of one table; those below POOL_PORT_FIRST are not used
#define POOL_BUCKETS (POOL_PORTS / BUCKET_WAYS)

#define NONE 0xffffffffU

// Two words in the order of memory; IPv4 as ::ffff:a.b.c.d.
struct address {
	__u64 high;
	__u64 low;
};

struct link {
	__u64 mac; // in the low 48 bits, the MTU above
	__u64 index; // and BY_REDIRECT
};

#define BY_REDIRECT (1ULL << 32) // with BACK_BY_REDIRECT: no interface has that index

// What is in the headers of packets for a service, and the way there, see exact.h. A word of zero in the first place: none.
struct exact_ipv4 {
	__u64 key; // the address, the protocol, and the port in the highest 16 bits, as they lie in a frame
	__u64 way;
};

struct exact_ipv6 {
	__u64 rest; // the port as it lies in a frame, and the protocol above it
	__u64 high; // the address
	__u64 low;
	__u64 way;
};

struct settings {
	__u64 seed;
	__u32 bucket_mask;   // buckets in use, less one; a power of two less one
	__u32 reverse_mask;
	__u32 port_sizes;    // bit n: some service has a block of 2^n ports; bit 0 is always looked at
	__u32 reverse_sizes; // the same for the ports of backends; 0: none is translated
	__u32 tick;          // seconds that user space counts; stands still with it
	__u32 flags;
	__u64 vips[BITMAP_WORDS];    // over the hash of an address: 0 says that it is surely none of ours
	__u64 sources[BITMAP_WORDS]; // the same for the backends whose answers are translated
	struct address own[OWN_MAX]; // whom this host asks backends as: what they answer there is left alone
	struct link links[LINKS_MAX]; // the first is none
	struct exact_ipv4 exact_ipv4[EXACT_MAX];
	struct exact_ipv6 exact_ipv6[EXACT_MAX];
};

// The low half of an entry is a place plus one, the high half the high half of the key's hash. Zero: no entry
// was ever put here or further on. A low half of zero: the entry was taken out.
struct bucket {
	__u64 entries[BUCKET_WAYS];
};

enum { FORWARD_DSR = 0, FORWARD_TUNNEL = 1, FORWARD_NAT = 2, FORWARD_GUE = 3, FORWARD_LOCAL = 4 };
#define FORWARD_PORTS 6 // nat of a service of several ports: of no service, see usual.h
#define FORWARD_WRAPS 1 // of these, the bit of the two that put a packet into another one
#define FLOW_CONNECTION 0 // the hash is over the client's port too; or over so many bits of its address alone:
#define FLOW_CLIENT 128   // all of them, where IPv4 has 96 before its own
#define APART 0x20000000U  // too: more than a slot decides (apart.h)
#define POOLED 0x40000000U  // too: backends see addresses of `outlets` in place of the client's
#define LIMITED 0x80000000U // in the guard of a service: clients may not open connections as often as they like

struct service {
	struct address address;
	__u16 first; // ports, in the order of the host
	__u16 last;
	__u8 protocol;
	__u8 forward;
	__u8 flow;
	__u8 quic;          // what names its servers: bytes of an id below, the config above; 0: nothing
	__u32 slots_first; // in slots, a multiple of SLOTS_IN_LINE
	__u32 slots_count; // a power of two, or 0
	__u32 backends_first;
	__u32 backends_count;
	__u32 guard; // the list that says whom it is there for, and LIMITED; 0: everybody, and as often as they like
	__u32 limit_burst;
	__u64 limit_interval; // until there is room for one more, in units of limit.h
	__u32 limit_number;   // how user space says the limit: not read here
	__be16 gue_port;      // of the outer header
	__u16 stick;          // for how long a silent client gets the same backend, in units of apart.h; 0: it does not
};

// The low half of a slot is the place of the current backend within its service, the high half that of the
// previous one.
struct line {
	__u32 slots[SLOTS_IN_LINE];
};

#define NEXT_HOP_LOCAL 1 // this host is the backend

struct backend {
	__u64 next_hop; // the MAC in the low 48 bits, the place of the link above; 0: not known
	struct address address;
	struct address source; // of the outer header
	__u32 service;
	__u16 port;     // nat: what the first port of the service becomes, in the order of the host
	__u16 identity; // what a remembered flow says of its backend: its place, a check above; 0: nobody
	__u16 delta;    // what is known before of a checksum; nat: what the VIP's becoming this address adds to one; tunnels: what
			// an outer IPv4 header sums up to without length, TOS and protocol, which is never 0
	__u16 standing; // one of STANDING_*
	__u16 named;    // whether `server_id` is a name: not read here
	__u16 ports_delta; // nat, of a service of one port: what address and port add to a transport checksum
	__u64 server_id; // what connection ids call it, where the service has `quic`
};

enum { STANDING_DOWN = 0, STANDING_KEEPS = 1, STANDING_UP = 2 };

// What a list says of a prefix: looked up are all bits of the list and of an address.
struct source {
	__u32 length; // of the list's number as well
	__u32 list;
	struct address address;
};

// The tables of the addresses that backends of a service see, by the place of the service.
struct outlets {
	__u32 count;
	__u32 spare;
	__u16 tables[POOL_ADDRESSES_MAX];
};

// An address whose ports flows of one protocol have in place of their clients'.
struct pool {
	struct address address;
	__u8 protocol;
	__u8 spares[15];
};

// Who has a port of a pool; valid where the port's state in `fast_ports` says so.
struct pooled {
	struct address client;
	struct address vip;
	struct address backend;
	__be16 client_port;
	__u16 vip_port;
	__be16 backend_port;
	__u16 identity; // of the backend
	__u64 spare;
};

#define SOURCE_ALLOWED 1 // in the value
#define SOURCE_BITS 160

struct tally {
	__u64 packets;
	__u64 bytes;
	__u64 flows;
	__u64 refused; // for their rate; of the service, at its first backend
	__u64 unnamed; // datagrams whose id named nobody here; of the service likewise
};

enum drop {
	DROP_TRUNCATED,
	DROP_IP_HEADER,
	DROP_TCP_HEADER,
	DROP_UDP_HEADER,
	DROP_ICMP,
	DROP_NO_BACKEND,
	DROP_NO_NEIGHBOUR,
	DROP_TOO_BIG,
	DROP_TTL,
	DROP_NO_ROOM,
	DROP_SOURCE,
	DROP_LIMIT,
	DROP_NO_PORT,
	DROPS
};

enum program {
	PROGRAM_RARE_IPV4,
	PROGRAM_RARE_IPV6,
	PROGRAM_REVERSE,
	PROGRAM_WATCH,
	PROGRAM_RECORD,
	PROGRAM_LIMIT,
	PROGRAM_POOLED_IPV4,
	PROGRAM_POOLED_IPV6,
	PROGRAM_TAGGED,
	PROGRAM_APART_IPV4,
	PROGRAM_APART_IPV6,
	PROGRAM_ANSWER, // of the gate's object, which has the leases
	PROGRAMS
};

_Static_assert(sizeof(struct settings) == 32 + 2 * 8 * BITMAP_WORDS + 16 * (OWN_MAX + LINKS_MAX) + (16 + 32) * EXACT_MAX,
	       "settings");
_Static_assert(sizeof(struct bucket) == 64, "bucket");
_Static_assert(sizeof(struct service) == 64, "service");
_Static_assert(sizeof(struct line) == 64, "line");
_Static_assert(sizeof(struct backend) == 64, "backend");
_Static_assert(sizeof(struct link) == 16, "link");
_Static_assert(sizeof(struct source) == 24, "source");
_Static_assert(sizeof(struct outlets) == 24, "outlets");
_Static_assert(sizeof(struct pool) == 32, "pool");
_Static_assert(sizeof(struct pooled) == 64, "pooled");
_Static_assert(sizeof(struct tally) == 40, "tally");

#define SHARED_ARRAY(name, length, element)            \
	struct {                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);      \
		__uint(map_flags, BPF_F_MMAPABLE);     \
		__uint(max_entries, length);           \
		__type(key, __u32);                    \
		__type(value, element);                \
	} name SEC(".maps")

#define COUNTERS(name, length, element)                  \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); \
		__uint(max_entries, length);             \
		__type(key, __u32);                      \
		__type(value, element);                  \
	} name SEC(".maps")

SHARED_ARRAY(fast_buckets, BUCKETS_MAX, struct bucket);
SHARED_ARRAY(fast_reverse, REVERSE_MAX, struct bucket);
SHARED_ARRAY(fast_services, SERVICES_MAX, struct service);
SHARED_ARRAY(fast_slots, LINES_MAX, struct line);
SHARED_ARRAY(fast_backends, BACKENDS_MAX, struct backend);
SHARED_ARRAY(fast_except, EXCEPTIONS_MAX, struct bucket);
SHARED_ARRAY(fast_fragments, FRAGMENTS_MAX, struct bucket);
SHARED_ARRAY(fast_limits, LIMITS_MAX, struct bucket);
SHARED_ARRAY(fast_clients, CLIENTS_MAX, struct bucket);
SHARED_ARRAY(fast_outlets, SERVICES_MAX, struct outlets);
SHARED_ARRAY(fast_pools, POOLS_MAX, struct pool);
SHARED_ARRAY(fast_ports, POOLS_MAX, struct bucket); // the states of all ports of all tables
SHARED_ARRAY(fast_pooled, POOLS_MAX, struct pooled);
COUNTERS(fast_tallies, BACKENDS_MAX, struct tally);
COUNTERS(fast_drops, DROPS, __u64);

// The map of the tables that is not shared memory: the prefixes of all lists. Each list has an entry of no bits of an
// address, so that something is found for everybody.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SOURCES_MAX);
	__type(key, struct source);
	__type(value, __u32);
} fast_sources SEC(".maps");

// Packets that a service or a backend did not get, by `lost_by`. Most never lose one, so there is no place for each,
// and memory only for those that have: what there is no more of is counted for the host alone.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, LOST_MAX);
	__type(key, __u64);
	__type(value, __u64);
} fast_lost SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PROGRAMS);
	__type(key, __u32);
	__type(value, __u32);
} fast_programs SEC(".maps");

// User space writes while this reads: each word once, and whole.
#define LOOK(word) (*(const volatile __typeof__(word) *)&(word))

// A verdict is XDP's in its low byte. What it comes from is above, for who watches: the place of a backend plus
// one, or a reason. `sent` takes it away, and where nobody can watch the compiler leaves it out.
#define ACTION(verdict) ((verdict) & 0xff)
#define ORIGIN(verdict) ((__u32)(verdict) >> 8)
#define OF_BACKEND(place) (((place) + 1) << 8)
#define OF_REASON(reason) ((ORIGIN_REASON | (reason)) << 8)
#define OF_ANSWER (ORIGIN_ANSWER << 8)
#define ORIGIN_REASON 0x400000U
#define ORIGIN_ANSWER 0x3fffffU

// Whose a dropped packet was: the place in the low half, or NONE; the reason and what the place is of above.
#define LOST_REASON 32
#define LOST_SERVICE (1ULL << 40)

// A function that the verifier looks at once, and not on each way to a drop.
__attribute__((noinline)) int fast_lose(__u64 whose)
{
	__u32 reason = whose >> LOST_REASON & 0xff;
	__u64 *counter = bpf_map_lookup_elem(&fast_drops, &reason), one = 1;

	if (counter)
		*counter += 1;
	if ((__u32)whose == NONE)
		return 0;
	counter = bpf_map_lookup_elem(&fast_lost, &whose);
	// Where another CPU was faster, this one's count is begun all the same.
	if (counter)
		*counter += 1;
	else
		bpf_map_update_elem(&fast_lost, &whose, &one, BPF_ANY);
	return 0;
}

static __always_inline int dropped(__u32 reason)
{
	fast_lose(NONE | (__u64)reason << LOST_REASON);
	return XDP_DROP | OF_REASON(reason);
}

// It was for this service, and for no backend yet.
static __always_inline int dropped_of_service(__u32 place, __u32 reason)
{
	fast_lose(place | (__u64)reason << LOST_REASON | LOST_SERVICE);
	return XDP_DROP | OF_REASON(reason);
}

static __always_inline int dropped_of_backend(__u32 place, __u32 reason)
{
	fast_lose(place | (__u64)reason << LOST_REASON);
	return XDP_DROP | OF_REASON(reason);
}

// The place of the backend that it says the packet goes to; NONE.
static __always_inline __u32 backend_of_verdict(int verdict)
{
	__u32 origin = ORIGIN(verdict);

	return origin && origin < ORIGIN_ANSWER ? origin - 1 : NONE;
}

// The settings are one element, so their address is a part of the instructions, and a look into no map: user space puts
// it in the place of this number (src/address.rs) before the kernel gets them. It is taken again where it is needed, which
// is one instruction, and to keep it would be two.
#define SETTINGS_HERE "0x62756f795f736574"

static __always_inline struct settings *settings_now(void)
{
	struct settings *settings;

	asm volatile("%0 = " SETTINGS_HERE " ll" : "=r"(settings));
	return settings;
}

// Of a next hop.
static __always_inline const struct link *link_of(__u64 hop)
{
	return &settings_now()->links[hop >> 48 & (LINKS_MAX - 1)];
}

// What goes out where it came in. A veth looks after what was sent back only if its peer runs XDP too, and after
// what was redirected always.
static __always_inline int sent(const struct xdp_md *ctx, int verdict)
{
	if (ACTION(verdict) == XDP_TX && LOOK(settings_now()->flags) & BACK_BY_REDIRECT)
		return bpf_redirect(ctx->ingress_ifindex, 0);
	return ACTION(verdict);
}
