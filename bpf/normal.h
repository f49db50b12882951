// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The action NORMAL: a learning switch (rules 58 to 63). */
#pragma once
#include "fdb.h"
#include "output.h"

/* Protocols that are between neighbours and not to be forwarded: IEEE 802.1D's block, and those
 * that Extreme Networks and Cisco put elsewhere (the list of rule 48). */
INLINE int reserved_mac(const u8 *mac)
{
	u32 head = mac[0] << 16 | mac[1] << 8 | mac[2], tail = mac[3] << 16 | mac[4] << 8 | mac[5];
	if (head == 0x0180c2)
		return tail < 0x10;
	if (head == 0x00e02b)
		return tail == 0 || tail == 4 || tail == 6;
	if (head != 0x01000c)
		return 0;
	return tail == 0 || tail == 0xcccccc || tail == 0xcccccd || tail == 0xcdcdcd ||
	       (tail >= 0xccccc0 && tail <= 0xccccc7);
}

/* Decides where the frame goes and makes that the next work; returns a reason to drop it, or
 * DELIVERED. */
FUNCTION u32 normal(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                    u32 mode)
{
	if (!bridge || !frame)
		return DROP_NOT_READY;
	if (bridge->flags & BRIDGE_NO_FORWARDING)
		return DROP_NO_FORWARDING;
	if (reserved_mac(frame->target.mac) && !(bridge->flags & BRIDGE_FORWARD_BPDU))
		return DROP_RESERVED_MAC;
	learn(bridge, frame, mode);
	u32 number = find_port(bridge, frame);
	if (mode == RECORD)
		record(EVENT_LOOKUP, DELIVERED, number, frame->target.vlan);
	if (number == UNKNOWN) {
		struct level *level = push_level(frame);
		if (level)
			*level = (struct level){.flood = 1, .tags = frame->tags};
		return DELIVERED;
	}
	if (number == frame->port)
		return DROP_SAME_PORT;
	if (has_bit(bridge->reserved, number))
		return DROP_TO_RESERVED;
	frame->order =
	    (struct order){.port = number, .mirror = NO_MIRROR, .last = 1, .tags = frame->tags};
	output(skb, bridge, frame, mode);
	return DELIVERED;
}
