// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One frame on its way: what is known of it, and the work still to do for it. Kept in a per-CPU
 * map, because the verifier grants 512 bytes of stack. */
#pragma once
#include "flow_types.h"
#include "maps.h"
#include "vlan.h"

/* SEND acts; RECORD writes down what SEND would do, and neither sends, counts nor learns. Always a
 * constant of the entry point. */
enum mode { SEND, RECORD, MODES };

/* A packet-out has a place of its own: on older kernels a frame that is received may interrupt it.
 */
enum { PACKET_OUT = MODES, FRAMES };

/* What is to be done with the frame in the bridge it is in, once its levels are worked off. */
enum stage { DONE, TO_NORMAL, LOOKING_UP, RUNNING };

enum flood { NO_FLOOD, VLAN_FLOOD, PORT_FLOOD, ALL_PORTS };

enum {
	MAX_LEVELS = 128,    /* the done-set ends nesting at 66; a power of two for the verifier */
	MAX_CROSSINGS = 64,  /* passages of one frame through patch ports */
	MAX_PATCH_DEPTH = 8, /* of them one after the other */
};

/* Work at one depth: a flood, or the mirrors that are eligible for one image of the frame. */
struct level {
	u32 candidates; /* mirrors still to be tried */
	u8 flood;       /* enum flood */
	u8 padding;
	u16 annotation;   /* segment.h */
	u16 next;         /* port to try next in a flood */
	u16 mirror;       /* whose copy is flooded (RSPAN), or NO_MIRROR: the frame itself */
	u16 snaplen;      /* of that copy */
	struct tags tags; /* of the image, inside the switch */
};

/* What a look at a level brought: nothing is left, something is ordered, look again. */
enum turn { EXHAUSTED, ORDERED, AGAIN };

/* What output() is to do. */
struct order {
	u16 port;
	u16 mirror; /* whose copy it is, or NO_MIRROR */
	u16 snaplen;
	u16 annotation;
	u8 last;          /* it may wait, to be sent itself and not as a clone if nothing follows */
	u8 as_is;         /* `tags` are those on the wire (rule 76) */
	struct tags tags; /* inside the switch; output() makes them those on the wire */
};

/* The frame, or a copy, on its way into the bridge at the other end of a patch port. */
struct crossing {
	u16 bridge;
	u16 port;
	u16 depth;
	u8 keyed;         /* flows know the frame: its key is kept */
	u8 copy;          /* it is a mirror's, or was copied from one */
	struct tags tags; /* on the "wire" between the two */
};

/* The search for an entry of the MAC table that gives way to a new one. */
struct hunt {
	u32 slot; /* of the bridge */
	u32 now;
	u32 places; /* of its table */
	u32 all;    /* it is so small that every place is looked at */
	u32 found;
	u32 entries; /* of the victim's port; void entries come first, whosever they are */
	u32 age;
	struct fdb_place place;
	struct fdb_key victim;
};

/* Where to go on after a resubmit, a group or a clone. */
enum detour_kind { RESUBMIT, GROUP, CLONE, BUCKET };

struct detour {
	u32 pc;
	u32 end;
	u32 rule;
	u16 in_port;
	u8 table;
	u8 kind; /* enum detour_kind */
};

enum {
	HEAD_BYTES = 128, /* of a frame that are read at once */
	HEAD_SPACE = 256, /* a power of two for the verifier */
	NO_RULE = 0,
};

/* The frame as flow tables see it, and where it is in them. */
struct flow {
	u64 key[KEY_SPACE];
	u64 received[KEY_SPACE]; /* as it came, for bridges that it was on its way to before */
	u64 base[KEY_SPACE];     /* what its bytes say: rewrite() makes them equal to the key */
	u64 masked[16];          /* the words that the mask now tried looks at */
	u32 ready;               /* the key has been read */
	u32 changed;             /* and may differ from the bytes */
	u32 network;             /* offset of the network header, and of what it carries; 0: none */
	u32 transport;
	u32 packet_end; /* of the network packet */
	u32 routed;     /* a routing header hides the final destination from the checksum */
	u32 budget;
	u32 other_budget; /* of copies on their way through patch ports, or of the frame itself */
	u32 for_copy;     /* `budget` is that of copies */
	u32 copies;       /* that mirrors may still be given anew of the changed frame */
	u32 version;      /* of the store, for this frame in this bridge */
	u32 seed;
	u32 buckets;
	u32 bucket_mask;
	u32 next_mask; /* cell */
	u32 masks;     /* still to be tried */
	u32 best;      /* rule found so far */
	u32 best_priority;
	u32 candidate; /* to be compared in full; here, or the verifier follows each place it is
	                  from */
	u32 table;
	u32 quiet; /* not to find anything is no miss */
	u32 rule;  /* cell of the one whose ops run */
	u64 hash;  /* by which a group chooses */
	u32 group;
	u32 pc;
	u32 end;
	u32 depth;
	u32 saved;
	u32 leaving; /* by OP_EXIT */
	u32 missed;
	u32 reason;  /* that NORMAL did nothing */
	u32 outputs; /* of the frame, before it came here */
	struct detour detours[MAX_RESUBMITS];
	u64 saves[MAX_SAVES][KEY_SPACE];
	u64 crossings[MAX_CROSSINGS][KEY_SPACE];
	u8 head[HEAD_SPACE];
};

struct frame {
	struct tags raw;  /* its tag to the bit */
	struct tags wire; /* its tag as understood: VID and PCP, none if both are 0 */
	u32 deeper;       /* behind these is another tag, which is payload (rule 39) */
	struct tags tags; /* inside the switch */
	u32 bridge;       /* where it is now */
	u32 store;        /* the bridge's flow tables, for all of its time there */
	u32 entry;        /* the port it came in by */
	u32 port;         /* the same, unless a flow has said another */
	u32 stage;        /* enum stage */
	u32 refused;      /* by the bridge that it came in by, with a reason */
	u32 protected;    /* so is that */
	u32 packets;      /* of the wire */
	u32 bytes;
	u32 segment; /* length of the longest packet */
	u64 visited; /* bridges, a bit each */
	/* Mirrors whose destination has its copy, by bridge: kept for the whole way, so that none
	 * has two of one frame however often it comes back (rules 22, 25, 31; D9). */
	u32 done[MAX_BRIDGES];
	u32 hops;      /* patch ports passed on the way here */
	u32 crossed;   /* crossings done */
	u32 crossings; /* and ordered */
	u32 outputs;
	u32 depth;
	u32 departs; /* `departure` waits until another output comes: 1, to the peer of its device:
	                2 */
	struct order order;
	struct order departure;
	u32 departure_ifindex;
	u32 departure_mark; /* 0: none of ours */
	struct fdb_key source;
	struct fdb_key target;
	struct fdb_value fresh; /* what is learned of the source */
	struct hunt hunt;
	struct level levels[MAX_LEVELS];
	struct crossing crossing[MAX_CROSSINGS];
	struct flow flow;
};

MAP(frames, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct frame, FRAMES, 0);

INLINE struct level *push_level(struct frame *frame)
{
	u32 depth = frame->depth;
	if (depth >= MAX_LEVELS)
		return 0;
	frame->depth = depth + 1;
	return &frame->levels[depth];
}

/* Whether the frame as received has these tags already. A tag that is none has to go (rule 40). */
INLINE int fits(const struct frame *frame, const struct tags *tags)
{
	return frame->raw.number == frame->wire.number && same_tags(tags, &frame->wire);
}

/* Takes steps off what flows may do with the frame. */
INLINE void spend(struct flow *flow, u32 steps)
{
	flow->budget -= flow->budget < steps ? flow->budget : steps;
}

/* Copies that pass patch ports have a budget of their own. */
INLINE void charge_to(struct flow *flow, u32 copy)
{
	if (flow->for_copy == copy)
		return;
	u32 budget = flow->budget;
	flow->budget = flow->other_budget;
	flow->other_budget = budget;
	flow->for_copy = copy;
}

INLINE u32 *done_set(struct frame *frame)
{
	return &frame->done[frame->bridge & (MAX_BRIDGES - 1)];
}
