// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One frame to many ports, one after the other. */
#pragma once
#include "output.h"

/* Looks for the frame's next flood output among 64 ports and orders it. */
FUNCTION enum turn next_flood(const struct snapshot *bridge, struct frame *frame)
{
	if (!bridge || !frame)
		return EXHAUSTED;
	struct level *level = &frame->levels[(frame->depth - 1) & (MAX_LEVELS - 1)];
	const struct vlan *vlan = &bridge->vlans[vid(&level->tags) & (MAX_VLANS - 1)];
	u32 next = level->next, word = next >> 6;
	if (word >= PORT_WORDS)
		return EXHAUSTED;
	u64 ports = vlan->members[word] & ~bridge->reserved[word];
	if (level->flood == ALL_PORTS)
		ports = bridge->all[word]; /* rule 54 */
	else if (level->flood == PORT_FLOOD)
		ports = bridge->flood[word];
	else if (level->mirror == NO_MIRROR)
		ports &= bridge->flood[word]; /* rules 45, 63 */
	ports >>= next & 63;
	if (!ports) {
		level->next = (word + 1) << 6;
		return AGAIN;
	}
	u32 number = next + __builtin_ctzll(ports);
	level->next = number + 1;
	/* A copy goes back to where the frame came from as well (rule 45). */
	if (number == frame->port && level->mirror == NO_MIRROR)
		return AGAIN;
	u32 as_is = level->flood != VLAN_FLOOD;
	if (!as_is &&
	    !carries_inner(bridge, &bridge->ports[number & (MAX_PORTS - 1)], &level->tags))
		return AGAIN;
	if (level->mirror == NO_MIRROR && apart(bridge, frame, number))
		return AGAIN;
	frame->order = (struct order){
	    .port = number,
	    .mirror = level->mirror,
	    .snaplen = level->snaplen,
	    .annotation = level->annotation,
	    .as_is = as_is,
	    .tags = level->tags,
	};
	return ORDERED;
}
