// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Frames for controllers: by way of a ring buffer to user space. */
#pragma once
#include "home.h"
#include "output.h"

static long (*const bpf_ringbuf_output)(void *ring, void *data, u64 size,
                                        u64 flags) = (void *)BPF_FUNC_ringbuf_output;

struct capture {
	struct packet_in head;
	u8 bytes[MAX_CAPTURE];
};
MAP(captures, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct capture, 1, 0);

/* Puts the frame as it is now, its first `limit` bytes, into the ring. */
FUNCTION int capture(struct __sk_buff *skb, struct frame *frame, u32 op, u32 reason, u32 limit)
{
	u32 zero = 0;
	struct capture *capture = bpf_map_lookup_elem(&captures, &zero);
	if (!capture || !frame)
		return 0;
	const struct flow *flow = &frame->flow;
	u32 length = skb->len < limit ? skb->len : limit;
	if (length > MAX_CAPTURE)
		length = MAX_CAPTURE;
	HOLD(length);
	if ((int)length > 0 && bpf_skb_load_bytes(skb, 0, capture->bytes, length))
		return 0;
	struct packet_in *head = &capture->head;
	head->store = frame->store;
	head->rule = flow->rule;
	head->op = op;
	head->length = skb->len;
	head->captured = length;
	head->table = flow->table;
	head->reason = reason;
	head->tags = frame->raw.number - (skb->vlan_present ? 1 : 0);
	head->network = flow->network;
	head->transport = checksum_pending(skb) ? flow->transport : 0;
	copy_key(head->key, flow->key);
	return bpf_ringbuf_output(&packet_ins, capture, sizeof(*head) + length, 0) == 0;
}

INLINE void tell_controller(struct __sk_buff *skb, struct frame *frame, u32 op, u32 reason,
                            u32 limit, u32 mode)
{
	frame->outputs++;
	if (mode == RECORD)
		return;
	if (frame->flow.changed) {
		flush(skb, frame);
		rewrite(skb, frame);
	}
	if (!capture(skb, frame, op, reason, limit))
		count_drop(frame->entry, DROP_PACKET_IN, frame->packets);
}
