// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One frame on its way: what is known of it, and the work still to do for it. Kept in a per-CPU
 * map, because the verifier grants 512 bytes of stack. */
#pragma once
#include "maps.h"

/* SEND acts; RECORD writes down what SEND would do, and neither sends, counts nor learns. Always a
 * constant of the entry point. */
enum mode { SEND, RECORD, MODES };

enum { MAX_LEVELS = 64 }; /* the done-set ends nesting at 34; a power of two for the verifier */

/* Work at one depth: a flood, or the mirrors that are eligible for one image of the frame. */
struct level {
	u32 candidates; /* mirrors still to be tried */
	u16 flood;
	u16 next;         /* port to try next in a flood */
	struct tags tags; /* of the image, inside the switch */
};

/* What a look at a level brought: nothing is left, something is ordered, look again. */
enum turn { EXHAUSTED, ORDERED, AGAIN };

/* What output() is to do. */
struct order {
	u16 port;
	u16 mirror; /* whose copy it is, or NO_MIRROR */
	u16 snaplen;
	u16 last;         /* nothing else needs the frame: it can be sent itself, not a clone */
	struct tags tags; /* inside the switch; output() makes them those on the wire */
};

struct frame {
	struct tags raw;  /* its tag to the bit */
	struct tags wire; /* its tag as understood: VID and PCP, none if both are 0 */
	struct tags tags; /* inside the switch */
	u32 bridge;
	u32 port;    /* it came in by */
	u32 packets; /* of the wire */
	u32 bytes;
	u32 segment; /* length of the longest packet */
	u32 done;    /* mirrors whose destination has its copy (rules 22, 25) */
	u32 outputs;
	u32 recorded; /* tags that are on it now, after the outputs recorded before */
	u32 depth;
	u32 departs; /* order `departure` waits until the copies are made */
	struct order order;
	struct order departure;
	struct fdb_key source;
	struct fdb_key target;
	struct level levels[MAX_LEVELS];
};

MAP(frames, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct frame, MODES, 0);

INLINE struct level *push_level(struct frame *frame)
{
	u32 depth = frame->depth;
	if (depth >= MAX_LEVELS)
		return 0;
	frame->depth = depth + 1;
	return &frame->levels[depth];
}
