// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A VLAN tag (IEEE 802.1Q) comes off before a packet is looked at, and goes back on when it leaves as it came.
//
// `tagged.h` takes it off. From there a packet goes through the programs that know all shapes, so what they all end
// in puts it back: on what leaves by the interface it came in by, and on what the kernel gets. What leaves by
// another interface goes without, as from any router. While a packet is on its way its tag is kept beside it: one
// packet at a time is under way on each CPU.

#pragma once

#include "watch.h"

#define VLAN_KEPT 0x10000U // of what is kept: there is a tag

// Both Ethernet addresses, which a tag is behind.
struct stations {
	__u64 first;
	__u32 rest;
};

COUNTERS(fast_tag, 1, __u32);

static __always_inline __u32 *tag_kept(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&fast_tag, &first);
}

static __always_inline struct stations stations_of(const void *frame)
{
	struct stations stations = { .first = *(const word *)frame, .rest = *(const half *)(frame + 8) };

	return stations;
}

static __always_inline void put_stations(void *frame, const struct stations *stations)
{
	*(word *)frame = stations->first;
	*(half *)(frame + 8) = stations->rest;
}

// Whether there was room for it.
static __always_inline int put_tag(struct xdp_md *ctx, __u32 kept)
{
	struct tagged *frame = (void *)(long)ctx->data;
	struct stations stations;

	if ((void *)(&frame->ethernet + 1) > (void *)(long)ctx->data_end)
		return 0;
	stations = stations_of(frame);
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(struct tag)))
		return 0;
	frame = (void *)(long)ctx->data;
	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return 0;
	put_stations(frame, &stations);
	frame->ethernet.protocol = bpf_htons(ETH_P_8021Q);
	frame->control = bpf_htons(kept);
	return 1;
}

// As `told`, for all programs that a packet with a tag may end in.
static __always_inline int ended(struct xdp_md *ctx, int verdict)
{
	__u32 *kept = tag_kept(), tag = kept ? *kept : 0;

	if (__builtin_expect(tag, 0)) {
		*kept = 0;
		if ((ACTION(verdict) == XDP_TX || ACTION(verdict) == XDP_PASS) && !put_tag(ctx, tag))
			verdict = dropped_of_backend(backend_of_verdict(verdict), DROP_NO_ROOM);
	}
	return told(ctx, verdict);
}

// Whether it came with the tag of a VLAN that this host has no interface in.
static __always_inline int is_in_vlan(void)
{
	const __u32 *kept = tag_kept();

	return kept && *kept & VLAN_ID;
}

// Goes on to the program that answers for addresses. It knows of no tag, and needs none: where there is only a
// priority, an answer without one is the same to whoever asked.
static __always_inline void answer(struct xdp_md *ctx)
{
	__u32 *kept = tag_kept(), tag = kept ? *kept : 0;

	if (kept)
		*kept = 0;
	bpf_tail_call(ctx, &fast_programs, PROGRAM_ANSWER);
	if (kept)
		*kept = tag;
}
