// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A frame's way through the flow tables of a bridge, step by step, within one budget for all of its
 * way (flow_types.h says how tables lie in memory). */
#pragma once
#include "actions.h"

/* The frame is in a bridge with flow tables, as received or through a patch port. */
INLINE void begin_flows(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame)
{
	struct flow *flow = &frame->flow;
	const struct port *port = &bridge->ports[frame->entry & (MAX_PORTS - 1)];
	if (!flow->ready)
		parse_key(skb, frame);
	set_in_port(flow, port->ofport);
	for (u32 i = KEY_METADATA; i < KEY_ND_TARGET; i++)
		flow->key[i] = 0;
	flow->rule = NO_RULE;
	flow->depth = flow->saved = flow->leaving = flow->missed = 0;
	flow->reason = DELIVERED;
	flow->outputs = frame->outputs;
	open_store(frame);
}

/* The frame has met a flow, or none. */
INLINE void decide(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                   u32 mode)
{
	struct flow *flow = &frame->flow;
	void *store = store_of(frame->store);
	struct store_rule *rule = store && flow->best ? cell_of(store, flow->best) : 0;
	if (mode == RECORD)
		record_step(EVENT_FLOW, flow->table, flow->best);
	frame->stage = RUNNING;
	if (flow->quiet)
		set_in_port(flow, flow->detours[(flow->depth - 1) & (MAX_RESUBMITS - 1)].in_port);
	if (rule) {
		flow->rule = flow->best;
		flow->pc = rule->ops;
		flow->end = rule->ops + rule->count;
		if (mode != RECORD)
			count_flow(frame, rule);
		return;
	}
	flow->pc = flow->end = 0;
	flow->missed |= !flow->quiet;
	struct store_table *table =
	    store ? cell_of(store, 1 + (flow->table & (MAX_TABLES - 1))) : 0;
	if (!table || mode == RECORD)
		return;
	__sync_fetch_and_add(&table->misses, (u64)frame->packets);
	if (flow->quiet)
		return;
	const struct port *port = &bridge->ports[frame->entry & (MAX_PORTS - 1)];
	flow->rule = NO_RULE;
	if (table->flags & TABLE_MISS_TO_CONTROLLER && !(port->flags & PORT_NO_PACKET_IN))
		tell_controller(skb, frame, 0, NO_MATCH, 0xffff, mode);
}

/* Ops that send the frame. */
INLINE void act(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                const struct op *op, u32 number, u32 mode)
{
	struct flow *flow = &frame->flow;
	u32 in_port = flow->key[KEY_PORT] >> 32, reason;
	switch (op->code) {
	case OP_OUTPUT:
		if (op->a != in_port)
			order_output(skb, bridge, frame, op->a, op->b, mode);
		break;
	case OP_IN_PORT:
		order_output(skb, bridge, frame, in_port, op->b, mode);
		break;
	case OP_NORMAL:
		reason = act_normal(skb, bridge, frame, mode);
		flow->reason = reason ?: flow->reason;
		break;
	case OP_FLOOD:
		order_flood(bridge, frame, PORT_FLOOD);
		break;
	case OP_ALL:
		order_flood(bridge, frame, ALL_PORTS);
		break;
	case OP_CONTROLLER:
		tell_controller(skb, frame, number, op->b, op->a, mode);
		break;
	case OP_DEC_TTL:
		decrement_ttl(skb, frame, number, mode);
		break;
	}
}

/* Ops that lead elsewhere. */
INLINE int lead(struct frame *frame, struct op *op)
{
	struct flow *flow = &frame->flow;
	switch (op->code) {
	case OP_RESUBMIT:
		resubmit(frame, op);
		return 1;
	case OP_GOTO:
		begin_lookup(frame, op->b, 0);
		return 1;
	case OP_CLONE:
		begin_clone(frame, op);
		return 1;
	case OP_GROUP:
		begin_group(frame, op->a);
		return 1;
	case OP_HASH:
		flow->hash = hash_conversation(flow);
		return 1;
	case OP_HASH_WORD:
		flow->hash = mix(op->a ? op->value : flow->hash,
		                 flow->key[op->word & (KEY_SPACE - 1)] & op->mask);
		return 1;
	case OP_CHOOSE:
		if ((u32)finish(flow->hash) >= op->a)
			flow->pc += op->b;
		return 1;
	case OP_EXIT:
		flow->leaving = 1;
		flow->pc = flow->end;
		return 1;
	case OP_RETURN:
		flow->pc = flow->end;
		return 1;
	}
	return 0;
}

/* Does one op. */
FUNCTION int run_op(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                    u32 mode)
{
	if (!bridge || !frame)
		return 0;
	struct flow *flow = &frame->flow;
	u32 number = flow->pc;
	void *store = store_of(frame->store);
	struct store_ops *ops = store ? cell_of(store, number / CELL_OPS) : 0;
	flow->pc = number + 1;
	if (!ops)
		return 0;
	struct op *op = &ops->ops[number % CELL_OPS];
	if (mode == RECORD)
		record_step(EVENT_ACTION, op->code, number);
	if (!has(flow, op->need))
		return 0;
	if (op->flags & OP_CLEARS && bridge->flags & BRIDGE_MIRROR_CHANGED && flow->copies)
		*done_set(frame) = 0;
	if (!lead(frame, op) && !act_on_key(frame, op))
		act(skb, bridge, frame, op, number, mode);
	return 0;
}

/* The frame is through: what is there to say if it went nowhere. */
INLINE u32 end_flows(struct frame *frame)
{
	const struct flow *flow = &frame->flow;
	frame->stage = DONE;
	if (frame->outputs != flow->outputs)
		return DELIVERED;
	return flow->reason ?: flow->missed ? DROP_NO_FLOW : DROP_FLOW;
}

/* One step of the way; returns a reason to drop it, or DELIVERED. */
INLINE u32 step_flows(struct __sk_buff *skb, const struct snapshot *bridge, struct frame *frame,
                      u32 mode)
{
	struct flow *flow = &frame->flow;
	if (!flow->budget) {
		frame->stage = DONE;
		return DROP_BUDGET;
	}
	flow->budget--;
	if (frame->stage == LOOKING_UP) {
		if (!look_up(frame))
			return DELIVERED;
		decide(skb, bridge, frame, mode);
	}
	/* A step more at once where it can be: each turn of the loop has its price. */
	if (flow->pc < flow->end)
		run_op(skb, bridge, frame, mode);
	if (frame->stage == RUNNING && !frame->depth && flow->pc >= flow->end && !end_list(frame))
		return end_flows(frame);
	return DELIVERED;
}
