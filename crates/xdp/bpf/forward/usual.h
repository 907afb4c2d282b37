// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The way of TCP and UDP packets without anything unusual, from the service to the wire.
//
// What is known of a packet is read from its frame again after each look into a map, and only what the next step
// needs: the frame is in the first cache, and of what a program keeps over such a look no more than four words are in
// registers. All else it would write to its stack, and read from there.

#pragma once

#include "deliver.h"

// As the headers say it, which are checked.
static __always_inline struct flow flow_ipv4(const struct ipv4 *ip)
{
	const struct tcp *tcp = (const void *)(ip + 1);
	struct flow flow = {
		.client = address_ipv4(ip->source),
		.vip = address_ipv4(ip->destination),
		.client_port = tcp->ports.source,
		.vip_port = bpf_ntohs(tcp->ports.destination),
		.protocol = ip->protocol,
		.service = ip->service,
		.length = bpf_ntohs(ip->length),
	};

	return flow;
}

static __always_inline struct flow flow_ipv6(const struct ipv6 *ip)
{
	const struct tcp *tcp = (const void *)(ip + 1);
	struct flow flow = {
		.client = address_ipv6(ip->source),
		.vip = address_ipv6(ip->destination),
		.client_port = tcp->ports.source,
		.vip_port = bpf_ntohs(tcp->ports.destination),
		.protocol = ip->next,
		.is_ipv6 = 1,
		.service = class_of(ip),
		.length = bpf_ntohs(ip->length) + sizeof(*ip),
	};

	return flow;
}

// The compiler may keep nothing that it has read of memory before.
#define FORGET() asm volatile("" ::: "memory")

// The headers are in the frame, and as they should be.
static __always_inline struct flow flow_of(const void *ip, int is_ipv6)
{
	const struct tcp *tcp = ip + (is_ipv6 ? sizeof(struct ipv6) : sizeof(struct ipv4));
	struct flow flow;

	FORGET();
	flow = is_ipv6 ? flow_ipv6(ip) : flow_ipv4(ip);
	flow.opens = flow.protocol == IPPROTO_TCP && (tcp->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	return flow;
}

// Whether the transport header is whole: `length` is left for it, and there is room for one of TCP in the frame.
static __always_inline int is_whole(const struct tcp *tcp, __u8 protocol, int length)
{
	const struct udp *udp = (const void *)tcp;
	int header;

	if (__builtin_expect(protocol == IPPROTO_TCP, 1)) {
		header = (tcp->offset >> 4) * 4;
		return header >= (int)sizeof(*tcp) && header <= length;
	}
	if (protocol != IPPROTO_UDP)
		return 0;
	header = bpf_ntohs(udp->length);
	return header >= (int)sizeof(*udp) && header <= length;
}

#define PLAIN_MASK 0xff3f0000000000ffULL // of the first eight bytes: version and length of the header, and fragments

static __always_inline int is_plain_ipv4(const struct ipv4 *ip, const void *end)
{
	__u64 first = *(const word *)ip;
	int length = bpf_ntohs((__u16)(first >> 16));

	return (first & PLAIN_MASK) == IPV4_PLAIN && length <= end - (const void *)ip &&
	       is_whole((const void *)(ip + 1), ip->protocol, length - (int)sizeof(*ip));
}

static __always_inline int is_for(const struct service *service, const struct flow *flow)
{
	return service->address.low == flow->vip.low && service->address.high == flow->vip.high &&
	       service->protocol == flow->protocol && flow->vip_port >= service->first &&
	       flow->vip_port <= service->last;
}

// Who is hinted at has a single port.
static __always_inline int is_hinted(const struct service *service, const struct flow *flow)
{
	return service->address.low == flow->vip.low && service->address.high == flow->vip.high &&
	       service->protocol == flow->protocol && service->first == flow->vip_port;
}

// The place in `fast_services` of nearly all of a host with few services: the settings have it, which need no look.
static __always_inline __u32 hinted_place(__u64 hash, const struct flow *flow)
{
	return LOOK(settings_now()->hints[key_of(hash, flow->vip_port, 0, flow->protocol) & (HINTS - 1)]) - 1;
}

// Of most others: under its own port, and in the first bucket.
static __always_inline __u32 usual_place(const struct flow *flow)
{
	__u64 key = key_of(hash_address(&flow->vip, flow->is_ipv6), flow->vip_port, 0, flow->protocol);
	__u32 at = (__u32)key & settings_now()->bucket_mask;
	const struct bucket *bucket = bpf_map_lookup_elem(&fast_buckets, &at);

	if (!bucket)
		return NONE;
#pragma unroll
	for (__u32 way = 0; way < BUCKET_WAYS; way++) {
		__u64 entry = LOOK(bucket->entries[way]);
		if (__builtin_expect((entry ^ key) >> 32 == 0, 1))
			return (__u32)entry - 1;
		if (!entry)
			return NONE;
	}
	return NONE;
}

// Ranges of ports, and buckets that are full, are looked for by a function that nobody else pays for.
static __always_inline const struct service *usual_service(__u64 hash, const void *ip, int is_ipv6, __u32 *place)
{
	struct flow flow = flow_of(ip, is_ipv6);
	const struct service *service;

	*place = hinted_place(hash, &flow);
	service = bpf_map_lookup_elem(&fast_services, place);
	if (__builtin_expect(!!service, 1)) {
		flow = flow_of(ip, is_ipv6);
		if (__builtin_expect(is_hinted(service, &flow), 1))
			return service;
	}
	flow = flow_of(ip, is_ipv6);
	*place = usual_place(&flow);
	service = bpf_map_lookup_elem(&fast_services, place);
	if (service) {
		flow = flow_of(ip, is_ipv6);
		if (is_for(service, &flow))
			return service;
	}
	flow = flow_of(ip, is_ipv6);
	*place = service_place(&flow);
	return bpf_map_lookup_elem(&fast_services, place);
}

// What a service with a guard says of a packet; 0: nothing.
static __always_inline int stopped(const struct service *service, __u32 at, const struct flow *flow)
{
	if (is_refused(service, &flow->client))
		return dropped_of_service(at, DROP_SOURCE);
	if (service->guard & LIMITED && flow->opens)
		return VERDICT_LIMITED;
	if (service->guard & POOLED)
		return VERDICT_POOLED;
	return service->guard & APART ? VERDICT_APART : 0;
}

// Not for a service: perhaps from a backend.
static __always_inline int other(struct xdp_md *ctx, const struct flow *flow)
{
	perhaps_answer(ctx, flow);
	return XDP_PASS;
}

// To a backend as it is.
static __always_inline int directly(struct xdp_md *ctx, void *ip, struct way *way, int is_ipv6)
{
	struct flow flow = flow_of(ip, is_ipv6);
	__u64 mac = LOOK(way->link->mac);
	__u32 length = flow.length;
	struct tally *tally;
	int verdict;

	if (__builtin_expect(length > mac >> 48, 0))
		return VERDICT_TOO_BIG;
	set_macs(ip - sizeof(struct ethhdr), way->hop, mac);
	verdict = send(ctx, way->link);
	tally = bpf_map_lookup_elem(&fast_tallies, &way->place);
	if (__builtin_expect(!!tally, 1)) {
		flow = flow_of(ip, is_ipv6);
		tally->packets += 1;
		tally->bytes += length;
		if (__builtin_expect(flow.opens, 0))
			tally->flows += 1;
	}
	return verdict;
}

// In another packet, of a kind that is known when this is compiled.
static __always_inline int inside(struct xdp_md *ctx, void *ip, const struct service *service,
				  const struct way *way, __u64 mac, int is_ipv6, int is_gue,
				  int is_ipv4)
{
	struct flow flow = flow_of(ip, is_ipv6);
	int verdict;
	void *frame = wrapped(ctx, settings_now(), &flow, ip - sizeof(struct ethhdr), service, way, mac >> 48, is_gue, is_ipv4,
			      &verdict);

	if (!frame)
		return verdict;
	set_macs(frame, way->hop, mac);
	count(way->place, &flow, flow.opens);
	return send(ctx, way->link);
}

static __always_inline int in_tunnel(struct xdp_md *ctx, void *ip, const struct service *service,
				     const struct way *way, int is_ipv6)
{
	__u64 mac = LOOK(way->link->mac);
	int is_gue = service->forward == FORWARD_GUE;

	if (is_mapped_ipv4(&way->backend->address))
		return is_gue ? inside(ctx, ip, service, way, mac, is_ipv6, 1, 1) :
				inside(ctx, ip, service, way, mac, is_ipv6, 0, 1);
	return is_gue ? inside(ctx, ip, service, way, mac, is_ipv6, 1, 0) :
			inside(ctx, ip, service, way, mac, is_ipv6, 0, 0);
}

// By translation, or to this host, or nowhere.
static __always_inline int otherwise(struct xdp_md *ctx, struct ethhdr *ethernet, const struct service *service,
				     const struct way *way, int is_ipv6)
{
	void *ip = ethernet + 1;
	struct flow flow = flow_of(ip, is_ipv6);
	struct parcel parcel = { .ethernet = ethernet, .shape = WHOLE };
	__u64 mac;

	if (!way->backend)
		return dropped(DROP_NO_BACKEND);
	if (way->hop == NEXT_HOP_LOCAL) {
		count(way->place, &flow, flow.opens);
		return XDP_PASS;
	}
	if (!way->hop)
		return dropped_of_backend(way->place, DROP_NO_NEIGHBOUR);
	mac = LOOK(way->link->mac);
	if (flow.length > mac >> 48)
		return VERDICT_TOO_BIG;
	parcel.ports = ip + (is_ipv6 ? sizeof(struct ipv6) : sizeof(struct ipv4));
	if (service->forward == FORWARD_NAT && !translate(&flow, &parcel, service, way->backend))
		return dropped_of_backend(way->place, DROP_TTL);
	set_macs(ethernet, way->hop, mac);
	flow = flow_of(ip, is_ipv6);
	count(way->place, &flow, flow.opens);
	return send(ctx, way->link);
}

// VERDICT_TOO_BIG, VERDICT_LIMITED, VERDICT_POOLED, VERDICT_APART, VERDICT_MOVES, or what XDP says.
static __always_inline int usual(struct xdp_md *ctx, struct ethhdr *ethernet, __u64 hash, int is_ipv6,
				 int is_watched)
{
	void *ip = ethernet + 1;
	__u32 at, slot, place;
	const struct service *service = usual_service(hash, ip, is_ipv6, &at);
	struct flow flow;
	struct way way;
	int verdict;

	if (__builtin_expect(!service, 0)) {
		flow = flow_of(ip, is_ipv6);
		return other(ctx, &flow);
	}
	if (__builtin_expect(service->guard, 0)) {
		flow = flow_of(ip, is_ipv6);
		verdict = stopped(service, at, &flow);
		if (verdict)
			return verdict;
	}
	flow = flow_of(ip, is_ipv6);
	slot = slot_of(service, hash_chosen(settings_now(), service, &flow));
	place = slot & 0xffff;
	if (__builtin_expect(place != slot >> 16, 0))
		return VERDICT_MOVES;
	if (__builtin_expect(place >= service->backends_count, 0))
		return dropped_of_service(at, DROP_NO_BACKEND);
	way = way_to(service->backends_first + place);
	if (__builtin_expect(way.hop <= NEXT_HOP_LOCAL, 0))
		verdict = otherwise(ctx, ethernet, service, &way, is_ipv6);
	else if (service->forward == FORWARD_DSR)
		verdict = directly(ctx, ip, &way, is_ipv6);
	else if (service->forward & FORWARD_WRAPS)
		verdict = in_tunnel(ctx, ip, service, &way, is_ipv6);
	else
		verdict = otherwise(ctx, ethernet, service, &way, is_ipv6);
	return is_watched && verdict >= 0 && !ORIGIN(verdict) ? verdict | OF_BACKEND(way.place) : verdict;
}
