// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What flows do with a frame: their ops, one after the other. Those that change it change its key
 * only; output() makes the bytes equal to it. */
#pragma once
#include "classify.h"
#include "controller.h"
#include "normal.h"

/* Whether an op finds what it needs of the frame. */
INLINE int has(const struct flow *flow, u32 need)
{
	const u64 *key = flow->key;
	u32 kind = key[KEY_L4] >> 48, code = key[KEY_L4] >> 32 & 0xffff;
	switch (need) {
	case NEED_NOTHING:
		return 1;
	case NEED_VLAN:
		return (key[KEY_PORT] & TAG_PRESENT) != 0;
	case NEED_IP:
		return is_ip(key);
	case NEED_IPV4:
		return type_of(key) == TYPE_IPV4;
	case NEED_IPV6:
		return type_of(key) == TYPE_IPV6;
	case NEED_ARP:
		return is_arp(key);
	case NEED_PORTS:
		return carries(flow, PROTO_TCP) || carries(flow, PROTO_UDP);
	case NEED_TCP:
		return carries(flow, PROTO_TCP);
	case NEED_UDP:
		return carries(flow, PROTO_UDP);
	case NEED_ICMP:
		return type_of(key) == TYPE_IPV4 && carries(flow, PROTO_ICMP);
	}
	if (type_of(key) != TYPE_IPV6 || !carries(flow, PROTO_ICMPV6))
		return 0;
	if (need == NEED_ICMPV6)
		return 1;
	if (code)
		return 0;
	return (kind == ND_SOLICIT && need != NEED_ND_ADVERT) ||
	       (kind == ND_ADVERT && need != NEED_ND_SOLICIT);
}

INLINE void set_vlan(struct flow *flow, const struct op *op)
{
	u64 *port = &flow->key[KEY_PORT];
	if (!(*port & TAG_PRESENT))
		*port = (*port & ~0xffffull) | TAG_PRESENT;
	*port = (*port & ~(op->mask & 0xefff)) | (op->value & 0xefff);
}

INLINE void push_vlan(struct frame *frame, u32 tpid)
{
	/* The one that was there stays to the bit, if it is as it came. */
	u64 eligible = has_own_tags(frame) ? frame->raw.tci[0] & TAG_PRESENT : 0;
	get_tags(frame, &frame->tags);
	push_tag(&frame->tags, tpid, 0); /* of VLAN 0, as in Open vSwitch */
	put_tags(frame->flow.key, &frame->tags);
	if (frame->tags.number > 1)
		frame->flow.key[KEY_TAGS] |= eligible << 16;
}

INLINE void pop_vlan(struct frame *frame)
{
	get_tags(frame, &frame->tags);
	pop_tag(&frame->tags);
	put_tags(frame->flow.key, &frame->tags);
}

INLINE void move_bits(struct flow *flow, const struct op *op)
{
	u64 all = op->bits >= 64 ? ~0ull : (1ull << (op->bits & 63)) - 1;
	u64 value = flow->key[op->from_word & (KEY_SPACE - 1)] >> (op->from_shift & 63) & all;
	u64 *to = &flow->key[op->word & (KEY_SPACE - 1)];
	*to = (*to & ~(all << (op->shift & 63))) | value << (op->shift & 63);
}

/* The number of the port that flows say the frame came in by. */
INLINE u32 port_of(const struct snapshot *bridge, u32 ofport)
{
	return bridge->numbers[ofport & 0xffff] - 1u; /* ~0: there is none */
}

INLINE void order_output(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                         u32 ofport, u32 limit, u32 mode)
{
	u32 number = port_of(bridge, ofport);
	if (number >= MAX_PORTS)
		return;
	struct order *order = &frame->order;
	get_tags(frame, &order->tags);
	order->port = number;
	order->mirror = NO_MIRROR;
	order->snaplen = limit;
	order->annotation = annotation(&order->tags, 0);
	order->last = !limit;
	order->as_is = 1;
	output(skb, bridge, frame, mode);
}

INLINE void order_flood(const struct snapshot *bridge, struct frame *frame, u32 flood)
{
	struct level *level = push_level(frame);
	frame->port = port_of(bridge, frame->flow.key[KEY_PORT] >> 32);
	if (!level)
		return;
	get_tags(frame, &level->tags);
	level->flood = flood;
	level->next = 0;
	level->mirror = NO_MIRROR;
	level->snaplen = 0;
	level->annotation = annotation(&level->tags, 0);
}

/* NORMAL knows the frame as its port's VLAN mode has it (rules 58, 76). One that came in by no
 * port, a controller's, is as from a trunk of all VLANs, and nothing is learned of it. */
INLINE u32 act_normal(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                      u32 mode)
{
	struct flow *flow = &frame->flow;
	u32 ofport = flow->key[KEY_PORT] >> 32 & 0xffff, type = type_of(flow->key);
	u32 number = port_of(bridge, ofport),
	    none = ofport == OFPP_NONE || ofport == OFPP_CONTROLLER;
	if (number >= MAX_PORTS && !none)
		return DROP_NO_PORT;
	frame->port = number;
	if (!(flow->key[KEY_PORT] & TAG_PRESENT) && (type == 0x8100 || type == 0x88a8))
		return DROP_MALFORMED; /* half of a stack of tags (rule 58) */
	get_tags(frame, &frame->tags);
	if (frame->tags.number == 1 && !frame->tags.tci[0])
		frame->tags.number = 0; /* no VLAN and no priority is no tag */
	if (number < MAX_PORTS && !inward(bridge, &bridge->ports[number], number, &frame->tags))
		return DROP_VLAN;
	frame->source.bridge = frame->target.bridge = frame->bridge;
	frame->source.vlan = frame->target.vlan = vid(&frame->tags);
	if (flow->changed)
		put_addresses(frame);
	return normal(skb, bridge, frame, mode);
}

/* Goes to another list of ops and comes back, if there is room. */
INLINE struct detour *push_detour(struct frame *frame, u32 kind)
{
	struct flow *flow = &frame->flow;
	u32 depth = flow->depth;
	if (depth >= MAX_RESUBMITS) {
		flow->budget = 0;
		return 0;
	}
	flow->depth = depth + 1;
	struct detour *detour = &flow->detours[depth];
	detour->pc = flow->pc;
	detour->end = flow->end;
	detour->rule = flow->rule;
	detour->table = flow->table;
	detour->in_port = flow->key[KEY_PORT] >> 32;
	detour->kind = kind;
	return detour;
}

INLINE void set_in_port(struct flow *flow, u32 ofport)
{
	flow->key[KEY_PORT] = (flow->key[KEY_PORT] & 0xffffffff) | (u64)(ofport & 0xffff) << 32;
}

/* The port that it names is for the look-up only, not for what is found. */
INLINE void resubmit(struct frame *frame, const struct op *op)
{
	struct flow *flow = &frame->flow;
	if (!push_detour(frame, RESUBMIT))
		return;
	if (op->a != SAME_PORT)
		set_in_port(flow, op->a);
	begin_lookup(frame, op->b == SAME_TABLE ? flow->table : op->b, 1);
}

INLINE void begin_clone(struct frame *frame, struct op *op)
{
	struct flow *flow = &frame->flow;
	u32 saved = flow->saved;
	if (saved >= MAX_SAVES || !op->a) {
		flow->budget = op->a ? 0 : flow->budget;
		return;
	}
	struct detour *detour = push_detour(frame, op->flags & OP_BUCKET ? BUCKET : CLONE);
	if (!detour)
		return;
	__sync_fetch_and_add(&op->value, (u64)frame->packets);
	__sync_fetch_and_add(&op->mask, (u64)frame->bytes);
	detour->pc = flow->pc + op->a;
	flow->end = detour->pc;
	flow->saved = saved + 1;
	copy_key(flow->saves[saved], flow->key);
}

/* The newest form that the frame's version has; there are more than change while a frame is here.
 */
INLINE u32 form_of(const struct store_group *group, u32 version)
{
	u32 form = *(volatile u32 *)&group->newest;
	for (u32 i = 0; i < GROUP_FORMS; i++) {
		if (form >= GROUP_FORMS || group->since[form] <= version)
			break;
		form = form ? form - 1 : GROUP_FORMS - 1;
	}
	return form;
}

INLINE void begin_group(struct frame *frame, u32 number)
{
	struct flow *flow = &frame->flow;
	void *store = store_of(frame->store);
	const struct store_group *group = store ? cell_of(store, number) : 0;
	if (!group)
		return;
	u32 form = form_of(group, flow->version);
	if (form >= GROUP_FORMS || !push_detour(frame, GROUP))
		return;
	flow->group = number;
	flow->pc = group->ops[form];
	flow->end = flow->pc + group->counts[form];
}

/* Of who talks to whom, so that a conversation stays together. */
INLINE u64 hash_conversation(const struct flow *flow)
{
	u64 hash = mix(flow->group, flow->key[KEY_ETH_DST] >> 8);
	hash = mix(hash, flow->key[KEY_ETH_SRC] >> 16);
	hash = mix(hash, flow->key[KEY_IPV4]);
	hash = mix(hash, flow->key[KEY_L4] >> 32);
	for (u32 i = 0; i < 4; i++)
		hash = mix(hash, flow->key[KEY_IPV6_SRC + i]);
	return hash;
}

/* Back from a list of ops that is at its end; returns whether there was one to go back to. */
INLINE int end_list(struct frame *frame)
{
	struct flow *flow = &frame->flow;
	u32 depth = flow->depth - 1;
	if (depth >= MAX_RESUBMITS)
		return 0;
	flow->depth = depth;
	const struct detour *detour = &flow->detours[depth];
	flow->pc = detour->pc;
	flow->end = detour->end;
	flow->rule = detour->rule;
	flow->table = detour->table;
	u32 saved = flow->saved - 1;
	if (detour->kind >= CLONE && saved < MAX_SAVES) {
		flow->saved = saved;
		flow->changed = 1;
		copy_key(flow->key, flow->saves[saved]);
	}
	if (detour->kind == BUCKET)
		flow->leaving = 0;
	if (flow->leaving)
		flow->pc = flow->end;
	return 1;
}

INLINE void decrement_ttl(struct __sk_buff *skb, struct frame *frame, u32 number, u32 mode)
{
	struct flow *flow = &frame->flow;
	u32 ttl = flow->key[KEY_ETH_SRC] & 0xff;
	if (ttl > 1) {
		flow->key[KEY_ETH_SRC]--;
		flow->changed = 1;
		return;
	}
	flow->pc = flow->end;
	tell_controller(skb, frame, number, INVALID_TTL, 0xffff, mode);
}

/* Ops that change the key and nothing else. */
INLINE int act_on_key(struct frame *frame, const struct op *op)
{
	struct flow *flow = &frame->flow;
	u64 *word = &flow->key[op->word & (KEY_SPACE - 1)];
	switch (op->code) {
	case OP_SET:
		*word = (*word & ~op->mask) | op->value;
		flow->changed = 1;
		return 1;
	case OP_MOVE:
		move_bits(flow, op);
		flow->changed = 1;
		return 1;
	case OP_SET_VLAN:
		set_vlan(flow, op);
		return 1;
	case OP_PUSH_VLAN:
		push_vlan(frame, op->a);
		return 1;
	case OP_POP_VLAN:
		pop_vlan(frame);
		return 1;
	}
	return 0;
}
