// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A frame is in a port: into its bridge, perhaps through patch ports into others, and out. */
#pragma once
#include "normal.h"
#include "parse.h"

enum { NEXT = -1, DROP = 2 }; /* verdicts of tcx; TCX_DROP is 2 */

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

/* The frame itself goes last: as a redirect it costs no clone, and its tags may be changed. */
INLINE int depart(struct __sk_buff *skb, struct frame *frame)
{
	struct tags tags = frame->departure.tags;
	u32 ifindex = frame->departure_ifindex, mark = frame->departure_mark;
	if (!fits(frame, &tags) && retag(skb, frame->raw.number, &tags))
		return refuse(frame->departure.port, DROP_RETAG, frame->packets, SEND);
	if (mark) {
		skb->mark = mark;
		skb->tc_index = frame->departure.annotation;
	}
	return frame->departs > 1 ? bpf_redirect_peer(ifindex, 0) : bpf_redirect(ifindex, 0);
}

INLINE void begin(struct frame *frame)
{
	frame->visited = 0;
	frame->hops = 0;
	frame->crossed = 0;
	frame->crossings = 0;
	frame->outputs = 0;
	frame->depth = 0;
	frame->departs = 0;
}

/* The frame is at the door of a bridge, with frame->tags as on the wire of the port: admit it,
 * mirror it (not if it comes from a patch port, rule 13), and act. */
INLINE u32 enter(struct __sk_buff *skb, struct snapshot *bridge, struct frame *frame, u32 slot,
                 u32 number, u32 sources, u32 mode)
{
	const struct port *port = &bridge->ports[number & (MAX_PORTS - 1)];
	struct tags wire = frame->tags;
	u64 visit = 1ull << (slot & (MAX_BRIDGES - 1));
	frame->bridge = slot;
	frame->port = number;
	if (!(frame->visited & visit))
		*done_set(frame) = 0;
	frame->visited |= visit;
	frame->protected = port->flags & PORT_PROTECTED;
	if (has_bit(bridge->reserved, number))
		return DROP_RESERVED_PORT;
	if (!inward(bridge, port, number, &frame->tags))
		return DROP_VLAN;
	frame->source.bridge = frame->target.bridge = slot;
	frame->source.vlan = frame->target.vlan = vid(&frame->tags);
	/* Copies as received before any output (rule 35), and whatever becomes of the frame
	 * (rule 4). */
	select_mirrors(bridge, frame, sources, number, 0, &wire);
	if (frame->depth)
		work_off(skb, bridge, frame, mode);
	u32 reason = normal(skb, bridge, frame, mode);
	if (frame->depth)
		work_off(skb, bridge, frame, mode);
	return reason;
}

/* Does the frame's next passage through a patch port. */
static long cross_over(u32 turn, struct walk *walk)
{
	struct frame *frame = walk->frame;
	u32 number = frame->crossed;
	if (number >= frame->crossings || number >= MAX_CROSSINGS)
		return 1;
	frame->crossed = number + 1;
	const struct crossing *crossing = &frame->crossing[number];
	u32 slot = crossing->bridge, port = crossing->port;
	struct snapshot *bridge = snapshot_of(slot);
	frame->hops = crossing->depth;
	frame->tags = crossing->tags;
	if (!bridge || !(bridge->ports[port & (MAX_PORTS - 1)].flags & PORT_PATCH)) {
		refuse(port, DROP_NOT_READY, frame->packets, walk->mode);
		return 0;
	}
	if (walk->mode == SEND)
		count_received(port, frame->packets, frame->bytes);
	u32 reason = enter(walk->skb, bridge, frame, slot, port, 0, walk->mode);
	if (reason)
		refuse(port, reason, frame->packets, walk->mode);
	return 0;
}

INLINE int receive(struct __sk_buff *skb, u32 slot, u32 number, u32 mode)
{
	u32 which = mode;
	struct frame *frame = bpf_map_lookup_elem(&frames, &which);
	struct snapshot *bridge = snapshot_of(slot);
	if (!frame || !bridge)
		return refuse(number, DROP_NOT_READY, 1, mode);
	const struct port *port = &bridge->ports[number & (MAX_PORTS - 1)];
	if (!port->ifindex ||
	    (mode == SEND && !(port->flags & PORT_TUNNEL) && port->ifindex != skb->ifindex))
		return refuse(number, DROP_NOT_READY, 1, mode);
	begin(frame);
	measure(skb, &frame->packets, &frame->bytes, &frame->segment);
	if (mode == SEND)
		count_received(number, frame->packets, frame->bytes);
	u32 reason = parse(skb, bridge->vlan_limit, frame);
	if (reason)
		return refuse(number, reason, frame->packets, mode);
	frame->recorded = frame->raw.number;
	frame->tags = frame->wire;
	reason = enter(skb, bridge, frame, slot, number, port->source, mode);
	if (frame->crossings) {
		struct walk walk = {skb, bridge, frame, mode};
		bpf_loop(MAX_CROSSINGS, cross_over, &walk, 0);
	}
	if (!reason && !frame->departs && !frame->outputs && mode == SEND)
		reason = DROP_NO_PORT;
	if (reason)
		refuse(number, reason, frame->packets, mode);
	/* What departs may also be a copy that another bridge has forwarded. */
	return frame->departs ? depart(skb, frame) : DROP;
}
