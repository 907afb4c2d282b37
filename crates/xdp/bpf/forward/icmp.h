// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What the VIP itself says of a packet that does not fit on its way to a backend.
//
// A packet that does not fit is answered whether or not it may be fragmented: nothing is fragmented here. The
// answer quotes as much of the packet as any header needs, and has the VIP as its source.

#pragma once

#include "deliver.h"

#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define CODE_FRAGMENTATION_NEEDED 4

#define NEXT_ICMPV6 58
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_TOO_BIG 2
#define ICMPV6_PARAMETER 4
#define ICMPV6_SOLICITATION 135

#define QUOTE_LEN 128

struct refusal_ipv4 {
	struct ethhdr ethernet;
	struct ipv4 ip;
	struct icmp icmp;
} __attribute__((packed));

struct refusal_ipv6 {
	struct ethhdr ethernet;
	struct ipv6 ip;
	struct icmp icmp;
} __attribute__((packed));

// Cuts the frame to what is quoted and makes room before it; the Ethernet header goes to the new front.
static __always_inline int make_room(struct xdp_md *ctx, int headers)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data, kept;
	void *end = (void *)(long)ctx->data_end;
	int length = end - (void *)ethernet, wanted = sizeof(*ethernet) + QUOTE_LEN;

	if ((void *)(ethernet + 1) > end || length < wanted)
		return 0;
	kept = *ethernet;
	if (bpf_xdp_adjust_tail(ctx, wanted - length) || bpf_xdp_adjust_head(ctx, -headers))
		return 0;
	ethernet = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if ((void *)(ethernet + 1) > end)
		return 0;
	*ethernet = kept;
	swap_macs(ethernet);
	return 1;
}

static __always_inline int refuse_ipv4(struct xdp_md *ctx, const struct flow *flow, __u32 place, __u32 mtu)
{
	struct refusal_ipv4 *refusal;

	if (!make_room(ctx, sizeof(struct ipv4) + sizeof(struct icmp)))
		return dropped_of_backend(place, DROP_NO_ROOM);
	refusal = (void *)(long)ctx->data;
	if ((void *)(refusal + 1) + QUOTE_LEN > (void *)(long)ctx->data_end)
		return dropped_of_backend(place, DROP_NO_ROOM);
	__builtin_memset(&refusal->ip, 0, sizeof(refusal->ip));
	refusal->ip.version_length = IPV4_PLAIN;
	refusal->ip.length = bpf_htons(sizeof(struct ipv4) + sizeof(struct icmp) + QUOTE_LEN);
	refusal->ip.fragment = bpf_htons(IPV4_DF);
	refusal->ip.ttl = TTL_OUT;
	refusal->ip.protocol = IPPROTO_ICMP;
	refusal->ip.source = as_ipv4(&flow->vip);
	refusal->ip.destination = as_ipv4(&flow->client);
	refusal->ip.check = ~fold(sum_words(&refusal->ip, sizeof(refusal->ip)));
	refusal->icmp.type = ICMP_UNREACHABLE;
	refusal->icmp.code = CODE_FRAGMENTATION_NEEDED;
	refusal->icmp.check = 0;
	refusal->icmp.rest = bpf_htonl(mtu);
	refusal->icmp.check = ~fold(sum_words(&refusal->icmp, sizeof(refusal->icmp) + QUOTE_LEN));
	dropped_of_backend(place, DROP_TOO_BIG);
	return XDP_TX | OF_REASON(DROP_TOO_BIG);
}

static __always_inline int refuse_ipv6(struct xdp_md *ctx, const struct flow *flow, __u32 place, __u32 mtu)
{
	struct refusal_ipv6 *refusal;
	__u64 sum;

	if (!make_room(ctx, sizeof(struct ipv6) + sizeof(struct icmp)))
		return dropped_of_backend(place, DROP_NO_ROOM);
	refusal = (void *)(long)ctx->data;
	if ((void *)(refusal + 1) + QUOTE_LEN > (void *)(long)ctx->data_end)
		return dropped_of_backend(place, DROP_NO_ROOM);
	refusal->ip.version_class_label = bpf_htonl(6U << 28);
	refusal->ip.length = bpf_htons(sizeof(struct icmp) + QUOTE_LEN);
	refusal->ip.next = NEXT_ICMPV6;
	refusal->ip.hops = TTL_OUT;
	put_ipv6(refusal->ip.source, &flow->vip);
	put_ipv6(refusal->ip.destination, &flow->client);
	refusal->icmp.type = ICMPV6_TOO_BIG;
	refusal->icmp.code = 0;
	refusal->icmp.check = 0;
	refusal->icmp.rest = bpf_htonl(mtu);
	// The pseudo header: both addresses, length and protocol (RFC 8200 section 8.1).
	sum = sum_words(refusal->ip.source, 2 * sizeof(refusal->ip.source));
	sum += refusal->ip.length + bpf_htonl(NEXT_ICMPV6);
	sum += sum_words(&refusal->icmp, sizeof(refusal->icmp) + QUOTE_LEN);
	refusal->icmp.check = ~fold(sum);
	dropped_of_backend(place, DROP_TOO_BIG);
	return XDP_TX | OF_REASON(DROP_TOO_BIG);
}

// The largest packet that would have fitted.
static __always_inline __u32 fitting(const struct service *service, __u32 place)
{
	const struct backend *backend = bpf_map_lookup_elem(&fast_backends, &place);
	__u32 overhead, mtu;

	if (!backend)
		return 0;
	mtu = LOOK(link_of(LOOK(backend->next_hop))->mac) >> 48;
	overhead = service->forward & FORWARD_WRAPS ? tunnel_overhead(service, backend) : 0;
	return mtu > overhead ? mtu - overhead : 0;
}
