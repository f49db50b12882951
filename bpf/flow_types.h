// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Flow tables as they lie in a bridge's store, and what they tell user space. No logic.
 *
 * A store is an array of cells of 128 bytes, an inner map of `flow_stores` that user space writes
 * through mmap and the program only counts in. Cell 0 is the header, cells 1 to MAX_TABLES the
 * tables; all others are where the cells that lead to them say.
 *
 * A frame reads the header's `version` once, when it comes to the tables. Everything that a change
 * brings is written with a version that is not yet, then `version` is raised in one store: so
 * a frame sees a change, however large, whole or not at all. What a change has put out of use is
 * overwritten only when no frame can be on its way with the version before. */
#pragma once
#include "helpers.h"

enum flow_limits {
	MAX_TABLES = 64,
	MAX_MASK_WORDS = 10, /* words of the key that one flow may look at */
	BLOCK_CELLS = 8,
	BUCKET_RULES = 15,
	CELL_OPS = 4,
	GROUP_FORMS = 10,
	FLOW_BUDGET = 4096,  /* masks tried, ops done and outputs made for one frame */
	MAX_RESUBMITS = 64,  /* in one another, of clones, groups and resubmits */
	MAX_SAVES = 8,       /* of clones and buckets of groups in one another */
	MAX_CAPTURE = 16384, /* bytes of a frame that go to a controller */
	NEVER = 0xffffffff,  /* version in which a rule that stays is removed */
	OUTPUT_STEPS = 2,    /* that each output costs more */
	SAME_PORT = 0xffff,
	OFPP_NONE = 0xffff, /* not a port, where a controller's frame comes from */
	OFPP_CONTROLLER = 0xfffd,
	SAME_TABLE = 0xff,
};

/* The key: what flows look at, in words of 64 bits, numbers as such. */
enum key_word {
	KEY_PORT, /* in_port << 32 | eth_type << 16 | vlan_tci, with 0x1000 where there is a tag */
	KEY_ETH_DST, /* eth_dst << 16 | nw_proto (or arp_op) << 8 | ip_frag */
	KEY_ETH_SRC, /* eth_src << 16 | tos << 8 | ttl */
	KEY_IPV4,    /* ip_src << 32 | ip_dst (or arp_spa, arp_tpa) */
	KEY_L4, /* source port (ICMP type) << 48 | destination (code) << 32 | tcp_flags << 16 */
	KEY_IPV6_SRC,
	KEY_IPV6_SRC_LOW,
	KEY_IPV6_DST,
	KEY_IPV6_DST_LOW,
	KEY_METADATA,
	KEY_REGISTERS, /* reg0 << 32 | reg1; then reg2, reg3 ... */
	KEY_ND_TARGET = KEY_REGISTERS + 8,
	KEY_ND_TARGET_LOW,
	KEY_SOURCE, /* arp_sha or nd_sll << 16 */
	KEY_TARGET, /* arp_tha or nd_tll << 16 */
	KEY_LABEL,  /* ipv6_label << 32 */
	KEY_TAGS,   /* not matched: TPID << 48 | that of a second tag << 32 | its TCI << 16 */
	KEY_WORDS,
	KEY_SPACE = 32, /* a power of two for the verifier */
};

struct cell {
	u64 words[16];
};

/* The map's value: a call of the kernel for each of the cells would cost more than the rest. */
struct block {
	struct cell cells[BLOCK_CELLS];
};

struct store_header {
	u32 version;
	u32 seed;        /* of the hash */
	u32 buckets;     /* cell of the first; read together with: */
	u32 bucket_mask; /* their number, a power of two, minus 1 */
	u64 spare[14];
};

enum table_flags {
	TABLE_MISS_TO_CONTROLLER = 1,
};

/* Cell 1 + table. */
struct store_table {
	u32 masks;  /* cell of the first; they are in a row; read together with: */
	u32 number; /* of masks */
	u32 flags;  /* enum table_flags */
	u32 padding;
	u64 misses;
	u64 spare[13];
};

/* Which bits of the key some rules of a table look at. Those of a table are sorted, the highest
 * priority first. */
struct store_mask {
	u32 id;       /* part of the hash; no two masks of a store have the same */
	u16 priority; /* of none of its rules is higher */
	u16 count;    /* of words */
	u32 skip_word;
	u32 padding;
	u64 skip_mask; /* all its rules have skip_value's bits there; 0: nothing in common */
	u64 skip_value;
	u8 words[16]; /* enum key_word */
	u64 masks[MAX_MASK_WORDS];
};

/* Where rules are by their hash; a rule's place is 0 where there is none. */
struct store_bucket {
	u64 signature; /* bit (print & 63) is set for each print that is here */
	u32 prints[BUCKET_RULES];
	u32 rules[BUCKET_RULES];
};

struct store_rule {
	u32 added;   /* seen by frames with a version from this one on */
	u32 removed; /* and before this one */
	u32 mask;    /* id */
	u16 priority;
	u16 count; /* of ops */
	u32 ops;   /* number of the first: CELL_OPS * cell + place in it */
	u32 used;  /* tick of the last frame */
	u64 packets;
	u64 bytes;
	u64 words[MAX_MASK_WORDS]; /* masked */
	u64 flow;                  /* user space's number for it */
};

/* What a group was in its latest forms, one in each place. */
struct store_group {
	u32 newest; /* its place; those before it are older, place by place, in a ring */
	u32 since[GROUP_FORMS]; /* the version from which on it is that */
	u32 ops[GROUP_FORMS];
	u32 counts[GROUP_FORMS]; /* of ops */
	u32 padding;
};

enum op_code {
	OP_NOTHING,
	OP_SET,       /* key[word] = key[word] & ~mask | value */
	OP_MOVE,      /* `bits` bits: from_word >> from_shift into word << shift */
	OP_SET_VLAN,  /* as OP_SET of the TCI, and adds a tag where there is none */
	OP_PUSH_VLAN, /* a: TPID */
	OP_POP_VLAN,
	OP_DEC_TTL, /* ends the list, and tells the controller, if it is over */
	OP_OUTPUT,  /* a: ofport; b: max_len or 0 */
	OP_IN_PORT, /* b: max_len or 0 */
	OP_NORMAL,
	OP_FLOOD,
	OP_ALL,
	OP_CONTROLLER, /* a: bytes of the frame; b: reason */
	OP_RESUBMIT,   /* a: ofport or SAME_PORT; b: table or SAME_TABLE */
	OP_GOTO,       /* b: table */
	OP_CLONE,      /* the next `a` ops, after which the key is as before; `value` counts frames,
	                  `mask` bytes, for buckets of groups */
	OP_GROUP,      /* a: cell */
	OP_HASH,       /* of who talks to whom, for OP_CHOOSE */
	OP_HASH_WORD,  /* instead: of the word's bits in `mask`, and of what the hash was, or with
	                  `a` of `value` */
	OP_CHOOSE,     /* skips `b` ops unless the hash is below `a` */
	OP_RETURN,     /* ends this list */
	OP_EXIT,       /* ends all lists up to a bucket */
	OP_CODES,
};

/* Without what it needs of the frame, an op does nothing. */
enum op_need {
	NEED_NOTHING,
	NEED_VLAN,
	NEED_IP,
	NEED_IPV4,
	NEED_IPV6,
	NEED_ARP,
	NEED_PORTS, /* TCP or UDP, and not a later fragment */
	NEED_TCP,
	NEED_UDP,
	NEED_ICMP,
	NEED_ICMPV6,
	NEED_ND_SOLICIT,
	NEED_ND_ADVERT,
	NEED_ND, /* one of the two */
	NEEDS,
};

enum op_flags {
	OP_CLEARS = 1, /* the set of mirrors that are done (rules 26 to 28) */
	OP_BUCKET = 2, /* this OP_CLONE is a group's bucket: an exit in it ends no more than it */
};

struct op {
	u8 code; /* enum op_code */
	u8 need; /* enum op_need */
	u8 flags;
	u8 word;
	u8 shift;
	u8 from_word;
	u8 from_shift;
	u8 bits;
	u32 a;
	u32 b;
	u64 value;
	u64 mask;
};

struct store_ops {
	struct op ops[CELL_OPS];
};

/* Numbers as in OpenFlow (ofp_packet_in_reason). */
enum packet_in_reason { NO_MATCH, BY_ACTION, INVALID_TTL };

/* A frame for controllers, in the ring buffer `packet_ins`; `captured` bytes of it follow. */
struct packet_in {
	u32 store; /* the one in which these are: */
	u32 rule;  /* cell; 0: none */
	u32 op;    /* 0: none */
	u32 length;
	u32 captured;
	u16 table;
	u16 reason;    /* enum packet_in_reason */
	u16 tags;      /* that are in these bytes; the key says what tags the frame has */
	u16 network;   /* offset of the network header in them, and of what it carries */
	u16 transport; /* if its checksum is still to be filled in; else 0 */
	u16 padding;
	u64 key[KEY_SPACE];
};
