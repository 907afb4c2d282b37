// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Answers for addresses that are on no interface: ARP (RFC 826), NDP (RFC 4861) and ping, as an owner would,
// as long as the lease lasts.
//
// An XDP program that the fast path goes on to with what asks. It reads the same lease as the classifiers, in
// the same step in which it answers, so there is no moment between the two. What it does not answer is passed:
// the kernel, which does not have the address, is silent about it.
//
// Passed as well, and so heard by whoever listens for claims: what announces an address; what comes from an
// address that this host has itself right now, a claim to be heard rather than answered; and what is malformed.
// More than 64 bytes of options in a solicitation count as that: a stack sends 8 or 16.

#pragma once

#include "../echo.h"
#include "frames.h"
#include "lease.h"

// How to answer for an address; whether to, says its lease. The same layout is in src/lib.rs.
struct answer {
	__u64 mac;  // of its interface in the low 48 bits, ROUTER above
	__u64 link; // that interface
};

#define ROUTER (1ULL << 48)
#define BACK_BY_REDIRECT 1 // of the host: see sent() in forward/layout.h

#define OPTION_SOURCE_LINK 1
#define OPTION_TARGET_LINK 2
#define OPTIONS_MAX 8 // in units of 8 bytes
#define SOLICITED (1U << 30)
#define OVERRIDE (1U << 29)
#define FROM_ROUTER (1U << 31)

struct option {
	__u8 type;
	__u8 length; // in units of 8 bytes
	__u8 mac[6];
};

struct advertisement_frame {
	struct neighbour_frame neighbour;
	struct option target_link;
} __attribute__((packed));

_Static_assert(sizeof(struct answer) == 16, "answer");
_Static_assert(sizeof(struct option) == 8, "option");
_Static_assert(sizeof(struct advertisement_frame) == 14 + 40 + 32, "advertisement");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, __u8[16]); // IPv4 as ::ffff:a.b.c.d
	__type(value, struct answer);
} gate_answers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} gate_host SEC(".maps");

static __always_inline int answered(const struct xdp_md *ctx)
{
	__u32 first = 0;
	const __u64 *host = bpf_map_lookup_elem(&gate_host, &first);

	count(ANSWERED);
	return host && LOOK(*host) & BACK_BY_REDIRECT ? bpf_redirect(ctx->ingress_ifindex, 0) : XDP_TX;
}

// Whether this host may speak for an address now, by whichever way it does.
static __always_inline int has(const struct key *key)
{
	const struct entry *entry = entry_of(key);

	return entry && is_open(entry);
}

// The same of one that is answered for here: it is part of what this run of the agent serves.
static __always_inline int serves(const struct key *key)
{
	const struct entry *entry = entry_of(key);

	if (entry && LOOK(entry->rule) & PRESENT && is_open(entry))
		return 1;
	count(SILENT);
	return 0;
}

// How to answer a question about an address that came in here.
static __always_inline const struct answer *answer_to(const struct xdp_md *ctx, const struct key *key)
{
	const struct answer *answer = bpf_map_lookup_elem(&gate_answers, key->address);

	return answer && LOOK(answer->link) == ctx->ingress_ifindex ? answer : 0;
}

static __always_inline __u64 mac_of(const __u8 *bytes)
{
	__u64 mac = 0;

	__builtin_memcpy(&mac, bytes, 6);
	return mac;
}

static __always_inline void put_mac(__u8 *bytes, __u64 mac)
{
	__builtin_memcpy(bytes, &mac, 6);
}

// One station, to which an answer can be sent.
static __always_inline int is_station(__u64 mac)
{
	return mac && !(mac & 1);
}

// Whether an IPv4 address can be a host that asks; nobody is who only tests whether an address is free.
static __always_inline int is_asker(const __u8 *address)
{
	__u32 whole;

	__builtin_memcpy(&whole, address, 4);
	return !whole || (address[0] && address[0] != 127 && address[0] < 224);
}

static __always_inline int answer_arp(const struct xdp_md *ctx, struct arp_frame *frame)
{
	struct key vip = key_ipv4(frame->target), sender = key_ipv4(frame->sender);
	__u64 mac, asker = mac_of(frame->sender_mac), to = mac_of(frame->ethernet.h_dest);
	const struct answer *answer;

	if (frame->hardware != bpf_htons(1) || frame->protocol != bpf_htons(ETH_P_IP) ||
	    frame->hardware_len != 6 || frame->protocol_len != 4 ||
	    frame->operation != bpf_htons(ARP_REQUEST) ||
	    !__builtin_memcmp(frame->sender, frame->target, 4))
		return XDP_PASS;
	answer = answer_to(ctx, &vip);
	if (!answer)
		return XDP_PASS;
	mac = LOOK(answer->mac) & (ROUTER - 1);
	if ((to != mac && to != ROUTER - 1) || !is_station(asker) || !is_asker(frame->sender) || has(&sender))
		return XDP_PASS;
	if (!serves(&vip))
		return XDP_PASS;
	put_mac(frame->ethernet.h_dest, asker);
	put_mac(frame->ethernet.h_source, mac);
	frame->operation = bpf_htons(ARP_REPLY);
	put_mac(frame->target_mac, asker);
	__builtin_memcpy(frame->target, frame->sender, 4);
	put_mac(frame->sender_mac, mac);
	__builtin_memcpy(frame->sender, &vip.address[12], 4);
	return answered(ctx);
}

// Who asks by NDP: all that the answer needs.
struct question {
	__u8 target[16];
	__u8 source[16];
	__u64 asker; // where its answer goes
	__u64 mac;   // as in struct answer
	int is_test; // by a host that wants the address for itself
};

// The group that all addresses with the same last 24 bits listen to (RFC 4291 section 2.7.1).
static __always_inline int is_group_of(const __u8 *group, const __u8 *address)
{
	const __u8 prefix[13] = { 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff };

	return !__builtin_memcmp(group, prefix, sizeof(prefix)) && group[13] == address[13] &&
	       group[14] == address[14] && group[15] == address[15];
}

static __always_inline int is_unspecified(const __u8 *address)
{
	const __u8 nobody[16] = {};

	return !__builtin_memcmp(address, nobody, sizeof(nobody));
}

// The pseudo header (RFC 8200 section 8.1) and the message without options.
static __always_inline __u64 sum_of(const struct neighbour_frame *frame)
{
	__u64 sum = sum_words(frame->ipv6.source, 32);

	sum += frame->ipv6.payload_len + (__u64)bpf_htonl(NEXT_HEADER_ICMPV6);
	return sum + sum_words(&frame->type, 24);
}

// Steps over the options and takes the asker's Ethernet address from them: RFC 4861 section 7.1.1 says what
// makes a solicitation worthless.
static __always_inline int read_options(struct question *question, const struct neighbour_frame *frame,
					const void *end)
{
	__u32 payload = bpf_ntohs(frame->ipv6.payload_len), units = (payload - 24) / 8, next = 0;
	const struct option *options = (const void *)(frame + 1);
	__u64 sum = sum_of(frame);

	if (payload < 24 || payload % 8 || units > OPTIONS_MAX)
		return 0;
	for (__u32 at = 0; at < OPTIONS_MAX; at++) {
		const struct option *option = options + at;
		if (at >= units)
			break;
		if ((const void *)(option + 1) > end)
			return 0;
		sum += sum_words(option, sizeof(*option));
		if (at != next)
			continue;
		if (!option->length)
			return 0;
		next += option->length;
		if (option->type != OPTION_SOURCE_LINK)
			continue;
		if (option->length != 1 || question->is_test)
			return 0;
		question->asker = mac_of(option->mac);
	}
	return next == units && fold(sum) == 0xffff;
}

static __always_inline int read_question(const struct xdp_md *ctx, struct question *question,
					 const struct neighbour_frame *frame, const void *end)
{
	const struct ipv6_frame *ip = &frame->ipv6;
	struct key vip = key_ipv6(frame->target, ctx->ingress_ifindex);
	struct key sender = key_ipv6(ip->source, ctx->ingress_ifindex);
	const struct answer *answer = answer_to(ctx, &vip);
	int to_group = is_group_of(ip->destination, frame->target);
	__u64 to = mac_of(ip->ethernet.h_dest);

	if (!answer || ip->hop_limit != 255 || frame->code || ip->source[0] == 0xff)
		return 0;
	question->mac = LOOK(answer->mac);
	question->is_test = is_unspecified(ip->source);
	question->asker = mac_of(ip->ethernet.h_source);
	if (!to_group && (question->is_test || __builtin_memcmp(ip->destination, frame->target, 16)))
		return 0;
	// Multicast is 33:33 and the last four bytes of the group (RFC 2464 section 7).
	if (to != (question->mac & (ROUTER - 1)) && (to & 0xffff) != 0x3333)
		return 0;
	if (!read_options(question, frame, end) || !is_station(question->asker) || has(&sender))
		return 0;
	__builtin_memcpy(question->target, frame->target, 16);
	__builtin_memcpy(question->source, ip->source, 16);
	return serves(&vip);
}

static __always_inline void advertise(struct advertisement_frame *frame, const struct question *question)
{
	const __u8 all_nodes[16] = { 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 };
	struct neighbour_frame *neighbour = &frame->neighbour;
	struct ipv6_frame *ip = &neighbour->ipv6;
	__u32 flags = OVERRIDE;

	if (question->mac & ROUTER)
		flags |= FROM_ROUTER;
	// Who only tests the address has none to be told at (RFC 4861 section 7.2.4).
	if (question->is_test) {
		put_mac(ip->ethernet.h_dest, 0x010000003333);
		__builtin_memcpy(ip->destination, all_nodes, 16);
	} else {
		flags |= SOLICITED;
		put_mac(ip->ethernet.h_dest, question->asker);
		__builtin_memcpy(ip->destination, question->source, 16);
	}
	put_mac(ip->ethernet.h_source, question->mac);
	ip->version = bpf_htonl(6U << 28);
	ip->payload_len = bpf_htons(32);
	ip->next_header = NEXT_HEADER_ICMPV6;
	ip->hop_limit = 255;
	__builtin_memcpy(ip->source, question->target, 16);
	neighbour->type = NEIGHBOUR_ADVERTISEMENT;
	neighbour->code = 0;
	neighbour->checksum = 0;
	neighbour->flags = bpf_htonl(flags);
	__builtin_memcpy(neighbour->target, question->target, 16);
	frame->target_link.type = OPTION_TARGET_LINK;
	frame->target_link.length = 1;
	put_mac(frame->target_link.mac, question->mac);
	neighbour->checksum = ~fold(sum_of(neighbour) + sum_words(&frame->target_link, 8));
}

static __always_inline int answer_neighbour(struct xdp_md *ctx, const struct neighbour_frame *frame,
					    const void *end)
{
	struct advertisement_frame *advertisement;
	struct question question = {};
	int length = end - (const void *)frame;

	if (!read_question(ctx, &question, frame, end))
		return XDP_PASS;
	if (length != sizeof(*advertisement) &&
	    bpf_xdp_adjust_tail(ctx, (int)sizeof(*advertisement) - length))
		return XDP_PASS;
	advertisement = (void *)(long)ctx->data;
	if ((void *)(advertisement + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	advertise(advertisement, &question);
	return answered(ctx);
}

// Whether a ping to a VIP is answered: always where the kernel has the address, which is asked by whoever has
// found out where it is, and under the lease where only this program speaks for it. Such a packet may come in
// by any interface.
static __always_inline int is_silent(struct key *vip, int is_ipv6)
{
	const struct answer *answer = bpf_map_lookup_elem(&gate_answers, vip->address);

	if (!answer)
		return 0;
	if (is_ipv6)
		vip->link = LOOK(answer->link);
	return !serves(vip);
}

static __always_inline int ping_ipv4(const struct xdp_md *ctx, struct ethhdr *ethernet, void *end)
{
	struct ipv4 *ip = (void *)(ethernet + 1);
	struct icmp *icmp = (void *)(ip + 1);
	struct key vip;

	if ((void *)(icmp + 1) > end || ip->version_length != IPV4_PLAIN || ip->protocol != 1 ||
	    icmp->type != ICMP_ECHO || icmp->code)
		return XDP_PASS;
	vip = key_ipv4((const __u8 *)&ip->destination);
	if (is_silent(&vip, 0))
		return XDP_PASS;
	echo_ipv4(ethernet, ip, icmp);
	return answered(ctx);
}

static __always_inline int asked_ipv6(struct xdp_md *ctx, struct ethhdr *ethernet, void *end)
{
	struct ipv6 *ip = (void *)(ethernet + 1);
	struct icmp *icmp = (void *)(ip + 1);
	const struct neighbour_frame *neighbour = (const void *)ethernet;
	struct key vip;

	if ((void *)(icmp + 1) > end || ip->next != NEXT_HEADER_ICMPV6 ||
	    bpf_ntohl(ip->version_class_label) >> 28 != 6)
		return XDP_PASS;
	if (icmp->type == NEIGHBOUR_SOLICITATION && (const void *)(neighbour + 1) <= end)
		return answer_neighbour(ctx, neighbour, end);
	if (icmp->type != ICMPV6_ECHO || icmp->code)
		return XDP_PASS;
	vip = key_ipv6((const __u8 *)ip->destination, 0);
	if (ip->destination[0] == bpf_htonl(0xff020000) || is_silent(&vip, 1))
		return XDP_PASS;
	echo_ipv6(ethernet, ip, icmp);
	return answered(ctx);
}

SEC("xdp")
int gate_answer(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_ARP) && (void *)ethernet + sizeof(struct arp_frame) <= end)
		return answer_arp(ctx, (void *)ethernet);
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return ping_ipv4(ctx, ethernet, end);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return asked_ipv6(ctx, ethernet, end);
	return XDP_PASS;
}
