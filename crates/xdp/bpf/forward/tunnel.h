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
	half *words = (half *)ip;
	__u32 length = bpf_htons(flow->length + sizeof(*ip)), source, destination, time;
	__u64 sum;

	// In registers: what is written in bytes and read as words at once makes a processor wait.
	words[0] = IPV4_PLAIN | (__u32)flow->service << 8 | length << 16;
	words[1] = (__u32)bpf_htons(IPV4_DF) << 16; // an id means nothing where nothing is fragmented (RFC 6864)
	time = TTL_OUT | (flow->is_ipv6 ? PROTOCOL_IPV6 : PROTOCOL_IPIP) << 8;
	source = as_ipv4(&backend->source);
	destination = as_ipv4(&backend->address);
	sum = (IPV4_PLAIN | (__u32)flow->service << 8) + length + bpf_htons(IPV4_DF) + time;
	sum += (__u64)source + destination;
	words[2] = time | (__u32)(__u16)~fold(sum) << 16;
	words[3] = source;
	words[4] = destination;
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
