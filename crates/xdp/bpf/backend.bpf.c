// SPDX-License-Identifier: MIT OR Apache-2.0
//
// On a real server: takes the outer header off packets that a director has wrapped for a VIP of this host.
//
// IPv4 and IPv6 in either (RFC 2003, RFC 2473, RFC 4213), and in UDP (GUE). What is taken out goes on to the kernel as if it had
// come by this interface, and the kernel delivers it, because the VIP is on its loopback interface.
//
// Everything else passes untouched: what is not wrapped; what is wrapped for an outer address that this host did
// not have when it was prepared (it may be on its way to another host); what has a destination within that is no
// VIP of this host, so nobody can use it as a way in to other addresses; outer packets that are fragments, have
// options or extension headers or a wrong checksum; frames with a VLAN tag. So does what is not whole within, and
// is counted. What a kernel without tunnels says of these is its own matter.
//
// Each VIP has its encapsulations, and one for UDP has its port. Of GUE there are variant 1, where the packet is right
// behind the UDP header, and variant 0, whose header of four bytes says what comes next; with flags or extensions
// it passes. The UDP checksum is not looked at: mostly there is none, and the packet within has its own.
//
// Congestion (RFC 6040): a mark on the outer header is put on the inner one, and where that may have none the
// packet is dropped, as the mark stands for a loss.
//
// User space never changes the map of a program that is attached: it fills a new one and replaces the program.
//
// Kernels from 4.18; no kfuncs, no GPL-only functions, no loops but unrolled ones.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "headers.h"

#define ADDRESSES_MAX 2048

#define PROTOCOL_IPIP 4
#define PROTOCOL_IPV6 41

#define ECN 3
#define CONGESTED 3

#define GUE_VARIANT 0xc0
#define GUE_CONTROL_LENGTH 0x3f // of variant 0: whether it is control, and words of extensions

// The same values are in src/backend.rs. The upper half of a value is the port of GUE, in the order of the host.
#define VIP 1
#define OWN 2
#define GUE 4

#define PORT_WORDS 1024

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
	__type(value, __u32); // VIP, OWN, GUE
} decap_addresses SEC(".maps");

// Bit n: some VIP has UDP port n, so that other datagrams cost no more than this.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORT_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} decap_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} decap_counters SEC(".maps");

struct udp {
	__be16 source;
	__be16 destination;
	__be16 length;
	__u16 check;
};

struct gue {
	__u8 variant_control_length;
	__u8 next;
	__be16 flags;
};

// What is left to know of the outer headers once they are found good.
struct outer {
	__u32 length;  // of the headers
	__u32 payload; // behind them, as they say
	__u32 mask;    // which bits of a VIP's value count,
	__u32 wanted;  // and what they must be
	__u8 next;
	__u8 ecn;
};

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&decap_counters, &which);
	if (counter)
		*counter += 1;
}

static __always_inline int is(const struct address *address, __u32 mask, __u32 wanted)
{
	const __u32 *value = bpf_map_lookup_elem(&decap_addresses, address);

	return value && (*value & mask) == wanted;
}

static __always_inline int is_ipv4(__be32 destination, __u32 mask, __u32 wanted)
{
	struct address address = { .high = 0, .low = (__u64)destination << 32 | 0xffff0000 };

	return is(&address, mask, wanted);
}

static __always_inline int is_ipv6(const __be32 *destination, __u32 mask, __u32 wanted)
{
	struct address address = { .high = (__u64)destination[1] << 32 | destination[0],
				   .low = (__u64)destination[3] << 32 | destination[2] };

	return is(&address, mask, wanted);
}

// Whether it may be for some VIP.
static __always_inline int is_gue(const struct udp *udp, const void *end)
{
	__u32 port, at;
	const __u64 *word;

	if ((const void *)(udp + 1) > end)
		return 0;
	port = bpf_ntohs(udp->destination);
	at = port / 64;
	word = bpf_map_lookup_elem(&decap_ports, &at);
	return word && *word >> (port % 64) & 1;
}

// The headers behind the outer IP header; whether they are good.
static __always_inline int read_gue(struct outer *outer, const struct udp *udp, const void *end)
{
	const struct gue *gue = (const void *)(udp + 1);
	__u32 length, header = sizeof(*udp);

	if ((const void *)(gue + 1) > end)
		return 0;
	length = bpf_ntohs(udp->length);
	outer->mask = 0xffff0000 | GUE;
	outer->wanted = (__u32)bpf_ntohs(udp->destination) << 16 | GUE;
	switch (gue->variant_control_length & 0xf0) {
	case 0x40:
		outer->next = PROTOCOL_IPIP;
		break;
	case 0x60:
		outer->next = PROTOCOL_IPV6;
		break;
	default:
		if (gue->variant_control_length & (GUE_VARIANT | GUE_CONTROL_LENGTH) || gue->flags ||
		    (gue->next != PROTOCOL_IPIP && gue->next != PROTOCOL_IPV6))
			return 0;
		outer->next = gue->next;
		header += sizeof(*gue);
	}
	if (length < header || length > outer->payload)
		return 0;
	outer->payload = length - header;
	outer->length += header;
	return 1;
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

	if ((void *)(ip + 1) > end || !is_ipv4(ip->destination, outer->mask, outer->wanted))
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

	if ((void *)(ip + 1) > end || !is_ipv6(ip->destination, outer->mask, outer->wanted))
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

// What is behind the outer IP header.
static __always_inline int within(struct xdp_md *ctx, struct outer *outer, void *start, void *end)
{
	if (outer->next == IPPROTO_UDP) {
		if (!read_gue(outer, start, end))
			return XDP_PASS;
		start = (void *)(long)ctx->data + sizeof(struct ethhdr) + outer->length;
	}
	if (outer->next == PROTOCOL_IPIP)
		return inner_ipv4(ctx, start, end, outer);
	return inner_ipv6(ctx, start, end, outer);
}

static __always_inline int is_tunnel(__u8 next, const void *start, const void *end)
{
	if (next == IPPROTO_UDP)
		return is_gue(start, end);
	return next == PROTOCOL_IPIP || next == PROTOCOL_IPV6;
}

static __always_inline int outer_ipv4(struct xdp_md *ctx, struct ipv4 *ip, void *end)
{
	struct outer outer = { .length = sizeof(*ip), .mask = VIP, .wanted = VIP };
	const __u32 *words = (const __u32 *)ip;
	__u32 length;
	__u64 sum = 0;

	if ((void *)(ip + 1) > end || !is_tunnel(ip->protocol, ip + 1, end))
		return XDP_PASS;
	length = bpf_ntohs(ip->length);
	if (ip->version_length != IPV4_PLAIN || length < sizeof(*ip) || length > end - (void *)ip ||
	    !is_ipv4(ip->destination, OWN, OWN))
		return XDP_PASS;
	if (ip->fragment & bpf_htons(IPV4_MORE | IPV4_OFFSET)) {
		// The first one has the port.
		if (ip->protocol != IPPROTO_UDP || !(ip->fragment & bpf_htons(IPV4_OFFSET)))
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
	outer.next = ip->protocol;
	return within(ctx, &outer, ip + 1, end);
}

static __always_inline int outer_ipv6(struct xdp_md *ctx, struct ipv6 *ip, void *end)
{
	struct outer outer = { .length = sizeof(*ip), .mask = VIP, .wanted = VIP };
	__u32 first, length;

	if ((void *)(ip + 1) > end || !is_tunnel(ip->next, ip + 1, end))
		return XDP_PASS;
	first = bpf_ntohl(ip->version_class_label);
	outer.payload = bpf_ntohs(ip->length);
	outer.ecn = first >> 20 & ECN;
	length = outer.payload + sizeof(*ip);
	if (first >> 28 != 6 || length > end - (void *)ip || !is_ipv6(ip->destination, OWN, OWN))
		return XDP_PASS;
	outer.next = ip->next;
	return within(ctx, &outer, ip + 1, end);
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
