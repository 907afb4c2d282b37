// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Reads a transport header into a flow, and says whether it is whole.

#pragma once

#include "packet.h"

// `length` is what the IP header leaves for it; all of it is in the frame, unless it is negative. Of a first
// fragment, only the header is there.
static __always_inline int read_part(struct flow *flow, const struct ports *ports, const void *end, int length,
				     int is_fragment)
{
	const struct tcp *tcp = (const void *)ports;
	const struct udp *udp = (const void *)ports;
	__u32 header;

	if (flow->protocol == IPPROTO_TCP) {
		if ((const void *)(tcp + 1) > end)
			return 0;
		header = (tcp->offset >> 4) * 4;
		flow->opens = (tcp->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
		flow->ends = tcp->flags & (TCP_FIN | TCP_RST);
		if (header < sizeof(*tcp) || length < (int)(is_fragment ? sizeof(*tcp) : header))
			return 0;
	} else if (flow->protocol == IPPROTO_UDP) {
		if ((const void *)(udp + 1) > end || length < (int)sizeof(*udp))
			return 0;
		header = bpf_ntohs(udp->length);
		if (header < sizeof(*udp) || (!is_fragment && (int)header > length))
			return 0;
	} else {
		return 0;
	}
	flow->client_port = ports->source;
	flow->vip_port = bpf_ntohs(ports->destination);
	return 1;
}

static __always_inline int read_transport(struct flow *flow, const struct ports *ports, const void *end,
					  int length)
{
	return read_part(flow, ports, end, length, 0);
}
