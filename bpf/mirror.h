// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Which mirrors take a frame (sections 1 to 3 of the semantics). */
#pragma once
#include "count.h"
#include "frame.h"
#include "record.h"
#include "segment.h"

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

/* Makes the mirrors of `set` that select this image, seen on `number` with these tags on the
 * wire, the next work. Cost does not depend on how many mirrors there are: one AND. */
INLINE void select_mirrors(const struct snapshot *bridge, struct frame *frame, u32 set, u32 number,
                           u16 leaving, const struct tags *wire)
{
	set &= ~*done_set(frame);
	if (!set)
		return;
	struct tags tags = *wire;
	if (!inward(bridge, &bridge->ports[number & (MAX_PORTS - 1)], number, &tags))
		return; /* rule 17 */
	set &= bridge->vlans[vid(&tags) & (MAX_VLANS - 1)].mirrors;
	if (!set)
		return;
	struct level *level = push_level(frame);
	if (!level) {
		count_drop(number, DROP_TOO_DEEP, frame->packets);
		return;
	}
	level->candidates = set;
	level->flood = NO_FLOOD;
	level->annotation = annotation(&tags, leaving);
	level->tags = tags;
}

INLINE void count_selection(const struct mirror *mirror, const struct frame *frame)
{
	u32 slot = mirror->slot;
	struct mirror_counters *counters = bpf_map_lookup_elem(&mirror_stats, &slot);
	if (!counters)
		return;
	counters->selected += frame->packets;
	counters->selected_bytes += frame->bytes;
}

INLINE void count_copy(u32 slot, u32 reason, u32 packets)
{
	struct mirror_counters *counters = bpf_map_lookup_elem(&mirror_stats, &slot);
	HOLD(reason);
	if (!counters || reason >= MAX_REASONS)
		return;
	if (reason == DELIVERED)
		counters->delivered += packets;
	else
		counters->drops[reason] += packets;
}

/* RSPAN: the copy is flooded in the mirror's VLAN, with its own inner tag and priority (rules 44
 * to 50). Nothing goes out for a frame of that VLAN, or one between neighbours. */
INLINE enum turn flood_copy(struct frame *frame, const struct mirror *mirror, u32 number,
                            const struct level *selected)
{
	const struct tags *tags = &selected->tags;
	u16 vlan = mirror->output_vlan;
	if (vid(tags) == vlan || reserved_mac(frame->target.mac))
		return AGAIN;
	struct level *level = push_level(frame);
	if (!level) {
		count_copy(mirror->slot, DROP_TOO_DEEP, frame->packets);
		return AGAIN;
	}
	level->flood = VLAN_FLOOD;
	level->next = 0;
	level->mirror = number;
	level->snaplen = mirror->snaplen;
	level->annotation = selected->annotation;
	level->tags = *tags;
	if (!tags->number)
		push_tag(&level->tags, 0x8100, 0);
	level->tags.tci[0] = (level->tags.tci[0] & 0xf000) | vlan;
	return AGAIN;
}

/* Orders the copy of the level's next mirror. */
FUNCTION enum turn next_copy(const struct snapshot *bridge, struct frame *frame, u32 mode)
{
	if (!bridge || !frame)
		return EXHAUSTED;
	struct level *level = &frame->levels[(frame->depth - 1) & (MAX_LEVELS - 1)];
	u32 candidates = level->candidates & ~*done_set(frame);
	if (!candidates)
		return EXHAUSTED;
	u32 number = __builtin_ctz(candidates) & (MAX_MIRRORS - 1);
	level->candidates = candidates & (candidates - 1);
	const struct mirror *mirror = &bridge->mirrors[number];
	/* Done before it is sent: so there is no loop and no second copy (rule 32). */
	*done_set(frame) |= mirror->same;
	/* A copy of an output VLAN's copy: that mirror's later ones go out whole (rule 83). */
	if (frame->depth > 1)
		frame->levels[(frame->depth - 2) & (MAX_LEVELS - 1)].snaplen = 0;
	if (mode == RECORD)
		record(EVENT_MIRROR, number, mirror->output_port, vid(&level->tags));
	else
		count_selection(mirror, frame);
	if (mirror->output_vlan)
		return flood_copy(frame, mirror, number, level);
	frame->order = (struct order){
	    .port = mirror->output_port,
	    .mirror = number,
	    .snaplen = mirror->snaplen,
	    .annotation = level->annotation,
	    .tags = level->tags,
	};
	return ORDERED;
}
