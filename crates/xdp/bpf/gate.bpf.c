// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Stops this host from answering for an address whose lease has ended, with the agent dead or alive.
//
// Two classifiers for clsact, one per direction. What asks for a guarded address is dropped on its way
// in once the deadline has passed, so the kernel has nothing to answer; what claims a guarded address is
// dropped on its way out. All else goes on to the next filter (TC_ACT_UNSPEC): what others say about the
// address must be heard, and no data packet is judged here.
//
// Two clocks, on purpose. The deadline is CLOCK_BOOTTIME, which runs while the host is suspended, as the
// leases of the other nodes do. `until` is CLOCK_MONOTONIC, which stands still meanwhile, as the timer
// that removes the address does. Past `until` the kernel has removed the address by itself long ago, so
// an entry that nobody renews silences nothing: what an operator configures by hand later just works.
//
// Kernels from 5.8 (bpf_ktime_get_boot_ns); no kfuncs, no GPL-only functions, no loops.
// Not judged: frames with a VLAN tag (they belong to another interface), neighbour messages behind IPv6
// extension headers (the kernel's own answer has none, so it is still dropped on its way out).

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ADDRESSES_MAX 16384

#define ARP_REQUEST 1
#define NEXT_HEADER_ICMPV6 58
#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136

// The same layouts are in src/lib.rs, where asserts pin their sizes.
struct key {
	__u8 address[16]; // IPv4 as ::ffff:a.b.c.d
	__u32 link;       // 0 for IPv4: Linux answers ARP for any of its addresses on every interface
};

struct entry {
	__u64 deadline; // CLOCK_BOOTTIME, ns
	__u64 until;    // CLOCK_MONOTONIC, ns
};

enum { INGRESS = 0, EGRESS = 1, STALE = 2, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, struct key);
	__type(value, struct entry);
} deadlines SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

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

struct neighbour_frame {
	struct ethhdr ethernet;
	__be32 version;
	__be16 payload_len;
	__u8 next_header;
	__u8 hop_limit;
	__u8 source[16];
	__u8 destination[16];
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	__u8 target[16];
} __attribute__((packed));

_Static_assert(sizeof(struct key) == 20, "key");
_Static_assert(sizeof(struct entry) == 16, "entry");
_Static_assert(sizeof(struct arp_frame) == 14 + 28, "ARP over Ethernet");
_Static_assert(sizeof(struct neighbour_frame) == 14 + 40 + 24, "neighbour message");

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);
	if (counter)
		*counter += 1;
}

static __always_inline int verdict(const struct key *key, __u32 direction)
{
	const struct entry *entry = bpf_map_lookup_elem(&deadlines, key);

	if (!entry || bpf_ktime_get_boot_ns() < entry->deadline)
		return TC_ACT_UNSPEC;
	if (entry->until <= bpf_ktime_get_ns()) {
		count(STALE);
		return TC_ACT_UNSPEC;
	}
	count(direction);
	return TC_ACT_SHOT;
}

static __always_inline int verdict_ipv4(const __u8 *address, __u32 direction)
{
	struct key key = {};

	key.address[10] = 0xff;
	key.address[11] = 0xff;
	__builtin_memcpy(&key.address[12], address, 4);
	return verdict(&key, direction);
}

static __always_inline int verdict_ipv6(const __u8 *address, __u32 link, __u32 direction)
{
	struct key key = { .link = link };

	__builtin_memcpy(key.address, address, 16);
	return verdict(&key, direction);
}

static __always_inline int arp(const struct arp_frame *frame, __u32 direction)
{
	if (frame->protocol != bpf_htons(ETH_P_IP) || frame->protocol_len != 4 ||
	    frame->hardware_len != 6)
		return TC_ACT_UNSPEC;
	if (direction == EGRESS)
		return verdict_ipv4(frame->sender, direction);
	// A request about its own sender asks for nothing: it is the new owner's announcement.
	if (frame->operation != bpf_htons(ARP_REQUEST) ||
	    !__builtin_memcmp(frame->sender, frame->target, 4))
		return TC_ACT_UNSPEC;
	return verdict_ipv4(frame->target, direction);
}

static __always_inline int neighbour(const struct neighbour_frame *frame, __u32 link, __u32 direction)
{
	if (frame->next_header != NEXT_HEADER_ICMPV6)
		return TC_ACT_UNSPEC;
	if (direction == INGRESS)
		return frame->type == NEIGHBOUR_SOLICITATION ?
			       verdict_ipv6(frame->target, link, direction) :
			       TC_ACT_UNSPEC;
	if (frame->type == NEIGHBOUR_ADVERTISEMENT)
		return verdict_ipv6(frame->target, link, direction);
	// A solicitation teaches its receivers where its source lives (RFC 4861 section 7.2.3).
	if (frame->type == NEIGHBOUR_SOLICITATION)
		return verdict_ipv6(frame->source, link, direction);
	return TC_ACT_UNSPEC;
}

// The first `length` bytes of the frame, side by side, or nothing if the frame is shorter.
static __always_inline void *front(struct __sk_buff *skb, __u32 length)
{
	if ((void *)(long)skb->data + length > (void *)(long)skb->data_end) {
		if (skb->len < length || bpf_skb_pull_data(skb, length))
			return 0;
		if ((void *)(long)skb->data + length > (void *)(long)skb->data_end)
			return 0;
	}
	return (void *)(long)skb->data;
}

static __always_inline int judge(struct __sk_buff *skb, __u32 direction)
{
	if (skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_ARP)) {
		struct arp_frame *frame = front(skb, sizeof(*frame));
		return frame ? arp(frame, direction) : TC_ACT_UNSPEC;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct neighbour_frame *frame = front(skb, sizeof(*frame));
		return frame ? neighbour(frame, skb->ifindex, direction) : TC_ACT_UNSPEC;
	}
	return TC_ACT_UNSPEC;
}

SEC("classifier")
int gate_ingress(struct __sk_buff *skb)
{
	return judge(skb, INGRESS);
}

SEC("classifier")
int gate_egress(struct __sk_buff *skb)
{
	return judge(skb, EGRESS);
}

char _license[] SEC("license") = "MIT OR Apache-2.0";
