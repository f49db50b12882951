// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What a frame takes along through the segmenter: in skb->mark what is to be done with it at the
 * far end, and in skb->tc_index what an ERSPAN header says of it. Both survive segmentation and the
 * way through the pair, within one namespace. */
#pragma once
#include "vlan.h"

/* A mark of ours: MARKED | kind | flags | slot of the mirror | port. */
enum marks {
	MARK_PORT = MAX_PORTS - 1,
	MARK_SLOT_SHIFT = 10,
	MARK_DEPTH_SHIFT =
	    21, /* the packet has been in so many tunnels already, as TRAVELLED says */
	MARK_DEPTH = 3 << 21,
	MARK_OF_COPY = 1 << 24,
	MARK_WHOLE = 1 << 25,  /* the mirror's snaplen does not hold for this copy (rule 83) */
	MARK_COPY = 1 << 26,   /* a mirror's copy; else the frame itself, and there is no slot */
	MARK_DIRECT = 1 << 27, /* to be encapsulated without passing the pair, if it can be */
	MARK_CUT = 1 << 28,    /* what is to be done */
	MARK_ENCAPSULATE = 2 << 28,
	MARK_DECAPSULATE = 3 << 28,
	MARK_DEEDS = 7 << 28,
};
#define MARKED 0x80000000u

/* What a packet that left a tunnel port has in skb->mark, with how often and whether a copy is in
 * it: it may come back into the switch, by a LOCAL port say, and must not go round for ever. */
enum travelled {
	TRAVELLED = 0x48e11060,
	TRAVELLED_COPY = 4,
	TRAVELLED_DEPTH = 3,
	MAX_TRAVELS = 2, /* a tunnel through a tunnel has its uses */
};

INLINE u32 mark_copy(u32 slot, u32 port)
{
	return MARKED | MARK_COPY | (slot & (MAX_MIRROR_SLOTS - 1)) << MARK_SLOT_SHIFT |
	       (port & MARK_PORT);
}

/* Of a frame that a flow has cut: how much of it is wanted is in skb->tc_index, and the slot is the
 * first of its bridge. */
INLINE u32 mark_cut(u32 bridge, u32 port)
{
	u32 slot = (bridge * MAX_MIRRORS) & (MAX_MIRROR_SLOTS - 1);
	return MARKED | MARK_CUT | slot << MARK_SLOT_SHIFT | (port & MARK_PORT);
}

INLINE u32 marked_slot(u32 mark)
{
	return (mark >> MARK_SLOT_SHIFT) & (MAX_MIRROR_SLOTS - 1);
}

INLINE u32 marked_port(u32 mark)
{
	return mark & MARK_PORT;
}

/* What is known of a frame besides its bytes: class of service and VLAN as in a TCI, and in the bit
 * between whether a mirror took it as it left (D5). */
enum { LEAVING = 0x1000 };

INLINE u16 annotation(const struct tags *tags, u16 leaving)
{
	return (tags->priority & 0xe000) | leaving | vid(tags);
}
