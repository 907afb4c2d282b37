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
