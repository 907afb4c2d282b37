// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The leases as they lie in memory, and whether one lasts: the same fence for all of the gate's programs.

#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#define ADDRESSES_MAX 16384

// The same layouts are in src/lib.rs, where asserts pin their sizes.
struct key {
	__u8 address[16]; // IPv4 as ::ffff:a.b.c.d
	__u32 link;       // 0 for IPv4: Linux answers ARP for any of its addresses on every interface
};

struct entry {
	__u64 deadline;     // CLOCK_BOOTTIME, ns
	__u64 until;        // CLOCK_MONOTONIC, ns
	__u64 first_packet; // CLOCK_BOOTTIME, ns; 0: none since the gate was opened; written here
	__u64 rule;         // the shared lease in the low byte, 0 for none; GUARD_TRAFFIC; PRESENT
};

struct lease {
	__u64 deadline; // CLOCK_BOOTTIME, ns; of lease 0, the master switch: not 0 closes everything
	__u64 until;    // CLOCK_MONOTONIC, ns; of lease 0: not 0 says that no address is here any more
};

#define LEASES 3
#define MASTER 0
#define LEASE_MASK 0xff
#define GUARD_TRAFFIC 0x100
#define PRESENT 0x200

enum {
	INGRESS = 0,
	EGRESS = 1,
	STALE = 2,
	TRAFFIC_IN = 3,
	TRAFFIC_OUT = 4,
	ANSWERED = 5,
	SILENT = 6,
	COUNTERS
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, struct key);
	__type(value, __u32);
} gate_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, __u32);
	__type(value, struct entry);
} gate_entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LEASES);
	__type(key, __u32);
	__type(value, struct lease);
} gate_leases SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

_Static_assert(sizeof(struct key) == 20, "key");
_Static_assert(sizeof(struct entry) == 32, "entry");
_Static_assert(sizeof(struct lease) == 16, "lease");

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);
	if (counter)
		*counter += 1;
}

// User space writes while this reads: each word once, and whole.
#define LOOK(word) (*(const volatile __u64 *)&(word))

static __always_inline struct entry *entry_of(const struct key *key)
{
	const __u32 *slot = bpf_map_lookup_elem(&gate_slots, key);

	return slot ? bpf_map_lookup_elem(&gate_entries, slot) : 0;
}

static __always_inline const struct lease *lease_of(const struct entry *entry)
{
	__u32 which = LOOK(entry->rule) & LEASE_MASK;

	return which == MASTER ? 0 : bpf_map_lookup_elem(&gate_leases, &which);
}

static __always_inline const struct lease *master_switch(void)
{
	__u32 master = MASTER;

	return bpf_map_lookup_elem(&gate_leases, &master);
}

static __always_inline int is_open(const struct entry *entry)
{
	const struct lease *master = master_switch();
	const struct lease *shared = lease_of(entry);
	__u64 now;

	if (!master || LOOK(master->deadline))
		return 0;
	now = bpf_ktime_get_boot_ns();
	return now < LOOK(entry->deadline) || (shared && now < LOOK(shared->deadline));
}

static __always_inline struct key key_ipv4(const __u8 *address)
{
	struct key key = {};

	key.address[10] = 0xff;
	key.address[11] = 0xff;
	__builtin_memcpy(&key.address[12], address, 4);
	return key;
}

static __always_inline struct key key_ipv6(const __u8 *address, __u32 link)
{
	struct key key = { .link = link };

	__builtin_memcpy(key.address, address, 16);
	return key;
}
