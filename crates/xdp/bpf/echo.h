// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Answers to ping, in the frame that asked: one definition for all programs that give them.

#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>

#include "checksum.h"
#include "headers.h"

#define TTL_OUT 64

#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO 8
#define ICMPV6_ECHO 128
#define ICMPV6_ECHO_REPLY 129

struct icmp {
	__u8 type;
	__u8 code;
	__u16 check;
	__be32 rest;
};

_Static_assert(sizeof(struct icmp) == 8, "ICMP");

static __always_inline void swap_macs(struct ethhdr *ethernet)
{
	__u16 *words = (__u16 *)ethernet;
	__u16 kept;

	kept = words[0], words[0] = words[3], words[3] = kept;
	kept = words[1], words[1] = words[4], words[4] = kept;
	kept = words[2], words[2] = words[5], words[5] = kept;
}

static __always_inline int echo_ipv4(struct ethhdr *ethernet, struct ipv4 *ip, struct icmp *icmp)
{
	__be32 asker = ip->source;
	__u16 old = ip->ttl, new = TTL_OUT;

	swap_macs(ethernet);
	ip->source = ip->destination;
	ip->destination = asker;
	ip->ttl = TTL_OUT;
	ip->check = updated(ip->check, change(old, new));
	old = ICMP_ECHO, new = ICMP_ECHO_REPLY;
	icmp->type = ICMP_ECHO_REPLY;
	icmp->check = updated(icmp->check, change(old, new));
	return XDP_TX;
}

static __always_inline int echo_ipv6(struct ethhdr *ethernet, struct ipv6 *ip, struct icmp *icmp)
{
	__be32 asker[4];

	swap_macs(ethernet);
	__builtin_memcpy(asker, ip->source, sizeof(asker));
	__builtin_memcpy(ip->source, ip->destination, sizeof(asker));
	__builtin_memcpy(ip->destination, asker, sizeof(asker));
	ip->hops = TTL_OUT;
	icmp->type = ICMPV6_ECHO_REPLY;
	icmp->check = updated(icmp->check, change(ICMPV6_ECHO, ICMPV6_ECHO_REPLY));
	return XDP_TX;
}
