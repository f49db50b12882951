// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* VLAN modes of a port: which frames it admits, what they are inside the switch, what they look
 * like when they leave (section 8 of the semantics), and the change of a frame's tags. */
#pragma once
#include "types.h"

INLINE u16 vid(const struct tags *tags)
{
	return tags->number ? tags->tci[0] & 0xfff : 0;
}

/* The second VID, 0 if there is none. */
INLINE u16 inner_vid(const struct tags *tags)
{
	return tags->number > 1 ? tags->tci[1] & 0xfff : 0;
}

INLINE u16 pcp(const struct tags *tags)
{
	return tags->number ? tags->tci[0] & 0xe000 : 0;
}

INLINE int has_bit(const u64 *words, u32 number)
{
	return (words[(number >> 6) & (PORT_WORDS - 1)] >> (number & 63)) & 1;
}

INLINE int customer_vlan_allowed(const struct snapshot *bridge, const struct port *port, u16 vlan)
{
	const u64 *set = bridge->vlan_sets[port->customer_vlans & (MAX_VLAN_SETS - 1)];
	return !port->customer_vlans || (set[(vlan >> 6) & (VLAN_WORDS - 1)] >> (vlan & 63)) & 1;
}

INLINE void push_tag(struct tags *tags, u16 tpid, u16 tci)
{
	tags->tpid[1] = tags->tpid[0];
	tags->tci[1] = tags->tci[0];
	tags->tpid[0] = tpid;
	tags->tci[0] = tci;
	tags->number = tags->number ? 2 : 1;
}

INLINE void pop_tag(struct tags *tags)
{
	if (!tags->number)
		return;
	tags->tpid[0] = tags->tpid[1];
	tags->tci[0] = tags->tci[1];
	tags->number--;
}

/* Translates the tags of a frame on the wire of a port to those inside the switch, as if it were
 * received there. Returns whether the port admits it (rules 17, 18, 70-73). */
INLINE int inward(const struct snapshot *bridge, const struct port *port, u32 number,
                  struct tags *tags)
{
	u16 outer = vid(tags);
	tags->priority = pcp(tags);
	if (port->mode == DOT1Q_TUNNEL) {
		if (!customer_vlan_allowed(bridge, port, outer))
			return 0;
		push_tag(tags, port->service_tpid, port->tag);
	} else if (port->mode != TRUNK && !outer) {
		tags->tpid[0] = tags->number ? tags->tpid[0] : 0x8100;
		tags->tci[0] = tags->priority | port->tag;
		if (!tags->number || port->mode == ACCESS)
			tags->number = 1;
	} else if (port->mode == ACCESS) {
		return 0;
	}
	return has_bit(bridge->vlans[vid(tags) & (MAX_VLANS - 1)].members, number);
}

/* The other way (rules 37, 40, 71-75). */
INLINE void outward(const struct port *port, struct tags *tags)
{
	if (port->mode == ACCESS)
		tags->number = 0;
	else if (port->mode == DOT1Q_TUNNEL ||
	         (port->mode == NATIVE_UNTAGGED && vid(tags) == port->tag))
		pop_tag(tags);
	/* A tag that says neither VLAN nor priority is no tag. */
	if (tags->number == 1 && !(tags->tci[0] & 0xefff))
		tags->number = 0;
	if (tags->number)
		return;
	if (port->priority_tags == PRIORITY_ALWAYS ||
	    (port->priority_tags == PRIORITY_IF_NONZERO && tags->priority))
		push_tag(tags, 0x8100, tags->priority);
}

/* Whether a port that carries the outer VLAN carries the frame (rule 74). */
INLINE int carries_inner(const struct snapshot *bridge, const struct port *port,
                         const struct tags *tags)
{
	if (port->mode == ACCESS)
		return !inner_vid(tags);
	return port->mode != DOT1Q_TUNNEL || customer_vlan_allowed(bridge, port, inner_vid(tags));
}

INLINE int same_tags(const struct tags *a, const struct tags *b)
{
	if (a->number != b->number)
		return 0;
	if (a->number && (a->tpid[0] != b->tpid[0] || a->tci[0] != b->tci[0]))
		return 0;
	return a->number < 2 || (a->tpid[1] == b->tpid[1] && a->tci[1] == b->tci[1]);
}

/* Takes `pops` tags off the frame and puts `tags` on it. Right for tags beside and in the
 * data (kernel facts, "Tags in the egress hook"). */
INLINE u32 retag(struct __sk_buff *skb, u32 pops, const struct tags *tags)
{
	if (pops > 0 && bpf_skb_vlan_pop(skb))
		return DROP_RETAG;
	if (pops > 1 && bpf_skb_vlan_pop(skb))
		return DROP_RETAG;
	if (tags->number > 1 && bpf_skb_vlan_push(skb, swap16(tags->tpid[1]), tags->tci[1]))
		return DROP_RETAG;
	if (tags->number && bpf_skb_vlan_push(skb, swap16(tags->tpid[0]), tags->tci[0]))
		return DROP_RETAG;
	return DELIVERED;
}

/* Has the kernel read a frame's type anew from its bytes: it goes by skb->protocol, which no helper
 * sets but those for tags, from the bytes behind a tag that is in them. So put one there. */
INLINE long retype(struct __sk_buff *skb)
{
	u16 tpid = swap16(0x8100);
	u32 bare = !skb->vlan_present;
	if (bare && bpf_skb_vlan_push(skb, tpid, 1))
		return -1;
	if (bpf_skb_vlan_push(skb, tpid, 1) || bpf_skb_vlan_pop(skb))
		return -1;
	return bare ? bpf_skb_vlan_pop(skb) : 0;
}
