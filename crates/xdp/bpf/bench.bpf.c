// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Measures XDP programs: one that makes packet after packet and has another one run on it, and the simple
// programs that others are compared with. Nothing of it is part of the product.
//
// BPF_PROG_TEST_RUN gives a program the same buffer again and again, with what the run before made of it: a
// tunnel would wrap what it has wrapped. So bench_dispatch writes the whole frame anew each time, another flow
// of so many, takes off what was put before it, and calls the program by a tail call out of a subprogram,
// which comes back here.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAME_IPV4 64
#define FRAME_IPV6 80
#define FRAME_WORDS 16
#define FLOWS_OF_ADDRESS 12 // in bits: the low ones are in the port
#define PORT_FIRST 0x8000
#define ADDRESSES 1000 // services take turns among so many VIPs
#define REALS 128
#define GOLDEN 0x9e3779b1U
#define OWN_MAC 0x010000000102ULL // 02:01:00:00:00:01

// What the packets are like. User space has it in its memory; src/bench.rs has the same layout.
struct plan {
	__u64 next; // the number of the next packet
	__u64 step; // to the one after it; odd
	__u64 mask; // flows, a power of two, less one
	__u64 services; // whose packets take turns
	__u64 verdict; // that is right
	__u64 wrong; // others
	__u64 is_ipv6;
	__u64 sum; // over the IPv4 header without checksum and addresses
	__u64 frame[FRAME_WORDS];
};

_Static_assert(sizeof(struct plan) == 64 + 8 * FRAME_WORDS, "plan");

struct real {
	__u64 mac;
	__be32 address;
	__be32 source;
	__u64 spares[6];
};

_Static_assert(sizeof(struct real) == 64, "real");

#define SHARED_ARRAY(name, length, element)            \
	struct {                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);      \
		__uint(map_flags, BPF_F_MMAPABLE);     \
		__uint(max_entries, length);           \
		__type(key, __u32);                    \
		__type(value, element);                \
	} name SEC(".maps")

SHARED_ARRAY(bench_plan, 1, struct plan);
SHARED_ARRAY(bench_reals, REALS, struct real);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} bench_arrived SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} bench_target SEC(".maps");

// A sum of ones' complement, of 16 bits.
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum >> 32) + (__u32)sum;
	sum = (sum >> 16) + (__u16)sum;
	sum = (sum >> 16) + (__u16)sum;
	sum = (sum >> 16) + (__u16)sum;
	return sum;
}

static __always_inline __be16 port_of(__u32 flow)
{
	return bpf_htons(PORT_FIRST | (flow & ((1 << FLOWS_OF_ADDRESS) - 1)));
}

// In words that begin where IP addresses do, whose halves are read as such: what was written in other pieces just
// before makes a processor wait, which frames that come from a device do not.
static __always_inline void copy(void *to, const struct plan *plan, __u32 length)
{
	const void *from = plan->frame;

	*(__u16 *)to = *(const __u16 *)from;
	*(__u32 *)(to + 2) = *(const __u32 *)(from + 2);
#pragma unroll
	for (__u32 at = 6; at + 8 <= length; at += 8)
		*(__u64 *)(to + at) = *(const __u64 *)(from + at);
	*(__u16 *)(to + length - 2) = *(const __u16 *)(from + length - 2);
}

// What is different is read from the plan and not from the frame, where it was just written: a processor
// would wait for itself.
static __always_inline void fill_ipv4(const struct plan *plan, __u32 flow, __u32 service, void *frame,
				      int with_check)
{
	const struct iphdr *like = (const void *)plan->frame + sizeof(struct ethhdr);
	const struct tcphdr *like_tcp = (const void *)(like + 1);
	__be32 source = like->saddr | bpf_htonl(flow >> FLOWS_OF_ADDRESS);
	__be32 destination = bpf_htonl(bpf_ntohl(like->daddr) + service % ADDRESSES);
	__be16 port = bpf_htons(bpf_ntohs(like_tcp->dest) + service / ADDRESSES);
	__u64 *words = frame + sizeof(struct ethhdr) + 8;
	__u64 time = *(const __u32 *)&like->ttl;

	if (with_check)
		time = (time & 0xffff) | (__u64)(__u16)~fold(plan->sum + source + destination) << 16;
	copy(frame, plan, FRAME_IPV4);
	words[0] = time | (__u64)source << 32;
	words[1] = destination | (__u64)port_of(flow) << 32 | (__u64)port << 48;
}

static __always_inline void fill_ipv6(const struct plan *plan, __u32 flow, __u32 service, void *frame)
{
	const struct ipv6hdr *like = (const void *)plan->frame + sizeof(struct ethhdr);
	const struct tcphdr *like_tcp = (const void *)(like + 1);
	struct ipv6hdr *ip = frame + sizeof(struct ethhdr);
	struct tcphdr *tcp = (void *)(ip + 1);
	__u64 *source = (void *)&ip->saddr + 8, *destination = (void *)&ip->daddr + 8;
	const __u64 *like_source = (void *)&like->saddr + 8, *like_destination = (void *)&like->daddr + 8;

	copy(frame, plan, FRAME_IPV6);
	*source = *like_source | bpf_cpu_to_be64(flow >> FLOWS_OF_ADDRESS);
	*destination = bpf_cpu_to_be64(bpf_be64_to_cpu(*like_destination) + service % ADDRESSES);
	tcp->source = port_of(flow);
	tcp->dest = bpf_htons(bpf_ntohs(like_tcp->dest) + service / ADDRESSES);
}

// The next packet; the buffer has room for exactly that. An IPv4 header's checksum is needed by the kernel only.
static __always_inline int fill(struct plan *plan, void *data, void *end, int with_check)
{
	__u64 number = plan->next;
	__u32 flow = number & plan->mask;
	__u32 service = (__u64)(flow * GOLDEN) * plan->services >> 32;

	plan->next = number + plan->step;
	if (plan->is_ipv6) {
		if (data + FRAME_IPV6 > end)
			return 0;
		fill_ipv6(plan, flow, service, data);
	} else {
		if (data + FRAME_IPV4 > end)
			return 0;
		fill_ipv4(plan, flow, service, data, with_check);
	}
	return 1;
}

static struct plan *plan_now(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&bench_plan, &first);
}

static __attribute__((noinline)) int call(struct xdp_md *ctx)
{
	volatile int missing = XDP_ABORTED; // or else this is a constant for the compiler

	bpf_tail_call(ctx, &bench_target, 0);
	return missing;
}

SEC("xdp")
int bench_dispatch(struct xdp_md *ctx)
{
	struct plan *plan = plan_now();
	long grown;
	__u32 verdict;

	if (!plan)
		return XDP_ABORTED;
	grown = (long)ctx->data_end - (long)ctx->data - (plan->is_ipv6 ? FRAME_IPV6 : FRAME_IPV4);
	if (grown && bpf_xdp_adjust_head(ctx, grown))
		return XDP_ABORTED;
	if (!fill(plan, (void *)(long)ctx->data, (void *)(long)ctx->data_end, 0))
		return XDP_ABORTED;
	verdict = call(ctx);
	if (verdict != plan->verdict)
		plan->wrong += 1;
	return verdict;
}

// The same packets, but sent.
SEC("xdp")
int bench_generate(struct xdp_md *ctx)
{
	struct plan *plan = plan_now();

	if (!plan || !fill(plan, (void *)(long)ctx->data, (void *)(long)ctx->data_end, 1))
		return XDP_ABORTED;
	return XDP_TX;
}

// Where they end.
SEC("xdp")
int bench_sink(struct xdp_md *ctx)
{
	__u32 first = 0;
	__u64 *arrived = bpf_map_lookup_elem(&bench_arrived, &first);

	(void)ctx;
	if (arrived)
		*arrived += 1;
	return XDP_DROP;
}

SEC("xdp")
int bench_pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

SEC("xdp")
int bench_nothing(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_TX;
}

static __always_inline void set_macs(struct ethhdr *ethernet, __u64 destination, __u64 source)
{
	__u16 *words = (__u16 *)ethernet;

	words[0] = destination;
	words[1] = destination >> 16;
	words[2] = destination >> 32;
	words[3] = source;
	words[4] = source >> 16;
	words[5] = source >> 32;
}

SEC("xdp")
int bench_swap(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	__u16 *words = (void *)ethernet;

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
#pragma unroll
	for (__u32 at = 0; at < 3; at++) {
		__u16 kept = words[at];
		words[at] = words[at + 3];
		words[at + 3] = kept;
	}
	return XDP_TX;
}

// Plain TCP over IPv4, and one of the backends by the client's port.
static __always_inline const struct real *parse(struct xdp_md *ctx, __u32 *length, __u8 *service)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct tcphdr *tcp = (void *)(ip + 1);
	__u32 at;

	if ((void *)(tcp + 1) > (void *)(long)ctx->data_end || ethernet->h_proto != bpf_htons(ETH_P_IP) ||
	    *(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(0x3fff) || ip->protocol != IPPROTO_TCP)
		return 0;
	*length = bpf_ntohs(ip->tot_len);
	*service = ip->tos;
	at = bpf_ntohs(tcp->source) & (REALS - 1);
	return bpf_map_lookup_elem(&bench_reals, &at);
}

SEC("xdp")
int bench_array(struct xdp_md *ctx)
{
	__u32 length = 0;
	__u8 service = 0;
	const struct real *real = parse(ctx, &length, &service);
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if (!real || (void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	set_macs(ethernet, real->mac, OWN_MAC);
	return XDP_TX;
}

SEC("xdp")
int bench_ipip(struct xdp_md *ctx)
{
	__u32 length = 0, *words;
	__u8 service = 0;
	const struct real *real = parse(ctx, &length, &service);
	struct ethhdr *ethernet;
	struct iphdr *ip;
	__u64 sum = 0;

	if (!real || bpf_xdp_adjust_head(ctx, -(int)sizeof(*ip)))
		return XDP_DROP;
	ethernet = (void *)(long)ctx->data;
	ip = (void *)(ethernet + 1);
	if ((void *)(ip + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	ethernet->h_proto = bpf_htons(ETH_P_IP);
	*(__u8 *)ip = 0x45;
	ip->tos = service;
	ip->tot_len = bpf_htons(length + sizeof(*ip));
	ip->id = 0;
	ip->frag_off = bpf_htons(0x4000);
	ip->ttl = 64;
	ip->protocol = IPPROTO_IPIP;
	ip->check = 0;
	ip->saddr = real->source;
	ip->daddr = real->address;
	words = (__u32 *)ip;
#pragma unroll
	for (__u32 at = 0; at < sizeof(*ip) / sizeof(*words); at++)
		sum += words[at];
	ip->check = ~fold(sum);
	set_macs(ethernet, real->mac, OWN_MAC);
	return XDP_TX;
}

char _license[] SEC("license") = "MIT OR Apache-2.0";
