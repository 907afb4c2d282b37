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

// The place in `fast_services` of most that have no exact match: under its own port, and in the first bucket.
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
static __always_inline const struct service *usual_service(const void *ip, int is_ipv6, __u32 *place)
{
	struct flow flow = flow_of(ip, is_ipv6);
	const struct service *service;

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

// As `send`, and what `sent` does beyond it: with BY_REDIRECT nothing seems to have come in where it goes out.
static __always_inline int send_usual(const struct xdp_md *ctx, const struct link *link)
{
	__u64 index = LOOK(link->index);

	return __builtin_expect(index == ctx->ingress_ifindex, 1) ? XDP_TX : bpf_redirect((__u32)index, 0);
}

// It is on its way out, and counted.
static __always_inline int tallied(struct xdp_md *ctx, const void *ip, const struct way *way, int is_ipv6)
{
	int verdict = send_usual(ctx, way->link);
	__u32 place = way->place;
	struct tally *tally = bpf_map_lookup_elem(&fast_tallies, &place);
	struct flow flow;

	if (__builtin_expect(!!tally, 1)) {
		flow = flow_of(ip, is_ipv6);
		tally->packets += 1;
		tally->bytes += flow.length;
		if (__builtin_expect(flow.opens, 0))
			tally->flows += 1;
	}
	return verdict;
}

// To a backend as it is.
static __always_inline int directly(struct xdp_md *ctx, void *ip, const struct way *way, int is_ipv6)
{
	struct flow flow = flow_of(ip, is_ipv6);
	__u64 mac = LOOK(way->link->mac);

	if (__builtin_expect(flow.length > mac >> 48, 0))
		return VERDICT_TOO_BIG;
	set_macs(ip - sizeof(struct ethhdr), way->hop, mac);
	return tallied(ctx, ip, way, is_ipv6);
}

// The service of a backend, for what its exact match does not say.
static __always_inline const struct service *service_of(const struct backend *backend)
{
	__u32 at = backend->service;

	return bpf_map_lookup_elem(&fast_services, &at);
}

// In another packet, of a kind that is known when this is compiled.
static __always_inline int inside(struct xdp_md *ctx, void *ip, __be16 gue_port, const struct way *way, __u64 mac,
				  int is_ipv6, int is_gue, int is_ipv4)
{
	int there = (is_ipv6 ? sizeof(struct ipv6) : sizeof(struct ipv4)) + sizeof(struct tcp);
	int outer = (is_ipv4 ? sizeof(struct ipv4) : sizeof(struct ipv6)) + (is_gue ? sizeof(struct udp) : 0);
	struct flow flow = flow_of(ip, is_ipv6);
	int verdict;
	void *frame = wrapped(ctx, settings_now(), &flow, ip - sizeof(struct ethhdr), gue_port, way, mac >> 48, is_gue, is_ipv4, there,
			      &verdict);

	if (!frame)
		return verdict;
	set_macs(frame, way->hop, LOOK(way->link->mac));
	return tallied(ctx, frame + sizeof(struct ethhdr) + outer, way, is_ipv6);
}

static __always_inline int in_tunnel(struct xdp_md *ctx, void *ip, const struct way *way, int is_ipv6)
{
	__u64 mac = LOOK(way->link->mac);

	return is_outer_ipv4(way->backend) ? inside(ctx, ip, 0, way, mac, is_ipv6, 0, 1) :
							inside(ctx, ip, 0, way, mac, is_ipv6, 0, 0);
}

static __always_inline int in_gue(struct xdp_md *ctx, void *ip, const struct way *way, int is_ipv6)
{
	const struct service *service = service_of(way->backend);
	__u64 mac = LOOK(way->link->mac);

	if (!service)
		return dropped_of_backend(way->place, DROP_NO_BACKEND);
	return is_outer_ipv4(way->backend) ? inside(ctx, ip, service->gue_port, way, mac, is_ipv6, 1, 1) :
							inside(ctx, ip, service->gue_port, way, mac, is_ipv6, 1, 0);
}

// To another address, and to another port if the service has only one.
static __always_inline int translated(struct xdp_md *ctx, void *ip, const struct way *way, int is_ipv6)
{
	__u64 mac = LOOK(way->link->mac);
	struct flow flow;

	FORGET();
	flow = flow_of(ip, is_ipv6);
	if (__builtin_expect(flow.length > mac >> 48, 0))
		return VERDICT_TOO_BIG;
	if (__builtin_expect((is_ipv6 ? ((struct ipv6 *)ip)->hops : ((struct ipv4 *)ip)->ttl) <= 1, 0))
		return dropped_of_backend(way->place, DROP_TTL);
	translate_usual(ip, way->backend, is_ipv6);
	set_macs(ip - sizeof(struct ethhdr), way->hop, mac);
	return tallied(ctx, ip, way, is_ipv6);
}

// By translation of one of several ports, or to this host, or nowhere.
static __always_inline int otherwise(struct xdp_md *ctx, struct ethhdr *ethernet, const struct way *way, int is_ipv6)
{
	void *ip = ethernet + 1;
	struct flow flow = flow_of(ip, is_ipv6);
	struct parcel parcel = { .ethernet = ethernet, .shape = WHOLE };
	const struct service *service;
	__u64 mac;

	if (!way->backend)
		return dropped(DROP_NO_BACKEND);
	if (way->hop == NEXT_HOP_LOCAL) {
		count(way->place, &flow, flow.opens);
		return XDP_PASS;
	}
	if (!way->hop)
		return dropped_of_backend(way->place, DROP_NO_NEIGHBOUR);
	service = service_of(way->backend);
	flow = flow_of(ip, is_ipv6);
	mac = LOOK(way->link->mac);
	if (flow.length > mac >> 48)
		return VERDICT_TOO_BIG;
	parcel.ports = ip + (is_ipv6 ? sizeof(struct ipv6) : sizeof(struct ipv4));
	if (!service || !translate(&flow, &parcel, service, way->backend))
		return dropped_of_backend(way->place, DROP_TTL);
	set_macs(ethernet, way->hop, mac);
	flow = flow_of(ip, is_ipv6);
	count(way->place, &flow, flow.opens);
	return send_usual(ctx, way->link);
}

// A service without an exact match. 0: this is its packet's way; 1: `verdict` is what becomes of it.
static __always_inline int ends_elsewhere(struct xdp_md *ctx, void *ip, __u32 *slot, __u32 *backends, __u32 *forward,
					  int is_ipv6, int *verdict)
{
	__u32 at;
	const struct service *service = usual_service(ip, is_ipv6, &at);
	struct flow flow = flow_of(ip, is_ipv6);

	if (__builtin_expect(!service, 0)) {
		*verdict = other(ctx, &flow);
		return 1;
	}
	if (__builtin_expect(service->guard, 0)) {
		*verdict = stopped(service, at, &flow);
		if (*verdict)
			return 1;
	}
	flow = flow_of(ip, is_ipv6);
	*slot = slot_of(service, hash_chosen(settings_now(), service, &flow));
	*backends = service->backends_first;
	*forward = service->forward;
	if (*forward == FORWARD_NAT && service->first != service->last)
		*forward = FORWARD_PORTS;
	return 0;
}

static __always_inline __u32 exact_slot(__u64 exact, const void *ip, int is_ipv6)
{
	struct flow flow = flow_of(ip, is_ipv6);
	__u64 hash = hash_flow(settings_now()->seed, &flow, flow.client_port);
	__u32 at = (exact >> EXACT_SLOTS & EXACT_PLACES) + (hash / SLOTS_IN_LINE & exact & EXACT_LINES);
	const struct line *line = bpf_map_lookup_elem(&fast_slots, &at);

	return line ? LOOK(line->slots[hash % SLOTS_IN_LINE]) : NONE;
}

// Nobody takes it: whose packet was it?
static __always_inline int of_nobody(const void *ip, int is_ipv6)
{
	struct flow flow = flow_of(ip, is_ipv6);

	return dropped_of_service(service_place(&flow), DROP_NO_BACKEND);
}

// VERDICT_TOO_BIG, VERDICT_MOVES, or what XDP says.
static __always_inline int sent_on(struct xdp_md *ctx, struct ethhdr *ethernet, __u32 slot, __u32 backends, __u32 forward,
				   int is_ipv6, int is_watched)
{
	void *ip = ethernet + 1;
	__u32 place = slot & 0xffff;
	struct way way;
	int verdict;

	if (__builtin_expect(place != slot >> 16, 0))
		return VERDICT_MOVES;
	if (__builtin_expect(place == (NONE & 0xffff), 0))
		return of_nobody(ip, is_ipv6);
	way = way_to(backends + place);
	if (__builtin_expect(way.hop <= NEXT_HOP_LOCAL, 0))
		verdict = otherwise(ctx, ethernet, &way, is_ipv6);
	else if (forward == FORWARD_DSR)
		verdict = directly(ctx, ip, &way, is_ipv6);
	else if (forward == FORWARD_TUNNEL)
		verdict = in_tunnel(ctx, ip, &way, is_ipv6);
	else if (forward == FORWARD_NAT)
		verdict = translated(ctx, ip, &way, is_ipv6);
	else if (forward == FORWARD_GUE)
		verdict = in_gue(ctx, ip, &way, is_ipv6);
	else
		verdict = otherwise(ctx, ethernet, &way, is_ipv6);
	return is_watched && verdict >= 0 && !ORIGIN(verdict) ? verdict | OF_BACKEND(way.place) : verdict;
}
