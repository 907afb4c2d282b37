// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Stops this host from answering for an address whose lease has ended, with the agent dead or alive.
//
// Two classifiers for clsact, one per direction. What asks for a guarded address is dropped on its way
// in once the lease is over, so the kernel has nothing to answer; what claims a guarded address is dropped
// on its way out; and where the entry says so, all IP packets to and from the address as well, as long as
// it is on this host: a host that has given it away may be on the way to it. All else goes on to the next
// filter (TC_ACT_UNSPEC): what others say about the address must be heard.
//
// A key leads to a slot of an array, because user space maps the arrays into its memory: it renews a lease
// with a plain store, and the supervisor of a dead agent closes everything with one. An address may be
// answered for until its own deadline or the end of the lease that it shares, whichever is later.
//
// Two clocks, on purpose. The deadlines are CLOCK_BOOTTIME, which runs while the host is suspended, as the
// leases of the other nodes do. `until` is CLOCK_MONOTONIC, which stands still meanwhile, as the timer
// that removes the address does. Past `until` the kernel has removed the address by itself long ago, so
// an entry that nobody renews silences nothing: what an operator configures by hand later just works.
//
// Kernels from 5.8 (bpf_ktime_get_boot_ns); no kfuncs, no GPL-only functions, no loops.
// Not judged: frames with a VLAN tag (they belong to another interface), neighbour messages behind IPv6
// extension headers (the kernel's own answer has none, so it is still dropped on its way out), and packets
// for another host's Ethernet address, which only a bridge or a second stack on this interface can want.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <linux/types.h>
#include <stddef.h>

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
	__u64 deadline;     // CLOCK_BOOTTIME, ns
	__u64 until;        // CLOCK_MONOTONIC, ns
	__u64 first_packet; // CLOCK_BOOTTIME, ns; 0: none since the gate was opened; written here
	__u64 rule;         // the shared lease in the low byte, 0 for none; GUARD_TRAFFIC; PRESENT
};

struct lease {
	__u64 deadline; // CLOCK_BOOTTIME, ns; of lease 0, the master switch: not 0 closes everything
	__u64 until;    // CLOCK_MONOTONIC, ns; of lease 0: not 0 says that no address is here any more
};

#define LEASES 3
#define MASTER 0
#define LEASE_MASK 0xff
#define GUARD_TRAFFIC 0x100
#define PRESENT 0x200

enum { INGRESS = 0, EGRESS = 1, STALE = 2, TRAFFIC_IN = 3, TRAFFIC_OUT = 4, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, struct key);
	__type(value, __u32);
} gate_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, __u32);
	__type(value, struct entry);
} gate_entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LEASES);
	__type(key, __u32);
	__type(value, struct lease);
} gate_leases SEC(".maps");

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

_Static_assert(sizeof(struct key) == 20, "key");
_Static_assert(sizeof(struct entry) == 32, "entry");
_Static_assert(sizeof(struct lease) == 16, "lease");
_Static_assert(sizeof(struct arp_frame) == 14 + 28, "ARP over Ethernet");
_Static_assert(sizeof(struct ipv4_frame) == 14 + 20, "IPv4 without options");
_Static_assert(sizeof(struct ipv6_frame) == 14 + 40, "IPv6");
_Static_assert(sizeof(struct neighbour_frame) == 14 + 40 + 24, "neighbour message");

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);
	if (counter)
		*counter += 1;
}

// User space writes while this reads: each word once, and whole.
#define LOOK(word) (*(const volatile __u64 *)&(word))

static __always_inline struct entry *entry_of(const struct key *key)
{
	const __u32 *slot = bpf_map_lookup_elem(&gate_slots, key);

	return slot ? bpf_map_lookup_elem(&gate_entries, slot) : 0;
}

static __always_inline const struct lease *lease_of(const struct entry *entry)
{
	__u32 which = LOOK(entry->rule) & LEASE_MASK;

	return which == MASTER ? 0 : bpf_map_lookup_elem(&gate_leases, &which);
}

static __always_inline const struct lease *master_switch(void)
{
	__u32 master = MASTER;

	return bpf_map_lookup_elem(&gate_leases, &master);
}

static __always_inline int is_open(const struct entry *entry)
{
	const struct lease *master = master_switch();
	const struct lease *shared = lease_of(entry);
	__u64 now;

	if (!master || LOOK(master->deadline))
		return 0;
	now = bpf_ktime_get_boot_ns();
	return now < LOOK(entry->deadline) || (shared && now < LOOK(shared->deadline));
}

// What becomes of a frame that a closed gate concerns.
static __always_inline int closed(const struct entry *entry, __u32 counter)
{
	const struct lease *shared = lease_of(entry);
	__u64 now = bpf_ktime_get_ns();

	if (LOOK(entry->until) <= now && (!shared || LOOK(shared->until) <= now)) {
		count(STALE);
		return TC_ACT_UNSPEC;
	}
	count(counter);
	return TC_ACT_SHOT;
}

static __always_inline int verdict(const struct key *key, __u32 counter)
{
	const struct entry *entry = entry_of(key);

	return !entry || is_open(entry) ? TC_ACT_UNSPEC : closed(entry, counter);
}

// An IP packet to (on its way in) or from (on its way out) the address.
static __always_inline int traffic(const struct __sk_buff *skb, const struct key *key, __u32 direction)
{
	struct entry *entry = entry_of(key);
	const struct lease *master;

	if (!entry || (direction == INGRESS && skb->pkt_type == PACKET_OTHERHOST))
		return TC_ACT_UNSPEC;
	if (is_open(entry)) {
		if (direction == INGRESS && !LOOK(entry->first_packet))
			entry->first_packet = bpf_ktime_get_boot_ns();
		return TC_ACT_UNSPEC;
	}
	master = master_switch();
	if (~LOOK(entry->rule) & (GUARD_TRAFFIC | PRESENT) || !master || LOOK(master->until))
		return TC_ACT_UNSPEC;
	return closed(entry, direction == INGRESS ? TRAFFIC_IN : TRAFFIC_OUT);
}

static __always_inline struct key key_ipv4(const __u8 *address)
{
	struct key key = {};

	key.address[10] = 0xff;
	key.address[11] = 0xff;
	__builtin_memcpy(&key.address[12], address, 4);
	return key;
}

static __always_inline struct key key_ipv6(const __u8 *address, __u32 link)
{
	struct key key = { .link = link };

	__builtin_memcpy(key.address, address, 16);
	return key;
}

static __always_inline int verdict_ipv4(const __u8 *address, __u32 direction)
{
	struct key key = key_ipv4(address);

	return verdict(&key, direction);
}

static __always_inline int verdict_ipv6(const __u8 *address, __u32 link, __u32 direction)
{
	struct key key = key_ipv6(address, link);

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
	if (direction == INGRESS)
		return frame->type == NEIGHBOUR_SOLICITATION ?
			       verdict_ipv6(frame->target, link, direction) :
			       TC_ACT_UNSPEC;
	if (frame->type == NEIGHBOUR_ADVERTISEMENT)
		return verdict_ipv6(frame->target, link, direction);
	// A solicitation teaches its receivers where its source lives (RFC 4861 section 7.2.3).
	if (frame->type == NEIGHBOUR_SOLICITATION)
		return verdict_ipv6(frame->ipv6.source, link, direction);
	return TC_ACT_UNSPEC;
}

// A pointer of the context. Read in assembly: the field is 32 bits wide in C, and clang would cut
// the pointer that the verifier makes of it to 32 bits for good.
#define POINTER(skb, field)                                                  \
	({                                                                   \
		void *pointer;                                               \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                        \
			     : "=r"(pointer)                                 \
			     : "r"(skb), "i"(offsetof(struct __sk_buff, field))); \
		pointer;                                                     \
	})

// The first `length` bytes of the frame, side by side, or nothing if the frame is shorter.
static __always_inline void *front(struct __sk_buff *skb, __u32 length)
{
	void *data = POINTER(skb, data);

	if (data + length <= POINTER(skb, data_end))
		return data;
	if (skb->len < length || bpf_skb_pull_data(skb, length))
		return 0;
	data = POINTER(skb, data);
	return data + length <= POINTER(skb, data_end) ? data : 0;
}

static __always_inline int ipv4(struct __sk_buff *skb, __u32 direction)
{
	const struct ipv4_frame *frame = front(skb, sizeof(*frame));
	struct key key;

	if (!frame)
		return TC_ACT_UNSPEC;
	key = key_ipv4(direction == INGRESS ? frame->destination : frame->source);
	return traffic(skb, &key, direction);
}

static __always_inline int ipv6(struct __sk_buff *skb, __u32 direction)
{
	const struct ipv6_frame *frame = front(skb, sizeof(*frame));
	struct key key;

	if (!frame)
		return TC_ACT_UNSPEC;
	key = key_ipv6(direction == INGRESS ? frame->destination : frame->source, skb->ifindex);
	if (frame->next_header == NEXT_HEADER_ICMPV6) {
		const struct neighbour_frame *said = front(skb, sizeof(*said));
		if (said && neighbour(said, skb->ifindex, direction) == TC_ACT_SHOT)
			return TC_ACT_SHOT;
	}
	return traffic(skb, &key, direction);
}

static __always_inline int judge(struct __sk_buff *skb, __u32 direction)
{
	if (skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_ARP)) {
		const struct arp_frame *frame = front(skb, sizeof(*frame));
		return frame ? arp(frame, direction) : TC_ACT_UNSPEC;
	}
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return ipv4(skb, direction);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return ipv6(skb, direction);
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
