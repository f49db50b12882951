// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The mark by which the far end of the segmenter knows whose copy a frame is, and for which port:
 * it survives segmentation and the way through the pair, within one namespace. */
#pragma once
#include "types.h"

#define SEGMENT_MARK 0x80000000u

INLINE u32 segment_mark(u32 slot, u32 port)
{
	return SEGMENT_MARK | (slot & (MAX_MIRROR_SLOTS - 1)) << 10 | (port & (MAX_PORTS - 1));
}

INLINE u32 marked_slot(u32 mark)
{
	return (mark >> 10) & (MAX_MIRROR_SLOTS - 1);
}

INLINE u32 marked_port(u32 mark)
{
	return mark & (MAX_PORTS - 1);
}
