// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* MAC learning (section 7 of the semantics). */
#pragma once
#include "frame.h"
#include "record.h"

enum { NO_PLACE = 0xffffffff };

INLINE u32 tick(void)
{
	return bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
}

/* In ticks; 0 of one that another CPU has refreshed since `now` was read. */
INLINE u32 age_of(const struct fdb_value *entry, u32 now)
{
	int age = now - entry->seen;
	return age > 0 ? age : 0;
}

/* Old entries and those of a port that has changed since are void at once, whenever user space
 * comes round to sweep them out. */
INLINE int valid(const struct snapshot *bridge, const struct fdb_value *entry, u32 now)
{
	const struct port *port = &bridge->ports[entry->port & (MAX_PORTS - 1)];
	return port->generation == entry->generation && age_of(entry, now) <= bridge->mac_age;
}

/* What is left of a count after what was taken off: never less than nothing, though the two are
 * read one after the other, or a crash made one of them wrong. */
INLINE u32 left_of(u32 added, u32 taken)
{
	int left = added - taken;
	return left > 0 ? left : 0;
}

/* How many entries a port has, by the program's count and user space's. */
INLINE u32 *learned_on(u32 port)
{
	return bpf_map_lookup_elem(&fdb_port_learned, &port);
}

INLINE u32 entries_of(u32 port)
{
	u32 *learned = learned_on(port), *removed = bpf_map_lookup_elem(&fdb_port_removed, &port);
	return learned && removed ? left_of(*learned, *removed) : 0;
}

INLINE void count_entry(u32 port, int difference)
{
	u32 *learned = learned_on(port);
	if (learned)
		__sync_fetch_and_add(learned, difference);
}

struct searcher {
	const struct snapshot *bridge;
	struct hunt *hunt;
};

static long look_at_place(u32 turn, struct searcher *searcher)
{
	struct hunt *hunt = searcher->hunt;
	u32 random = hunt->all ? turn : bpf_get_prandom_u32();
	struct fdb_place place = {hunt->slot, hunt->places ? random % hunt->places : 0};
	struct fdb_key *key = bpf_map_lookup_elem(&fdb_order, &place);
	struct fdb_value *entry = key ? bpf_map_lookup_elem(&fdb, key) : 0;
	if (!entry || entry->place != place.place)
		return 0;
	u32 age = age_of(entry, hunt->now);
	u32 entries = valid(searcher->bridge, entry, hunt->now) ? entries_of(entry->port) : ~0u;
	if (hunt->found &&
	    (entries < hunt->entries || (entries == hunt->entries && age <= hunt->age)))
		return 0;
	hunt->found = 1;
	hunt->entries = entries;
	hunt->age = age;
	hunt->place = place;
	hunt->victim = *key;
	return 0;
}

/* The table is full: may the port still learn, at the cost of the oldest entry of the port with
 * most (D11)? Not if it is that port. Then the answer must be cheap, or a flood of MACs would cost
 * everybody: so it comes from the last look, at most a tick old. Returns the place won. */
FUNCTION u32 make_room(const struct snapshot *bridge, struct frame *frame)
{
	if (!bridge || !frame)
		return NO_PLACE;
	struct hunt *hunt = &frame->hunt;
	u32 slot = frame->source.bridge, now = tick(), own = entries_of(frame->fresh.port);
	struct fdb_count *count = bpf_map_lookup_elem(&fdb_learned, &slot);
	if (!count || (count->looked == now && own + 1 >= entries_of(count->largest)))
		return NO_PLACE;
	hunt->slot = slot;
	hunt->now = now;
	hunt->places = bridge->mac_limit;
	hunt->all = bridge->mac_limit <= FDB_SAMPLES;
	hunt->found = 0;
	struct searcher searcher = {bridge, hunt};
	bpf_loop(hunt->all ? hunt->places : FDB_SAMPLES, look_at_place, &searcher, 0);
	struct fdb_value *entry = hunt->found ? bpf_map_lookup_elem(&fdb, &hunt->victim) : 0;
	if (!entry)
		return NO_PLACE;
	u32 loser = entry->port;
	count->looked = now;
	count->largest = loser;
	if (own + 1 >= hunt->entries)
		return NO_PLACE;
	if (bpf_map_delete_elem(&fdb, &hunt->victim))
		return NO_PLACE; /* another CPU was first */
	count_entry(loser, -1);
	__sync_fetch_and_add(&count->entries, -1);
	return hunt->place.place;
}

/* A place that is free, or the last one tried: an entry that lost its place is only spared. */
INLINE u32 free_place(const struct snapshot *bridge, u32 slot, struct fdb_count *count)
{
	struct fdb_place place = {slot, 0};
	for (u32 tries = 0; tries < 8; tries++) {
		u32 cursor = __sync_fetch_and_add(&count->cursor, 1);
		place.place = bridge->mac_limit ? cursor % bridge->mac_limit : 0;
		struct fdb_key *key = bpf_map_lookup_elem(&fdb_order, &place);
		struct fdb_value *entry = key ? bpf_map_lookup_elem(&fdb, key) : 0;
		if (!entry || entry->place != place.place)
			break;
	}
	return place.place;
}

/* A new entry, if the bridge's table has room: the bound is exact, whatever the other CPUs do. */
FUNCTION int insert(const struct snapshot *bridge, struct frame *frame)
{
	if (!bridge || !frame)
		return 0;
	u32 slot = frame->source.bridge, limit = bridge->mac_limit;
	struct fdb_count *count = bpf_map_lookup_elem(&fdb_learned, &slot);
	u32 *removed = bpf_map_lookup_elem(&fdb_removed, &slot);
	if (!count || !removed)
		return 0;
	struct fdb_place place = {slot, NO_PLACE};
	if (left_of(count->entries, *removed) >= limit)
		place.place = make_room(bridge, frame);
	else
		place.place = free_place(bridge, slot, count);
	frame->fresh.place = place.place;
	u32 before = __sync_fetch_and_add(&count->entries, 1);
	if (place.place != NO_PLACE && left_of(before, *removed) < limit &&
	    !bpf_map_update_elem(&fdb, &frame->source, &frame->fresh, BPF_NOEXIST)) {
		bpf_map_update_elem(&fdb_order, &place, &frame->source, BPF_ANY);
		count_entry(frame->fresh.port, 1);
		return 0;
	}
	__sync_fetch_and_add(&count->entries, -1);
	__sync_fetch_and_add(&count->refused, 1);
	return 0;
}

/* The MAC is on another port now. One that keeps moving is a loop, or somebody's forgery. */
INLINE void move(struct frame *frame, const struct fdb_value *entry)
{
	struct fdb_value *fresh = &frame->fresh;
	u32 from = entry->port, to = fresh->port, slot = frame->source.bridge;
	fresh->place = entry->place;
	fresh->moved = entry->moved;
	fresh->moves = entry->moves;
	if (from != to) {
		fresh->moved = fresh->seen;
		fresh->moves = entry->moved == fresh->seen ? entry->moves + 1 : 1;
	}
	if (bpf_map_update_elem(&fdb, &frame->source, fresh, BPF_EXIST) || from == to)
		return;
	count_entry(from, -1);
	count_entry(to, 1);
	if (fresh->moves == MAX_MOVES) {
		struct fdb_flap flap = {frame->source, fresh->seen, from, to};
		bpf_map_update_elem(&fdb_flaps, &slot, &flap, BPF_ANY);
	}
}

FUNCTION int learn(const struct snapshot *bridge, struct frame *frame, u32 mode)
{
	if (!bridge || !frame)
		return 0;
	struct fdb_key *key = &frame->source;
	u32 head =
	    key->mac[0] | key->mac[1] | key->mac[2] | key->mac[3] | key->mac[4] | key->mac[5];
	if (!head || key->mac[0] & 1)
		return 0;
	u32 now = tick(), number = frame->port;
	u32 generation = bridge->ports[number & (MAX_PORTS - 1)].generation;
	struct fdb_value *entry = bpf_map_lookup_elem(&fdb, key);
	if (entry && entry->port == number && entry->generation == generation) {
		/* At most once a tick, so that the line is not torn between CPUs. */
		if (mode == SEND && entry->seen != now)
			entry->seen = now;
		return 0;
	}
	if (mode == RECORD) {
		record(EVENT_LEARN, DELIVERED, number, key->vlan);
		return 0;
	}
	frame->fresh = (struct fdb_value){.port = number, .generation = generation, .seen = now};
	if (entry)
		move(frame, entry);
	else
		insert(bridge, frame);
	return 0;
}

enum { UNKNOWN = MAX_PORTS };

/* The port where the frame's destination was seen, or UNKNOWN. */
FUNCTION u32 find_port(const struct snapshot *bridge, struct frame *frame)
{
	if (!bridge || !frame)
		return UNKNOWN;
	if (frame->target.mac[0] & 1)
		return UNKNOWN;
	struct fdb_value *entry = bpf_map_lookup_elem(&fdb, &frame->target);
	return entry && valid(bridge, entry, tick()) ? entry->port : UNKNOWN;
}
