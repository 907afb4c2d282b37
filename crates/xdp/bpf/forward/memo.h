// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Packets of one flow come in trains: each CPU keeps which service and backend the packet before this one was for, and
// the next one of the same flow goes there without being looked for again.
//
// It is no state of a flow. It holds one flow only, as long as nothing has changed since: user space gives
// `generation` another number with every change of what leads to a service or a backend, after it was made and
// before anything is used again, and every second. Only what hashing alone explains is kept: no flow of a slot that
// changes hands, of a service with a guard, nor a packet that opens a connection.
//
// What is compared has the place on it, so that two that write at once (where the kernel lets one packet
// interrupt another) leave nothing behind that looks like a flow.

#pragma once

#include "choose.h"

#define PLACE_SHIFT 40 // of the place of the backend in the word of a flow

static __always_inline struct memo *memo_now(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&fast_memo, &first);
}

// TCP and UDP leave the high bit of the protocol's byte free.
static __always_inline __u64 word_of(const struct flow *flow)
{
	return flow->client_port | (__u32)flow->vip_port << 16 |
	       (__u64)(flow->protocol | flow->is_ipv6 << 7) << 32;
}

// Whether the packet before this one was of this flow.
static __always_inline int is_known(const struct memo *memo, __u32 generation, const struct flow *flow)
{
	__u64 known = LOOK(memo->flow);

	if ((known ^ word_of(flow)) << (64 - PLACE_SHIFT) || (LOOK(memo->client.low) ^ known) != flow->client.low ||
	    (LOOK(memo->vip.low) ^ known) != flow->vip.low || LOOK(memo->where) >> 32 != generation)
		return 0;
	return !flow->is_ipv6 || ((LOOK(memo->client.high) ^ known) == flow->client.high &&
				  (LOOK(memo->vip.high) ^ known) == flow->vip.high);
}

// The way to the backend is not known yet: `keep_way` adds it.
static __always_inline void keep_in_mind(struct memo *memo, __u32 generation, const struct flow *flow, __u32 service,
					 __u32 place)
{
	__u64 known = word_of(flow) | (__u64)place << PLACE_SHIFT;

	memo->flow = known;
	memo->client.low = flow->client.low ^ known;
	memo->vip.low = flow->vip.low ^ known;
	if (flow->is_ipv6) {
		memo->client.high = flow->client.high ^ known;
		memo->vip.high = flow->vip.high ^ known;
	}
	memo->where = (__u64)generation << 32 | service;
	memo->hop = 0;
}

static __always_inline void keep_way(struct memo *memo, __u64 hop, __u64 mac, __u32 index)
{
	memo->hop = hop;
	memo->mac = mac;
	memo->index = memo->flow ^ hop ^ mac ^ index;
}

// The interface that it goes out of, if all of it is of one way; 0: it is not.
static __always_inline __u32 way_out(const struct memo *memo, __u64 hop, __u64 mac)
{
	__u64 index = LOOK(memo->index) ^ LOOK(memo->flow) ^ hop ^ mac;

	return index >> 32 ? 0 : index;
}
