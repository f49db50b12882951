// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* All work for a frame, one step after the other, so that nothing recurses: copies and floods
 * first, level by level; then what the bridge does with the frame; then its way through patch ports
 * into other bridges. */
#pragma once
#include "flows.h"
#include "parse.h"

struct walk {
	struct __sk_buff *skb;
	struct snapshot *bridge;
	struct frame *frame;
	u32 mode;
};

INLINE struct snapshot *snapshot_of(u32 slot)
{
	u32 zero = 0;
	void *map = bpf_map_lookup_elem(&bridges, &slot);
	return map ? bpf_map_lookup_elem(map, &zero) : 0;
}

INLINE int refuse(u32 port, u32 reason, u32 packets, u32 mode)
{
	if (mode == RECORD)
		record(EVENT_DROP, reason, port, 0);
	else
		count_drop(port, reason, packets);
	return DROP;
}

/* The bridge that the frame is in sends it nowhere, if there is a reason. */
INLINE void refuse_frame(struct frame *frame, u32 reason, u32 mode)
{
	if (!reason)
		return;
	frame->refused |= !frame->crossed; /* behind a patch port it may be a copy */
	refuse(frame->entry, reason, frame->packets, mode);
}

/* The frame is at the door of a bridge, with frame->tags as on the wire of the port: admit it, have
 * it mirrored (not if it comes from a patch port, rule 13), and say what is next. */
INLINE u32 enter(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                 u32 slot, u32 number, u32 sources)
{
	const struct port *port = &bridge->ports[number & (MAX_PORTS - 1)];
	u32 flows = bridge->flags & BRIDGE_FLOWS;
	struct tags wire = frame->tags;
	u64 visit = 1ull << (slot & (MAX_BRIDGES - 1));
	frame->bridge = slot;
	frame->store = store_number(bridge, slot);
	frame->entry = frame->port = number;
	if (!(frame->visited & visit))
		*done_set(frame) = 0;
	frame->visited |= visit;
	frame->protected = port->flags & PORT_PROTECTED;
	if (has_bit(bridge->reserved, number))
		return DROP_RESERVED_PORT;
	if (port->flags & PORT_NO_RECEIVE)
		return DROP_NO_RECEIVE;
	int admitted = inward(bridge, port, number, &frame->tags);
	if (!admitted && !flows)
		return DROP_VLAN;
	frame->source.bridge = frame->target.bridge = slot;
	frame->source.vlan = frame->target.vlan = vid(&frame->tags);
	/* Copies as received before any output (rule 35), and whatever becomes of the frame
	 * (rule 4). */
	if (admitted)
		select_mirrors(bridge, frame, sources, number, 0, &wire);
	frame->stage = TO_NORMAL;
	if (flows && !(bridge->flags & BRIDGE_NO_FORWARDING))
		begin_flows(skb, bridge, frame);
	return DELIVERED;
}

/* The frame as flows have made it before it went into a patch port. */
INLINE void carry_over(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                       u32 number)
{
	struct flow *flow = &frame->flow;
	if (flow->ready) {
		u32 keyed = frame->crossing[number & (MAX_CROSSINGS - 1)].keyed;
		copy_key(flow->key,
		         keyed ? flow->crossings[number & (MAX_CROSSINGS - 1)] : flow->received);
		flow->changed = 1;
		put_addresses(frame);
	} else if (bridge->flags & BRIDGE_FLOWS) {
		parse_key(skb, frame);
	} else {
		return;
	}
	put_tags(flow->key, &frame->tags);
}

/* Takes the frame's next passage through a patch port; returns whether there was one. */
INLINE int cross_over(struct walk *walk)
{
	struct frame *frame = walk->frame;
	u32 number = frame->crossed;
	if (number >= frame->crossings || number >= MAX_CROSSINGS)
		return 0;
	frame->crossed = number + 1;
	const struct crossing *crossing = &frame->crossing[number];
	u32 slot = crossing->bridge, port = crossing->port;
	struct snapshot *bridge = snapshot_of(slot);
	frame->hops = crossing->depth;
	charge_to(&frame->flow, crossing->copy);
	frame->tags = crossing->tags;
	if (!bridge || !(bridge->ports[port & (MAX_PORTS - 1)].flags & PORT_PATCH)) {
		refuse(port, DROP_NOT_READY, frame->packets, walk->mode);
		return 1;
	}
	walk->bridge = bridge;
	if (walk->mode != RECORD)
		count_received(port, frame->packets, frame->bytes);
	carry_over(walk->skb, bridge, frame, number);
	u32 reason = enter(walk->skb, bridge, frame, slot, port, 0);
	refuse_frame(frame, reason, walk->mode);
	return 1;
}

/* One output of the uppermost level, or its end. */
INLINE void step_level(struct walk *walk)
{
	struct frame *frame = walk->frame;
	struct level *level = &frame->levels[(frame->depth - 1) & (MAX_LEVELS - 1)];
	enum turn turn;
	u32 paid = frame->stage >= LOOKING_UP && level->flood && level->mirror == NO_MIRROR;
	/* Flows pay for what they cause, mirrors never at the frame's cost. */
	if (!level->flood)
		turn = next_copy(walk->bridge, frame, walk->mode);
	else if (paid && !frame->flow.budget)
		turn = EXHAUSTED;
	else
		turn = next_flood(walk->bridge, frame);
	if (paid)
		spend(&frame->flow, 1);
	if (turn == ORDERED)
		output(walk->skb, walk->bridge, frame, walk->mode);
	if (turn == EXHAUSTED)
		frame->depth--;
}

INLINE void act_as_switch(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                          u32 mode)
{
	frame->stage = DONE;
	refuse_frame(frame, normal(skb, bridge, frame, mode), mode);
}

static long step(u32 turn, struct walk *walk)
{
	struct frame *frame = walk->frame;
	if (frame->depth)
		step_level(walk);
	else if (frame->stage == TO_NORMAL)
		act_as_switch(walk->skb, walk->bridge, frame, walk->mode);
	else if (frame->stage)
		refuse_frame(frame, step_flows(walk->skb, walk->bridge, frame, walk->mode),
		             walk->mode);
	else
		return !cross_over(walk);
	return 0;
}

/* Does all that there is to do. Most frames cause a single output and need no loop. */
INLINE void work_off(struct __sk_buff *skb, struct snapshot *bridge, struct frame *frame, u32 mode)
{
	if (frame->stage == TO_NORMAL && !frame->depth)
		act_as_switch(skb, bridge, frame, mode);
	if (!frame->depth && !frame->stage && !frame->crossings)
		return;
	struct walk walk = {skb, bridge, frame, mode};
	bpf_loop(1 << 17, step, &walk, 0);
}
