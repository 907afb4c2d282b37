// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The fast path: packets for a VIP go to a backend before the kernel has made anything of them.
//
// This is the way of TCP and UDP packets without anything unusual. Everything there is an inlined array
// access: no hash map, no clock, no call, no state of a flow. Only a service that is not there for everybody costs
// one look into a trie, and one that clients may not open as often as they like costs a SYN another program, which
// looks first. What is unusual (options, fragments, ICMP, what does not fit, what is malformed, a slot that is
// changing hands) is looked at again by another program for each family, and answers of translated backends by
// one more: they cost this one nothing.
//
//   headers      what it does
//   packet.h     reads and writes headers
//   find.h       whose is it: a bitmap, then a service
//   choose.h     which backend has the flow
//   deliver.h    to that backend: as it is (dsr), wrapped (tunnel.h: ipip, gue), or translated (translate.h)
//   rare.h       all that is unusual
//   apart.h      services where more than a slot decides
//   limit.h      how often a client may open a connection
//   reverse.h    answers of translated backends
//   watch.h      shows packets to whom wants to see them
//   pool.h       which port a flow has whose client its backend does not see
//   pooled.h     such flows, both ways
//   tagged.h     frames with a VLAN tag, which tag.h puts back
//
// Verdicts. What is not for a VIP, or for a port of one that no service has, is passed untouched, and so are
// frames of a VLAN that has an interface, protocols other than TCP, UDP and ICMP, IPv6 packets with a routing
// header, and answers of backends that are fragments or have IP options, unless they are to a pool. Malformed
// packets for a VIP are dropped, and counted by reason. Checksums are not looked at: whoever gets the packet does.
//
// Packets are forwarded whether or not this host owns the VIP: only announcing is exclusive. So no lease is
// looked at here. What asks for an address (ARP, NDP, ping) goes to a program of gate.bpf.c, which does; where
// that is not loaded, ARP and NDP are passed.
//
// Kernels from 5.12 (compare and swap, pointers as arguments of global functions); no kfuncs, no GPL-only functions.

#include "forward/limit.h"
#include "forward/pooled.h"
#include "forward/reverse.h"
#include "forward/tagged.h"

// What another program looks at again; the one that knows the limits first, if there are any.
static __always_inline int unusual(struct xdp_md *ctx, const struct settings *settings, int verdict, int is_ipv6)
{
	if (verdict == VERDICT_POOLED)
		return pooled(ctx, is_ipv6);
	if (verdict == VERDICT_APART)
		return apart(ctx, is_ipv6);
	// Who opens a connection to a service that has a limit never gets as far as to its slot.
	if (verdict != VERDICT_MOVES && LOOK(settings->flags) & HAS_LIMITS)
		bpf_tail_call(ctx, &fast_programs, PROGRAM_LIMIT);
	if (is_ipv6)
		bpf_tail_call(ctx, &fast_programs, PROGRAM_RARE_IPV6);
	else
		bpf_tail_call(ctx, &fast_programs, PROGRAM_RARE_IPV4);
	return XDP_PASS;
}

// Not for a service: perhaps from a backend.
static __always_inline int other(struct xdp_md *ctx, const struct settings *settings,
				 const struct flow *flow)
{
	perhaps_answer(ctx, settings, flow);
	return XDP_PASS;
}

// A verdict below zero is another program's to say.
static __always_inline int usual(struct xdp_md *ctx, const struct settings *settings, const struct flow *flow,
				 const struct parcel *parcel, __u64 hash)
{
	__u32 at;
	const struct service *service = find_place(settings, hash, flow, &at);

	if (!service)
		return other(ctx, settings, flow);
	return forward(ctx, settings, flow, parcel, service, at);
}

static __always_inline int ipv4(struct xdp_md *ctx, const struct settings *settings, struct ethhdr *ethernet,
				void *end)
{
	struct ipv4 *ip = (void *)(ethernet + 1);
	struct parcel parcel = { .ethernet = ethernet, .ports = (void *)(ip + 1), .shape = WHOLE };
	struct flow flow = { .is_ipv6 = 0 };
	__u64 hash;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	flow.client = address_ipv4(ip->source);
	flow.vip = address_ipv4(ip->destination);
	hash = hash_address(&flow.vip, flow.is_ipv6);
	if (!is_marked(settings->vips, hash))
		return other(ctx, settings, &flow);
	flow.length = bpf_ntohs(ip->length);
	flow.protocol = ip->protocol;
	flow.service = ip->service;
	if (ip->version_length != IPV4_PLAIN || ip->fragment & bpf_htons(IPV4_MORE | IPV4_OFFSET) ||
	    flow.length > end - (void *)ip ||
	    !read_transport(&flow, parcel.ports, end, flow.length - sizeof(*ip)))
		return VERDICT_UNUSUAL;
	return usual(ctx, settings, &flow, &parcel, hash);
}

static __always_inline int ipv6(struct xdp_md *ctx, const struct settings *settings, struct ethhdr *ethernet,
				void *end)
{
	struct ipv6 *ip = (void *)(ethernet + 1);
	struct parcel parcel = { .ethernet = ethernet, .ports = (void *)(ip + 1), .shape = WHOLE };
	struct flow flow = { .is_ipv6 = 1 };
	__u64 hash;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	flow.client = address_ipv6(ip->source);
	flow.vip = address_ipv6(ip->destination);
	hash = hash_address(&flow.vip, flow.is_ipv6);
	if (!is_marked(settings->vips, hash)) {
		asked(ctx, &flow.vip);
		return other(ctx, settings, &flow);
	}
	flow.length = bpf_ntohs(ip->length) + sizeof(*ip);
	flow.protocol = ip->next;
	flow.service = class_of(ip);
	if (is_mapped_ipv4(&flow.vip)) // of no service
		return other(ctx, settings, &flow);
	if (bpf_ntohl(ip->version_class_label) >> 28 != 6 || flow.length > end - (void *)ip ||
	    !read_transport(&flow, parcel.ports, end, flow.length - sizeof(*ip)))
		return VERDICT_UNUSUAL;
	return usual(ctx, settings, &flow, &parcel, hash);
}

static __always_inline int forwarded(struct xdp_md *ctx, const struct settings *settings)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__be16 protocol;
	int verdict;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	protocol = ((struct ethernet *)ethernet)->protocol;
	if (protocol == bpf_htons(ETH_P_IP)) {
		verdict = ipv4(ctx, settings, ethernet, end);
		return verdict < 0 ? unusual(ctx, settings, verdict, 0) : verdict;
	}
	if (protocol == bpf_htons(ETH_P_IPV6)) {
		verdict = ipv6(ctx, settings, ethernet, end);
		return verdict < 0 ? unusual(ctx, settings, verdict, 1) : verdict;
	}
	if (protocol == bpf_htons(ETH_P_ARP))
		bpf_tail_call(ctx, &fast_programs, PROGRAM_ANSWER);
	if (protocol == bpf_htons(ETH_P_8021Q))
		bpf_tail_call(ctx, &fast_programs, PROGRAM_TAGGED);
	return XDP_PASS;
}

SEC("xdp")
int fast_forward(struct xdp_md *ctx)
{
	const struct settings *settings = settings_now();

	if (!settings)
		return XDP_PASS;
	if (__builtin_expect(LOOK(settings->flags) & WATCHED, 0))
		bpf_tail_call(ctx, &fast_programs, PROGRAM_WATCH);
	return sent(ctx, settings, forwarded(ctx, settings));
}

// The same while somebody watches.
SEC("xdp")
int fast_watched(struct xdp_md *ctx)
{
	struct settings *settings = settings_now();

	if (!settings)
		return XDP_PASS;
	look(ctx, settings);
	return told(ctx, settings, forwarded(ctx, settings));
}

char _license[] SEC("license") = "MIT OR Apache-2.0";
