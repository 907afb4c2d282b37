// SPDX-License-Identifier: MIT OR Apache-2.0
//
// All packets for a VIP that are not plain TCP or UDP, one shape after the other.
//
// Here it is decided whether a packet is malformed, and only for what is surely a VIP: everything else is
// passed untouched. IP options and IPv6 extension headers are stepped over. A first fragment has the ports and
// decides, and later ones follow it; one whose first was not seen may belong to the host itself and is passed.
// ICMP errors about what the VIP is thought to have sent go to the backend that did. Ping is answered, by the
// program that knows the leases where there is one: an address may be nowhere but here.

#pragma once

#include "apart.h"
#include "icmp.h"
#include "read.h"
#include "tag.h"

#define NEXT_HOP_BY_HOP 0
#define NEXT_FRAGMENT 44
#define NEXT_OPTIONS 60
#define EXTENSIONS_MAX 3
#define REFUSED 0xffffffffU // of a datagram, where others have the place of a backend plus one
#define PIECE_POOLED 0x80000000U // or the port of its flow, below

struct extension {
	__u8 next;
	__u8 length; // in 8 bytes, less one; of a fragment header, nothing
	__be16 fragment;
	__be32 id;
};

#define IPV6_MORE 1
#define IPV6_OFFSET 0xfff8

// How a packet stands to a datagram that was cut in pieces.
struct piece {
	__be32 id;
	__u32 at; // of an IPv6 fragment header, behind the beginning of the packet
	__u32 is_first : 1;
	__u32 is_later : 1;
};

static __always_inline __u64 *datagram_of(const struct settings *settings, const struct flow *flow,
					  const struct piece *piece, __u32 *mark)
{
	__u64 id = hash_address(&flow->vip, flow->is_ipv6) ^ piece->id ^ (__u64)flow->protocol << 32;
	__u64 hash = spread((hash_flow(settings->seed, flow, 0) ^ id) * MIX_A);
	__u32 at = (__u32)hash / BUCKET_WAYS & (FRAGMENTS_MAX - 1);
	struct bucket *bucket = bpf_map_lookup_elem(&fast_fragments, &at);

	*mark = hash >> 32;
	return bucket ? &bucket->entries[(__u32)hash & (BUCKET_WAYS - 1)] : 0;
}

// For no service: it may be for a flow that went out from a pool.
static __always_inline int perhaps_pooled(const struct settings *settings)
{
	return LOOK(settings->flags) & HAS_POOLS ? VERDICT_POOLED : XDP_PASS;
}

// No ICMP error speaks of another one, or of a piece that is not the first (RFC 1122 section 3.2.2).
static __always_inline int too_big(struct xdp_md *ctx, const struct flow *flow, const struct parcel *parcel,
				   const struct service *service, __u32 place)
{
	__u32 mtu = fitting(service, place);

	if (parcel->shape != WHOLE)
		return dropped_of_backend(place, DROP_TOO_BIG);
	return flow->is_ipv6 ? refuse_ipv6(ctx, flow, place, mtu) : refuse_ipv4(ctx, flow, place, mtu);
}

static __always_inline int later_piece(struct xdp_md *ctx, const struct settings *settings,
				       const struct flow *flow, const struct parcel *parcel,
				       const struct piece *piece)
{
	const struct service *service;
	const struct backend *backend;
	__u32 mark, place;
	__u64 entry, *datagram = datagram_of(settings, flow, piece, &mark);
	int verdict;

	entry = datagram ? LOOK(*datagram) : 0;
	if (entry >> 32 == mark && (__u32)entry == REFUSED)
		return dropped(DROP_SOURCE);
	if (entry >> 32 == mark && entry & PIECE_POOLED)
		return VERDICT_POOLED;
	place = (__u32)entry - 1;
	backend = bpf_map_lookup_elem(&fast_backends, &place);
	if (entry >> 32 != mark || !backend)
		return XDP_PASS;
	place = backend->service;
	service = bpf_map_lookup_elem(&fast_services, &place);
	if (!service || service->address.low != flow->vip.low ||
	    service->address.high != flow->vip.high || service->protocol != flow->protocol)
		return XDP_PASS;
	place = (__u32)entry - 1;
	verdict = deliver(ctx, settings, flow, parcel, service, place, 0);
	return verdict == VERDICT_TOO_BIG ? too_big(ctx, flow, parcel, service, place) : verdict;
}

// TCP or UDP with its header, or the part of it that decides. `packet` is what more is known of it where that matters:
// in the programs for services that are apart.
static __always_inline int with_ports(struct xdp_md *ctx, const struct settings *settings,
				      const struct flow *flow, const struct parcel *parcel,
				      const struct piece *piece, const struct packet *packet)
{
	__u32 mark, place = NONE;
	const struct service *service = find_service(settings, hash_address(&flow->vip, flow->is_ipv6), flow);
	__u64 *datagram;
	int verdict, is_new = 0, refused = service && is_refused(service, &flow->client);

	if (service && !refused && service->guard & POOLED)
		return VERDICT_POOLED;
	if (service && !refused && !packet && service->guard & APART)
		return VERDICT_APART;
	if (service && !refused)
		place = packet ? choose_apart(settings, service, flow, parcel, packet, &is_new) :
				 choose(settings, service, flow, &is_new);
	if (piece->is_first) {
		datagram = datagram_of(settings, flow, piece, &mark);
		if (datagram)
			*(volatile __u64 *)datagram = (__u64)mark << 32 |
						      (refused ? REFUSED : (__u32)(place + 1));
	}
	if (!service) {
		if (parcel->shape == WHOLE)
			perhaps_answer(ctx, flow);
		return perhaps_pooled(settings);
	}
	// Looked for once more, rather than known on all ways through here.
	if (refused)
		return dropped_of_service(service_place(flow), DROP_SOURCE);
	if (place == NONE)
		return dropped_of_service(service_place(flow), DROP_NO_BACKEND);
	verdict = deliver(ctx, settings, flow, parcel, service, place, is_new);
	return verdict == VERDICT_TOO_BIG ? too_big(ctx, flow, parcel, service, place) : verdict;
}

// TCP or UDP behind `header` bytes of IP headers.
static __always_inline int transport(struct xdp_md *ctx, const struct settings *settings, struct flow *flow,
				     struct parcel *parcel, void *end, __u32 header,
				     const struct piece *piece, int is_apart)
{
	const struct packet packet = { .end = end, .length = flow->length - header };

	if (piece->is_later) {
		parcel->shape = LATER;
		return later_piece(ctx, settings, flow, parcel, piece);
	}
	parcel->shape = WHOLE;
	if (!read_part(flow, parcel->ports, end, flow->length - header, piece->is_first))
		return dropped(flow->protocol == IPPROTO_TCP ? DROP_TCP_HEADER : DROP_UDP_HEADER);
	return with_ports(ctx, settings, flow, parcel, piece, is_apart ? &packet : 0);
}

// The ports of the quoted packet, which went from the VIP to the client, as if it had come from there.
static __always_inline int quoted(struct xdp_md *ctx, const struct settings *settings, struct flow *flow,
				  struct parcel *parcel, void *end, int is_apart)
{
	const struct packet packet = { .end = end };
	const struct piece whole = {};

	if (flow->protocol != IPPROTO_TCP && flow->protocol != IPPROTO_UDP)
		return XDP_PASS;
	if ((void *)(parcel->ports + 2) > end) // the ports and four bytes more are always quoted
		return dropped(DROP_ICMP);
	flow->client_port = parcel->ports->destination;
	flow->vip_port = bpf_ntohs(parcel->ports->source);
	parcel->shape = QUOTED;
	return with_ports(ctx, settings, flow, parcel, &whole, is_apart ? &packet : 0);
}

static __always_inline int icmp_ipv4(struct xdp_md *ctx, const struct settings *settings, struct flow *flow,
				     struct parcel *parcel, void *end, __u32 header, int is_apart)
{
	struct ipv4 *ip = (void *)(parcel->ethernet + 1), *within;
	struct icmp *icmp = (void *)ip + header;
	__u32 length;

	if ((void *)(icmp + 1) > end || flow->length < header + sizeof(*icmp))
		return dropped(DROP_ICMP);
	if (icmp->type == ICMP_ECHO && !icmp->code) {
		if (is_in_vlan())
			return XDP_PASS;
		answer(ctx);
		return header == sizeof(*ip) ? echo_ipv4(parcel->ethernet, ip, icmp) : XDP_PASS;
	}
	if (icmp->type != ICMP_UNREACHABLE && icmp->type != ICMP_TIME_EXCEEDED &&
	    icmp->type != ICMP_PARAMETER)
		return XDP_PASS;
	within = (void *)(icmp + 1);
	if ((void *)(within + 1) > end)
		return dropped(DROP_ICMP);
	length = (within->version_length & 0xf) * 4;
	if (within->version_length >> 4 != 4 || length < sizeof(*within))
		return dropped(DROP_ICMP);
	if (within->source != ip->destination || within->fragment & bpf_htons(IPV4_OFFSET))
		return XDP_PASS;
	flow->client = address_ipv4(within->destination);
	flow->protocol = within->protocol;
	parcel->icmp = icmp;
	parcel->quoted = within;
	parcel->ports = (void *)within + length;
	return quoted(ctx, settings, flow, parcel, end, is_apart);
}

static __always_inline int icmp_ipv6(struct xdp_md *ctx, const struct settings *settings, struct flow *flow,
				     struct parcel *parcel, void *end, __u32 header, int is_apart)
{
	struct ipv6 *ip = (void *)(parcel->ethernet + 1), *within;
	struct icmp *icmp = (void *)ip + header;
	struct address source;

	if ((void *)(icmp + 1) > end || flow->length < header + sizeof(*icmp))
		return dropped(DROP_ICMP);
	if (icmp->type == ICMPV6_SOLICITATION || icmp->type == ICMPV6_ECHO) {
		if (is_in_vlan())
			return XDP_PASS;
		answer(ctx);
		if (icmp->type != ICMPV6_ECHO || icmp->code || header != sizeof(*ip))
			return XDP_PASS;
		return echo_ipv6(parcel->ethernet, ip, icmp);
	}
	if (icmp->type < ICMPV6_UNREACHABLE || icmp->type > ICMPV6_PARAMETER)
		return XDP_PASS;
	within = (void *)(icmp + 1);
	if ((void *)(within + 1) > end)
		return dropped(DROP_ICMP);
	source = address_ipv6(within->source);
	if (source.high != flow->vip.high || source.low != flow->vip.low)
		return XDP_PASS;
	flow->client = address_ipv6(within->destination);
	flow->protocol = within->next;
	parcel->icmp = icmp;
	parcel->quoted = within;
	parcel->ports = (void *)(within + 1);
	return quoted(ctx, settings, flow, parcel, end, is_apart);
}

static __always_inline int rare_ipv4(struct xdp_md *ctx, const struct settings *settings,
				     struct ethhdr *ethernet, void *end, int is_apart)
{
	struct ipv4 *ip = (void *)(ethernet + 1);
	struct parcel parcel = { .ethernet = ethernet };
	struct flow flow = { .is_ipv6 = 0 };
	struct piece piece = {};
	__u32 header;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	flow.client = address_ipv4(ip->source);
	flow.vip = address_ipv4(ip->destination);
	if (!is_vip(settings, &flow.vip, flow.is_ipv6))
		return perhaps_pooled(settings);
	header = (ip->version_length & 0xf) * 4;
	flow.length = bpf_ntohs(ip->length);
	flow.protocol = ip->protocol;
	flow.service = ip->service;
	if (ip->version_length >> 4 != 4 || header < sizeof(*ip) || flow.length < header)
		return dropped(DROP_IP_HEADER);
	if (flow.length > end - (void *)ip)
		return dropped(DROP_TRUNCATED);
	piece.id = ip->id;
	piece.is_later = !!(ip->fragment & bpf_htons(IPV4_OFFSET));
	piece.is_first = !piece.is_later && ip->fragment & bpf_htons(IPV4_MORE);
	parcel.ports = (void *)ip + header;
	if (flow.protocol == IPPROTO_TCP || flow.protocol == IPPROTO_UDP)
		return transport(ctx, settings, &flow, &parcel, end, header, &piece, is_apart);
	if (flow.protocol == IPPROTO_ICMP && !piece.is_later && !piece.is_first)
		return icmp_ipv4(ctx, settings, &flow, &parcel, end, header, is_apart);
	return XDP_PASS;
}

// Steps over extension headers; the length of all headers, or 0 if they do not end well.
static __always_inline __u32 step(struct flow *flow, struct piece *piece, const void *ip, const void *end)
{
	__u32 header = sizeof(struct ipv6);

	for (__u32 count = 0; count <= EXTENSIONS_MAX; count++) {
		const struct extension *extension = ip + header;
		if (flow->protocol != NEXT_HOP_BY_HOP && flow->protocol != NEXT_OPTIONS &&
		    flow->protocol != NEXT_FRAGMENT)
			return header;
		if ((const void *)(extension + 1) > end || header + sizeof(*extension) > flow->length)
			return 0;
		if (flow->protocol != NEXT_FRAGMENT) {
			flow->protocol = extension->next;
			header += (extension->length + 1) * 8;
			continue;
		}
		flow->protocol = extension->next;
		piece->id = extension->id;
		piece->at = header;
		piece->is_later = !!(extension->fragment & bpf_htons(IPV6_OFFSET));
		piece->is_first = !piece->is_later && extension->fragment & bpf_htons(IPV6_MORE);
		header += sizeof(*extension);
		if (piece->is_later)
			return header;
	}
	return 0;
}

// What is behind the IPv6 headers: the protocol, the length of all headers above and where a fragment header is, both
// in 8 bytes, and how the packet stands to a datagram. Zero: they do not end well. A function that the verifier
// looks at once, so that not all ways through here are multiplied by all that come later.
#define BEHIND_PROTOCOL 0xffU
#define BEHIND_HEADER 0xfffU // at bit 8
#define BEHIND_AT 0x3ffU     // at bit 20
#define BEHIND_FIRST 0x40000000U
#define BEHIND_LATER 0x80000000U
__attribute__((noinline)) __u32 fast_behind_ipv6(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ipv6 *ip = (void *)(ethernet + 1);
	struct flow flow = {};
	struct piece piece = {};
	__u32 header;

	if ((void *)(ip + 1) > end)
		return 0;
	flow.protocol = ip->next;
	flow.length = bpf_ntohs(ip->length) + sizeof(*ip);
	header = step(&flow, &piece, ip, end);
	if (!header || header > flow.length || header / 8 > BEHIND_HEADER || piece.at / 8 > BEHIND_AT)
		return 0;
	return flow.protocol | header / 8 << 8 | piece.at / 8 << 20 | (piece.is_first ? BEHIND_FIRST : 0) |
	       (piece.is_later ? BEHIND_LATER : 0);
}

// One that is looked into, or 0: a constant on each way, so that a verifier knows it later as well.
#define KNOWN(protocol, number) asm volatile("%0 = %1" : "=r"(protocol) : "i"(number))
static __always_inline __u64 known_protocol(__u32 protocol)
{
	__u64 known;

	if (protocol == IPPROTO_TCP)
		KNOWN(known, IPPROTO_TCP);
	else if (protocol == IPPROTO_UDP)
		KNOWN(known, IPPROTO_UDP);
	else if (protocol == NEXT_ICMPV6)
		KNOWN(known, NEXT_ICMPV6);
	else
		KNOWN(known, 0);
	return known;
}

// The length of all headers, or 0 if they do not end well.
static __always_inline __u32 read_behind(struct flow *flow, struct piece *piece, const void *ip, const void *end,
					 __u32 behind)
{
	__u32 header = (behind >> 8 & BEHIND_HEADER) * 8;
	const struct extension *extension = ip + (behind >> 20 & BEHIND_AT) * 8;

	if (header < sizeof(struct ipv6))
		return 0;
	flow->protocol = known_protocol(behind & BEHIND_PROTOCOL);
	piece->is_first = !!(behind & BEHIND_FIRST);
	piece->is_later = !!(behind & BEHIND_LATER);
	if (!(behind & (BEHIND_FIRST | BEHIND_LATER)))
		return header;
	if ((const void *)(extension + 1) > end)
		return 0;
	piece->id = extension->id;
	return header;
}

static __always_inline int rare_ipv6(struct xdp_md *ctx, const struct settings *settings,
				     struct ethhdr *ethernet, void *end, __u32 behind, int is_apart)
{
	struct ipv6 *ip = (void *)(ethernet + 1);
	struct parcel parcel = { .ethernet = ethernet };
	struct flow flow = { .is_ipv6 = 1 };
	struct piece piece = {};
	__u32 header;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	flow.client = address_ipv6(ip->source);
	flow.vip = address_ipv6(ip->destination);
	if (is_mapped_ipv4(&flow.vip))
		return XDP_PASS;
	if (!is_vip(settings, &flow.vip, flow.is_ipv6)) {
		asked(ctx, &flow.vip);
		return perhaps_pooled(settings);
	}
	flow.length = bpf_ntohs(ip->length) + sizeof(*ip);
	flow.service = class_of(ip);
	if (bpf_ntohl(ip->version_class_label) >> 28 != 6)
		return dropped(DROP_IP_HEADER);
	if (flow.length > end - (void *)ip)
		return dropped(DROP_TRUNCATED);
	header = read_behind(&flow, &piece, ip, end, behind);
	if (!header)
		return dropped(DROP_IP_HEADER);
	parcel.ports = (void *)ip + header;
	if (flow.protocol == IPPROTO_TCP || flow.protocol == IPPROTO_UDP)
		return transport(ctx, settings, &flow, &parcel, end, header, &piece, is_apart);
	if (flow.protocol == NEXT_ICMPV6 && !piece.is_later && !piece.is_first)
		return icmp_ipv6(ctx, settings, &flow, &parcel, end, header, is_apart);
	return XDP_PASS;
}

static __always_inline int pooled(struct xdp_md *ctx, int is_ipv6)
{
	if (is_ipv6)
		bpf_tail_call(ctx, &fast_programs, PROGRAM_POOLED_IPV6);
	else
		bpf_tail_call(ctx, &fast_programs, PROGRAM_POOLED_IPV4);
	return XDP_PASS;
}

// To the programs for services that are apart; they know all shapes.
static __always_inline int apart(struct xdp_md *ctx, int is_ipv6)
{
	if (is_ipv6)
		bpf_tail_call(ctx, &fast_programs, PROGRAM_APART_IPV6);
	else
		bpf_tail_call(ctx, &fast_programs, PROGRAM_APART_IPV4);
	return XDP_PASS;
}

static __always_inline int elsewhere(struct xdp_md *ctx, int verdict, int is_ipv6)
{
	if (verdict == VERDICT_POOLED)
		return pooled(ctx, is_ipv6);
	return verdict == VERDICT_APART ? apart(ctx, is_ipv6) : verdict;
}

// Two programs, because the verifier goes through all ways of one; and two for services that are apart.

static __always_inline int all_ipv4(struct xdp_md *ctx, int is_apart)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	const struct settings *settings = settings_now();

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	return ended(ctx, elsewhere(ctx, rare_ipv4(ctx, settings, ethernet, end, is_apart), 0));
}

static __always_inline int all_ipv6(struct xdp_md *ctx, int is_apart)
{
	__u32 behind = fast_behind_ipv6(ctx);
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	const struct settings *settings = settings_now();

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	return ended(ctx, elsewhere(ctx, rare_ipv6(ctx, settings, ethernet, end, behind, is_apart), 1));
}

SEC("xdp")
int fast_rare_ipv4(struct xdp_md *ctx)
{
	return all_ipv4(ctx, 0);
}

SEC("xdp")
int fast_rare_ipv6(struct xdp_md *ctx)
{
	return all_ipv6(ctx, 0);
}

SEC("xdp")
int fast_apart_ipv4(struct xdp_md *ctx)
{
	return all_ipv4(ctx, 1);
}

SEC("xdp")
int fast_apart_ipv6(struct xdp_md *ctx)
{
	return all_ipv6(ctx, 1);
}
