// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The recording: what SEND would do, decision by decision (design, "Recording"). */
#pragma once
#include "frame.h"
#include "vlan.h"

INLINE struct event *next_event(void)
{
	u32 zero = 0;
	struct record *record = bpf_map_lookup_elem(&records, &zero);
	if (!record)
		return 0;
	u32 number = record->count++;
	return number < MAX_EVENTS ? &record->events[number] : 0;
}

INLINE void record(u32 kind, u32 reason, u32 port, u32 vlan)
{
	struct event *event = next_event();
	if (!event)
		return;
	event->kind = kind;
	event->reason = reason;
	event->port = port;
	event->mirror = NO_MIRROR;
	event->vlan = vlan;
}

/* A step through flow tables. */
INLINE void record_step(u32 kind, u32 what, u32 number)
{
	struct event *event = next_event();
	if (!event)
		return;
	event->kind = kind;
	event->reason = DELIVERED;
	event->port = what;
	event->mirror = NO_MIRROR;
	event->vlan = 0;
	event->length = number;
}

/* The frame as it would leave: made so in fact, then its first bytes. */
FUNCTION int record_output(struct __sk_buff *skb, struct frame *frame, u32 reason, u32 cut)
{
	struct event *event = next_event();
	if (!event || !frame)
		return 0;
	const struct order *order = &frame->order;
	const struct tags *want = fits(frame, &order->tags) ? &frame->raw : &order->tags;
	event->kind = EVENT_OUTPUT;
	event->reason = retag(skb, frame->raw.number, want) ?: reason;
	event->port = order->port;
	event->mirror = order->mirror;
	event->vlan = 0;
	event->tag_present = skb->vlan_present;
	event->tag_tpid = swap16(skb->vlan_proto);
	event->tag_tci = skb->vlan_tci;
	u32 length = skb->len, budget = cut - (event->tag_present ? 4 : 0);
	if (cut && length > budget)
		length = budget;
	event->length = length;
	if (length > IMAGE_BYTES)
		length = IMAGE_BYTES;
	event->image_length = length;
	HOLD(length);
	if ((int)length > 0) /* before Linux 6.8 "not 0" tells the verifier nothing */
		bpf_skb_load_bytes(skb, 0, event->image, length);
	retag(skb, want->number, &frame->raw); /* headers are where they were */
	return 0;
}
