// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Which backend a packet gets of a service where more than a slot decides: clients of a network are one, clients
// come back to the backend they had, or datagrams of QUIC name their server.
//
// Such services have programs of their own (rare.h), so no other packet pays for it.
//
// A client that had a backend is in a table of buckets: a word with its mark, the backend's identity, and when it was
// heard of last. New flows of a client that was silent for no longer than `stick` go there as long as the backend is
// up, whatever its slot says; connections that it has go there too, unless their slot changes hands: then the
// slot knows better (choose.h). A connection that is opened in such a slot is remembered as any other. Who is new
// makes room for nobody but those that were never heard of again, so a flood of SYNs takes nothing from anybody; what
// is old user space takes away.
//
// A datagram of QUIC has the id of its server at the beginning of the connection id (draft-ietf-quic-load-balancers,
// without encryption; src of buoy_model::Quic says the same). If that one is up the datagram is its; else it goes
// the way of all others, and is counted unless a client that begins may have made the id up.

#pragma once

#include "deliver.h"

#define CLIENT_UNIT 2        // a tick of the table is so many bits longer than a second
#define CLIENT_FRESH_TICKS 3 // until a client that was heard of once makes room
#define KEY_SERVER 0x4000000000ULL
#define SERVER_ID_MAX 8
#define QUIC_LENGTH 0xf // of `quic`: bytes of an id
#define QUIC_CONFIG 4   // of `quic`: below it
#define QUIC_LONG 0x80  // in the first byte
#define QUIC_LONG_ID 6  // what is before the id: that byte, the version, the id's length

// What is known of a packet with a transport header.
struct packet {
	const void *end;
	__u32 length; // from the transport header on
};

static __always_inline __u64 key_of_server(__u64 address, __u16 port, __u64 number)
{
	return spread((spread((address ^ KEY_SERVER ^ port) * MIX_A) ^ number) * MIX_C);
}

static __always_inline __u32 standing_of(const struct service *service, __u16 identity)
{
	__u32 place = identity & PLACE_MASK, at = service->backends_first + place;
	const struct backend *backend = bpf_map_lookup_elem(&fast_backends, &at);

	if (!identity || !backend || place >= service->backends_count || LOOK(backend->identity) != identity)
		return STANDING_DOWN;
	return LOOK(backend->standing);
}

// Another CPU may take the same place at the same time: then the client is not known.
static __always_inline void know(struct bucket *bucket, __u64 entry, __u32 tick)
{
	for (__u32 way = 0; way < BUCKET_WAYS; way++) {
		__u64 old = LOOK(bucket->entries[way]);
		__u32 age = (tick - (__u32)old) & TICK_MASK;
		if ((!old || (!(old & ESTABLISHED) && age > CLIENT_FRESH_TICKS)) &&
		    __sync_val_compare_and_swap(&bucket->entries[way], old, entry) == old)
			return;
	}
}

// The place within the service, by what is known of the client.
static __always_inline __u32 choose_again(const struct settings *settings, const struct service *service,
					  const struct flow *flow, __u64 hash, int is_quoted, int *is_new)
{
	__u64 vip = hash_address(&flow->vip, flow->is_ipv6) ^ service->first ^ (__u64)service->last << 16 ^
		    (__u64)flow->protocol << 32;
	__u64 mark = spread((hash ^ vip) * MIX_A), *known, entry;
	__u32 at = (__u32)mark & (CLIENTS_MAX - 1), tick = LOOK(settings->tick) >> CLIENT_UNIT & TICK_MASK;
	__u32 slot = slot_of(service, hash), place = slot & 0xffff, standing;
	int begins = flow->opens || flow->protocol == IPPROTO_UDP, moves = place != slot >> 16, is_its;
	struct bucket *bucket = bpf_map_lookup_elem(&fast_clients, &at);
	__u16 has;

	if (!bucket)
		return NONE;
	known = remembered(bucket, mark >> 32);
	entry = known ? LOOK(*known) : 0;
	standing = standing_of(service, identity_in(entry));
	if (begins && ((tick - (__u32)entry) & TICK_MASK) > service->stick)
		standing = STANDING_DOWN;
	is_its = standing >= (begins ? STANDING_UP : STANDING_KEEPS);
	if (is_its && (begins || !moves))
		place = identity_in(entry) & PLACE_MASK;
	if (moves && !(is_its && flow->protocol == IPPROTO_UDP))
		place = choose_in_change(settings, service, flow, (slot & 0xffff0000) | (place & 0xffff), is_new);
	has = identity_of(service, place);
	if (!has || is_quoted)
		return place;
	mark = mark >> 32 << 32 | (__u64)has << 16 | tick;
	if (!known)
		know(bucket, mark, tick);
	else if (begins || has == identity_in(entry)) {
		mark |= entry & ESTABLISHED;
		if (!flow->opens)
			mark |= ESTABLISHED;
		// Written once a tick, as long as nothing else is new.
		if (mark != entry)
			*known = mark;
	}
	return place;
}

// The backend that is up under this name, among all; NONE.
static __always_inline __u32 server_of(const struct settings *settings, const struct service *service,
				       const struct flow *flow, __u64 number)
{
	__u64 key = key_of_server(hash_address(&flow->vip, flow->is_ipv6), service->first, number);
	__u32 place = place_of(&fast_reverse, settings->reverse_mask, key);
	const struct backend *backend = bpf_map_lookup_elem(&fast_backends, &place);

	if (!backend || place - service->backends_first >= service->backends_count ||
	    backend->server_id != number || !LOOK(backend->identity) || LOOK(backend->standing) != STANDING_UP)
		return NONE;
	return place;
}

static __always_inline void count_unnamed(const struct service *service)
{
	__u32 place = service->backends_first;
	struct tally *tally = bpf_map_lookup_elem(&fast_tallies, &place);

	if (tally && service->backends_count)
		tally->unnamed += 1;
}

// The backend that a datagram names, among all; NONE.
static __always_inline __u32 choose_named(const struct settings *settings, const struct service *service,
					  const struct flow *flow, const struct parcel *parcel,
					  const struct packet *packet)
{
	const struct udp *udp = (const void *)parcel->ports;
	const __u8 *data = (const void *)(udp + 1), *id = data + 1;
	__u32 length = bpf_ntohs(udp->length), wanted = service->quic & QUIC_LENGTH, place = NONE;
	__u64 number = 0;
	int is_long;

	if (length > packet->length)
		length = packet->length;
	if (length <= sizeof(*udp) || (const void *)(data + 1) > packet->end)
		return NONE;
	length -= sizeof(*udp) + 1;
	is_long = data[0] & QUIC_LONG;
	if (is_long) {
		if ((const void *)(data + QUIC_LONG_ID) > packet->end || length < QUIC_LONG_ID - 1 ||
		    data[QUIC_LONG_ID - 1] > length - (QUIC_LONG_ID - 1))
			return NONE;
		length = data[QUIC_LONG_ID - 1];
		id = data + QUIC_LONG_ID;
	}
	if (length > wanted && (const void *)(id + 1) <= packet->end &&
	    id[0] >> 5 == service->quic >> QUIC_CONFIG) {
		for (__u32 at = 1; at <= SERVER_ID_MAX; at++) {
			if (at > wanted || (const void *)(id + at + 1) > packet->end)
				break;
			number = number << 8 | id[at];
		}
		place = server_of(settings, service, flow, number);
	}
	if (place == NONE && !is_long)
		count_unnamed(service);
	return place;
}

// The place of the flow's backend among all; NONE if nobody takes it.
static __always_inline __u32 choose_apart(const struct settings *settings, const struct service *service,
					  const struct flow *flow, const struct parcel *parcel,
					  const struct packet *packet, int *is_new)
{
	struct flow part = hashed(service, flow);
	__u64 hash = hash_flow(settings->seed, &part, service->flow ? 0 : flow->client_port);
	__u32 place = NONE, slot;

	if (service->quic && parcel->shape == WHOLE)
		place = choose_named(settings, service, flow, parcel, packet);
	if (place != NONE)
		return place;
	if (service->stick) {
		place = choose_again(settings, service, flow, hash, parcel->shape != WHOLE, is_new);
	} else {
		slot = slot_of(service, hash);
		place = slot & 0xffff;
		if (place != slot >> 16)
			place = choose_in_change(settings, service, flow, slot, is_new);
	}
	if (flow->protocol == IPPROTO_TCP)
		*is_new = flow->opens;
	return place < service->backends_count ? service->backends_first + place : NONE;
}
