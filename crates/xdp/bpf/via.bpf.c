// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Checks of backends on the way that clients' packets take: what is asked goes to a backend and is for the VIP.
//
// The socket of a check is connected to the backend's own address, so it has a route, a neighbour and an address
// of this host to come from, whether or not this host has the VIP. It marks its packets with the place of
// what it asks. On their way out they get the VIP as destination (the checksums with it), and where the service has
// a tunnel they are put into a packet to the backend. What comes back is from the VIP to a port of this host that a
// marked packet has left by; if the socket of that mark waits there, it gets the backend's address as source again, before
// the kernel looks at it: from an address of its own it would take nothing.
//
// What has the mark and cannot be sent that way is dropped: it must not get to the backend's own address, where the answer
// would say something else than what was asked. The mark is taken off, so that a frame is changed once, also where
// interfaces lie on top of each other.
//
// All else passes: on its way out for a look at its mark, on its way in for a look at its ports.
//
// Kernels from 6.6 (tcx); no kfuncs, no GPL-only functions, no loops.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/types.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "checksum.h"
#include "headers.h"

// The same values are in src/via.rs.
#define TARGETS_MAX 16384
#define PORTS (2 * 65536)
#define MARK 0x62750000U
#define MARK_MASK 0xffff0000U

enum { DIRECT = 0, IPIP = 1, GUE = 2 };

#define PASS (-1) // TCX_NEXT
#define DROP 2	  // TCX_DROP

#define PROTOCOL_IPIP 4
#define PROTOCOL_IPV6 41
#define TTL_OUT 64
#define SOURCE_PORTS 0xc000 // as the fast path has it

struct udp {
	__be16 source;
	__be16 destination;
	__be16 length;
	__u16 check;
};

struct ports {
	__be16 source;
	__be16 destination;
};

// IPv4 as ::ffff:a.b.c.d; both addresses are of one family.
struct target {
	__be32 vip[4];
	__be32 backend[4];
	__u16 how;
	__be16 port; // GUE
	__u32 unused;
};

_Static_assert(sizeof(struct target) == 40, "target");

// By the lower half of a mark.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TARGETS_MAX);
	__type(key, __u32);
	__type(value, struct target);
} via_targets SEC(".maps");

// The place of what was asked last from a port, and one: the ports of TCP, and then those of UDP.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, __u32);
} via_ports SEC(".maps");

static __always_inline int is_ipv4(const struct target *target)
{
	return !target->backend[0] && !target->backend[1] && target->backend[2] == bpf_htonl(0xffff);
}

static __always_inline int is_same(const __be32 *one, const __be32 *other)
{
	return one[0] == other[0] && one[1] == other[1] && one[2] == other[2] && one[3] == other[3];
}

// Where the checksum is in a transport header; zero: it is none that checks use.
static __always_inline __u32 check_at(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? 16 : protocol == IPPROTO_UDP ? 6 : 0;
}

static __always_inline __u64 check_flags(__u8 protocol)
{
	return BPF_F_PSEUDO_HDR | (protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
}

static __always_inline __u32 *asked_by(__u8 protocol, __be16 port)
{
	__u32 at = bpf_ntohs(port) + (protocol == IPPROTO_UDP ? 65536 : 0);

	return bpf_map_lookup_elem(&via_ports, &at);
}

// One address of the IPv4 header becomes another. `at` is where it is in the frame; whether it could be done.
static __always_inline int exchange_ipv4(struct __sk_buff *skb, __u8 protocol, __u32 at, __be32 old, __be32 new)
{
	__u32 check = sizeof(struct ethhdr) + sizeof(struct ipv4) + check_at(protocol);

	return !bpf_l4_csum_replace(skb, check, old, new, check_flags(protocol) | sizeof(old)) &&
	       !bpf_l3_csum_replace(skb, sizeof(struct ethhdr) + offsetof(struct ipv4, check), old, new, sizeof(old)) &&
	       !bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
}

static __always_inline int exchange_ipv6(struct __sk_buff *skb, __u8 protocol, __u32 at, const __be32 *old,
					 const __be32 *new)
{
	__u32 check = sizeof(struct ethhdr) + sizeof(struct ipv6) + check_at(protocol);
	__be32 from[4] = { old[0], old[1], old[2], old[3] };
	__be32 to[4] = { new[0], new[1], new[2], new[3] };
	__s64 delta = bpf_csum_diff(from, sizeof(from), to, sizeof(to), 0);

	if (bpf_l4_csum_replace(skb, check, 0, delta, check_flags(protocol)) ||
	    bpf_skb_store_bytes(skb, at, to, sizeof(to), 0))
		return 0;
	// A network card's sum over the packet stays what it was, as the header has no checksum of its own: the
	// function takes away what the address adds.
	bpf_csum_update(skb, delta);
	return 1;
}

static __always_inline int store_udp(struct __sk_buff *skb, __u32 at, const struct target *target, __be16 port,
				     __u32 length)
{
	struct udp udp = {
		.source = bpf_htons(SOURCE_PORTS | (bpf_ntohs(port) & 0x3fff)),
		.destination = target->port,
		.length = bpf_htons(length),
	};

	return !bpf_skb_store_bytes(skb, at, &udp, sizeof(udp), 0);
}

static __always_inline int wrap_ipv4(struct __sk_buff *skb, const struct target *target, const struct ipv4 *inner,
				     __be16 port)
{
	__u32 length = skb->len - sizeof(struct ethhdr);
	int is_gue = target->how == GUE;
	__u32 header = sizeof(struct ipv4) + (is_gue ? sizeof(struct udp) : 0);
	__u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | (is_gue ? BPF_F_ADJ_ROOM_ENCAP_L4_UDP : 0);
	struct ipv4 outer = {
		.version_length = IPV4_PLAIN,
		.service = inner->service,
		.length = bpf_htons(length + header),
		.fragment = bpf_htons(0x4000), // DF
		.ttl = TTL_OUT,
		.protocol = is_gue ? IPPROTO_UDP : PROTOCOL_IPIP,
		.source = inner->source,
		.destination = target->backend[3],
	};

	outer.check = ~fold(sum_words(&outer, sizeof(outer)));
	if (length + header > 0xffff || bpf_skb_adjust_room(skb, header, BPF_ADJ_ROOM_MAC, flags) ||
	    bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &outer, sizeof(outer), 0))
		return 0;
	return !is_gue || store_udp(skb, sizeof(struct ethhdr) + sizeof(outer), target, port,
				    length + sizeof(struct udp));
}

static __always_inline int wrap_ipv6(struct __sk_buff *skb, const struct target *target, const struct ipv6 *inner,
				     __be16 port)
{
	__u32 length = skb->len - sizeof(struct ethhdr);
	int is_gue = target->how == GUE;
	__u32 behind = length + (is_gue ? sizeof(struct udp) : 0);
	__u32 header = sizeof(struct ipv6) + behind - length;
	__u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | (is_gue ? BPF_F_ADJ_ROOM_ENCAP_L4_UDP : 0);
	struct ipv6 outer = *inner; // with the class and the label

	outer.length = bpf_htons(behind);
	outer.next = is_gue ? IPPROTO_UDP : PROTOCOL_IPV6;
	outer.hops = TTL_OUT;
	outer.destination[0] = target->backend[0];
	outer.destination[1] = target->backend[1];
	outer.destination[2] = target->backend[2];
	outer.destination[3] = target->backend[3];
	if (behind > 0xffff || bpf_skb_adjust_room(skb, header, BPF_ADJ_ROOM_MAC, flags) ||
	    bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &outer, sizeof(outer), 0))
		return 0;
	return !is_gue || store_udp(skb, sizeof(struct ethhdr) + sizeof(outer), target, port, behind);
}

static __always_inline int out_ipv4(struct __sk_buff *skb, const struct target *target, __u32 place)
{
	struct ports ports;
	struct ipv4 ip;
	__u32 *asked;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)) ||
	    bpf_skb_load_bytes(skb, sizeof(struct ethhdr) + sizeof(ip), &ports, sizeof(ports)) || !is_ipv4(target) ||
	    ip.version_length != IPV4_PLAIN || ip.fragment & bpf_htons(IPV4_MORE | IPV4_OFFSET) ||
	    !check_at(ip.protocol) || ip.destination != target->backend[3] || ip.source == target->vip[3])
		return DROP;
	asked = asked_by(ip.protocol, ports.source);
	if (!asked)
		return DROP;
	*asked = place + 1;
	if (!exchange_ipv4(skb, ip.protocol, sizeof(struct ethhdr) + offsetof(struct ipv4, destination),
			   ip.destination, target->vip[3]) ||
	    (target->how != DIRECT && !wrap_ipv4(skb, target, &ip, ports.source)))
		return DROP;
	return PASS;
}

static __always_inline int out_ipv6(struct __sk_buff *skb, const struct target *target, __u32 place)
{
	struct ports ports;
	struct ipv6 ip;
	__u32 *asked;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)) ||
	    bpf_skb_load_bytes(skb, sizeof(struct ethhdr) + sizeof(ip), &ports, sizeof(ports)) ||
	    !check_at(ip.next) || !is_same(ip.destination, target->backend) || is_same(ip.source, target->vip))
		return DROP;
	asked = asked_by(ip.next, ports.source);
	if (!asked)
		return DROP;
	*asked = place + 1;
	if (!exchange_ipv6(skb, ip.next, sizeof(struct ethhdr) + offsetof(struct ipv6, destination), ip.destination,
			   target->vip) ||
	    (target->how != DIRECT && !wrap_ipv6(skb, target, &ip, ports.source)))
		return DROP;
	return PASS;
}

SEC("classifier")
int via_egress(struct __sk_buff *skb)
{
	const struct target *target;
	__u32 place = skb->mark & ~MARK_MASK;
	int verdict = DROP;

	if ((skb->mark & MARK_MASK) != MARK)
		return PASS;
	target = bpf_map_lookup_elem(&via_targets, &place);
	if (!target)
		return DROP;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		verdict = out_ipv4(skb, target, place);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		verdict = out_ipv6(skb, target, place);
	skb->mark = 0;
	return verdict;
}

// What is asked from the port that this came to, if it comes from where the answer should.
static __always_inline const struct target *asked_from(__u8 protocol, __be16 port, __u32 *mark)
{
	const __u32 *asked;
	__u32 place;

	if (!check_at(protocol))
		return 0;
	asked = asked_by(protocol, port);
	if (!asked || !*asked)
		return 0;
	place = *asked - 1;
	*mark = MARK | place;
	return bpf_map_lookup_elem(&via_targets, &place);
}

// Whether the socket that asks is there. A port may have been given to another one since.
static __always_inline int is_waited_for(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 length,
					 __u8 protocol, __u32 mark)
{
	struct bpf_sock *socket;
	int is_its_mark;

	if (protocol == IPPROTO_TCP)
		socket = bpf_sk_lookup_tcp(skb, tuple, length, BPF_F_CURRENT_NETNS, 0);
	else
		socket = bpf_sk_lookup_udp(skb, tuple, length, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	is_its_mark = socket->mark == mark;
	bpf_sk_release(socket);
	return is_its_mark;
}

static __always_inline void in_ipv4(struct __sk_buff *skb)
{
	struct {
		struct ipv4 ip;
		struct ports ports;
	} head;
	struct bpf_sock_tuple tuple = {};
	const struct target *target;
	__u32 mark;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &head, sizeof(head)) ||
	    head.ip.version_length != IPV4_PLAIN || head.ip.fragment & bpf_htons(IPV4_MORE | IPV4_OFFSET))
		return;
	target = asked_from(head.ip.protocol, head.ports.destination, &mark);
	if (!target || !is_ipv4(target) || head.ip.source != target->vip[3])
		return;
	tuple.ipv4.saddr = target->backend[3];
	tuple.ipv4.daddr = head.ip.destination;
	tuple.ipv4.sport = head.ports.source;
	tuple.ipv4.dport = head.ports.destination;
	if (is_waited_for(skb, &tuple, sizeof(tuple.ipv4), head.ip.protocol, mark))
		exchange_ipv4(skb, head.ip.protocol, sizeof(struct ethhdr) + offsetof(struct ipv4, source),
			      head.ip.source, target->backend[3]);
}

static __always_inline void in_ipv6(struct __sk_buff *skb)
{
	struct {
		struct ipv6 ip;
		struct ports ports;
	} head;
	struct bpf_sock_tuple tuple = {};
	const struct target *target;
	__u32 mark;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &head, sizeof(head)))
		return;
	target = asked_from(head.ip.next, head.ports.destination, &mark);
	if (!target || !is_same(head.ip.source, target->vip))
		return;
	__builtin_memcpy(tuple.ipv6.saddr, target->backend, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, head.ip.destination, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = head.ports.source;
	tuple.ipv6.dport = head.ports.destination;
	if (is_waited_for(skb, &tuple, sizeof(tuple.ipv6), head.ip.next, mark))
		exchange_ipv6(skb, head.ip.next, sizeof(struct ethhdr) + offsetof(struct ipv6, source), head.ip.source,
			      target->backend);
}

SEC("classifier")
int via_ingress(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		in_ipv4(skb);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		in_ipv6(skb);
	return PASS;
}

char _license[] SEC("license") = "MIT OR Apache-2.0";
