// SPDX-License-Identifier: MIT OR Apache-2.0
//
// On a real server: takes the outer header off packets that a director has wrapped for a VIP of this host.
//
// IPv4 and IPv6 in either (RFC 2003, RFC 2473, RFC 4213). What is taken out goes on to the kernel as if it had
// come by this interface, and the kernel delivers it, because the VIP is on its loopback interface.
//
// Everything else passes untouched: what is not wrapped; what is wrapped for an outer address that this host did
// not have when it was prepared (it may be on its way to another host); what has a destination within that is no
// VIP of this host, so nobody can use it as a way in to other addresses; outer packets that are fragments, have
// options or extension headers or a wrong checksum; frames with a VLAN tag. So does what is not whole within, and
// is counted. What a kernel without tunnels says of these is its own matter.
//
// Congestion (RFC 6040): a mark on the outer header is put on the inner one, and where that may have none the
// packet is dropped, as the mark stands for a loss.
//
// User space never changes the map of a program that is attached: it fills a new one and replaces the program.
//
// Kernels from 4.18; no kfuncs, no GPL-only functions, no loops but unrolled ones.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "headers.h"

#define ADDRESSES_MAX 2048

#define PROTOCOL_IPIP 4
#define PROTOCOL_IPV6 41

#define ECN 3
#define CONGESTED 3

// The same values are in src/backend.rs.
#define VIP 1
#define OWN 2

enum { DECAPSULATED = 0, MALFORMED = 1, FRAGMENT = 2, CONGESTION = 3, COUNTERS };

// Two words in the order of memory; IPv4 as ::ffff:a.b.c.d.
struct address {
	__u64 high;
	__u64 low;
};

_Static_assert(sizeof(struct address) == 16, "address");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, struct address);
	__type(value, __u32); // VIP, OWN
} decap_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} decap_counters SEC(".maps");

// What is left to know of the outer header once it is found good.
struct outer {
	__u32 length;  // of the header
	__u32 payload; // behind it, as it says
	__u8 ecn;
};

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&decap_counters, &which);
	if (counter)
		*counter += 1;
}

static __always_inline int is(const struct address *address, __u32 what)
{
	const __u32 *value = bpf_map_lookup_elem(&decap_addresses, address);

	return value && *value & what;
}

static __always_inline int is_ipv4(__be32 destination, __u32 what)
{
	struct address address = { .high = 0, .low = (__u64)destination << 32 | 0xffff0000 };

	return is(&address, what);
}

static __always_inline int is_ipv6(const __be32 *destination, __u32 what)
{
	struct address address = { .high = (__u64)destination[1] << 32 | destination[0],
				   .low = (__u64)destination[3] << 32 | destination[2] };

	return is(&address, what);
}

// A sum of ones' complement (RFC 1071).
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum >> 32) + (__u32)sum;
	sum = (sum >> 16) + (__u16)sum;
	sum = (sum >> 16) + (__u16)sum;
	return (sum >> 16) + (__u16)sum;
}

static __always_inline int malformed(void)
{
	count(MALFORMED);
	return XDP_PASS;
}

static __always_inline int congestion(void)
{
	count(CONGESTION);
	return XDP_DROP;
}

// The Ethernet header moves to where the outer IP header ends.
static __always_inline int take_off(struct xdp_md *ctx, __u32 length, __be16 protocol)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct ethhdr kept;

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	kept = *ethernet;
	kept.h_proto = protocol;
	if (bpf_xdp_adjust_head(ctx, length))
		return XDP_PASS;
	ethernet = (void *)(long)ctx->data;
	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	*ethernet = kept;
	count(DECAPSULATED);
	return XDP_PASS;
}

static __always_inline int inner_ipv4(struct xdp_md *ctx, struct ipv4 *ip, void *end, const struct outer *outer)
{
	__u32 header, length;

	if ((void *)(ip + 1) > end || !is_ipv4(ip->destination, VIP))
		return XDP_PASS;
	header = (ip->version_length & 0xf) * 4;
	length = bpf_ntohs(ip->length);
	if (ip->version_length >> 4 != 4 || header < sizeof(*ip) || length < header || length > outer->payload)
		return malformed();
	if (outer->ecn == CONGESTED) {
		__u64 sum = (__u16)~ip->check;
		if (!(ip->service & ECN))
			return congestion();
		sum += (__u16)~*(__u16 *)ip;
		ip->service |= CONGESTED;
		ip->check = ~fold(sum + *(__u16 *)ip);
	}
	return take_off(ctx, outer->length, bpf_htons(ETH_P_IP));
}

static __always_inline int inner_ipv6(struct xdp_md *ctx, struct ipv6 *ip, void *end, const struct outer *outer)
{
	__u32 first;

	if ((void *)(ip + 1) > end || !is_ipv6(ip->destination, VIP))
		return XDP_PASS;
	first = bpf_ntohl(ip->version_class_label);
	if (first >> 28 != 6 || bpf_ntohs(ip->length) + sizeof(*ip) > outer->payload)
		return malformed();
	if (outer->ecn == CONGESTED) {
		if (!(first >> 20 & ECN))
			return congestion();
		ip->version_class_label |= bpf_htonl(CONGESTED << 20);
	}
	return take_off(ctx, outer->length, bpf_htons(ETH_P_IPV6));
}

static __always_inline int outer_ipv4(struct xdp_md *ctx, struct ipv4 *ip, void *end)
{
	struct outer outer = { .length = sizeof(*ip) };
	const __u32 *words = (const __u32 *)ip;
	__u32 length;
	__u64 sum = 0;

	if ((void *)(ip + 1) > end || (ip->protocol != PROTOCOL_IPIP && ip->protocol != PROTOCOL_IPV6))
		return XDP_PASS;
	length = bpf_ntohs(ip->length);
	if (ip->version_length != IPV4_PLAIN || length < sizeof(*ip) || length > end - (void *)ip ||
	    !is_ipv4(ip->destination, OWN))
		return XDP_PASS;
	if (ip->fragment & bpf_htons(IPV4_MORE | IPV4_OFFSET)) {
		count(FRAGMENT);
		return XDP_PASS;
	}
#pragma unroll
	for (__u32 at = 0; at < sizeof(*ip) / sizeof(*words); at++)
		sum += words[at];
	if (fold(sum) != 0xffff)
		return XDP_PASS;
	outer.payload = length - sizeof(*ip);
	outer.ecn = ip->service & ECN;
	if (ip->protocol == PROTOCOL_IPIP)
		return inner_ipv4(ctx, (void *)(ip + 1), end, &outer);
	return inner_ipv6(ctx, (void *)(ip + 1), end, &outer);
}

static __always_inline int outer_ipv6(struct xdp_md *ctx, struct ipv6 *ip, void *end)
{
	struct outer outer = { .length = sizeof(*ip) };
	__u32 first, length;

	if ((void *)(ip + 1) > end || (ip->next != PROTOCOL_IPIP && ip->next != PROTOCOL_IPV6))
		return XDP_PASS;
	first = bpf_ntohl(ip->version_class_label);
	outer.payload = bpf_ntohs(ip->length);
	outer.ecn = first >> 20 & ECN;
	length = outer.payload + sizeof(*ip);
	if (first >> 28 != 6 || length > end - (void *)ip || !is_ipv6(ip->destination, OWN))
		return XDP_PASS;
	if (ip->next == PROTOCOL_IPIP)
		return inner_ipv4(ctx, (void *)(ip + 1), end, &outer);
	return inner_ipv6(ctx, (void *)(ip + 1), end, &outer);
}

SEC("xdp")
int buoy_decap(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return outer_ipv4(ctx, (void *)(ethernet + 1), end);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return outer_ipv6(ctx, (void *)(ethernet + 1), end);
	return XDP_PASS;
}

char _license[] SEC("license") = "MIT OR Apache-2.0";
