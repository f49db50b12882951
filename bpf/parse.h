// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* From bytes to a struct frame. */
#pragma once
#include "count.h"
#include "frame.h"

/* Finds the outermost tag, beside the data or in it: real drivers give the one, test runs the
 * other (kernel facts, "Lifetime"). */
INLINE u32 parse_tag(struct __sk_buff *skb, const u8 *data, struct frame *frame)
{
	u16 tpid = data[12] << 8 | data[13], tci = 0;
	frame->raw = frame->wire = (struct tags){};
	if (skb->vlan_present) {
		tpid = swap16(skb->vlan_proto);
		tci = skb->vlan_tci;
	} else if (tpid == 0x8100 || tpid == 0x88a8) {
		if (bpf_skb_load_bytes(skb, 14, &tci, 2))
			return DROP_MALFORMED;
		tci = swap16(tci);
	} else {
		return DELIVERED;
	}
	frame->raw.number = 1;
	frame->raw.tpid[0] = tpid;
	frame->raw.tci[0] = tci;
	/* No VLAN and no priority is no tag; the drop-eligible bit is not understood. */
	tci &= 0xefff;
	if (tci) {
		frame->wire.number = 1;
		frame->wire.tpid[0] = tpid;
		frame->wire.tci[0] = tci;
	}
	return DELIVERED;
}

/* Returns a reason to drop it, or DELIVERED. */
INLINE u32 parse(struct __sk_buff *skb, struct frame *frame)
{
	u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + 14 > end)
		return DROP_MALFORMED;
	__builtin_memcpy(frame->target.mac, data, 6);
	__builtin_memcpy(frame->source.mac, data + 6, 6);
	return parse_tag(skb, data, frame);
}
