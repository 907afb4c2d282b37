// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Puts a packet into another one to its backend (RFC 2003, RFC 2473), any family in any.
//
// The outer header may not be fragmented: who would put it together again before it is taken off? The TOS or
// traffic class is copied, and with it the marks of congestion. An outer IPv6 header has a label that is the
// same for all packets of a flow and another one for others, so that routers may spread them.

#pragma once

#include "choose.h"

#define PROTOCOL_IPIP 4
#define PROTOCOL_IPV6 41

static __always_inline __u32 tunnel_overhead(const struct backend *backend)
{
	return is_mapped_ipv4(&backend->address) ? sizeof(struct ipv4) : sizeof(struct ipv6);
}

static __always_inline void outer_ipv4(struct ipv4 *ip, const struct flow *flow, const struct backend *backend)
{
	__u32 *words = (__u32 *)ip;
	__u64 sum = 0;

	ip->version_length = IPV4_PLAIN;
	ip->service = flow->service;
	ip->length = bpf_htons(flow->length + sizeof(*ip));
	ip->id = 0; // means nothing where nothing is fragmented (RFC 6864)
	ip->fragment = bpf_htons(IPV4_DF);
	ip->ttl = TTL_OUT;
	ip->protocol = flow->is_ipv6 ? PROTOCOL_IPV6 : PROTOCOL_IPIP;
	ip->check = 0;
	ip->source = as_ipv4(&backend->source);
	ip->destination = as_ipv4(&backend->address);
#pragma unroll
	for (__u32 at = 0; at < sizeof(*ip) / sizeof(*words); at++)
		sum += words[at];
	ip->check = ~fold(sum);
}

static __always_inline void outer_ipv6(struct ipv6 *ip, const struct flow *flow, const struct backend *backend,
				       __u32 label)
{
	ip->version_class_label = bpf_htonl(6U << 28 | (__u32)flow->service << 20 | (label & 0xfffff));
	ip->length = bpf_htons(flow->length);
	ip->next = flow->is_ipv6 ? PROTOCOL_IPV6 : PROTOCOL_IPIP;
	ip->hops = TTL_OUT;
	put_ipv6(ip->source, &backend->source);
	put_ipv6(ip->destination, &backend->address);
}

// The frame with an outer header, but for its Ethernet addresses; nothing if there is no room before it.
static __always_inline struct ethhdr *wrap(struct xdp_md *ctx, const struct settings *settings,
					   const struct flow *flow, const struct backend *backend)
{
	int is_ipv4 = is_mapped_ipv4(&backend->address);
	struct ethhdr *ethernet;
	void *end;

	if (bpf_xdp_adjust_head(ctx, is_ipv4 ? -(int)sizeof(struct ipv4) : -(int)sizeof(struct ipv6)))
		return 0;
	ethernet = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (is_ipv4) {
		if ((void *)(ethernet + 1) + sizeof(struct ipv4) > end)
			return 0;
		ethernet->h_proto = bpf_htons(ETH_P_IP);
		outer_ipv4((void *)(ethernet + 1), flow, backend);
	} else {
		__u32 label = hash_flow(settings->seed, flow, flow->client_port) >> 44;
		if ((void *)(ethernet + 1) + sizeof(struct ipv6) > end)
			return 0;
		ethernet->h_proto = bpf_htons(ETH_P_IPV6);
		outer_ipv6((void *)(ethernet + 1), flow, backend, label);
	}
	return ethernet;
}
