// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Which backend has a flow: one hash, one slot. Only where a slot changes hands, flows are remembered.
//
// In such a slot a flow goes to the backend that it is remembered for, else to the previous one, else to the
// current one, whichever is there. Only a TCP connection says that it is new: it goes to the current backend
// and is remembered. UDP does not, so all of it counts as old until the change is over. A connection that the
// table has no room for goes where its next packet will look for it, so a flood of SYNs takes nothing from
// anybody.
//
// A remembered flow names its backend by the place within the service and a check of the address, so that
// what another run has left behind leads nowhere. Time is what user space says it is: entries get old only
// while somebody counts.

#pragma once

#include "find.h"

#define FRESH_TICKS 10         // a connection that was opened and never heard of again
#define IDLE_TICKS 300         // one that was; src/forward.rs has it too
#define TICK_MASK 0x7fff
#define ESTABLISHED 0x8000
#define PLACE_MASK 0xff        // of an identity

static __always_inline __u64 hash_flow(__u64 seed, const struct flow *flow, __be16 port)
{
	__u64 hash;

	// An IPv4 address leaves the low 16 bits of its word free.
	if (!flow->is_ipv6)
		return spread(spread((flow->client.low ^ port ^ seed) * MIX_B) * MIX_C);
	hash = spread((flow->client.high ^ seed) * MIX_A);
	hash = spread((flow->client.low ^ hash) * MIX_B);
	return spread((hash ^ port) * MIX_C);
}

// A remembered flow: its mark in the high half, the identity of its backend, ESTABLISHED and the tick.
static __always_inline __u16 identity_in(__u64 entry)
{
	return entry >> 16;
}

static __always_inline int is_outdated(__u64 entry, __u32 tick)
{
	__u32 age = (tick - (__u32)entry) & TICK_MASK;

	return age > (entry & ESTABLISHED ? IDLE_TICKS : FRESH_TICKS);
}

static __always_inline __u64 *remembered(struct bucket *bucket, __u32 mark)
{
#pragma unroll
	for (__u32 way = 0; way < BUCKET_WAYS; way++)
		if (LOOK(bucket->entries[way]) >> 32 == mark && (__u32)LOOK(bucket->entries[way]))
			return &bucket->entries[way];
	return 0;
}

// Whether there was room. Another CPU may take the same place at the same time: then it is taken.
static __always_inline int remember(struct bucket *bucket, __u64 entry, __u32 tick)
{
#pragma unroll
	for (__u32 way = 0; way < BUCKET_WAYS; way++) {
		__u64 old = LOOK(bucket->entries[way]);
		if ((!old || is_outdated(old, tick)) &&
		    __sync_val_compare_and_swap(&bucket->entries[way], old, entry) == old)
			return 1;
	}
	return 0;
}

// What remembered flows call the backend at a place: its place and a check; 0: nobody is there now.
static __always_inline __u32 identity_of(const struct service *service, __u32 place)
{
	__u32 at = service->backends_first + place;
	const struct backend *backend = bpf_map_lookup_elem(&fast_backends, &at);

	return backend && place < service->backends_count ? LOOK(backend->identity) : 0;
}

// The place of the backend in a slot that changes hands; `is_new` becomes 1 for a flow that is remembered now.
static __always_inline __u32 choose_in_change(const struct settings *settings, const struct service *service,
					      const struct flow *flow, __u32 slot, int *is_new)
{
	__u32 current = slot & 0xffff, previous = slot >> 16, tick = LOOK(settings->tick) & TICK_MASK;
	__u32 old = identity_of(service, previous) ? previous : current, identity;
	__u64 vip = hash_address(&flow->vip, flow->is_ipv6) ^ flow->vip_port ^ (__u64)flow->protocol << 16;
	__u64 mark = spread((hash_flow(settings->seed, flow, flow->client_port) ^ vip) * MIX_A);
	__u32 at = (__u32)mark & (EXCEPTIONS_MAX - 1);
	struct bucket *bucket = bpf_map_lookup_elem(&fast_except, &at);
	__u64 *known, entry;
	__u16 has;

	if (!bucket)
		return old;
	mark = mark >> 32 << 32;
	known = remembered(bucket, mark >> 32);
	if (flow->opens) {
		identity = identity_of(service, current);
		entry = mark | (__u64)identity << 16 | tick;
		if (!identity)
			return NONE;
		*is_new = 1;
		if (known)
			*known = entry;
		else
			*is_new = remember(bucket, entry, tick);
		return *is_new ? current : old;
	}
	has = known ? identity_in(LOOK(*known)) : 0;
	if (!has || has != identity_of(service, has & PLACE_MASK))
		return old;
	// Written once a tick, so that it does not get old.
	if ((LOOK(*known) & (ESTABLISHED | TICK_MASK)) != (ESTABLISHED | tick))
		*known = mark | (__u64)has << 16 | ESTABLISHED | tick;
	return has & PLACE_MASK;
}

// What is in the slot of a hash; NONE where there is none, which is what a slot of nobody is.
static __always_inline __u32 slot_of(const struct service *service, __u64 hash)
{
	__u32 count = service->slots_count, place, at;
	const struct line *line;

	if (__builtin_expect(!count, 0))
		return NONE;
	place = service->slots_first + (hash & (count - 1));
	at = place / SLOTS_IN_LINE;
	line = bpf_map_lookup_elem(&fast_slots, &at);
	return line ? LOOK(line->slots[place % SLOTS_IN_LINE]) : NONE;
}

// Over the client's port too, unless all of a client goes to one backend.
static __always_inline __u64 hash_chosen(const struct settings *settings, const struct service *service,
					 const struct flow *flow)
{
	return hash_flow(settings->seed, flow, service->flow ? 0 : flow->client_port);
}

// The place of the flow's backend among all; NONE if nobody takes it. `is_new`: its first packet opens it.
static __always_inline __u32 choose(const struct settings *settings, const struct service *service,
				    const struct flow *flow, int *is_new)
{
	__u32 slot = slot_of(service, hash_chosen(settings, service, flow)), place = slot & 0xffff;

	if (place != slot >> 16)
		place = choose_in_change(settings, service, flow, slot, is_new);
	if (flow->protocol == IPPROTO_TCP)
		*is_new = flow->opens;
	return place < service->backends_count ? service->backends_first + place : NONE;
}

// The flow as far as its hash goes: clients of a network may be one.
static __always_inline struct flow hashed(const struct service *service, const struct flow *flow)
{
	struct flow part = *flow;
	__u32 bits = service->flow;

	if (!bits || bits >= FLOW_CLIENT)
		return part;
	// The words are in the order of the network.
	if (bits <= 64) {
		part.client.low = 0;
		part.client.high &= bpf_cpu_to_be64(~0ULL << (64 - bits));
	} else {
		part.client.low &= bpf_cpu_to_be64(~0ULL << (128 - bits));
	}
	return part;
}
