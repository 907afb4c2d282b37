// SPDX-License-Identifier: MIT OR Apache-2.0
//
// How often a client may open a connection: looked at before all that opens one to a service with a limit.
//
// Only SYNs without ACK get here, and from here they go on as all that is unusual does; so an established
// connection never waits for this table, and a service without a limit never pays for it. A client has a bucket
// that fills again by the clock of the kernel, whether an agent lives or not. What is kept of it is the moment at
// which it will be full: one word with a mark of who that is, changed by one compare and swap.
//
// A client that is not there has a full bucket. It takes the place, among eight, of the one that is nearest to
// full: a flood from addresses that nobody has drives out its own kind first, then quiet clients, who lose
// nothing by it, and last those that are refused. So it lets too much through, and blocks nobody.
//
// IPv6 clients are counted by their /64, of which a host may take any address.

#pragma once

#include "rare.h"

#define LIMIT_MARK 40                      // bits below the mark: a moment
#define LIMIT_MOMENT ((1ULL << LIMIT_MARK) - 1) // wraps after three days
#define LIMIT_UNIT 8                       // bits of a nanosecond below it
#define LIMIT_SPAN_MAX (3600000000000ULL >> LIMIT_UNIT) // no bucket takes longer to be full
#define LIMIT_TRIES 4

// Until this bucket is full; 0: it is.
static __always_inline __u64 owed(__u64 entry, __u64 now)
{
	__u64 debt = (entry - now) & LIMIT_MOMENT;

	return debt > LIMIT_SPAN_MAX ? 0 : debt;
}

// The place of a client's bucket: where it is, else the one that is nearest to full.
static __always_inline __u32 way_of(const struct bucket *bucket, __u64 mark, __u64 now)
{
	__u64 best = ~0ULL;

#pragma unroll
	for (__u32 way = 0; way < BUCKET_WAYS; way++) {
		__u64 entry = LOOK(bucket->entries[way]);
		__u64 worth = entry >> LIMIT_MARK == mark ? 0 : owed(entry, now) + 1;
		worth = worth << 3 | way;
		if (worth < best)
			best = worth;
	}
	return best & (BUCKET_WAYS - 1);
}

// Whether there was something in the client's bucket. If all others are faster, there was.
static __always_inline int take(struct bucket *bucket, __u64 mark, const struct service *service)
{
	__u64 now = bpf_ktime_get_ns() >> LIMIT_UNIT, span, debt, old, *entry;

	span = service->limit_interval * service->limit_burst;
	for (__u32 try = 0; try < LIMIT_TRIES; try++) {
		entry = &bucket->entries[way_of(bucket, mark, now)];
		old = LOOK(*entry);
		debt = old >> LIMIT_MARK == mark ? owed(old, now) : 0;
		if (debt > span) // of another limit that this service had
			debt = 0;
		debt += service->limit_interval;
		if (debt > span)
			return 0;
		if (__sync_val_compare_and_swap(entry, old,
						mark << LIMIT_MARK | ((now + debt) & LIMIT_MOMENT)) == old)
			return 1;
	}
	return 1;
}

static __always_inline int is_over(const struct settings *settings, const struct flow *flow,
				   const struct service *service)
{
	__u64 vip = hash_address(&flow->vip, flow->is_ipv6) ^ service->first ^ (__u64)service->last << 16;
	struct flow client = { .client = flow->client, .is_ipv6 = flow->is_ipv6 };
	struct bucket *bucket;
	__u64 hash;
	__u32 at;

	if (flow->is_ipv6)
		client.client.low = 0;
	hash = spread((hash_flow(settings->seed, &client, 0) ^ vip) * MIX_A);
	at = (__u32)hash & (LIMITS_MAX - 1);
	bucket = bpf_map_lookup_elem(&fast_limits, &at);
	return bucket && !take(bucket, hash >> LIMIT_MARK, service);
}

// Counted with what is forwarded, of which the service's first backend has all.
static __always_inline int refused(const struct service *service, __u32 at)
{
	__u32 place = service->backends_first;
	struct tally *tally = bpf_map_lookup_elem(&fast_tallies, &place);

	if (tally && service->backends_count)
		tally->refused += 1;
	return dropped_of_service(at, DROP_LIMIT);
}

// What goes on to the next program: it opens nothing, or nothing that has a limit, or may do so, or is not what
// it seems, or is dropped there for whose it is.
static __always_inline int limit(const struct settings *settings, struct flow *flow, const struct ports *ports,
				 const void *end, __u32 header, int is_first)
{
	const struct service *service;
	__u32 at;

	if (flow->protocol != IPPROTO_TCP ||
	    !read_part(flow, ports, end, flow->length - header, is_first) || !flow->opens)
		return XDP_PASS;
	service = find_place(settings, hash_address(&flow->vip, flow->is_ipv6), flow, &at);
	if (!service || !(service->guard & LIMITED) || is_refused(service, &flow->client) ||
	    !is_over(settings, flow, service))
		return XDP_PASS;
	return refused(service, at);
}

static __always_inline int limit_ipv4(const struct settings *settings, struct ipv4 *ip, const void *end)
{
	struct flow flow = { .is_ipv6 = 0 };
	__u32 header;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	flow.client = address_ipv4(ip->source);
	flow.vip = address_ipv4(ip->destination);
	header = (ip->version_length & 0xf) * 4;
	flow.length = bpf_ntohs(ip->length);
	flow.protocol = ip->protocol;
	if (ip->version_length >> 4 != 4 || header < sizeof(*ip) || flow.length < header ||
	    flow.length > end - (void *)ip || ip->fragment & bpf_htons(IPV4_OFFSET))
		return XDP_PASS;
	return limit(settings, &flow, (void *)ip + header, end, header,
		     !!(ip->fragment & bpf_htons(IPV4_MORE)));
}

static __always_inline int limit_ipv6(const struct settings *settings, struct ipv6 *ip, const void *end,
				      __u32 behind)
{
	struct flow flow = { .is_ipv6 = 1 };
	struct piece piece = {};
	__u32 header;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	flow.client = address_ipv6(ip->source);
	flow.vip = address_ipv6(ip->destination);
	flow.length = bpf_ntohs(ip->length) + sizeof(*ip);
	if (is_mapped_ipv4(&flow.vip) || bpf_ntohl(ip->version_class_label) >> 28 != 6 ||
	    flow.length > end - (void *)ip)
		return XDP_PASS;
	header = read_behind(&flow, &piece, ip, end, behind);
	if (!header || piece.is_later)
		return XDP_PASS;
	return limit(settings, &flow, (void *)ip + header, end, header, piece.is_first);
}

SEC("xdp")
int fast_limit(struct xdp_md *ctx)
{
	__u32 behind = fast_behind_ipv6(ctx);
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	const struct settings *settings = settings_now();
	int verdict;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		verdict = limit_ipv4(settings, (void *)(ethernet + 1), end);
		if (verdict == XDP_PASS)
			bpf_tail_call(ctx, &fast_programs, PROGRAM_RARE_IPV4);
		return ended(ctx, verdict);
	}
	verdict = limit_ipv6(settings, (void *)(ethernet + 1), end, behind);
	if (verdict == XDP_PASS)
		bpf_tail_call(ctx, &fast_programs, PROGRAM_RARE_IPV6);
	return ended(ctx, verdict);
}
