// SPDX-License-Identifier: MIT OR Apache-2.0
//
// NAT without state: the address and port of a backend for those of the VIP, or the other way round.
//
// What that adds to a checksum is known before the packet comes, but for the port. A packet that is
// forwarded this way was routed, so its TTL goes down; one with none left is not translated.

#pragma once

#include "packet.h"

// One end of a packet becomes another.
struct translation {
	struct address address; // the new one
	__u16 delta;            // what it adds to a checksum
	__be16 port;            // the new one
};

// The ports and checksum of TCP or UDP; `port` is the one of the two that changes.
static __always_inline void translate_transport(struct ports *ports, __u8 protocol, __be16 *port,
						const struct translation *to)
{
	__u64 delta = to->delta + change(*port, to->port);
	struct udp *udp = (struct udp *)ports;
	struct tcp *tcp = (struct tcp *)ports;

	*port = to->port;
	if (protocol == IPPROTO_TCP) {
		tcp->check = updated(tcp->check, delta);
	} else if (udp->check) {
		// Zero says that there is none (RFC 768).
		__u16 check = updated(udp->check, delta);
		udp->check = check ? check : 0xffff;
	}
}

// The checksum after something was added that is itself folded.
static __always_inline __u16 after(__u16 check, __u16 delta)
{
	__u32 sum = (__u16)~check + delta;

	return ~(sum + (sum >> 16));
}

// To a backend of a service of one port, for which all is known before: the whole packet, but for its TTL.
static __always_inline void translate_usual(void *ip, const struct backend *backend, int is_ipv6)
{
	struct ipv4 *ipv4 = ip;
	struct ipv6 *ipv6 = ip;
	struct tcp *tcp = ip + (is_ipv6 ? sizeof(*ipv6) : sizeof(*ipv4));
	struct udp *udp = (void *)tcp;
	__u16 check;

	if (__builtin_expect((is_ipv6 ? ipv6->next : ipv4->protocol) == IPPROTO_TCP, 1)) {
		tcp->check = after(tcp->check, backend->ports_delta);
	} else if (udp->check) {
		// Zero says that there is none (RFC 768).
		check = after(udp->check, backend->ports_delta);
		udp->check = check ? check : 0xffff;
	}
	tcp->ports.destination = bpf_htons(backend->port);
	if (is_ipv6) {
		put_ipv6(ipv6->destination, &backend->address);
		ipv6->hops -= 1;
		return;
	}
	ipv4->check = ~folded((__u16)~ipv4->check + backend->delta + TTL_CHANGE);
	ipv4->ttl -= 1;
	ipv4->destination = low_ipv4(&backend->address);
}

static __always_inline void translate_ipv4(struct ipv4 *ip, __be32 *address, const struct translation *to)
{
	*address = as_ipv4(&to->address);
	ip->ttl -= 1;
	ip->check = updated(ip->check, (__u64)to->delta + TTL_CHANGE);
}

static __always_inline void translate_ipv6(struct ipv6 *ip, __be32 *address, const struct translation *to)
{
	put_ipv6(address, &to->address);
	ip->hops -= 1;
}

// The packet that an ICMP error speaks of, which the VIP seems to have sent. Its header's new checksum makes
// up for the new address, so that the sum over both, which the ICMP checksum covers, is the same.
static __always_inline void translate_quoted_ipv4(struct icmp *icmp, struct ipv4 *quoted, struct ports *ports,
						  const struct translation *to)
{
	quoted->source = as_ipv4(&to->address);
	quoted->check = updated(quoted->check, to->delta);
	icmp->check = updated(icmp->check, change(ports->source, to->port));
	ports->source = to->port;
}

// The checksum covers the destination, which changes as well, and the quoted source.
static __always_inline void translate_quoted_ipv6(struct icmp *icmp, struct ipv6 *quoted, struct ports *ports,
						  const struct translation *to)
{
	__u64 delta = 2 * (__u64)to->delta + change(ports->source, to->port);

	put_ipv6(quoted->source, &to->address);
	icmp->check = updated(icmp->check, delta);
	ports->source = to->port;
}
