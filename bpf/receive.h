// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A frame is in a port: into its bridge, perhaps through patch ports into others, and out. */
#pragma once
#include "work.h"

/* The frame itself goes last: as a redirect it costs no clone, and its tags may be changed. */
INLINE int depart(struct __sk_buff *skb, struct frame *frame)
{
	struct tags tags = frame->departure.tags;
	u32 ifindex = frame->departure_ifindex, mark = frame->departure_mark;
	if (!fits(frame, &tags) && retag(skb, frame->raw.number, &tags)) {
		count_departure(frame, DROP_RETAG);
		return DROP;
	}
	count_departure(frame, DELIVERED);
	if (mark) {
		skb->mark = mark;
		skb->tc_index = frame->departure.annotation;
	}
	return frame->departs > 1 ? bpf_redirect_peer(ifindex, 0) : bpf_redirect(ifindex, 0);
}

INLINE void begin(struct __sk_buff *skb, struct frame *frame)
{
	frame->visited = 0;
	frame->hops = 0;
	frame->crossed = 0;
	frame->crossings = 0;
	frame->outputs = 0;
	frame->depth = 0;
	frame->departs = 0;
	frame->stage = DONE;
	frame->refused = 0;
	frame->flow.ready = 0;
	frame->flow.changed = 0;
	frame->flow.budget = frame->flow.other_budget = frame->flow.copies = FLOW_BUDGET;
	frame->flow.for_copy = 0;
	frame->flow.candidate = NO_RULE;
	measure(skb, &frame->packets, &frame->bytes, &frame->segment);
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
	begin(skb, frame);
	if (mode == SEND)
		count_received(number, frame->packets, frame->bytes);
	u32 reason = parse(skb, bridge->vlan_limit, frame);
	if (reason)
		return refuse(number, reason, frame->packets, mode);
	if (mode == RECORD) {
		struct tags tags = frame->raw;
		retag(skb, tags.number,
		      &tags); /* as record_output() leaves them: beside the data */
	}
	frame->tags = frame->wire;
	refuse_frame(frame, enter(skb, bridge, frame, slot, number, port->source), mode);
	work_off(skb, bridge, frame, mode);
	if (!frame->refused && !frame->departs && !frame->outputs && mode == SEND)
		refuse(number, DROP_NO_PORT, frame->packets, mode);
	/* What departs may also be a copy that another bridge has forwarded. */
	return frame->departs ? depart(skb, frame) : DROP;
}

/* A controller's frame, for `count` ops of a bridge's store from number `first` on; `ofport` is
 * where it claims to have come in. It is not the kernel's, so all of it leaves as clones. */
INLINE int send_packet_out(struct __sk_buff *skb, u32 store, u32 ofport, u32 first, u32 count)
{
	u32 which = PACKET_OUT, slot = store / 2;
	struct frame *frame = bpf_map_lookup_elem(&frames, &which);
	struct snapshot *bridge = snapshot_of(slot);
	if (!frame || !bridge || bridge->flags & BRIDGE_NO_FORWARDING)
		return DROP;
	begin(skb, frame);
	if (parse(skb, bridge->vlan_limit, frame))
		return DROP;
	struct flow *flow = &frame->flow;
	frame->tags = frame->wire;
	frame->bridge = slot;
	frame->store = store;
	frame->visited = 1ull << (slot & (MAX_BRIDGES - 1));
	*done_set(frame) = 0;
	u32 number = port_of(bridge, ofport);
	frame->entry = frame->port = number;
	frame->protected = 0;
	/* One that names its port is mirrored as if it had come in there (rule 6). */
	if (number < MAX_PORTS)
		select_mirrors(bridge, frame, bridge->ports[number].source, number, 0,
		               &frame->wire);
	begin_flows(skb, bridge, frame);
	set_in_port(flow, ofport);
	flow->pc = first;
	flow->end = first + count;
	if (frame->stage)
		frame->stage = RUNNING;
	work_off(skb, bridge, frame, SEND);
	flush(skb, frame);
	return DROP;
}
