// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The headers of GRE, ERSPAN and VXLAN, between the outer IP header and the frame. */
#pragma once
#include "maps.h"
#include "segment.h"

enum {
	GRE_CHECKSUM = 0x8000,
	GRE_KEY = 0x2000,
	GRE_SEQUENCE = 0x1000,
	GRE_ETHERNET = 0x6558, /* transparent Ethernet bridging */
	GRE_ERSPAN_II = 0x88be,
	GRE_ERSPAN_III = 0x22eb,
	VXLAN_VNI_VALID = 0x08000000,
	SHORTEST_FRAME = 60,
	LONGEST_FRAME = 1514,
};

enum { HEADER_WORDS = 20 }; /* more than any outer headers have */

/* All that goes in front of a frame, from the Ethernet type on, in network byte order: stored at
 * once. Not on the stack, of which a frame's way up to here takes most. */
struct envelope {
	u32 count;
	u16 padding;
	u16 tag[2]; /* stored too if the frame has one beside its data (tunnel.h) */
	u16 type;
	u32 words[HEADER_WORDS];
	struct endpoint before; /* what the frame says that it has in front already */
};
MAP(envelopes, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct envelope, 1, 0);

INLINE void add(struct envelope *envelope, u32 word)
{
	u32 count = envelope->count;
	if (count < HEADER_WORDS)
		envelope->words[count] = swap32(word);
	envelope->count = count + 1;
}

INLINE u32 next_sequence(u32 number)
{
	u32 *next = bpf_map_lookup_elem(&sequences, &number);
	return next ? __sync_fetch_and_add(next, 1) : 0;
}

/* Bad, short or oversized (BSO): what is known of the frame as it was on the wire. */
INLINE u32 frame_fault(u32 length, u32 tagged)
{
	if (length < SHORTEST_FRAME)
		return 1;
	return length > LONGEST_FRAME + (tagged ? 4 : 0) ? 2 : 0;
}

/* What an ERSPAN header says of a frame; lengths with the tag. */
struct remark {
	u32 annotation; /* segment.h */
	u32 length;     /* before it was cut */
	u32 tagged;
	u32 truncated;
};

/* Rules 114 and 115, D5. */
INLINE void add_erspan(struct envelope *envelope, const struct underlay *all,
                       const struct tunnel *tunnel, u32 number, const struct remark *remark)
{
	u32 iii = tunnel->kind == ERSPAN_III, note = remark->annotation;
	u32 direction = tunnel->flags & TUNNEL_DIRECTION ? tunnel->direction : !!(note & LEAVING);
	/* en, that the frame has kept its tag; in version 2 BSO stands in its place. */
	u32 state = iii ? frame_fault(remark->length, remark->tagged) : remark->tagged ? 3 : 0;
	add(envelope, GRE_SEQUENCE << 16 | (iii ? GRE_ERSPAN_III : GRE_ERSPAN_II));
	add(envelope, next_sequence(number));
	add(envelope, (iii ? 2 : 1) << 28 | (note & 0xfff) << 16 | (note >> 13 & 7) << 13 |
	                  state << 11 | remark->truncated << 10 | (tunnel->key & 0x3ff));
	if (!iii) {
		add(envelope, tunnel->erspan_index & 0xfffff);
		return;
	}
	/* In units of 100 ns, the finest whose format is all in this header (granularity 1). */
	add(envelope, (bpf_ktime_get_tai_ns() - all->tai_offset * 1000000000ull) / 100);
	add(envelope, 1 << 15 | (tunnel->hwid & 0x3f) << 4 | (direction & 1) << 3 | 1 << 1);
}

/* Rules 104 and 107; 123. */
INLINE void add_shim(struct envelope *envelope, const struct underlay *all,
                     const struct tunnel *tunnel, u32 number, const struct remark *remark,
                     u32 inner, u32 hash)
{
	u32 flags = tunnel->flags;
	if (tunnel->kind == VXLAN) {
		/* The frame's flow picks the source port: from the range that Open vSwitch uses. */
		add(envelope, (32768 + ((u64)hash * 28233 >> 32)) << 16 | tunnel->dst_port);
		add(envelope, (16 + inner) << 16);
		add(envelope, VXLAN_VNI_VALID);
		add(envelope, tunnel->key << 8);
	} else if (tunnel->kind == GRE) {
		u32 fields = (flags & TUNNEL_CHECKSUM ? GRE_CHECKSUM : 0) |
		             (flags & TUNNEL_KEY ? GRE_KEY : 0) |
		             (flags & TUNNEL_SEQUENCE ? GRE_SEQUENCE : 0);
		add(envelope, fields << 16 | GRE_ETHERNET);
		if (flags & TUNNEL_CHECKSUM)
			add(envelope, 0);
		if (flags & TUNNEL_KEY)
			add(envelope, tunnel->key);
		if (flags & TUNNEL_SEQUENCE)
			add(envelope, next_sequence(number));
	} else {
		add_erspan(envelope, all, tunnel, number, remark);
	}
}

INLINE u32 shim_bytes(const struct tunnel *tunnel)
{
	if (tunnel->kind == VXLAN || tunnel->kind == ERSPAN_II)
		return 16;
	if (tunnel->kind == ERSPAN_III)
		return 20;
	return 4 + (tunnel->flags & TUNNEL_CHECKSUM ? 4 : 0) +
	       (tunnel->flags & TUNNEL_KEY ? 4 : 0) + (tunnel->flags & TUNNEL_SEQUENCE ? 4 : 0);
}
