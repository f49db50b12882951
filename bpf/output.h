// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The way out: every frame and every copy leaves through output(). */
#pragma once
#include "mirror.h"
#include "rewrite.h"
#include "segment.h"

/* What bpf_clone_redirect said (kernel facts, "Returns"). */
INLINE u32 outcome(long error)
{
	if (!error)
		return DELIVERED;
	if (error == -22 || error == -19)
		return DROP_NO_DEVICE;
	return error == 2 || error == -100 ? DROP_DEVICE_DOWN : DROP_REFUSED;
}

/* What the segmenter is to do with a frame: its near end's program counts it in, so that whatever
 * becomes of it there is known. */
struct errand {
	u32 mark; /* 0: it is not for the segmenter */
	u16 annotation;
};

/* Sends a clone, with an instruction for the target's egress program if the clone must differ
 * from the frame. The frame itself is never changed for a copy's sake. */
INLINE u32 send_clone(struct __sk_buff *skb, const struct frame *frame, const struct tags *tags,
                      u32 ifindex, u32 snaplen, struct errand errand)
{
	u32 zero = 0;
	struct instruction *instruction = bpf_map_lookup_elem(&instructions, &zero);
	if (!instruction)
		return DROP_UNTREATED;
	int same = fits(frame, tags), treat = snaplen || errand.mark || !same;
	instruction->result = DROP_REFUSED;
	if (treat) {
		instruction->ifindex = ifindex;
		instruction->pops = frame->raw.number;
		instruction->snaplen = snaplen;
		instruction->mark = errand.mark;
		instruction->tc_index = errand.annotation;
		instruction->tags = same ? frame->raw : *tags;
	}
	instruction->active = treat;
	long error = bpf_clone_redirect(skb, ifindex, 0);
	/* Stale if the hook did not run (kernel facts, "Copies"): cleared whatever the call said.
	 */
	u32 unread = instruction->active;
	instruction->active = 0;
	u32 reason = outcome(error);
	if (errand.mark && !unread)
		return DELIVERED;
	if (reason == DELIVERED && unread)
		return DROP_UNTREATED;
	return reason == DROP_REFUSED ? instruction->result : reason;
}

INLINE u32 slot_of(const struct snapshot *bridge, const struct order *order)
{
	return bridge->mirrors[order->mirror & (MAX_MIRRORS - 1)].slot;
}

/* Sends what is to be cut of a super-frame through the segmenter, a pair of devices of ours: its
 * near end, by having no offloads, makes the kernel cut it into frames of the wire with valid
 * checksums, its far end cuts each of those and delivers it (D10): to the mirror's snaplen, or to
 * the length that a flow said. */
INLINE u32 send_segments(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame)
{
	const struct order *order = &frame->order;
	struct errand errand = {mark_cut(frame->bridge, order->port), order->snaplen};
	if (order->mirror != NO_MIRROR)
		errand.mark = mark_copy(slot_of(bridge, order), order->port) | MARK_CUT;
	return send_clone(skb, frame, &order->tags, bridge->segmenter, 0, errand);
}

/* Whether a frame may be encapsulated at once. Not for a while after a super-frame from the same
 * port, which takes the longer way through the segmenter: it would overtake that. */
INLINE u32 may_be_direct(const struct frame *frame)
{
	u32 number = frame->port, now = bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
	u32 *seen = bpf_map_lookup_elem(&super_seen, &number);
	if (!seen)
		return 0;
	if (frame->packets > 1 && *seen != now)
		*seen = now;
	return frame->packets == 1 && now - *seen > 1;
}

/* What the mark of a frame for a tunnel port says of tunnels behind it; 0 if there were none, ~0 if
 * it would go round: a copy of a copy's packet, or a frame that is wrapped up already. */
INLINE u32 travels(u32 mark, const struct order *order)
{
	u32 depth = mark & TRAVELLED_DEPTH, copy = mark & TRAVELLED_COPY;
	if ((mark & ~(TRAVELLED_COPY | TRAVELLED_DEPTH)) != TRAVELLED)
		return 0;
	if (depth >= MAX_TRAVELS || (copy && order->mirror != NO_MIRROR))
		return ~0u;
	return depth << MARK_DEPTH_SHIFT | (copy ? MARK_OF_COPY : 0);
}

/* How much longer than received the frame is with these tags. */
INLINE int tag_bytes(const struct frame *frame, const struct tags *tags)
{
	return fits(frame, tags) ? 0 : 4 * tags->number - 4 * frame->raw.number;
}

INLINE void count_departure(const struct frame *frame, u32 reason)
{
	u32 bytes = frame->bytes + frame->packets * tag_bytes(frame, &frame->departure.tags);
	if (reason || !frame->departure_mark) /* else it is counted when it is encapsulated */
		count_delivery(frame->departure.port, reason, frame->packets, bytes);
}

/* Sends what waits, as a clone: the frame itself is needed once more. */
FUNCTION int flush(struct __sk_buff *skb, struct frame *frame)
{
	if (!frame || !frame->departs)
		return 0;
	frame->departs = 0;
	struct errand errand = {frame->departure_mark, frame->departure.annotation};
	u32 reason =
	    send_clone(skb, frame, &frame->departure.tags, frame->departure_ifindex, 0, errand);
	count_departure(frame, reason);
	return 0;
}

/* Keeps the order back: if no other output follows, it costs no clone. */
INLINE void wait(struct frame *frame, u32 ifindex, u32 mark, u32 how)
{
	frame->departure = frame->order;
	frame->departure_ifindex = ifindex;
	frame->departure_mark = mark;
	frame->departs = how;
}

/* To a tunnel port: by way of the segmenter, where it is encapsulated (tunnel.h) and counted. */
INLINE u32 send_to_tunnel(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                          u32 cut)
{
	const struct order *order = &frame->order;
	u32 ifindex = bridge->ports[order->port & (MAX_PORTS - 1)].ifindex;
	u32 mark = MARKED | (order->port & MARK_PORT), before = travels(skb->mark, order);
	if (before == ~0u)
		return DROP_LOOP;
	if (order->mirror != NO_MIRROR)
		mark = mark_copy(slot_of(bridge, order), order->port);
	mark |= before | MARK_ENCAPSULATE | (order->snaplen ? 0 : MARK_WHOLE);
	if (may_be_direct(frame))
		mark |= MARK_DIRECT;
	if (order->last) {
		wait(frame, ifindex, mark, 1);
		return DELIVERED;
	}
	struct errand errand = {mark, order->annotation};
	/* A mirror's cut is made where the frame is encapsulated; a flow's (max_len) before. */
	u32 limit = order->mirror == NO_MIRROR ? cut : 0;
	return send_clone(skb, frame, &order->tags, ifindex, limit, errand);
}

/* Counts one hand-over. A super-frame that was cut as a whole is one packet; its other segments
 * are lost, and said to be. */
INLINE void count_output(const struct snapshot *bridge, const struct frame *frame, u32 reason,
                         u32 cut)
{
	const struct order *order = &frame->order;
	u32 packets = cut ? 1 : frame->packets;
	u32 bytes = frame->bytes + packets * tag_bytes(frame, &order->tags);
	u32 slot = slot_of(bridge, order);
	count_delivery(order->port, reason, packets, cut ? cut : bytes);
	if (order->mirror == NO_MIRROR) {
		if (cut && frame->packets > 1)
			count_drop(order->port, DROP_SUPER_FRAME, frame->packets - 1);
		return;
	}
	count_copy(slot, reason, packets);
	if (cut && frame->packets > 1)
		count_copy(slot, DROP_SUPER_FRAME, frame->packets - 1);
}

/* Whether frames from where this one came in may not go out by a port (rule 77). */
INLINE int apart(const struct snapshot *bridge, const struct frame *frame, u32 number)
{
	const struct port *port = &bridge->ports[number & (MAX_PORTS - 1)];
	return frame->protected && port->flags & PORT_PROTECTED;
}

/* What forbids the order from the start: then there are no egress mirrors either (rules 8, 43).
 * A port that has no device is no port. */
INLINE u32 prerequisite(const struct snapshot *bridge, const struct frame *frame)
{
	const struct port *port = &bridge->ports[frame->order.port & (MAX_PORTS - 1)];
	if (apart(bridge, frame, frame->order.port))
		return DROP_PROTECTED;
	if (port->flags & PORT_NO_FORWARD)
		return DROP_NO_FORWARD;
	if (!(port->flags & PORT_PATCH))
		return port->ifindex ? DELIVERED : DROP_NO_DEVICE;
	if (frame->order.snaplen)
		return DROP_PATCH_SNAPLEN; /* rule 81 */
	if (frame->hops >= MAX_PATCH_DEPTH || frame->crossings >= MAX_CROSSINGS)
		return DROP_TOO_DEEP;
	return DELIVERED;
}

/* A patch port: the frame goes on in the peer's bridge, once this one is through with it. */
INLINE void cross(struct frame *frame, const struct port *port)
{
	u32 number = frame->crossings;
	if (number >= MAX_CROSSINGS)
		return;
	frame->crossings = number + 1;
	struct crossing *crossing = &frame->crossing[number];
	crossing->bridge = port->peer_bridge;
	crossing->port = port->peer_port;
	crossing->depth = frame->hops + 1;
	crossing->tags = frame->order.tags;
	crossing->keyed = frame->flow.ready;
	crossing->copy = frame->flow.for_copy || frame->order.mirror != NO_MIRROR;
	if (frame->flow.ready)
		copy_key(frame->flow.crossings[number & (MAX_CROSSINGS - 1)], frame->flow.key);
}

/* Whether the frame may be put straight into the namespace of the port's peer: bpf_redirect_peer
 * makes the host there take it for its own, whatever address it is for. */
INLINE u32 for_peer(const struct port *port, const u8 *mac)
{
	if (!(port->flags & PORT_PEER_ELSEWHERE))
		return 0;
	u32 differs = 0;
	for (u32 i = 0; i < 6; i++)
		differs |= port->peer_mac[i] ^ mac[i];
	return !differs;
}

INLINE u32 cut_of(const struct frame *frame)
{
	const struct order *order = &frame->order;
	if (!order->snaplen || frame->segment + tag_bytes(frame, &order->tags) <= order->snaplen)
		return 0;
	int tagged = order->tags.number || frame->deeper;
	return order->snaplen < 18 && tagged ? 18 : order->snaplen; /* D12 */
}

/* Carries out frame->order: prerequisites, VLAN form, egress mirrors, hand-over. */
FUNCTION int output(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                    u32 mode)
{
	if (!bridge || !frame)
		return 0;
	struct order *order = &frame->order;
	u32 number = order->port & (MAX_PORTS - 1);
	const struct port *port = &bridge->ports[number];
	if (!order->as_is)
		outward(port, &order->tags);
	u32 cut = cut_of(frame), reason = prerequisite(bridge, frame);
	/* An egress mirror never fires for a patch port (rule 13). */
	if (reason == DELIVERED && !(port->flags & PORT_PATCH))
		select_mirrors(bridge, frame, port->destination, number, LEAVING, &order->tags);
	if (reason == DELIVERED && port->flags & PORT_PATCH)
		cross(frame, port);
	frame->outputs += order->mirror == NO_MIRROR;
	if (order->mirror == NO_MIRROR && frame->stage >= LOOKING_UP)
		spend(&frame->flow, OUTPUT_STEPS);
	else if (order->mirror != NO_MIRROR && frame->flow.copies)
		frame->flow.copies--;
	/* What waits goes before other outputs, also of copies to its port (rule 35), and with the
	 * bytes as they are. */
	if (reason == DELIVERED && !(port->flags & PORT_PATCH)) {
		if (frame->departs && (frame->flow.changed || order->mirror == NO_MIRROR ||
		                       frame->departure.port == number))
			flush(skb, frame);
		if (frame->flow.changed)
			rewrite(skb, frame);
	}
	if (mode == RECORD)
		return record_output(skb, frame, reason, cut);
	if (reason == DELIVERED && port->flags & PORT_TUNNEL) {
		if (cut && order->mirror == NO_MIRROR && frame->packets > 1)
			count_drop(number, DROP_SUPER_FRAME, frame->packets - 1);
		reason = send_to_tunnel(skb, bridge, frame, cut);
		cut = 0;
		if (reason == DELIVERED)
			return 0; /* counted when it is encapsulated */
	} else if (reason == DELIVERED && cut && frame->packets > 1 && bridge->segmenter) {
		reason = send_segments(skb, bridge, frame);
		cut = 0;
		if (reason == DELIVERED)
			return 0; /* its segments are counted when they are delivered */
	} else if (reason == DELIVERED && !(port->flags & PORT_PATCH)) {
		if (order->last) {
			wait(frame, port->ifindex, 0, 1 + for_peer(port, frame->target.mac));
			return 0; /* counted when it goes */
		}
		reason =
		    send_clone(skb, frame, &order->tags, port->ifindex, cut, (struct errand){});
	}
	count_output(bridge, frame, reason, cut);
	return 0;
}
