// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Whose packet is it: the bitmap that most packets never get past, and the service of an address and port.
//
// A range of ports is cut into aligned blocks of 2^n ports, at most 30 of them, and each has an entry. A port
// is looked up by itself and then in the blocks of each size that is in use, small ones first; so one port
// stands against a range around it, and all ports (a block of 2^16) come last.
//
// Most services are there for everybody. Of the others the longest prefix decides that contains the client.

#pragma once

#include "exact.h"

#define MIX_A 0x9e3779b97f4a7c15ULL
#define MIX_B 0xbf58476d1ce4e5b9ULL

#define PORT_SIZES 16
#define KEY_ADDRESS 0x1000000000ULL // with nothing else: the address is a VIP

static __always_inline __u64 spread(__u64 value)
{
	return value ^ value >> 32;
}

// A product has in its high bits all of what was multiplied, and in its low ones nothing of what was high. So what
// lies high comes down before it is multiplied, and a place is cut from both halves.
static __always_inline __u64 hash_ipv4(const struct address *address)
{
	return spread((address->low >> 32) * MIX_B);
}

static __always_inline __u64 hash_ipv6(const struct address *address)
{
	return spread(spread(spread(address->high * MIX_A) ^ address->low) * MIX_B);
}

static __always_inline __u64 hash_address(const struct address *address, int is_ipv6)
{
	return is_ipv6 ? hash_ipv6(address) : hash_ipv4(address);
}

static __always_inline int is_marked(const __u64 *bitmap, __u64 hash)
{
	return LOOK(bitmap[hash >> 26 & (BITMAP_WORDS - 1)]) >> (hash >> 20 & 63) & 1;
}

static __always_inline __u64 key_of(__u64 address, __u16 port, __u32 size, __u8 protocol)
{
	return spread((address ^ (port | (__u64)size << 16 | (__u64)protocol << 24)) * MIX_C);
}

static __always_inline __u64 key_of_vip(__u64 address)
{
	return spread((address ^ KEY_ADDRESS) * MIX_C);
}

// The place that a key leads to. Two keys may lead to one place: look whether it is the right one.
static __always_inline __u32 place_of(void *buckets, __u32 mask, __u64 key)
{
	for (__u32 probe = 0; probe < BUCKET_PROBES; probe++) {
		__u32 at = ((__u32)key + probe) & mask;
		const struct bucket *bucket = bpf_map_lookup_elem(buckets, &at);
		if (!bucket)
			return NONE;
#pragma unroll
		for (__u32 way = 0; way < BUCKET_WAYS; way++) {
			__u64 entry = LOOK(bucket->entries[way]);
			if (entry >> 32 == key >> 32)
				return (__u32)entry - 1;
			if (!entry)
				return NONE;
		}
	}
	return NONE;
}

static __always_inline const struct service *service_of_key(__u32 mask, __u64 key, const struct flow *flow,
							    __u32 *place)
{
	const struct service *service;

	*place = place_of(&fast_buckets, mask, key);
	service = bpf_map_lookup_elem(&fast_services, place);

	if (!service || service->address.low != flow->vip.low ||
	    service->address.high != flow->vip.high || service->protocol != flow->protocol ||
	    flow->vip_port < service->first || flow->vip_port > service->last)
		return 0;
	return service;
}

static __always_inline const struct service *find_place(const struct settings *settings, __u64 address,
							const struct flow *flow, __u32 *place)
{
	__u32 mask = settings->bucket_mask;
	__u64 key = key_of(address, flow->vip_port, 0, flow->protocol);
	const struct service *service = service_of_key(mask, key, flow, place);
	__u32 sizes = LOOK(settings->port_sizes) >> 1;

	for (__u32 size = 1; !service && sizes && size <= PORT_SIZES; size++, sizes >>= 1) {
		__u16 block = (__u32)flow->vip_port >> size << size;
		if (!(sizes & 1))
			continue;
		key = key_of(address, block, size, flow->protocol);
		service = service_of_key(mask, key, flow, place);
	}
	return service;
}

static __always_inline const struct service *find_service(const struct settings *settings, __u64 address,
							  const struct flow *flow)
{
	__u32 place;

	return find_place(settings, address, flow, &place);
}

// The place of the service that a packet is for, or NONE.
__attribute__((noinline)) int fast_find_service(const struct flow *flow)
{
	__u32 place;

	if (!flow || !find_place(settings_now(), hash_address(&flow->vip, flow->is_ipv6), flow, &place))
		return NONE;
	return place;
}

// Of a copy, so that what is known of the flow when this is compiled stays known.
static __always_inline __u32 service_place(const struct flow *flow)
{
	struct flow copy = *flow;

	return fast_find_service(&copy);
}

// What a list says of a client. One that is not there lets nobody in.
static __always_inline int is_refused_by(__u32 list, const struct address *client)
{
	struct source all = { .length = SOURCE_BITS, .list = list, .address = *client };
	const __u32 *rule = bpf_map_lookup_elem(&fast_sources, &all);

	return !rule || !(*rule & SOURCE_ALLOWED);
}

// Whether the service is not there for this client.
static __always_inline int is_refused(const struct service *service, const struct address *client)
{
	__u32 list = service->guard & ~(LIMITED | POOLED | APART);

	return __builtin_expect(list, 0) ? is_refused_by(list, client) : 0;
}

// Surely a VIP, and not only where the bitmap has the same bit.
static __always_inline int is_vip(const struct settings *settings, const struct address *address, int is_ipv6)
{
	__u64 key = key_of_vip(hash_address(address, is_ipv6));
	__u32 place = place_of(&fast_buckets, settings->bucket_mask, key);
	const struct service *service = bpf_map_lookup_elem(&fast_services, &place);

	return service && service->address.low == address->low &&
	       service->address.high == address->high;
}

// What is for no service may be what a translated backend answers.
static __always_inline void perhaps_answer(struct xdp_md *ctx, const struct flow *flow)
{
	const struct settings *settings = settings_now();

	if (LOOK(settings->reverse_sizes) &&
	    is_marked(settings->sources, hash_address(&flow->client, flow->is_ipv6)))
		bpf_tail_call(ctx, &fast_programs, PROGRAM_REVERSE);
}

#define LINK_LOCAL_GROUPS 0x2ffULL // the first half of ff02::/64

// An IPv6 packet that is for no VIP may ask the segment for one.
static __always_inline int asked(struct xdp_md *ctx, const struct address *to)
{
	if (to->high == LINK_LOCAL_GROUPS)
		bpf_tail_call(ctx, &fast_programs, PROGRAM_ANSWER);
	return XDP_PASS;
}
