// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The exact match of most packets: destination, protocol and port lead at once to the slots and backends of a service.
//
// It is of services of one port that are there for everybody, and chosen by connection. All that is needed of such a
// service is one word, so a packet sees one version of it, and looks at no service. Entries are in the settings, a place
// for each hash of a key: of two services with one place the other one is looked for among all (find.h).
//
// A key that is there says that the destination is a VIP; one that is not says nothing.

#pragma once

#include "packet.h"

#define MIX_C 0x94d049bb133111ebULL

#define EXACT_LINES 0xfff  // how many lines of slots, less one: a power of two less one
#define EXACT_FORWARD 12   // from this bit on, three of them
#define EXACT_SLOTS 16     // the first line, in 24 bits
#define EXACT_BACKENDS 40  // the first backend, in as many
#define EXACT_PLACES 0xffffff
#define PORTS_KEY 0xffff0000ffffffffULL // of a destination and the ports behind it: without the client's

// The highest bits of a product depend on all of what was multiplied. Nobody can choose what a service's key is, so it need not
// be a better hash.
static __always_inline __u32 exact_place(__u64 key)
{
	return key * MIX_C >> (64 - EXACT_BITS);
}

// The way to a service, or 0. There is room for ports behind the header, whatever is there.
static __always_inline __u64 exact_ipv4(const struct ipv4 *ip)
{
	const word *to = (const void *)ip + offsetof(struct ipv4, destination);
	__u64 key = (*to & PORTS_KEY) | (__u64)ip->protocol << 32;
	const struct exact_ipv4 *entry = &settings_now()->exact_ipv4[exact_place(key)];

	return __builtin_expect(LOOK(entry->key) == key, 1) ? LOOK(entry->way) : 0;
}

static __always_inline __u64 exact_ipv6(const struct ipv6 *ip)
{
	const word *to = (const word *)ip->destination;
	const struct ports *ports = (const void *)(ip + 1);
	__u64 high = to[0], low = to[1], rest = ports->destination | (__u64)ip->next << 16;
	const struct exact_ipv6 *entry = &settings_now()->exact_ipv6[exact_place(high ^ low ^ rest)];

	return __builtin_expect(LOOK(entry->rest) == rest && entry->low == low && entry->high == high, 1) ?
		       LOOK(entry->way) : 0;
}
