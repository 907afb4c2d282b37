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
// An address that is not on the interface is answered for by a third program, of XDP, under the same lease
// (gate/answer.h). Its frames do not get as far as the classifiers.
//
// An interface with the hardware address of a virtual router (RFC 9568 section 7.3) has an entry of its own, under
// the unspecified address. While it is closed, nothing for that hardware address comes in, so a backup that
// forwards does not forward what a switch has flooded (section 6.4.2), and nothing from it leaves but
// advertisements, so no switch follows a host that has given it away: multicast listener reports would.
//
// Kernels from 5.8 (bpf_ktime_get_boot_ns); no kfuncs, no GPL-only functions, no loops.
// Not judged: frames with a VLAN tag (they belong to another interface), neighbour messages behind IPv6
// extension headers (the kernel's own answer has none, so it is still dropped on its way out), and packets
// for another host's Ethernet address, which only a bridge or a second stack on this interface can want.

#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <stddef.h>

#include "gate/answer.h"

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
	// Nothing would be held back, and nothing is to be noted: most packets need no look at the clock.
	if (~LOOK(entry->rule) & (GUARD_TRAFFIC | PRESENT) && (direction == EGRESS || LOOK(entry->first_packet)))
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

static __always_inline int is_advertisement(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		const struct ipv4_frame *frame = front(skb, sizeof(*frame));
		return frame && frame->before[9] == PROTOCOL_VRRP;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6_frame *frame = front(skb, sizeof(*frame));
		return frame && frame->next_header == PROTOCOL_VRRP;
	}
	return 0;
}

// A frame to (on its way in) or from (on its way out) the hardware address of a virtual router that is not the
// active one here.
static __always_inline int is_of_backup(struct __sk_buff *skb, __u32 direction)
{
	const struct ethhdr *ethernet = front(skb, sizeof(*ethernet));
	const struct entry *entry;
	const __u8 *mac;
	// As with the pointers: clang would keep the field's address, which the verifier refuses.
	struct key key = { .link = (__u32)(__u64)POINTER(skb, ifindex) };

	if (!ethernet)
		return 0;
	mac = direction == INGRESS ? ethernet->h_dest : ethernet->h_source;
	if (mac[0] || mac[1] || mac[2] != 0x5e || mac[3] || (mac[4] != 1 && mac[4] != 2))
		return 0;
	entry = entry_of(&key);
	return entry && !is_open(entry) && (direction == INGRESS || !is_advertisement(skb));
}

static __always_inline int judge(struct __sk_buff *skb, __u32 direction)
{
	if (skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (is_of_backup(skb, direction)) {
		count(direction == INGRESS ? TRAFFIC_IN : TRAFFIC_OUT);
		return TC_ACT_SHOT;
	}
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
