// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The two ends of the segmenter: what goes in with a mark, and what is done with each frame of the
 * wire that comes out (segment.h). */
#pragma once
#include "receive.h"
#include "untunnel.h"

/* The instruction for a frame that leaves by this device, 0 if there is none. */
INLINE struct instruction *take_instruction(struct __sk_buff *skb)
{
	u32 zero = 0;
	struct instruction *instruction = bpf_map_lookup_elem(&instructions, &zero);
	if (!instruction || !instruction->active || instruction->ifindex != skb->ifindex)
		return 0;
	instruction->active = 0;
	return instruction;
}

INLINE u32 packets_of(struct __sk_buff *skb)
{
	u32 packets, bytes, longest;
	measure(skb, &packets, &bytes, &longest);
	return packets;
}

/* Counts a frame into the segmenter, or out of it. */
INLINE void count_passage(u32 mark, u32 handed, u32 arrived)
{
	u32 number = marked_port(mark), slot = marked_slot(mark);
	struct port_counters *port = port_counters(number);
	struct mirror_counters *mirror = bpf_map_lookup_elem(&mirror_stats, &slot);
	if (port) {
		port->handed += handed;
		port->arrived += arrived;
	}
	if (mirror && mark & MARK_COPY) {
		mirror->handed += handed;
		mirror->arrived += arrived;
	}
}

/* How much of a marked copy is wanted: 0 for all of it, or ~0 if its mirror is gone. */
INLINE u32 marked_snaplen(u32 mark)
{
	u32 slot = marked_slot(mark);
	if (!(mark & MARK_COPY) || mark & MARK_WHOLE)
		return 0;
	struct snapshot *bridge = snapshot_of(slot / MAX_MIRRORS);
	const struct mirror *mirror = bridge ? &bridge->mirrors[slot % MAX_MIRRORS] : 0;
	return mirror && mirror->same ? mirror->snaplen : ~0u;
}

INLINE int send_into_tunnel(struct __sk_buff *skb, u32 mark)
{
	u32 snaplen = marked_snaplen(mark);
	if (snaplen != ~0u)
		return enter_tunnel(skb, mark, snaplen);
	account(mark, DROP_NOT_READY, 1, 0);
	return DROP;
}

/* One frame of the wire of a mirror's copy is cut and handed over. It is ours, so cutting it harms
 * nobody. */
INLINE int deliver_segment(struct __sk_buff *skb, u32 mark)
{
	u32 number = marked_port(mark), reason = DROP_NOT_READY;
	u32 snaplen = mark & MARK_COPY ? marked_snaplen(mark) : skb->tc_index;
	struct snapshot *bridge = snapshot_of(marked_slot(mark) / MAX_MIRRORS);
	const struct port *port = bridge ? &bridge->ports[number & (MAX_PORTS - 1)] : 0;
	if (port && port->ifindex && snaplen != ~0u)
		reason = snaplen ? cut(skb, cut_length(skb, snaplen)) : DELIVERED;
	u32 length = skb->len + (skb->vlan_present ? 4 : 0);
	skb->mark = 0; /* it was ours; the receiver's firewall shall not see it */
	if (reason == DELIVERED && port)
		reason = outcome(bpf_clone_redirect(skb, port->ifindex, 0));
	account(mark, reason, 1, length);
	return DROP;
}

/* A packet that may be for a tunnel port: its frame comes in by that port, or the host has it. One
 * that is not yet a frame of the wire becomes one in the segmenter first. */
INLINE int leave_tunnel(struct __sk_buff *skb, u32 segmented)
{
	u32 zero = 0;
	struct outer *outer = bpf_map_lookup_elem(&outers, &zero);
	const struct underlay *all = underlay_now();
	if (!outer || !all)
		return segmented ? DROP : NEXT;
	*outer = (struct outer){};
	u32 reason = read_outer(skb, all, outer), number = outer->owner.port;
	if (reason == NOT_OURS)
		return segmented ? DROP : NEXT;
	if (reason)
		return refuse(number, reason, packets_of(skb), SEND);
	if (!segmented && (skb->gso_size || checksum_pending(skb))) {
		skb->mark = MARKED | MARK_DECAPSULATE | (number & MARK_PORT);
		return bpf_redirect(all->segmenter, 0);
	}
	reason = check(skb, all, outer, segmented) ?: decapsulate(skb, outer);
	if (reason)
		return refuse(number, reason, 1, SEND);
	return receive(skb, outer->owner.bridge, number, SEND);
}
