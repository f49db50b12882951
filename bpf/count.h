// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Counting. A frame is one frame of the wire: a super-frame counts as its segments (D10). */
#pragma once
#include "maps.h"

INLINE struct port_counters *port_counters(u32 port)
{
	return bpf_map_lookup_elem(&port_stats, &port);
}

INLINE void count_drop(u32 port, u32 reason, u32 packets)
{
	struct port_counters *counters = port_counters(port);
	HOLD(reason);
	if (counters && reason < MAX_REASONS)
		counters->drops[reason] += packets;
}

/* Counts packets handed over, or not, to the device of a port. */
INLINE void count_delivery(u32 port, u32 reason, u32 packets, u32 bytes)
{
	struct port_counters *counters = port_counters(port);
	HOLD(reason);
	if (counters && reason == DELIVERED) {
		counters->tx_packets += packets;
		counters->tx_bytes += bytes;
	} else if (counters && reason < MAX_REASONS) {
		counters->drops[reason] += packets;
	}
}

#define CERTAIN 0x80000000u

/* Length of the headers that every segment of a super-frame repeats; 0 if they are not TCP or UDP
 * over IPv4 or IPv6 (tunnelled segments): then the bytes of the repeated headers go uncounted. UDP
 * may carry a guest's own tunnel, whose headers are repeated too: only that of TCP is CERTAIN. */
FUNCTION u32 segment_headers(struct __sk_buff *skb)
{
	u16 type = 0;
	u32 offset = 12;
	u8 protocol = 0, byte = 0;
	for (int i = 0; i < 3; i++) {
		if (bpf_skb_load_bytes(skb, offset, &type, 2))
			return 0;
		type = swap16(type);
		offset += 2;
		if (type != 0x8100 && type != 0x88a8)
			break;
		offset += 2;
	}
	if (type == 0x0800) {
		if (bpf_skb_load_bytes(skb, offset, &byte, 1) ||
		    bpf_skb_load_bytes(skb, offset + 9, &protocol, 1))
			return 0;
		offset += (byte & 15) * 4;
	} else if (type == 0x86dd) {
		if (bpf_skb_load_bytes(skb, offset + 6, &protocol, 1))
			return 0;
		offset += 40;
		for (int i = 0; i < 4; i++) {
			u8 option[2];
			if (protocol != 0 && protocol != 43 && protocol != 60)
				break; /* hop by hop, routing, destination: RFC 8200 */
			if (bpf_skb_load_bytes(skb, offset, option, 2))
				return 0;
			protocol = option[0];
			offset += (option[1] + 1) * 8;
		}
	} else {
		return 0;
	}
	if (protocol == 17)
		return offset + 8;
	if (protocol != 6 || bpf_skb_load_bytes(skb, offset + 12, &byte, 1))
		return 0;
	return CERTAIN | (offset + (byte >> 4) * 4);
}

INLINE void count_received(u32 port, u32 packets, u32 bytes)
{
	struct port_counters *counters = port_counters(port);
	if (!counters)
		return;
	counters->rx_packets += packets;
	counters->rx_bytes += bytes;
}

/* Sets how many frames of the wire this one is, the bytes in them, and the length of the longest;
 * a tag beside the data counts. */
INLINE void measure(struct __sk_buff *skb, u32 *packets, u32 *bytes, u32 *segment)
{
	u32 length = skb->len, tag = skb->vlan_present ? 4 : 0, size = skb->gso_size;
	*packets = 1;
	*bytes = *segment = length + tag;
	if (!size)
		return;
	u32 found = segment_headers(skb), headers = found & ~CERTAIN, segments = skb->gso_segs;
	/* A guest's super-frame may come without its number of segments (tun, virtio). */
	if (!segments)
		segments = length > headers ? (length - headers + size - 1) / size : 1;
	*packets = segments ? segments : 1;
	*bytes = length + (*packets - 1) * headers + *packets * tag;
	/* It may be longer than TCP says by itself: inside a guest's own tunnel there is no
	 * telling, and the segmenter cuts what is too long only. */
	if (found & CERTAIN && headers + size + tag < *segment)
		*segment = headers + size + tag;
}
