// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* VLAN modes of a port: which frames it admits, what they are inside the switch, what they look
 * like when they leave (section 8 of the semantics), and the change of a frame's tags. */
#pragma once
#include "types.h"

INLINE u16 vid(const struct tags *tags)
{
	return tags->number ? tags->tci[0] & 0xfff : 0;
}

INLINE u16 pcp(const struct tags *tags)
{
	return tags->number ? tags->tci[0] & 0xe000 : 0;
}

INLINE int has_bit(const u64 *words, u32 number)
{
	return (words[(number >> 6) & (PORT_WORDS - 1)] >> (number & 63)) & 1;
}

/* Translates the tags of a frame on the wire of a port to those inside the switch, as if it were
 * received there. Returns whether the port admits it (rules 17, 18, 70-72). */
INLINE int inward(const struct snapshot *bridge, const struct port *port, u32 number,
                  struct tags *tags)
{
	u16 outer = vid(tags);
	if (port->mode == ACCESS && outer)
		return 0;
	if (port->mode != TRUNK && !outer) {
		tags->tci[0] = pcp(tags) | port->tag;
		if (!tags->number) {
			tags->number = 1;
			tags->tpid[0] = 0x8100;
		}
	}
	return has_bit(bridge->vlans[vid(tags) & (MAX_VLANS - 1)].members, number);
}

/* The other way (rules 37, 40, 71, 72, 75). */
INLINE void outward(const struct port *port, struct tags *tags)
{
	if (port->mode == ACCESS || (port->mode == NATIVE_UNTAGGED && vid(tags) == port->tag))
		tags->number = 0;
	/* A tag that says neither VLAN nor priority is no tag. */
	if (tags->number && !(tags->tci[0] & 0xefff))
		tags->number = 0;
}

INLINE int same_tags(const struct tags *a, const struct tags *b)
{
	if (a->number != b->number)
		return 0;
	return !a->number || (a->tpid[0] == b->tpid[0] && a->tci[0] == b->tci[0]);
}

/* Takes `pops` tags off the frame and puts `tags` on it. Right for tags beside and in the
 * data (kernel facts, "Tags in the egress hook"). */
INLINE u32 retag(struct __sk_buff *skb, u32 pops, const struct tags *tags)
{
	if (pops && bpf_skb_vlan_pop(skb))
		return DROP_RETAG;
	if (tags->number && bpf_skb_vlan_push(skb, swap16(tags->tpid[0]), tags->tci[0]))
		return DROP_RETAG;
	return DELIVERED;
}
