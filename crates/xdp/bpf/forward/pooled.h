// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Flows whose both ends are translated: the backend for the VIP, and a port of a pool for the client.
//
// A packet of a client finds its flow's port, or takes one if it opens a flow: with a SYN, or a datagram. One
// of a TCP connection that has no port is passed: the kernel resets it, so that the client opens another, as
// it would if it came to a server that was started anew. A flow keeps its backend as long as that is there,
// whatever becomes of its slot; then it gets the one that its slot has now, under the same port.
//
// An answer is for a port and must come from the backend of its flow. It gets the VIP as its source and the
// client as its destination, and the kernel forwards it as reverse.h says. An ICMP error is translated with what it
// quotes, and is from the VIP, or the pool, afterwards. Pieces of a datagram follow the first one, both ways.
// What has no flow is passed untouched: the address is one of this host, which may use other ports of it.

#pragma once

#include "pool.h"
#include "rare.h"

#define PIECE_INWARD 0x40000000U // of a datagram, with PIECE_POOLED: from the backend

// Both ends as they are to be.
struct both {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
};

// What one address's becoming another adds to a checksum; of IPv4, the rest of both is the same.
static __always_inline __u64 exchange(const struct address *old, const struct address *new)
{
	return (__u64)(__u32)~old->low + (__u32)~(old->low >> 32) + (__u32)~old->high +
	       (__u32)~(old->high >> 32) + (__u32)new->low + (new->low >> 32) + (__u32)new->high +
	       (new->high >> 32);
}

// The ports and checksum of TCP or UDP; `delta` is of the addresses.
static __always_inline void exchange_ports(const struct parcel *parcel, __u8 protocol, const struct both *to,
					   __u64 delta)
{
	struct ports *ports = parcel->ports;
	struct udp *udp = (struct udp *)ports;
	struct tcp *tcp = (struct tcp *)ports;

	delta += change(ports->source, to->source_port);
	delta += change(ports->destination, to->destination_port);
	ports->source = to->source_port;
	ports->destination = to->destination_port;
	if (protocol == IPPROTO_TCP) {
		tcp->check = updated(tcp->check, delta);
	} else if (udp->check) {
		__u16 check = updated(udp->check, delta);
		udp->check = check ? check : 0xffff;
	}
}

// The packet that an ICMP error speaks of went the other way. What the ICMP checksum covers changes by its ports
// only where an IPv4 header has a checksum that makes up for the addresses.
static __always_inline void exchange_quoted(const struct flow *flow, const struct parcel *parcel,
					    const struct both *to, __u64 outer)
{
	struct ports *ports = parcel->ports;
	struct ipv4 *ipv4 = parcel->quoted;
	struct ipv6 *ipv6 = parcel->quoted;
	__u64 inner = exchange(&flow->vip, &to->destination) + exchange(&flow->client, &to->source);
	__u64 delta = change(ports->source, to->destination_port) +
		      change(ports->destination, to->source_port);

	ports->source = to->destination_port;
	ports->destination = to->source_port;
	if (flow->is_ipv6) {
		put_ipv6(ipv6->source, &to->destination);
		put_ipv6(ipv6->destination, &to->source);
		delta += outer + inner;
	} else {
		ipv4->source = as_ipv4(&to->destination);
		ipv4->destination = as_ipv4(&to->source);
		ipv4->check = updated(ipv4->check, inner);
	}
	parcel->icmp->check = updated(parcel->icmp->check, delta);
}

// `hops`: how many the packet has made here; the kernel counts those of what it forwards itself.
static __always_inline void exchange_ends(const struct flow *flow, const struct parcel *parcel,
					  const struct both *to, int hops)
{
	struct ipv4 *ipv4 = (void *)(parcel->ethernet + 1);
	struct ipv6 *ipv6 = (void *)(parcel->ethernet + 1);
	struct address source = flow->client;
	__u64 delta;

	if (parcel->shape == QUOTED)
		source = flow->is_ipv6 ? address_ipv6(ipv6->source) : address_ipv4(ipv4->source);
	delta = exchange(&source, &to->source) + exchange(&flow->vip, &to->destination);
	if (parcel->shape == WHOLE)
		exchange_ports(parcel, flow->protocol, to, delta);
	if (parcel->shape == QUOTED)
		exchange_quoted(flow, parcel, to, delta);
	if (flow->is_ipv6) {
		put_ipv6(ipv6->source, &to->source);
		put_ipv6(ipv6->destination, &to->destination);
		ipv6->hops -= hops;
	} else {
		ipv4->source = as_ipv4(&to->source);
		ipv4->destination = as_ipv4(&to->destination);
		ipv4->ttl -= hops;
		ipv4->check = updated(ipv4->check, delta + hops * TTL_CHANGE);
	}
}

// The pieces that follow go the same way.
static __always_inline void remember_piece(const struct settings *settings, const struct flow *flow,
					   const struct piece *piece, __u32 what)
{
	__u32 mark;
	__u64 *datagram = piece->is_first ? datagram_of(settings, flow, piece, &mark) : 0;

	if (datagram)
		*(volatile __u64 *)datagram = (__u64)mark << 32 | PIECE_POOLED | what;
}

// The place of the backend that a slot gives to flows that begin. Here it is known which do: also of UDP.
static __always_inline __u32 current_of(const struct settings *settings, const struct service *service,
					const struct flow *flow)
{
	struct flow part = hashed(service, flow);
	__be16 port = service->flow ? 0 : flow->client_port;
	__u32 place = slot_of(service, hash_flow(settings->seed, &part, port)) & 0xffff;

	return place < service->backends_count ? service->backends_first + place : NONE;
}

// The place of the backend that a flow has, as long as it is there.
static __always_inline __u32 backend_of(const struct service *service, __u16 identity)
{
	__u32 place = identity & PLACE_MASK;

	return identity && identity == identity_of(service, place) ? service->backends_first + place : NONE;
}

static __always_inline __u64 said_by_client(const struct flow *flow, __u64 seen)
{
	__u64 says = 0;

	if (flow->protocol != IPPROTO_TCP)
		return 0;
	if (seen & PORT_ANSWERED && !flow->opens)
		says |= PORT_ESTABLISHED;
	if (flow->ends & TCP_FIN)
		says |= PORT_CLIENT_DONE;
	if (flow->ends & TCP_RST)
		says |= PORT_RESET;
	return says;
}

static __always_inline __u64 said_by_backend(const struct flow *flow)
{
	__u64 says = PORT_ANSWERED;

	if (flow->protocol != IPPROTO_TCP)
		return says;
	if (flow->ends & TCP_FIN)
		says |= PORT_BACKEND_DONE;
	if (flow->ends & TCP_RST)
		says |= PORT_RESET;
	return says;
}

// A way to a backend, and what of a packet goes there.
struct passage {
	const struct backend *backend;
	const struct link *link;
	__u64 hop;
	__u64 mac;
	__be16 port;
};

// Zero, or why not: then nothing was changed.
static __always_inline int find_passage(const struct flow *flow, const struct parcel *parcel,
					const struct service *service, __u32 place, struct passage *passage)
{
	struct ipv4 *ipv4 = (void *)(parcel->ethernet + 1);
	struct ipv6 *ipv6 = (void *)(parcel->ethernet + 1);

	passage->backend = bpf_map_lookup_elem(&fast_backends, &place);
	if (!passage->backend)
		return dropped(DROP_NO_BACKEND);
	passage->hop = LOOK(passage->backend->next_hop);
	passage->link = link_of(passage->hop);
	if (!passage->hop || passage->hop == NEXT_HOP_LOCAL)
		return dropped_of_backend(place, DROP_NO_NEIGHBOUR);
	passage->mac = LOOK(passage->link->mac);
	if (flow->length > passage->mac >> 48)
		return VERDICT_TOO_BIG;
	if ((flow->is_ipv6 ? ipv6->hops : ipv4->ttl) <= 1)
		return dropped_of_backend(place, DROP_TTL);
	passage->port = bpf_htons(flow->vip_port - service->first + passage->backend->port);
	return 0;
}

// To the backend, from the port.
static __always_inline int send_out(struct xdp_md *ctx, const struct flow *flow, const struct parcel *parcel,
				    const struct passage *passage, const struct lot *lot, __u32 place)
{
	__u32 table = lot->index / POOL_PORTS;
	const struct pool *pool = bpf_map_lookup_elem(&fast_pools, &table);
	struct both to;

	if (!pool)
		return dropped_of_backend(place, DROP_NO_PORT);
	to.source = pool->address;
	to.destination = passage->backend->address;
	to.source_port = bpf_htons(lot->index % POOL_PORTS);
	to.destination_port = passage->port;
	exchange_ends(flow, parcel, &to, 1);
	set_macs(parcel->ethernet, passage->hop, passage->mac);
	count(place, flow, flow->opens);
	return send(ctx, passage->link) | OF_BACKEND(place);
}

// A packet of a client, or an error about an answer to one. `lot` has its port already, or none is known.
static __always_inline int outward(struct xdp_md *ctx, const struct settings *settings, const struct flow *flow,
				   const struct parcel *parcel, const struct piece *piece, __u32 at,
				   const struct service *service, struct lot *lot)
{
	struct search search = { .flow = *flow, .service = at, .tick = LOOK(settings->tick) & TICK_MASK };
	int begins = parcel->shape == WHOLE, known, verdict, has;
	struct passage passage;
	__u32 place = NONE;

	search.hash = hash_pooled(settings, flow);
	if (lot->index == NONE)
		lot->index = fast_find_port(&search);
	known = lot->index != NONE && look_at(lot) && is_its(lot->entry, flow);
	if (known && !(flow->opens && is_done(lot->seen)))
		place = backend_of(service, lot->entry->identity);
	begins = begins && (flow->protocol == IPPROTO_UDP || flow->opens || known);
	if (place == NONE && !begins)
		return XDP_PASS;
	has = place != NONE;
	if (!has)
		place = current_of(settings, service, flow);
	if (place == NONE)
		return dropped_of_service(at, DROP_NO_BACKEND);
	verdict = find_passage(flow, parcel, service, place, &passage);
	if (verdict)
		return verdict == VERDICT_TOO_BIG ? too_big(ctx, flow, parcel, service, place) : verdict;
	if (has && parcel->shape != QUOTED && !touch(lot, said_by_client(flow, lot->seen), search.tick))
		return XDP_PASS;
	if (!has) {
		search.backend = place;
		search.port = passage.port;
		search.index = known ? lot->index : NONE;
		lot->index = fast_take_port(&search);
	}
	if (lot->index == NONE)
		return dropped_of_backend(place, DROP_NO_PORT);
	remember_piece(settings, flow, piece, lot->index);
	return send_out(ctx, flow, parcel, &passage, lot, place);
}

// A packet of a backend, or an error about one to it: `flow` has the port in place of the VIP.
static __always_inline int inward(const struct settings *settings, const struct flow *flow,
				  const struct parcel *parcel, const struct piece *piece, struct lot *lot)
{
	__u32 tick = LOOK(settings->tick) & TICK_MASK;
	const struct pooled *entry;
	struct both to;

	if (!look_at(lot))
		return XDP_PASS;
	entry = lot->entry;
	if (!is_same(&entry->backend, &flow->client) ||
	    (parcel->shape != LATER && entry->backend_port != flow->client_port))
		return XDP_PASS;
	to.source = entry->vip;
	to.destination = entry->client;
	to.source_port = bpf_htons(entry->vip_port);
	to.destination_port = entry->client_port;
	if (parcel->shape == WHOLE && !touch(lot, said_by_backend(flow), tick))
		return XDP_PASS;
	remember_piece(settings, flow, piece, PIECE_INWARD | lot->index);
	exchange_ends(flow, parcel, &to, 0);
	return XDP_PASS | OF_ANSWER;
}

// A piece of a datagram whose first one had a port.
static __always_inline int follow(struct xdp_md *ctx, const struct settings *settings, struct flow *flow,
				  const struct parcel *parcel, const struct piece *piece)
{
	const struct service *service;
	struct lot lot;
	__u32 mark, at;
	__u64 entry, *datagram = datagram_of(settings, flow, piece, &mark);

	entry = datagram ? LOOK(*datagram) : 0;
	if (entry >> 32 != mark || !(entry & PIECE_POOLED))
		return XDP_PASS;
	lot.index = entry & (PIECE_INWARD - 1);
	if (entry & PIECE_INWARD)
		return inward(settings, flow, parcel, piece, &lot);
	if (!look_at(&lot))
		return XDP_PASS;
	flow->client_port = lot.entry->client_port;
	flow->vip_port = lot.entry->vip_port;
	at = service_place(flow);
	service = bpf_map_lookup_elem(&fast_services, &at);
	if (!service || !(service->guard & POOLED) || !is_its(lot.entry, flow))
		return XDP_PASS;
	return outward(ctx, settings, flow, parcel, piece, at, service, &lot);
}

// With ports, of the packet itself or of the one that is quoted.
static __always_inline int either_way(struct xdp_md *ctx, const struct settings *settings, const struct flow *flow,
				      const struct parcel *parcel, const struct piece *piece)
{
	__u32 at = service_place(flow);
	const struct service *service = bpf_map_lookup_elem(&fast_services, &at);
	struct lot lot = { .index = NONE };

	if (service && !(service->guard & POOLED))
		return XDP_PASS;
	if (service)
		return outward(ctx, settings, flow, parcel, piece, at, service, &lot);
	lot.index = table_of(settings, &flow->vip, flow->protocol);
	if (lot.index == NONE || flow->vip_port >= POOL_PORTS)
		return XDP_PASS;
	lot.index = lot.index * POOL_PORTS + flow->vip_port;
	return inward(settings, flow, parcel, piece, &lot);
}

static __always_inline int pooled_transport(struct xdp_md *ctx, const struct settings *settings,
					    struct flow *flow, struct parcel *parcel, void *end,
					    __u32 header, const struct piece *piece)
{
	if (piece->is_later) {
		parcel->shape = LATER;
		return follow(ctx, settings, flow, parcel, piece);
	}
	parcel->shape = WHOLE;
	if (!read_part(flow, parcel->ports, end, flow->length - header, piece->is_first))
		return XDP_PASS;
	return either_way(ctx, settings, flow, parcel, piece);
}

// What rare.h would refuse of an error is passed here: it is for no service.
static __always_inline int pooled_error(struct xdp_md *ctx, const struct settings *settings, struct flow *flow,
					struct parcel *parcel, void *end)
{
	const struct piece whole = {};

	if ((flow->protocol != IPPROTO_TCP && flow->protocol != IPPROTO_UDP) ||
	    (void *)(parcel->ports + 2) > end)
		return XDP_PASS;
	flow->client_port = parcel->ports->destination;
	flow->vip_port = bpf_ntohs(parcel->ports->source);
	parcel->shape = QUOTED;
	return either_way(ctx, settings, flow, parcel, &whole);
}

static __always_inline int pooled_ipv4(struct xdp_md *ctx, const struct settings *settings,
				       struct ethhdr *ethernet, void *end)
{
	struct ipv4 *ip = (void *)(ethernet + 1), *within;
	struct parcel parcel = { .ethernet = ethernet };
	struct flow flow = { .is_ipv6 = 0 };
	struct piece piece = {};
	struct icmp *icmp;
	__u32 header, length;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	flow.client = address_ipv4(ip->source);
	flow.vip = address_ipv4(ip->destination);
	header = (ip->version_length & 0xf) * 4;
	flow.length = bpf_ntohs(ip->length);
	flow.protocol = ip->protocol;
	if (ip->version_length >> 4 != 4 || header < sizeof(*ip) || flow.length < header ||
	    flow.length > end - (void *)ip)
		return XDP_PASS;
	piece.id = ip->id;
	piece.is_later = !!(ip->fragment & bpf_htons(IPV4_OFFSET));
	piece.is_first = !piece.is_later && ip->fragment & bpf_htons(IPV4_MORE);
	parcel.ports = (void *)ip + header;
	if (flow.protocol == IPPROTO_TCP || flow.protocol == IPPROTO_UDP)
		return pooled_transport(ctx, settings, &flow, &parcel, end, header, &piece);
	icmp = (void *)ip + header;
	within = (void *)(icmp + 1);
	if (flow.protocol != IPPROTO_ICMP || piece.is_later || piece.is_first || (void *)(within + 1) > end ||
	    flow.length < header + sizeof(*icmp) ||
	    (icmp->type != ICMP_UNREACHABLE && icmp->type != ICMP_TIME_EXCEEDED &&
	     icmp->type != ICMP_PARAMETER))
		return XDP_PASS;
	length = (within->version_length & 0xf) * 4;
	if (within->version_length >> 4 != 4 || length < sizeof(*within) ||
	    within->source != ip->destination || within->fragment & bpf_htons(IPV4_OFFSET))
		return XDP_PASS;
	flow.client = address_ipv4(within->destination);
	flow.protocol = within->protocol;
	parcel.icmp = icmp;
	parcel.quoted = within;
	parcel.ports = (void *)within + length;
	return pooled_error(ctx, settings, &flow, &parcel, end);
}

static __always_inline int pooled_ipv6(struct xdp_md *ctx, const struct settings *settings,
				       struct ethhdr *ethernet, void *end, __u32 behind)
{
	struct ipv6 *ip = (void *)(ethernet + 1), *within;
	struct parcel parcel = { .ethernet = ethernet };
	struct flow flow = { .is_ipv6 = 1 };
	struct piece piece = {};
	struct address source;
	struct icmp *icmp;
	__u32 header;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	flow.client = address_ipv6(ip->source);
	flow.vip = address_ipv6(ip->destination);
	flow.length = bpf_ntohs(ip->length) + sizeof(*ip);
	header = read_behind(&flow, &piece, ip, end, behind);
	if (!header || bpf_ntohl(ip->version_class_label) >> 28 != 6 || flow.length > end - (void *)ip)
		return XDP_PASS;
	parcel.ports = (void *)ip + header;
	if (flow.protocol == IPPROTO_TCP || flow.protocol == IPPROTO_UDP)
		return pooled_transport(ctx, settings, &flow, &parcel, end, header, &piece);
	icmp = (void *)ip + header;
	within = (void *)(icmp + 1);
	if (flow.protocol != NEXT_ICMPV6 || piece.is_later || piece.is_first || (void *)(within + 1) > end ||
	    flow.length < header + sizeof(*icmp) ||
	    icmp->type < ICMPV6_UNREACHABLE || icmp->type > ICMPV6_PARAMETER)
		return XDP_PASS;
	source = address_ipv6(within->source);
	if (!is_same(&source, &flow.vip))
		return XDP_PASS;
	flow.client = address_ipv6(within->destination);
	flow.protocol = within->next;
	parcel.icmp = icmp;
	parcel.quoted = within;
	parcel.ports = (void *)(within + 1);
	return pooled_error(ctx, settings, &flow, &parcel, end);
}

SEC("xdp")
int fast_pooled_ipv4(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	const struct settings *settings = settings_now();

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	return ended(ctx, pooled_ipv4(ctx, settings, ethernet, end));
}

SEC("xdp")
int fast_pooled_ipv6(struct xdp_md *ctx)
{
	const struct settings *settings = settings_now();
	__u32 behind = fast_behind_ipv6(ctx);
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	return ended(ctx, pooled_ipv6(ctx, settings, ethernet, end, behind));
}
