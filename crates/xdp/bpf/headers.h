// SPDX-License-Identifier: MIT OR Apache-2.0
//
// IP headers as they lie in a frame: one definition for all programs that read them.

#pragma once

#include <linux/types.h>

#define IPV4_PLAIN 0x45 // version 4, five words of header
#define IPV4_MORE 0x2000
#define IPV4_OFFSET 0x1fff

struct ipv4 {
	__u8 version_length;
	__u8 service;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 source;
	__be32 destination;
};

struct ipv6 {
	__be32 version_class_label;
	__be16 length;
	__u8 next;
	__u8 hops;
	__be32 source[4];
	__be32 destination[4];
};

_Static_assert(sizeof(struct ipv4) == 20, "IPv4 without options");
_Static_assert(sizeof(struct ipv6) == 40, "IPv6");
