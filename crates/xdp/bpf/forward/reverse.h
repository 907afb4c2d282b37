// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Answers of translated backends get the VIP as their source again; then the kernel forwards them.
//
// A backend's address and port belong to one service, so nothing is remembered. What this host itself asks a
// backend, as its checks do, is answered to an address of its own, and left alone. The kernel knows where the
// client is, resolves neighbours, and takes one off the TTL; bpf_fib_lookup would, but only for GPL programs.
// Where this host has the VIP itself, it takes such a packet for one of its own that came back, so the
// interface towards the backends must accept_local, without rp_filter; and the host must forward.

#pragma once

#include "pool.h"
#include "rare.h"

// `flow` seen from the backend: it is the VIP, and the other end the client.
struct answer {
	const struct service *service;
	const struct backend *backend;
};

static __always_inline int is_of(const struct answer *found, const struct flow *flow)
{
	const struct service *service = found->service;
	const struct backend *backend = found->backend;
	__u32 above = (__u32)flow->vip_port - backend->port;

	return backend->address.low == flow->vip.low && backend->address.high == flow->vip.high &&
	       service->protocol == flow->protocol && service->forward == FORWARD_NAT &&
	       above <= (__u32)service->last - service->first;
}

static __always_inline int find_answer(const struct settings *settings, const struct flow *flow,
				       struct answer *found)
{
	__u32 sizes = LOOK(settings->reverse_sizes) | 1, at;
	__u64 address = hash_address(&flow->vip, flow->is_ipv6);

	for (__u32 size = 0; sizes && size <= PORT_SIZES; size++, sizes >>= 1) {
		__u16 block = (__u32)flow->vip_port >> size << size;
		__u64 key = key_of(address, block, size, flow->protocol);
		if (!(sizes & 1))
			continue;
		at = place_of(&fast_reverse, settings->reverse_mask, key);
		found->backend = bpf_map_lookup_elem(&fast_backends, &at);
		if (!found->backend)
			continue;
		at = found->backend->service;
		found->service = bpf_map_lookup_elem(&fast_services, &at);
		if (found->service && is_of(found, flow))
			return 1;
	}
	return 0;
}

static __always_inline struct translation back(const struct answer *found, const struct flow *flow)
{
	__u16 port = flow->vip_port - found->backend->port + found->service->first;
	struct translation to = { found->service->address, ~found->backend->delta, bpf_htons(port) };

	return to;
}

static __always_inline int is_own(const struct settings *settings, const struct address *address)
{
#pragma unroll
	for (__u32 at = 0; at < OWN_MAX; at++)
		if (LOOK(settings->own[at].low) == address->low &&
		    LOOK(settings->own[at].high) == address->high)
			return 1;
	return 0;
}

// Not for the stateless way: what comes to an address of a pool is of one flow, or of none.
static __always_inline int is_to_pool(const struct settings *settings, const struct address *address)
{
	return LOOK(settings->flags) & HAS_POOLS && table_of(settings, address, 0) != NONE;
}

static __always_inline int answer_ipv4(const struct settings *settings, struct ethhdr *ethernet, void *end)
{
	struct ipv4 *ip = (void *)(ethernet + 1);
	struct ports *ports = (void *)(ip + 1);
	struct flow flow = { .is_ipv6 = 0 };
	struct answer found;
	struct translation to;

	if ((void *)ports > end)
		return XDP_PASS;
	flow.client = address_ipv4(ip->destination);
	if (is_to_pool(settings, &flow.client))
		return VERDICT_POOLED;
	if (ip->version_length != IPV4_PLAIN || ip->fragment & bpf_htons(IPV4_MORE | IPV4_OFFSET))
		return XDP_PASS;
	flow.vip = address_ipv4(ip->source);
	flow.protocol = ip->protocol;
	flow.length = bpf_ntohs(ip->length);
	if (flow.length > end - (void *)ip ||
	    !read_transport(&flow, ports, end, flow.length - sizeof(*ip)))
		return XDP_PASS;
	flow.vip_port = bpf_ntohs(ports->source);
	if (is_own(settings, &flow.client) || !find_answer(settings, &flow, &found))
		return XDP_PASS;
	to = back(&found, &flow);
	translate_transport(ports, flow.protocol, &ports->source, &to);
	ip->source = as_ipv4(&to.address);
	ip->check = updated(ip->check, to.delta);
	return XDP_PASS | OF_ANSWER;
}

static __always_inline int answer_ipv6(const struct settings *settings, struct ethhdr *ethernet, void *end)
{
	struct ipv6 *ip = (void *)(ethernet + 1);
	struct ports *ports = (void *)(ip + 1);
	struct flow flow = { .is_ipv6 = 1 };
	struct answer found;
	struct translation to;

	if ((void *)ports > end || bpf_ntohl(ip->version_class_label) >> 28 != 6)
		return XDP_PASS;
	flow.client = address_ipv6(ip->destination);
	if (is_to_pool(settings, &flow.client))
		return VERDICT_POOLED;
	flow.vip = address_ipv6(ip->source);
	flow.protocol = ip->next;
	flow.length = bpf_ntohs(ip->length) + sizeof(*ip);
	if (flow.length > end - (void *)ip || is_mapped_ipv4(&flow.vip) ||
	    !read_transport(&flow, ports, end, flow.length - sizeof(*ip)))
		return XDP_PASS;
	flow.vip_port = bpf_ntohs(ports->source);
	if (is_own(settings, &flow.client) || !find_answer(settings, &flow, &found))
		return XDP_PASS;
	to = back(&found, &flow);
	translate_transport(ports, flow.protocol, &ports->source, &to);
	put_ipv6(ip->source, &to.address);
	return XDP_PASS | OF_ANSWER;
}

SEC("xdp")
int fast_reverse_way(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	const struct settings *settings = settings_now();
	int verdict = XDP_PASS;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		verdict = answer_ipv4(settings, ethernet, end);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		verdict = answer_ipv6(settings, ethernet, end);
	if (verdict == VERDICT_POOLED)
		verdict = pooled(ctx, ethernet->h_proto == bpf_htons(ETH_P_IPV6));
	return ended(ctx, verdict);
}
