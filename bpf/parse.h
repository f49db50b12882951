// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* From bytes to a struct frame. */
#pragma once
#include "count.h"
#include "frame.h"

INLINE void add_tag(struct frame *frame, u16 tpid, u16 tci)
{
	u32 place = frame->raw.number & 1;
	frame->raw.tpid[place] = frame->wire.tpid[place] = tpid;
	frame->raw.tci[place] = tci;
	frame->wire.tci[place] = tci & 0xefff; /* the drop-eligible bit is not understood */
	frame->raw.number = frame->wire.number = place + 1;
}

/* Finds up to `limit` tags, beside the data or in it: real drivers give the one, test runs the
 * other (kernel facts, "Lifetime"). */
INLINE u32 parse_tags(struct __sk_buff *skb, u16 type, u32 limit, struct frame *frame)
{
	frame->raw = frame->wire = (struct tags){};
	if (skb->vlan_present)
		add_tag(frame, swap16(skb->vlan_proto), skb->vlan_tci);
	for (u32 offset = 14; offset <= 18; offset += 4) {
		u16 words[2];
		if ((type != 0x8100 && type != 0x88a8) || frame->raw.number >= limit)
			break;
		if (bpf_skb_load_bytes(skb, offset, words, 4))
			return DROP_MALFORMED;
		add_tag(frame, type, swap16(words[0]));
		type = swap16(words[1]);
	}
	frame->deeper = type == 0x8100 || type == 0x88a8;
	/* No VLAN and no priority is no tag. */
	if (frame->wire.number == 1 && !frame->wire.tci[0])
		frame->wire.number = 0;
	return DELIVERED;
}

/* Returns a reason to drop it, or DELIVERED. */
INLINE u32 parse(struct __sk_buff *skb, u32 limit, struct frame *frame)
{
	u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + 14 > end)
		return DROP_MALFORMED;
	__builtin_memcpy(frame->target.mac, data, 6);
	__builtin_memcpy(frame->source.mac, data + 6, 6);
	return parse_tags(skb, data[12] << 8 | data[13], limit, frame);
}
