// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Frames with a VLAN tag: whose they are, and the packet without it.
//
// Where this host has an interface for the VLAN, all of it is that interface's, and so is what the program does on
// it. Else a packet for a VIP is forwarded with its tag (tag.h). A tag may have a priority and no VLAN: then all that
// the programs do without a tag they do with it. In a VLAN all else is passed untouched: questions for addresses,
// pings, and what backends answer, which would be the kernel's next; and so is a tag within another one.

#pragma once

#include "reverse.h"
#include "tag.h"

#define VLANS_MAX 16384

// A VLAN that this host has an interface for.
struct vlan {
	__u32 link; // of the frames with the tag
	__u32 id;
};

_Static_assert(sizeof(struct vlan) == 8, "vlan");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, VLANS_MAX);
	__type(key, struct vlan);
	__type(value, __u32);
} fast_vlans SEC(".maps");

static __always_inline int has_interface(const struct xdp_md *ctx, __u32 id)
{
	struct vlan vlan = { .link = ctx->ingress_ifindex, .id = id };

	return id && bpf_map_lookup_elem(&fast_vlans, &vlan);
}

// The program for a packet between these; PROGRAMS: none, it is not ours.
static __always_inline __u32 program_for(const struct settings *settings, const struct address *from,
					 const struct address *to, int is_ipv6, int is_in_vlan)
{
	if (is_vip(settings, to, is_ipv6) || is_to_pool(settings, to)) {
		if (LOOK(settings->flags) & HAS_LIMITS)
			return PROGRAM_LIMIT;
		return is_ipv6 ? PROGRAM_RARE_IPV6 : PROGRAM_RARE_IPV4;
	}
	if (is_in_vlan)
		return PROGRAMS;
	if (is_ipv6 && to->high == LINK_LOCAL_GROUPS)
		return PROGRAM_ANSWER;
	if (LOOK(settings->reverse_sizes) && is_marked(settings->sources, hash_address(from, is_ipv6)))
		return PROGRAM_REVERSE;
	return PROGRAMS;
}

static __always_inline __u32 program_of(const struct settings *settings, const struct tagged *frame,
					const void *end, int is_in_vlan)
{
	const struct ipv4 *ipv4 = (const void *)(frame + 1);
	const struct ipv6 *ipv6 = (const void *)(frame + 1);
	struct address from, to;

	if (frame->protocol == bpf_htons(ETH_P_IP) && (const void *)(ipv4 + 1) <= end) {
		from = address_ipv4(ipv4->source);
		to = address_ipv4(ipv4->destination);
		return program_for(settings, &from, &to, 0, is_in_vlan);
	}
	if (frame->protocol == bpf_htons(ETH_P_IPV6) && (const void *)(ipv6 + 1) <= end) {
		from = address_ipv6(ipv6->source);
		to = address_ipv6(ipv6->destination);
		return is_mapped_ipv4(&to) ? PROGRAMS : program_for(settings, &from, &to, 1, is_in_vlan);
	}
	return frame->protocol == bpf_htons(ETH_P_ARP) && !is_in_vlan ? PROGRAM_ANSWER : PROGRAMS;
}

static __always_inline int take_tag(struct xdp_md *ctx, const struct tagged *frame)
{
	struct stations stations = stations_of(frame);
	struct ethernet *ethernet;

	if (bpf_xdp_adjust_head(ctx, sizeof(struct tag)))
		return 0;
	ethernet = (void *)(long)ctx->data;
	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return 0;
	put_stations(ethernet, &stations);
	return 1;
}

SEC("xdp")
int fast_tagged(struct xdp_md *ctx)
{
	const struct settings *settings = settings_now();
	const struct tagged *frame = (void *)(long)ctx->data;
	const void *end = (void *)(long)ctx->data_end;
	__u32 *kept = tag_kept(), control, program;

	if (!kept || (const void *)(frame + 1) > end)
		return XDP_PASS;
	control = bpf_ntohs(frame->control);
	if (has_interface(ctx, control & VLAN_ID))
		return XDP_PASS;
	program = program_of(settings, frame, end, control & VLAN_ID);
	if (program == PROGRAMS || !take_tag(ctx, frame))
		return XDP_PASS;
	*kept = control | VLAN_KEPT;
	if (program == PROGRAM_ANSWER)
		answer(ctx);
	else
		bpf_tail_call(ctx, &fast_programs, program);
	return ended(ctx, XDP_PASS);
}
