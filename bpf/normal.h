// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The action NORMAL: a learning switch (rules 58 to 63). */
#pragma once
#include "fdb.h"
#include "flood.h"

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
	u32 number = UNKNOWN;
	if (!bridge->vlans[frame->source.vlan & (MAX_VLANS - 1)].flood) {
		if (frame->port < MAX_PORTS)
			learn(bridge, frame, mode);
		number = find_port(bridge, frame);
	}
	if (mode == RECORD)
		record(EVENT_LOOKUP, DELIVERED, number, frame->target.vlan);
	if (number == UNKNOWN) {
		struct level *level = push_level(frame);
		if (level)
			*level = (struct level){
			    .flood = VLAN_FLOOD,
			    .mirror = NO_MIRROR,
			    .annotation = annotation(&frame->tags, 0),
			    .tags = frame->tags,
			};
		return DELIVERED;
	}
	if (number == frame->port)
		return DROP_SAME_PORT;
	if (has_bit(bridge->reserved, number))
		return DROP_TO_RESERVED;
	if (apart(bridge, frame, number))
		return DROP_PROTECTED;
	frame->order = (struct order){
	    .port = number,
	    .mirror = NO_MIRROR,
	    .last = 1,
	    .annotation = annotation(&frame->tags, 0),
	    .tags = frame->tags,
	};
	output(skb, bridge, frame, mode);
	return DELIVERED;
}
