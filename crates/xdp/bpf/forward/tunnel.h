// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Puts a packet into another one to its backend, any family in any: by itself (RFC 2003, RFC 2473), or in UDP.
//
// The outer header may not be fragmented: who would put it together again before it is taken off? The TOS or
// traffic class is copied, and with it the marks of congestion. An outer IPv6 header has a label that is the
// same for all packets of a flow and another one for others, so that routers may spread them.
//
// Who puts a packet into a tunnel while forwarding it takes one off its TTL or hop limit before (RFC 2003 section
// 3.1, RFC 2473 section 3.1); one with none left is dropped. Behind the tunnel it may come to its backend with what is left.
//
// In UDP it is GUE, variant 1: the packet is behind the UDP header, and its first four bits are its version. What
// spreads flows there is the port it comes from. The UDP checksum is zero, which says that there is none, over
// IPv6 as well (RFC 6935): to sum up a whole packet takes longer than all else here, and the packet within has
// checksums of its own, which cover what is delivered and to whom.

#pragma once

#include "choose.h"

#define PROTOCOL_IPIP 4
#define PROTOCOL_IPV6 41

#define SOURCE_PORTS 0xc000 // the last quarter of all ports, which no service is given (RFC 6335)

// Whether there was one to take off the packet that is to be wrapped.
static __always_inline int hop_less(struct ethhdr *ethernet, int is_ipv6)
{
	struct ipv4 *ipv4 = (void *)(ethernet + 1);
	struct ipv6 *ipv6 = (void *)(ethernet + 1);

	if ((is_ipv6 ? ipv6->hops : ipv4->ttl) <= 1)
		return 0;
	if (is_ipv6) {
		ipv6->hops -= 1;
	} else {
		ipv4->ttl -= 1;
		ipv4->check = updated(ipv4->check, TTL_CHANGE);
	}
	return 1;
}

struct outer {
	__u32 length; // behind the outer IP header
	__u8 protocol;
	__u8 service;
};

static __always_inline __u32 tunnel_overhead(const struct service *service, const struct backend *backend)
{
	__u32 header = is_mapped_ipv4(&backend->address) ? sizeof(struct ipv4) : sizeof(struct ipv6);

	return service->forward == FORWARD_GUE ? header + sizeof(struct udp) : header;
}

static __always_inline void outer_ipv4(struct ipv4 *ip, const struct outer *outer, const struct backend *backend)
{
	half *words = (half *)ip;
	__u32 length = bpf_htons(outer->length + sizeof(*ip)), source, destination, time;
	__u64 sum;

	// In registers: what is written in bytes and read as words at once makes a processor wait.
	words[0] = IPV4_PLAIN | (__u32)outer->service << 8 | length << 16;
	words[1] = (__u32)bpf_htons(IPV4_DF) << 16; // an id means nothing where nothing is fragmented (RFC 6864)
	time = TTL_OUT | (__u32)outer->protocol << 8;
	source = as_ipv4(&backend->source);
	destination = as_ipv4(&backend->address);
	sum = (IPV4_PLAIN | (__u32)outer->service << 8) + length + bpf_htons(IPV4_DF) + time;
	sum += (__u64)source + destination;
	words[2] = time | (__u32)(__u16)~fold(sum) << 16;
	words[3] = source;
	words[4] = destination;
}

static __always_inline void outer_ipv6(struct ipv6 *ip, const struct outer *outer, const struct backend *backend,
				       __u32 label)
{
	ip->version_class_label = bpf_htonl(6U << 28 | (__u32)outer->service << 20 | label);
	ip->length = bpf_htons(outer->length);
	ip->next = outer->protocol;
	ip->hops = TTL_OUT;
	put_ipv6(ip->source, &backend->source);
	put_ipv6(ip->destination, &backend->address);
}

static __always_inline void outer_udp(void *start, const struct outer *outer, const struct service *service,
				      __u64 hash)
{
	half *words = start;

	words[0] = bpf_htons(SOURCE_PORTS | (__u16)(hash >> 50)) | (__u32)service->gue_port << 16;
	words[1] = bpf_htons(outer->length);
}

// The frame with an outer header, but for its Ethernet addresses; nothing if there is no room before it. `is_gue` is
// known when this is compiled: a packet that goes by itself does not pay for those that go in UDP.
static __always_inline struct ethhdr *wrap(struct xdp_md *ctx, const struct settings *settings,
					   const struct flow *flow, const struct service *service,
					   const struct backend *backend, int is_gue)
{
	int is_ipv4 = is_mapped_ipv4(&backend->address);
	struct outer outer = { flow->length, flow->is_ipv6 ? PROTOCOL_IPV6 : PROTOCOL_IPIP, flow->service };
	int udp = is_gue ? sizeof(struct udp) : 0;
	struct ethhdr *ethernet;
	void *end;

	if (bpf_xdp_adjust_head(ctx, -udp - (int)(is_ipv4 ? sizeof(struct ipv4) : sizeof(struct ipv6))))
		return 0;
	if (is_gue) {
		outer.length += sizeof(struct udp);
		outer.protocol = IPPROTO_UDP;
	}
	ethernet = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	// There is always as much as a UDP header behind an outer IP header, whatever it is.
	if (is_ipv4) {
		if ((void *)(ethernet + 1) + sizeof(struct ipv4) + sizeof(struct udp) > end)
			return 0;
		ethernet->h_proto = bpf_htons(ETH_P_IP);
		outer_ipv4((void *)(ethernet + 1), &outer, backend);
		if (is_gue)
			outer_udp((void *)(ethernet + 1) + sizeof(struct ipv4), &outer, service,
				  hash_flow(settings->seed, flow, flow->client_port));
	} else {
		__u64 hash = hash_flow(settings->seed, flow, flow->client_port);
		if ((void *)(ethernet + 1) + sizeof(struct ipv6) + sizeof(struct udp) > end)
			return 0;
		ethernet->h_proto = bpf_htons(ETH_P_IPV6);
		outer_ipv6((void *)(ethernet + 1), &outer, backend, hash >> 44);
		if (is_gue)
			outer_udp((void *)(ethernet + 1) + sizeof(struct ipv6), &outer, service, hash);
	}
	return ethernet;
}
