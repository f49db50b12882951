// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Which flow of a table a frame meets: tuple space search. For each mask of the table, the words it
 * looks at are hashed to a bucket of the bridge's store. */
#pragma once
#include "key.h"

/* The number of the store that frames with this snapshot find. */
INLINE u32 store_number(const struct snapshot *bridge, u32 slot)
{
	return 2 * slot + !!(bridge->flags & BRIDGE_SECOND_STORE);
}

INLINE void *store_of(u32 number)
{
	return bpf_map_lookup_elem(&flow_stores, &number);
}

INLINE void *cell_of(void *store, u32 number)
{
	u32 key = number / BLOCK_CELLS;
	struct block *block = bpf_map_lookup_elem(store, &key);
	if (!block)
		return 0;
	HOLD(block); /* or the compiler adds before it checks */
	return &block->cells[number % BLOCK_CELLS];
}

INLINE void aim(struct frame *frame, const struct store_table *row, u32 table, u32 quiet)
{
	struct flow *flow = &frame->flow;
	/* Two numbers that belong together are one word, so that both are of one time. */
	u64 masks = row ? *(volatile u64 *)&row->masks : 0;
	flow->table = table;
	flow->quiet = quiet;
	flow->best = NO_RULE;
	flow->next_mask = masks;
	flow->masks = masks >> 32;
	frame->stage = LOOKING_UP;
}

/* The frame's look at a bridge's tables: one version of them, however often it looks. The first is
 * at table 0, which lies beside the header. */
INLINE void open_store(struct frame *frame)
{
	struct flow *flow = &frame->flow;
	u32 zero = 0;
	void *store = store_of(frame->store);
	const struct block *block = store ? bpf_map_lookup_elem(store, &zero) : 0;
	if (!block) {
		frame->stage = DONE;
		return;
	}
	const struct store_header *header = (void *)&block->cells[0];
	/* First of all the version: what is newer than it, the buckets say, is no harm. */
	flow->version = *(volatile u32 *)&header->version;
	u64 buckets = *(volatile u64 *)&header->buckets;
	flow->seed = header->seed;
	flow->buckets = buckets;
	flow->bucket_mask = buckets >> 32;
	aim(frame, (void *)&block->cells[1], 0, 0);
}

INLINE void begin_lookup(struct frame *frame, u32 table, u32 quiet)
{
	u32 number = table & (MAX_TABLES - 1);
	void *store = store_of(frame->store);
	aim(frame, store ? cell_of(store, 1 + number) : 0, number, quiet);
}

INLINE u64 mix(u64 hash, u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15;
	return hash ^ hash >> 29;
}

INLINE u64 finish(u64 hash)
{
	hash = (hash ^ hash >> 32) * 0xff51afd7ed558ccd;
	return hash ^ hash >> 33;
}

/* Whether the rule is there for this frame, and matches it. */
INLINE int matches(const struct flow *flow, const struct store_mask *mask,
                   const struct store_rule *rule)
{
	if (rule->mask != mask->id || rule->added > flow->version || rule->removed <= flow->version)
		return 0;
	for (u32 i = 0; i < MAX_MASK_WORDS; i++) {
		if (i >= mask->count)
			break;
		if (rule->words[i] != flow->masked[i])
			return 0;
	}
	return 1;
}

/* Takes a rule that matches if none was better before; returns whether it matches. */
INLINE int consider(void *store, struct flow *flow, const struct store_mask *mask, u32 number)
{
	const struct store_rule *rule = cell_of(store, number);
	if (!number || !rule || !matches(flow, mask, rule))
		return 0;
	if (!flow->best || rule->priority > flow->best_priority) {
		flow->best = number;
		flow->best_priority = rule->priority;
	}
	return 1; /* no other that this frame sees has the same mask and words */
}

/* The bucket's first rule with this print was another one. */
FUNCTION int consider_others(struct frame *frame, const struct store_mask *mask, u32 number,
                             u32 print)
{
	void *store = frame ? store_of(frame->store) : 0;
	const struct store_bucket *bucket = store ? cell_of(store, number) : 0;
	if (!frame || !mask || !bucket)
		return 0;
	for (u32 i = 0; i < BUCKET_RULES; i++) {
		if (bucket->prints[i] == print &&
		    consider(store, &frame->flow, mask, bucket->rules[i]))
			return 1;
	}
	return 0;
}

/* Looks for a rule with this mask. */
INLINE void try_mask(void *store, struct frame *frame, const struct store_mask *mask)
{
	struct flow *flow = &frame->flow;
	u64 hash = (u64)flow->seed << 32 | mask->id;
	for (u32 i = 0; i < MAX_MASK_WORDS; i++) {
		if (i >= mask->count)
			break;
		u64 word = flow->key[mask->words[i] & (KEY_SPACE - 1)] & mask->masks[i];
		flow->masked[i] = word;
		hash = mix(hash, word);
	}
	hash = finish(hash);
	u32 print = (u32)hash ?: 1, number = flow->buckets + (hash >> 32 & flow->bucket_mask);
	const struct store_bucket *bucket = cell_of(store, number);
	if (!bucket || !(bucket->signature >> (print & 63) & 1))
		return;
	for (u32 i = 0; i < BUCKET_RULES; i++) {
		if (bucket->prints[i] != print)
			continue;
		flow->candidate = bucket->rules[i];
		break;
	}
	u32 candidate = flow->candidate;
	flow->candidate = NO_RULE;
	if (candidate && !consider(store, flow, mask, candidate))
		consider_others(frame, mask, number, print);
}

/* Tries the masks of one block; returns whether the look-up is over. */
INLINE int try_block(void *store, struct frame *frame)
{
	struct flow *flow = &frame->flow;
	u32 next = flow->next_mask, key = next / BLOCK_CELLS, left = flow->masks;
	const struct block *block = bpf_map_lookup_elem(store, &key);
	if (!block)
		return 1;
	for (u32 i = 0; i < BLOCK_CELLS; i++) {
		if (i < next % BLOCK_CELLS)
			continue;
		const struct store_mask *mask = (void *)&block->cells[i];
		if (!left || !flow->budget || (flow->best && flow->best_priority >= mask->priority))
			return 1;
		left--;
		flow->budget--;
		u64 word = flow->key[mask->skip_word & (KEY_SPACE - 1)];
		if (!((word ^ mask->skip_value) & mask->skip_mask))
			try_mask(store, frame, mask);
	}
	flow->next_mask = (key + 1) * BLOCK_CELLS;
	flow->masks = left;
	return 0;
}

FUNCTION int look_up(struct frame *frame)
{
	if (!frame)
		return 1;
	u64 *ports = &frame->flow.key[KEY_L4], seen = *ports;
	void *store = store_of(frame->store);
	if (!store)
		return 1;
	/* As in Open vSwitch, look-ups see no ports of fragments, not of the first either (its
	 * default "normal" of set-frags). */
	if (frame->flow.key[KEY_ETH_DST] & FRAGMENT_ANY)
		*ports &= 0xffffffff;
	int over = try_block(store, frame);
	*ports = seen;
	return over;
}

/* Counts the frame on the rule found. */
INLINE void count_flow(const struct frame *frame, struct store_rule *rule)
{
	u32 now = bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
	__sync_fetch_and_add(&rule->packets, (u64)frame->packets);
	__sync_fetch_and_add(&rule->bytes, (u64)frame->bytes);
	if (rule->used != now)
		rule->used = now;
}
