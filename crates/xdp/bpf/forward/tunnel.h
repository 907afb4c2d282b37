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
static __always_inline int hop_less(void *start, int is_ipv6)
{
	struct ipv6 *ipv6 = start;
	half *time = start + offsetof(struct ipv4, ttl), word, more = 0xffff; // TTL, protocol and checksum

	if (is_ipv6) {
		if (ipv6->hops <= 1)
			return 0;
		ipv6->hops -= 1;
		return 1;
	}
	word = *time;
	if ((__u8)word <= 1)
		return 0;
	// One less at the one end, and one more of the checksum at the other, where what is carried out comes back in.
	if (__builtin_expect(word >= 0xfffe0000, 0))
		more = 0x1ffff;
	*time = word + more;
	return 1;
}

struct outer {
	__u32 length; // behind the outer IP header
	__u8 protocol;
	__u8 service;
};

// Of a backend in a tunnel: what is known of the checksum of an outer IPv6 header, which has none, is nothing.
static __always_inline int is_outer_ipv4(const struct backend *backend)
{
	return !!backend->delta;
}

static __always_inline __u32 tunnel_overhead(const struct service *service, const struct backend *backend)
{
	__u32 header = is_outer_ipv4(backend) ? sizeof(struct ipv4) : sizeof(struct ipv6);

	return service->forward == FORWARD_GUE ? header + sizeof(struct udp) : header;
}

static __always_inline void outer_ipv4(void *ip, const struct outer *outer, const struct backend *backend)
{
	__u64 first, length = bpf_htons(outer->length + sizeof(struct ipv4)), source, time;
	__u32 sum;

	// In registers, and in as few pieces as there can be. An id means nothing where nothing is fragmented (RFC 6864).
	first = IPV4_PLAIN | (__u32)outer->service << 8;
	time = TTL_OUT | (__u32)outer->protocol << 8;
	source = low_ipv4(&backend->source);
	sum = folded(backend->delta + length + ((__u32)outer->service << 8) + ((__u32)outer->protocol << 8));
	*(word *)ip = first | length << 16 | (__u64)bpf_htons(IPV4_DF) << 48;
	*(word *)(ip + 8) = time | (__u64)(__u16)~sum << 16 | source << 32;
	*(half *)(ip + 16) = low_ipv4(&backend->address);
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

static __always_inline void outer_udp(void *start, const struct outer *outer, __be16 port, __u64 hash)
{
	half *words = start;

	words[0] = bpf_htons(SOURCE_PORTS | (__u16)(hash >> 50)) | (__u32)port << 16;
	words[1] = bpf_htons(outer->length);
}

// The frame with an outer header, but for its Ethernet addresses; nothing if there is no room before it. `is_gue` and
// `is_ipv4`, of the outer header, and how much of the packet is surely there, are known when this is compiled: no packet
// pays for another kind.
static __always_inline void *wrap(struct xdp_md *ctx, const struct settings *settings, const struct flow *flow,
				  __be16 gue_port, const struct backend *backend, int is_gue, int is_ipv4, int there)
{
	struct outer outer = { flow->length, flow->is_ipv6 ? PROTOCOL_IPV6 : PROTOCOL_IPIP, flow->service };
	int header = is_ipv4 ? sizeof(struct ipv4) : sizeof(struct ipv6);
	struct ethernet *ethernet;
	__u64 hash = 0;
	void *ip;

	if (bpf_xdp_adjust_head(ctx, -header - (is_gue ? (int)sizeof(struct udp) : 0)))
		return 0;
	if (is_gue) {
		outer.length += sizeof(struct udp);
		outer.protocol = IPPROTO_UDP;
	}
	if (is_gue || !is_ipv4)
		hash = hash_flow(settings->seed, flow, flow->client_port);
	ethernet = (void *)(long)ctx->data;
	ip = ethernet + 1;
	if (ip + header + (is_gue ? sizeof(struct udp) : 0) + there > (void *)(long)ctx->data_end)
		return 0;
	ethernet->protocol = is_ipv4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	if (is_ipv4)
		outer_ipv4(ip, &outer, backend);
	else
		outer_ipv6(ip, &outer, backend, hash >> 44);
	if (is_gue)
		outer_udp(ip + header, &outer, gue_port, hash);
	return ethernet;
}
