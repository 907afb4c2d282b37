// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Headers as they lie in a frame, and what the steps after reading them know of a packet.

#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>

#include "../echo.h"
#include "layout.h"

#define IPV4_DF 0x4000
#define TTL_CHANGE 0xfffe // what one less of the TTL adds to the header's checksum

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

// struct ethhdr is packed, so its protocol would be read byte by byte.
struct ethernet {
	__u16 destination[3];
	__u16 source[3];
	__be16 protocol;
};

// IEEE 802.1Q.
#define ETH_P_8021Q 0x8100
#define VLAN_ID 0xfff // of a tag; 0: it has a priority, and is of no VLAN

struct tag {
	__be16 protocol;
	__be16 control;
};

struct tagged {
	struct ethernet ethernet; // its protocol is the tag's
	__be16 control;
	__be16 protocol;
};

// TCP and UDP have their ports in the same place.
struct ports {
	__be16 source;
	__be16 destination;
};

struct tcp {
	struct ports ports;
	__be32 sequence;
	__be32 acknowledgement;
	__u8 offset; // in words, in the high half
	__u8 flags;
	__be16 window;
	__u16 check;
	__be16 urgent;
};

struct udp {
	struct ports ports;
	__be16 length;
	__u16 check;
};

_Static_assert(sizeof(struct tagged) == sizeof(struct ethernet) + sizeof(struct tag), "an Ethernet header with a tag");
_Static_assert(sizeof(struct tcp) == 20, "TCP without options");
_Static_assert(sizeof(struct udp) == 8, "UDP");

// What of a packet decides where it goes.
struct flow {
	struct address client;
	struct address vip;
	__be16 client_port;
	__u16 vip_port; // in the order of the host
	__u8 protocol;
	__u8 opens;     // SYN without ACK
	__u8 is_ipv6;   // known when this is compiled: each family has code of its own
	__u8 service;   // TOS or traffic class
	__u8 ends;      // FIN, RST
	__u8 spares[2]; // no hole: functions that are verified by themselves take all of it
	__u32 length;   // of the IP packet
};

// Wherever it lies. IPv6 addresses of a frame are as well aligned as the frame itself.
typedef __u64 word __attribute__((may_alias));
typedef __u32 half __attribute__((may_alias));

static __always_inline struct address address_ipv4(__be32 address)
{
	struct address mapped = { .high = 0, .low = (__u64)address << 32 | 0xffff0000 };

	return mapped;
}

static __always_inline struct address address_ipv6(const __be32 *words)
{
	const word *halves = (const word *)words;
	struct address address = { .high = halves[0], .low = halves[1] };

	return address;
}

static __always_inline int is_mapped_ipv4(const struct address *address)
{
	return address->high == 0 && (__u32)address->low == 0xffff0000;
}

static __always_inline __be32 as_ipv4(const struct address *address)
{
	return address->low >> 32;
}

// The same, of an address in a map: half of a word is read.
static __always_inline __be32 low_ipv4(const struct address *address)
{
	return ((const half *)address)[3];
}

static __always_inline void put_ipv6(__be32 *words, const struct address *address)
{
	word *halves = (word *)words;

	halves[0] = address->high;
	halves[1] = address->low;
}

static __always_inline __u8 class_of(const struct ipv6 *ip)
{
	return bpf_ntohl(ip->version_class_label) >> 20;
}

// In few pieces; through `struct ethhdr`, which is packed, they would be written byte by byte. What is above the 48
// bits of an address does not matter: of the first one it is written over.
static __always_inline void set_macs(void *frame, __u64 destination, __u64 source)
{
	*(word *)frame = destination;
	*(half *)(frame + 6) = source;
	*(__u16 *)(frame + 10) = source >> 32;
}
