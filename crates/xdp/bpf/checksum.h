// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Sums of ones' complement (RFC 1071), for all programs that write headers.

#pragma once

#include <linux/types.h>

#include <bpf/bpf_helpers.h>

// They do not mind the order of bytes.
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum >> 32) + (__u32)sum;
	sum = (sum >> 16) + (__u16)sum;
	sum = (sum >> 16) + (__u16)sum;
	sum = (sum >> 16) + (__u16)sum;
	return sum;
}

// The same of a few words of 16 bits.
static __always_inline __u32 folded(__u32 sum)
{
	sum = (sum >> 16) + (sum & 0xffff);
	return (sum >> 16) + (sum & 0xffff);
}

// The checksum after `delta` was added to what it covers (RFC 1624).
static __always_inline __u16 updated(__u16 check, __u64 delta)
{
	return ~fold((__u64)(__u16)~check + delta);
}

// What one word's becoming another adds.
static __always_inline __u64 change(__u16 old, __u16 new)
{
	return (__u64)(__u16)~old + new;
}

static __always_inline __u64 sum_words(const void *start, __u32 bytes)
{
	const __u32 *words = start;
	__u64 sum = 0;

#pragma unroll
	for (__u32 at = 0; at < bytes / sizeof(*words); at++)
		sum += words[at];
	return sum;
}
