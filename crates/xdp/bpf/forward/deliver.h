// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The packet is on its way to this backend: what changes of it, and out of which interface it goes.

#pragma once

#include "translate.h"
#include "tunnel.h"

// What the transport header is of the packet at hand. Known when this is compiled.
enum shape {
	WHOLE, // there, and checked to be
	LATER, // in an earlier fragment
	QUOTED // in the packet that an ICMP error speaks of
};

struct parcel {
	struct ethhdr *ethernet;
	struct icmp *icmp;   // QUOTED
	void *quoted;        // QUOTED: the IP header within
	struct ports *ports; // WHOLE, QUOTED
	enum shape shape;
};

// It did not fit, and has to be said so to its sender.
#define VERDICT_TOO_BIG -1
// It opens a connection to a service that has a limit of them.
#define VERDICT_LIMITED -2
// Another program has to look at it for its shape.
#define VERDICT_UNUSUAL -3
// It goes to or from a pool: pooled.h.
#define VERDICT_POOLED -4
// More than its slot decides which backend it gets: apart.h.
#define VERDICT_APART -5
// Its slot changes hands: rare.h looks what is remembered of the flow.
#define VERDICT_MOVES -6

static __always_inline int send(const struct xdp_md *ctx, const struct link *link)
{
	__u32 index = link->index;

	return __builtin_expect(index == ctx->ingress_ifindex, 1) ? XDP_TX : bpf_redirect(index, 0);
}

static __always_inline void count(__u32 place, const struct flow *flow, int is_new)
{
	struct tally *tally = bpf_map_lookup_elem(&fast_tallies, &place);

	if (!tally)
		return;
	tally->packets += 1;
	tally->bytes += flow->length;
	if (__builtin_expect(is_new, 0))
		tally->flows += 1;
}

// Whether it could be; not when its time to live is over.
static __always_inline int translate(const struct flow *flow, const struct parcel *parcel,
				     const struct service *service, const struct backend *backend)
{
	__u16 port = flow->vip_port - service->first + backend->port;
	struct translation to = { backend->address, backend->delta, bpf_htons(port) };
	struct ipv4 *ipv4 = (void *)(parcel->ethernet + 1);
	struct ipv6 *ipv6 = (void *)(parcel->ethernet + 1);

	if ((flow->is_ipv6 ? ipv6->hops : ipv4->ttl) <= 1)
		return 0;
	if (parcel->shape == WHOLE)
		translate_transport(parcel->ports, flow->protocol, &parcel->ports->destination, &to);
	if (parcel->shape == QUOTED) {
		if (flow->is_ipv6)
			translate_quoted_ipv6(parcel->icmp, parcel->quoted, parcel->ports, &to);
		else
			translate_quoted_ipv4(parcel->icmp, parcel->quoted, parcel->ports, &to);
	}
	if (flow->is_ipv6)
		translate_ipv6(ipv6, ipv6->destination, &to);
	else
		translate_ipv4(ipv4, &ipv4->destination, &to);
	return 1;
}

// What is looked up on the way to a backend.
struct way {
	const struct backend *backend; // or nothing
	const struct link *link;
	__u64 hop;
	__u32 place; // of the backend
};

static __always_inline struct way way_to(__u32 place)
{
	struct way way = { .backend = bpf_map_lookup_elem(&fast_backends, &place), .place = place };

	if (!way.backend)
		return way;
	way.hop = LOOK(way.backend->next_hop);
	way.link = link_of(way.hop);
	return way;
}

// The frame within another one, which fits; or nothing, and why. `is_gue`, `is_ipv4` and `there`: see `wrap`.
static __always_inline void *wrapped(struct xdp_md *ctx, const struct settings *settings, const struct flow *flow,
				     void *frame, __be16 gue_port, const struct way *way, __u32 mtu,
				     int is_gue, int is_ipv4, int there, int *verdict)
{
	__u32 overhead = (is_ipv4 ? sizeof(struct ipv4) : sizeof(struct ipv6)) + (is_gue ? sizeof(struct udp) : 0);

	if (flow->length + overhead > mtu) {
		*verdict = VERDICT_TOO_BIG;
		return 0;
	}
	if (!hop_less(frame + sizeof(struct ethhdr), flow->is_ipv6)) {
		*verdict = dropped_of_backend(way->place, DROP_TTL);
		return 0;
	}
	frame = wrap(ctx, settings, flow, gue_port, way->backend, is_gue, is_ipv4, there);
	if (!frame)
		*verdict = dropped_of_backend(way->place, DROP_NO_ROOM);
	return frame;
}

// The same, whatever the service and the backend want.
static __always_inline void *wrapped_as(struct xdp_md *ctx, const struct settings *settings, const struct flow *flow,
					void *frame, const struct service *service, const struct way *way, __u32 mtu,
					int *verdict)
{
	int is_gue = service->forward == FORWARD_GUE;
	int there = sizeof(struct ipv4); // whatever it is
	__be16 port = service->gue_port;

	if (is_outer_ipv4(way->backend))
		return is_gue ? wrapped(ctx, settings, flow, frame, port, way, mtu, 1, 1, there, verdict) :
				wrapped(ctx, settings, flow, frame, port, way, mtu, 0, 1, there, verdict);
	return is_gue ? wrapped(ctx, settings, flow, frame, port, way, mtu, 1, 0, there, verdict) :
			wrapped(ctx, settings, flow, frame, port, way, mtu, 0, 0, there, verdict);
}

static __always_inline int deliver(struct xdp_md *ctx, const struct settings *settings, const struct flow *flow,
				   const struct parcel *parcel, const struct service *service, __u32 place,
				   int is_new)
{
	struct way way = way_to(place);
	const struct backend *backend = way.backend;
	__u64 hop = way.hop, mac;
	void *frame = parcel->ethernet;
	int verdict = 0;

	if (!backend)
		return dropped(DROP_NO_BACKEND);
	if (hop == NEXT_HOP_LOCAL) {
		count(place, flow, is_new);
		return XDP_PASS | OF_BACKEND(place);
	}
	if (!hop)
		return dropped_of_backend(place, DROP_NO_NEIGHBOUR);
	mac = LOOK(way.link->mac);
	if (service->forward & FORWARD_WRAPS) {
		frame = wrapped_as(ctx, settings, flow, frame, service, &way, mac >> 48, &verdict);
		if (!frame)
			return verdict;
	} else if (flow->length > mac >> 48) {
		return VERDICT_TOO_BIG;
	} else if (service->forward == FORWARD_NAT && !translate(flow, parcel, service, backend)) {
		return dropped_of_backend(place, DROP_TTL);
	}
	set_macs(frame, hop, mac);
	count(place, flow, is_new);
	return send(ctx, way.link) | OF_BACKEND(place);
}
