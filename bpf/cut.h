// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Cutting a copy to its mirror's snaplen (section 9 of the semantics), in the egress program. */
#pragma once
#include "maps.h"
#include "vlan.h"

enum {
	TRIM = 84, /* more than any header that sets the kernel's floor, and a legal shrink */
	FLOOR_LIMIT = 80,    /* the kernel refuses to cut below at most this */
	HEAD_LIMIT = 16384,  /* of a frame that holds another, the most that is cut to */
	SHRINK_LIMIT = 4095, /* at once, by bpf_skb_adjust_room */
	IPV4 = 0x0800,
	IPV6 = 0x86dd,
};

/* Makes the kernel take the frame for IPv4, because of others it takes no header out. */
INLINE long pose_as_ipv4(struct __sk_buff *skb)
{
	u16 type = swap16(IPV4);
	return bpf_skb_store_bytes(skb, 12, &type, 2, 0) ?: retype(skb);
}

/* The kernel will not cut into headers that it has located. So save the head, take the network
 * header out, cut, and put the head back (kernel facts, "snaplen"). */
INLINE long cut_below_floor(struct __sk_buff *skb, u32 length)
{
	u8 head[FLOOR_LIMIT];
	u16 type = swap16(skb->protocol);
	if (length < 14)
		return -1;
	/* Or both are one comparison of a difference, which Linux 6.12 does not trace back. */
	HOLD(length);
	if (length > FLOOR_LIMIT)
		return -1;
	if (bpf_skb_load_bytes(skb, 0, head, length))
		return -1;
	if (type != IPV4 && type != IPV6 && pose_as_ipv4(skb))
		return -1;
	if (skb->len < 34 + TRIM + 64 && bpf_skb_change_tail(skb, skb->len + 128, 0))
		return -1;
	if (bpf_skb_adjust_room(skb, -TRIM, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO))
		return -1;
	if (bpf_skb_change_tail(skb, length, 0))
		return -1;
	return bpf_skb_store_bytes(skb, 0, head, length, 0);
}

/* Room for a head that the stack has none for. */
struct head {
	u8 bytes[HEAD_LIMIT];
};
MAP(heads, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct head, 1, 0);

struct shrink {
	struct __sk_buff *skb;
	u32 length;
};

static long shrink(u32 turn, struct shrink *job)
{
	u32 excess = job->skb->len - job->length;
	int step = excess < SHRINK_LIMIT ? excess : SHRINK_LIMIT;
	if (!step)
		return 1;
	return bpf_skb_adjust_room(job->skb, -step, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) !=
	       0;
}

/* The shortest that cut_in_the_middle can make: a network header must stay, behind a tag at most.
 */
INLINE u32 least_behind_header(struct __sk_buff *skb)
{
	u16 type = swap16(skb->protocol);
	return type == IPV4 ? 38 : type == IPV6 ? 58 : ~0u;
}

/* The kernel does not cut at its end, at all, a frame in which a guest's own tunnel has another. So
 * take what is too much out behind the network header, and put the head back over the rest. */
INLINE long cut_in_the_middle(struct __sk_buff *skb, u32 length)
{
	u32 zero = 0;
	struct head *head = bpf_map_lookup_elem(&heads, &zero);
	if (!head || length < 14)
		return -1;
	HOLD(length); /* as above */
	if (length > HEAD_LIMIT)
		return -1;
	if (bpf_skb_load_bytes(skb, 0, head->bytes, length))
		return -1;
	struct shrink job = {skb, length};
	bpf_loop(16, shrink, &job, 0);
	if (skb->len != length)
		return -1;
	return bpf_skb_store_bytes(skb, 0, head->bytes, length, 0);
}

/* A tagged frame is never cut below 18 bytes (D12). */
INLINE u32 cut_length(struct __sk_buff *skb, u32 snaplen)
{
	return snaplen < 18 && skb->vlan_present ? 18 : snaplen;
}

FUNCTION u32 cut(struct __sk_buff *skb, u32 snaplen)
{
	/* The length does not count a tag beside the data. */
	u32 length = skb->vlan_present ? snaplen - 4 : snaplen;
	if (skb->len <= length)
		return DELIVERED;
	long error = bpf_skb_change_tail(skb, length, 0);
	if (error && length >= least_behind_header(skb))
		error = cut_in_the_middle(skb, length);
	else if (error)
		error = cut_below_floor(skb, length);
	return error ? DROP_CUT : DELIVERED;
}
