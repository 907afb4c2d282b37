// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Which port of which address of this host a flow has whose client its backend does not see.
//
// Each address of a pool has a table for each protocol, where a port is its own place: whoever has the place
// has the port, so no two flows share one. A flow's hash names 64 places, of all addresses of its service, where
// it looks for itself and, when it begins, for a free one. A place is taken by one compare and swap of its state;
// then the entry is written, then the state says so. An answer comes to the port and needs no search.
//
// A place is free again when its flow was silent for as long as src/forward.rs and the documentation say; until
// somebody takes it, the flow goes on. Time is what user space says it is: without it nothing gets old.
//
// Whoever finds its flow writes the state if the tick is another one, and not if somebody else has it by now. If
// the tick is the same one, nobody can have taken it since.

#pragma once

#include "choose.h"
#include "watch.h"

#define POOL_PROBES 8
#define POOL_PORT_FIRST 1024
#define POOL_BUCKETS_FIRST (POOL_PORT_FIRST / BUCKET_WAYS)
#define KEY_POOL 0x2000000000ULL

// The state of a port: the mark of its flow in the high half, what was seen of it, and the tick.
#define PORT_TAKEN 0x10000ULL        // the entry is written
#define PORT_ANSWERED 0x20000ULL     // by the backend
#define PORT_ESTABLISHED 0x40000ULL  // and by the client again
#define PORT_CLIENT_DONE 0x80000ULL  // FIN
#define PORT_BACKEND_DONE 0x100000ULL
#define PORT_RESET 0x200000ULL       // of either
#define PORT_BUSY 0x400000ULL        // the entry is being written
#define PORT_KEPT 0x800000ULL        // a service has it: written by user space

// How long a port stays with a flow that is silent; src/forward.rs has them too.
#define TCP_OPENING_TICKS 10 // until both sides have spoken and the client again
#define TCP_TICKS 900
#define TCP_OVER_TICKS 10
#define UDP_OPENING_TICKS 30
#define UDP_TICKS 60

// A flow's port and what is written there.
struct lot {
	__u32 index; // of the port, in all tables; NONE
	__u64 *state;
	__u64 seen; // what it was
	struct pooled *entry;
};

static __always_inline int is_done(__u64 state)
{
	__u64 done = PORT_CLIENT_DONE | PORT_BACKEND_DONE;

	return state & PORT_RESET || (state & done) == done;
}

static __always_inline int is_free(__u64 state, __u32 tick, __u8 protocol)
{
	__u32 age = (tick - (__u32)state) & TICK_MASK, limit;

	if (protocol == IPPROTO_UDP)
		limit = state & PORT_ANSWERED ? UDP_TICKS : UDP_OPENING_TICKS;
	else if (is_done(state))
		limit = TCP_OVER_TICKS;
	else
		limit = state & PORT_ESTABLISHED ? TCP_TICKS : TCP_OPENING_TICKS;
	return !state || (!(state & PORT_KEPT) && age > limit);
}

static __always_inline __u64 hash_pooled(const struct settings *settings, const struct flow *flow)
{
	__u64 vip = hash_address(&flow->vip, flow->is_ipv6) ^ flow->vip_port ^ (__u64)flow->protocol << 16;

	return spread((hash_flow(settings->seed, flow, flow->client_port) ^ vip) * MIX_A);
}

// The bucket of eight ports that a flow looks into: one of each address, then others of each address. So an
// address more in the pool leaves those where they are that were not in each other's way.
static __always_inline __u32 bucket_of(const struct outlets *outlets, __u64 hash, __u32 probe)
{
	__u32 count = outlets->count, table, part;

	if (!count)
		return NONE;
	table = outlets->tables[((__u32)hash + probe) % count & (POOL_ADDRESSES_MAX - 1)];
	part = ((__u32)(hash >> 8) + probe / count * 0x5bd1) & 0xffff;
	part = POOL_BUCKETS_FIRST + (part * (POOL_BUCKETS - POOL_BUCKETS_FIRST) >> 16);
	return table * POOL_BUCKETS + part;
}

static __always_inline int look_up(struct lot *lot)
{
	__u32 at = lot->index / BUCKET_WAYS;
	struct bucket *bucket = bpf_map_lookup_elem(&fast_ports, &at);

	lot->entry = bpf_map_lookup_elem(&fast_pooled, &lot->index);
	if (!bucket || !lot->entry)
		return 0;
	lot->state = &bucket->entries[lot->index % BUCKET_WAYS];
	lot->seen = LOOK(*lot->state);
	return 1;
}

// Whether some flow has the port.
static __always_inline int look_at(struct lot *lot)
{
	return look_up(lot) && lot->seen & PORT_TAKEN;
}

static __always_inline int is_its(const struct pooled *entry, const struct flow *flow)
{
	return is_same(&entry->client, &flow->client) && is_same(&entry->vip, &flow->vip) &&
	       entry->client_port == flow->client_port && entry->vip_port == flow->vip_port;
}

// What is looked for, and for whom. The verifier looks at each function that takes it once, and not on each way
// to it: of packets there are many kinds, and all of them are looked for in the same way.
struct search {
	struct flow flow;
	__u64 hash;
	__u32 service; // its place
	__u32 backend; // of a flow that begins
	__u32 index;   // of the port that it has already, or NONE
	__u32 tick;
	__be16 port; // of the backend
	__u16 spares[3];
};

_Static_assert(sizeof(struct search) == sizeof(struct flow) + 32, "no hole");

// The port that a flow has, or NONE.
__attribute__((noinline)) int fast_find_port(const struct search *search)
{
	const struct outlets *outlets;
	struct lot lot;

	if (!search)
		return NONE;
	lot.index = search->service;
	outlets = bpf_map_lookup_elem(&fast_outlets, &lot.index);
	if (!outlets)
		return NONE;
	for (__u32 probe = 0; probe < POOL_PROBES; probe++) {
		__u32 at = bucket_of(outlets, search->hash, probe);
		struct bucket *bucket = bpf_map_lookup_elem(&fast_ports, &at);
		if (!bucket)
			return NONE;
		for (__u32 way = 0; way < BUCKET_WAYS; way++) {
			if (LOOK(bucket->entries[way]) >> 32 != search->hash >> 32)
				continue;
			lot.index = at * BUCKET_WAYS + way;
			if (look_at(&lot) && is_its(lot.entry, &search->flow))
				return lot.index;
		}
	}
	return NONE;
}

// Writes the entry of a port that nobody else can have: its state says that it is busy.
static __always_inline int settle(const struct lot *lot, const struct search *search, __u64 busy)
{
	const struct backend *backend;
	__u32 place = search->backend;
	__u64 taken = (busy & ~PORT_BUSY) | PORT_TAKEN;

	backend = bpf_map_lookup_elem(&fast_backends, &place);
	if (!backend)
		return NONE;
	lot->entry->client = search->flow.client;
	lot->entry->vip = search->flow.vip;
	lot->entry->backend = backend->address;
	lot->entry->client_port = search->flow.client_port;
	lot->entry->vip_port = search->flow.vip_port;
	lot->entry->backend_port = search->port;
	lot->entry->identity = backend->identity;
	return __sync_val_compare_and_swap(lot->state, busy, taken) == busy ? lot->index : NONE;
}

// Takes a free port for a flow that begins, or once more the one that it has: which; NONE if none is free.
__attribute__((noinline)) int fast_take_port(const struct search *search)
{
	const struct outlets *outlets;
	struct lot lot;
	__u64 busy;

	if (!search)
		return NONE;
	busy = search->hash >> 32 << 32 | PORT_BUSY | search->tick;
	lot.index = search->index;
	if (lot.index != NONE) {
		if (!look_at(&lot) || !is_its(lot.entry, &search->flow) ||
		    __sync_val_compare_and_swap(lot.state, lot.seen, busy) != lot.seen)
			return NONE;
		return settle(&lot, search, busy);
	}
	lot.index = search->service;
	outlets = bpf_map_lookup_elem(&fast_outlets, &lot.index);
	if (!outlets)
		return NONE;
	for (__u32 probe = 0; probe < POOL_PROBES; probe++) {
		__u32 at = bucket_of(outlets, search->hash, probe);
		struct bucket *bucket = bpf_map_lookup_elem(&fast_ports, &at);
		if (!bucket)
			return NONE;
		for (__u32 way = 0; way < BUCKET_WAYS; way++) {
			__u64 state = LOOK(bucket->entries[way]);
			if (!is_free(state, search->tick, search->flow.protocol) ||
			    __sync_val_compare_and_swap(&bucket->entries[way], state, busy) != state)
				continue;
			lot.index = at * BUCKET_WAYS + way;
			return look_up(&lot) ? settle(&lot, search, busy) : NONE;
		}
	}
	return NONE;
}

// What a packet says of its flow; whether the port is still the flow's.
static __always_inline int touch(struct lot *lot, __u64 says, __u32 tick)
{
	__u64 seen = lot->seen, next, now;

#pragma unroll
	for (int again = 0; again < 2; again++) {
		next = ((seen | says) & ~(__u64)TICK_MASK) | tick;
		if (next == seen)
			return 1;
		now = __sync_val_compare_and_swap(lot->state, seen, next);
		if (now == seen)
			return 1;
		// The other direction, on another CPU; or another flow.
		if ((now ^ seen) >> 32 || !(now & PORT_TAKEN))
			return 0;
		seen = now;
	}
	return 1;
}

static __always_inline __u64 key_of_pool(__u64 address, __u8 protocol)
{
	return spread((address ^ KEY_POOL ^ (__u64)protocol << 24) * MIX_C);
}

// The place of the table of an address, or with protocol 0 of any that it has; NONE where it has none.
static __always_inline __u32 table_of(const struct settings *settings, const struct address *address,
				      __u8 protocol)
{
	__u64 key = key_of_pool(hash_address(address, !is_mapped_ipv4(address)), protocol);
	__u32 place = place_of(&fast_reverse, settings->reverse_mask, key);
	const struct pool *pool = bpf_map_lookup_elem(&fast_pools, &place);

	if (!pool || !is_same(&pool->address, address) || (protocol && pool->protocol != protocol))
		return NONE;
	return place;
}
