// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The fast path: packets for a VIP go to a backend before the kernel has made anything of them.
//
// This is the way of TCP and UDP packets without anything unusual. Everything there is an inlined array
// access: no hash map, no clock, no state of a flow, and a call only to find a service of a range of ports. Only a
// service that is not there for everybody costs one look into a trie, and one that clients may not open as often as
// they like costs a SYN another program, which looks first. What is unusual (options, fragments, ICMP, what does not
// fit, what is malformed, a slot that is changing hands, frames without room for a TCP header, which an Ethernet card
// pads) is looked at again by another program for each family, and answers of translated backends by one more: they
// cost this one nothing.
//
//   headers      what it does
//   packet.h     reads and writes headers
//   exact.h      whose is most of it: one look
//   find.h       whose is it: a bitmap, then a service
//   choose.h     which backend has the flow
//   deliver.h    to that backend: as it is (dsr), wrapped (tunnel.h: ipip, gue), or translated (translate.h)
//   usual.h      the way of most packets, step by step
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
#include "forward/usual.h"

// What another program looks at again; the one that knows the limits first, if there are any.
static __always_inline int unusual(struct xdp_md *ctx, int verdict, int is_ipv6)
{
	if (verdict == VERDICT_POOLED)
		return pooled(ctx, is_ipv6);
	if (verdict == VERDICT_APART)
		return apart(ctx, is_ipv6);
	// Who opens a connection to a service that has a limit never gets as far as to its slot.
	if (verdict != VERDICT_MOVES && LOOK(settings_now()->flags) & HAS_LIMITS)
		bpf_tail_call(ctx, &fast_programs, PROGRAM_LIMIT);
	if (is_ipv6)
		bpf_tail_call(ctx, &fast_programs, PROGRAM_RARE_IPV6);
	else
		bpf_tail_call(ctx, &fast_programs, PROGRAM_RARE_IPV4);
	return XDP_PASS;
}

// `is_short`, known when this is compiled: there is no room in the frame for a TCP header.
static __always_inline int ipv4(struct xdp_md *ctx, struct ethhdr *ethernet, void *end, int is_short, int is_watched)
{
	struct ipv4 *ip = (void *)(ethernet + 1);
	struct flow flow = { .is_ipv6 = 0 };
	__u32 slot, backends, forward;
	__u64 exact;
	int verdict;

	if (is_short && (void *)(ip + 1) > end)
		return XDP_PASS;
	exact = is_short ? 0 : exact_ipv4(ip);
	if (__builtin_expect(!!exact, 1)) {
		if (__builtin_expect(!is_plain_ipv4(ip, end), 0))
			return VERDICT_UNUSUAL;
		slot = exact_slot(exact, ip, 0);
		backends = exact >> EXACT_BACKENDS;
		forward = exact >> EXACT_FORWARD & 7;
	} else {
		flow.vip = address_ipv4(ip->destination);
		flow.client = address_ipv4(ip->source);
		if (!is_marked(settings_now()->vips, hash_address(&flow.vip, 0)))
			return other(ctx, &flow);
		if (is_short || !is_plain_ipv4(ip, end))
			return VERDICT_UNUSUAL;
		if (ends_elsewhere(ctx, ip, &slot, &backends, &forward, 0, &verdict))
			return verdict;
	}
	return sent_on(ctx, ethernet, slot, backends, forward, 0, is_watched);
}

static __always_inline int is_plain_ipv6(const struct ipv6 *ip, const void *end)
{
	__u32 length = bpf_ntohs(ip->length) + sizeof(*ip);

	return (ip->version_class_label & 0xf0) == 0x60 && length <= end - (const void *)ip &&
	       is_whole((const void *)(ip + 1), ip->next, (int)length - (int)sizeof(*ip));
}

static __always_inline int ipv6(struct xdp_md *ctx, struct ethhdr *ethernet, void *end, int is_short, int is_watched)
{
	struct ipv6 *ip = (void *)(ethernet + 1);
	struct flow flow = { .is_ipv6 = 1 };
	__u32 slot, backends, forward;
	__u64 exact;
	int verdict;

	if (is_short && (void *)(ip + 1) > end)
		return XDP_PASS;
	exact = is_short ? 0 : exact_ipv6(ip);
	if (__builtin_expect(!!exact, 1)) {
		if (__builtin_expect(!is_plain_ipv6(ip, end), 0))
			return VERDICT_UNUSUAL;
		slot = exact_slot(exact, ip, 1);
		backends = exact >> EXACT_BACKENDS;
		forward = exact >> EXACT_FORWARD & 7;
	} else {
		flow.client = address_ipv6(ip->source);
		flow.vip = address_ipv6(ip->destination);
		if (!is_marked(settings_now()->vips, hash_address(&flow.vip, 1))) {
			asked(ctx, &flow.vip);
			return other(ctx, &flow);
		}
		if (is_mapped_ipv4(&flow.vip)) // of no service
			return other(ctx, &flow);
		if (is_short || !is_plain_ipv6(ip, end))
			return VERDICT_UNUSUAL;
		if (ends_elsewhere(ctx, ip, &slot, &backends, &forward, 1, &verdict))
			return verdict;
	}
	return sent_on(ctx, ethernet, slot, backends, forward, 1, is_watched);
}

static __always_inline int forwarded(struct xdp_md *ctx, int is_watched)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__be16 protocol;
	int verdict;

	// One look at the length, for most.
	if ((void *)(ethernet + 1) + sizeof(struct ipv4) + sizeof(struct tcp) <= end &&
	    ((struct ethernet *)ethernet)->protocol == bpf_htons(ETH_P_IP)) {
		verdict = ipv4(ctx, ethernet, end, 0, is_watched);
		return __builtin_expect(verdict < 0, 0) ? unusual(ctx, verdict, 0) : verdict;
	}
	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	protocol = ((struct ethernet *)ethernet)->protocol;
	if (protocol == bpf_htons(ETH_P_IP)) {
		verdict = ipv4(ctx, ethernet, end, 1, is_watched);
		return verdict < 0 ? unusual(ctx, verdict, 0) : verdict;
	}
	if (protocol == bpf_htons(ETH_P_IPV6)) {
		if ((void *)(ethernet + 1) + sizeof(struct ipv6) + sizeof(struct tcp) <= end)
			verdict = ipv6(ctx, ethernet, end, 0, is_watched);
		else
			verdict = ipv6(ctx, ethernet, end, 1, is_watched);
		return verdict < 0 ? unusual(ctx, verdict, 1) : verdict;
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
	if (__builtin_expect(LOOK(settings_now()->flags) & WATCHED, 0))
		bpf_tail_call(ctx, &fast_programs, PROGRAM_WATCH);
	return ACTION(forwarded(ctx, 0));
}

// The same while somebody watches.
SEC("xdp")
int fast_watched(struct xdp_md *ctx)
{
	look(ctx, settings_now());
	return told(ctx, forwarded(ctx, 1));
}

char _license[] SEC("license") = "MIT OR Apache-2.0";
