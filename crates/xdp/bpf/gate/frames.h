// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The frames that speak of addresses, as they lie in memory.

#pragma once

#include <linux/if_ether.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>

#define ARP_REQUEST 1
#define ARP_REPLY 2
#define NEXT_HEADER_ICMPV6 58
#define PROTOCOL_VRRP 112
#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136

struct arp_frame {
	struct ethhdr ethernet;
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
} __attribute__((packed));

struct ipv4_frame {
	struct ethhdr ethernet;
	__u8 before[12];
	__u8 source[4];
	__u8 destination[4];
} __attribute__((packed));

struct ipv6_frame {
	struct ethhdr ethernet;
	__be32 version;
	__be16 payload_len;
	__u8 next_header;
	__u8 hop_limit;
	__u8 source[16];
	__u8 destination[16];
} __attribute__((packed));

struct neighbour_frame {
	struct ipv6_frame ipv6;
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	__u8 target[16];
} __attribute__((packed));

_Static_assert(sizeof(struct arp_frame) == 14 + 28, "ARP over Ethernet");
_Static_assert(sizeof(struct ipv4_frame) == 14 + 20, "IPv4 without options");
_Static_assert(sizeof(struct ipv6_frame) == 14 + 40, "IPv6");
_Static_assert(sizeof(struct neighbour_frame) == 14 + 40 + 24, "neighbour message");
