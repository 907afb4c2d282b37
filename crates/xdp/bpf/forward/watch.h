// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Shows packets for VIPs to whom wants to see them (`buoy capture`): as they came, as they leave, and why.
//
// While nobody does, a packet pays the test of one bit in a word that is read anyway. While somebody does, it
// takes `fast_watched` instead: the same steps, with a copy of the frame's head before them and, in one more
// program that all others end in, a record after them. What somebody wants is looked at here, so that only
// wanted packets cost a record; a ring that is full is counted and waits for nobody.
//
// It ends by itself: user space says until when, again and again, and the first packet after that moment takes
// the bit away, whatever became of who set it.

#pragma once

#include "find.h"

#define HEAD_LEN 192          // of a frame, as it came and as it leaves: two IPv6 headers, and TCP with options
#define RING_BYTES (1 << 18)  // of records: nearly six hundred

#define ONLY_DROPPED 1 // of what is wanted
#define ALSO_PASSED 2

// User space writes it before it sets the bit, and only the first word afterwards. src/watch.rs has the same.
struct watch {
	__u64 until; // by the monotonic clock, in nanoseconds
	struct address vip; // zero: any
	struct address client;
	struct address client_mask;
	__u16 port; // zero: any
	__u16 wanted;
	__u32 reason; // plus one; zero: any
	__u64 missed; // records that the ring had no room for
	__u64 spare;
};

enum { SEEN_NOT, SEEN_REQUEST, SEEN_ANSWER };

// As src/watch.rs reads it.
struct record {
	__u64 at;
	struct address backend; // zero: none
	__u32 action;
	__u32 origin;
	__u32 ingress;
	__u32 egress; // zero: none
	__u32 came_length; // of the whole frame
	__u32 left_length; // zero: it did not leave, or left as it came
	__u16 port;        // of the backend: what the first of the service becomes
	__u8 forward;
	__u8 spare;
	__u32 spare2;
	__u8 came[HEAD_LEN];
	__u8 left[HEAD_LEN];
};

// One packet at a time on each CPU: from its coming to its record no other one is looked at there.
struct seen {
	__u32 kind;
	__u32 verdict;
	__u32 action;
	__u32 spare;
	struct record record;
};

_Static_assert(sizeof(struct watch) == 80, "watch");
_Static_assert(sizeof(struct record) == 56 + 2 * HEAD_LEN, "record");

SHARED_ARRAY(fast_watch, 1, struct watch);
COUNTERS(fast_seen, 1, struct seen);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} fast_capture SEC(".maps");

static __always_inline struct watch *watch_now(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&fast_watch, &first);
}

static __always_inline struct seen *seen_now(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&fast_seen, &first);
}

static __always_inline int is_same(const struct address *one, const struct address *other)
{
	return one->high == other->high && one->low == other->low;
}

// The head of the frame as it is now, and how long all of it is.
static __always_inline __u32 keep(__u8 *head, const struct xdp_md *ctx)
{
	const __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 at = 0;

	for (; at < HEAD_LEN; at += sizeof(word)) {
		if (data + at + sizeof(word) > end)
			break;
		*(word *)(head + at) = *(const word *)(data + at);
	}
	for (; at < HEAD_LEN; at++) {
		if (data + at + 1 > end)
			break;
		head[at] = data[at];
	}
	return end - data;
}

// Who is spoken to and who speaks, where that can be read without going on; 0 if it is not IP.
struct ends {
	struct address source;
	struct address destination;
	const struct ports *ports; // zero: elsewhere, or there are none
};

static __always_inline int read_ends(struct ends *ends, const struct xdp_md *ctx)
{
	const struct ethernet *ethernet = (void *)(long)ctx->data;
	const void *end = (void *)(long)ctx->data_end, *ip = ethernet + 1;
	const struct ipv4 *ipv4;
	const struct ipv6 *ipv6;
	__be16 kind;
	__u8 protocol;

	if (ip + sizeof(struct tag) > end)
		return 0;
	kind = ethernet->protocol;
	if (kind == bpf_htons(ETH_P_8021Q)) {
		kind = ((const struct tagged *)ethernet)->protocol;
		ip += sizeof(struct tag);
	}
	ipv4 = ip;
	ipv6 = ip;
	if ((const void *)(ipv4 + 1) > end)
		return 0;
	if (kind == bpf_htons(ETH_P_IP)) {
		ends->source = address_ipv4(ipv4->source);
		ends->destination = address_ipv4(ipv4->destination);
		protocol = ipv4->fragment & bpf_htons(IPV4_OFFSET) ? 0 : ipv4->protocol;
		ends->ports = (const void *)ipv4 + (ipv4->version_length & 0xf) * 4;
	} else if (kind == bpf_htons(ETH_P_IPV6) && (const void *)(ipv6 + 1) <= end) {
		ends->source = address_ipv6(ipv6->source);
		ends->destination = address_ipv6(ipv6->destination);
		protocol = ipv6->next;
		ends->ports = (const void *)(ipv6 + 1);
	} else {
		return 0;
	}
	if ((protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) || (const void *)(ends->ports + 1) > end)
		ends->ports = 0;
	return 1;
}

// Of ICMP and of later pieces nobody knows the port here: they are shown rather than not.
static __always_inline int is_wanted_vip(const struct watch *watch, const struct address *vip, int has_port,
					 __be16 port)
{
	if ((watch->vip.high || watch->vip.low) && !is_same(&watch->vip, vip))
		return 0;
	return !watch->port || !has_port || port == bpf_htons(watch->port);
}

static __always_inline int is_wanted_client(const struct watch *watch, const struct address *client)
{
	return (client->high & watch->client_mask.high) == watch->client.high &&
	       (client->low & watch->client_mask.low) == watch->client.low;
}

// Keeps the packet as it came, if it is one that is wanted.
static __always_inline void look(struct xdp_md *ctx, struct settings *settings)
{
	struct watch *watch = watch_now();
	struct seen *seen = seen_now();
	struct ends ends = {};
	__u64 now = bpf_ktime_get_ns();
	__u32 kind = SEEN_NOT;

	if (!watch || !seen)
		return;
	seen->kind = SEEN_NOT;
	if (now >= LOOK(watch->until)) {
		__sync_fetch_and_and(&settings->flags, ~WATCHED);
		return;
	}
	if (!read_ends(&ends, ctx))
		return;
	if (is_vip(settings, &ends.destination, !is_mapped_ipv4(&ends.destination))) {
		__be16 port = ends.ports ? ends.ports->destination : 0;
		if (is_wanted_vip(watch, &ends.destination, !!ends.ports, port) &&
		    is_wanted_client(watch, &ends.source))
			kind = SEEN_REQUEST;
	}
	// To whom, and from which VIP, is seen when it is on its way. Errors to an address of a pool come from anybody.
	if (kind == SEEN_NOT &&
	    (LOOK(settings->flags) & HAS_POOLS ||
	     is_marked(settings->sources, hash_address(&ends.source, !is_mapped_ipv4(&ends.source)))))
		kind = SEEN_ANSWER;
	if (kind == SEEN_NOT)
		return;
	seen->kind = kind;
	seen->record.at = now;
	seen->record.came_length = keep(seen->record.came, ctx);
}

// What becomes of it, and while somebody watches, on to the record of it.
static __always_inline int told(struct xdp_md *ctx, int verdict)
{
	int action = sent(ctx, verdict);
	struct seen *seen;

	if (LOOK(settings_now()->flags) & WATCHED) {
		seen = seen_now();
		if (seen) {
			seen->verdict = verdict;
			seen->action = action;
			bpf_tail_call(ctx, &fast_programs, PROGRAM_RECORD);
		}
	}
	return action;
}

static __always_inline int is_wanted(const struct watch *watch, const struct xdp_md *ctx, __u32 kind,
				     __u32 action, __u32 origin)
{
	struct ends ends = {};
	int is_refused = !!(origin & ORIGIN_REASON);

	if (watch->wanted & ONLY_DROPPED && action != XDP_DROP && !is_refused)
		return 0;
	if (watch->reason && (!is_refused || (origin & ~ORIGIN_REASON) + 1 != watch->reason))
		return 0;
	if (origin == ORIGIN_ANSWER)
		return read_ends(&ends, ctx) && is_wanted_client(watch, &ends.destination) &&
		       is_wanted_vip(watch, &ends.source, !!ends.ports, ends.ports ? ends.ports->source : 0);
	return kind == SEEN_REQUEST && (action != XDP_PASS || origin || watch->wanted & ALSO_PASSED);
}

static __always_inline void name_backend(struct record *record, __u32 place)
{
	const struct backend *backend = bpf_map_lookup_elem(&fast_backends, &place);
	const struct service *service;

	if (!backend)
		return;
	record->backend = backend->address;
	record->port = backend->port;
	if (record->action != XDP_PASS)
		record->egress = link_of(LOOK(backend->next_hop))->index;
	place = backend->service;
	service = bpf_map_lookup_elem(&fast_services, &place);
	if (service)
		record->forward = service->forward;
}

SEC("xdp")
int fast_record(struct xdp_md *ctx)
{
	struct watch *watch = watch_now();
	struct seen *seen = seen_now();
	struct record *record;
	__u32 action, kind, origin;

	if (!watch || !seen)
		return XDP_PASS;
	action = seen->action;
	kind = seen->kind;
	origin = ORIGIN(seen->verdict);
	seen->kind = SEEN_NOT;
	if (kind == SEEN_NOT || !is_wanted(watch, ctx, kind, action, origin))
		return action;
	record = &seen->record;
	record->action = action;
	record->origin = origin;
	record->ingress = ctx->ingress_ifindex;
	record->egress = action == XDP_TX || action == XDP_REDIRECT ? record->ingress : 0;
	record->backend.high = record->backend.low = 0;
	record->left_length = 0;
	record->port = 0;
	record->forward = 0;
	if (origin && origin < ORIGIN_ANSWER)
		name_backend(record, origin - 1);
	if (action == XDP_TX || action == XDP_REDIRECT || origin == ORIGIN_ANSWER)
		record->left_length = keep(record->left, ctx);
	if (bpf_ringbuf_output(&fast_capture, record, sizeof(*record), 0))
		__sync_fetch_and_add(&watch->missed, 1);
	return action;
}
