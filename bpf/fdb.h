// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* MAC learning (section 7 of the semantics). */
#pragma once
#include "frame.h"
#include "record.h"

INLINE u32 tick(void)
{
	return bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
}

/* Old entries and those of a port that has changed since are void at once, whenever user space
 * comes round to sweep them out. */
INLINE int valid(const struct snapshot *bridge, const struct fdb_value *entry, u32 now)
{
	const struct port *port = &bridge->ports[entry->port & (MAX_PORTS - 1)];
	return port->generation == entry->generation && now - entry->seen <= bridge->mac_age;
}

/* A new entry, if the bridge's table has room: the bound is exact, whatever the other CPUs do. */
INLINE void insert(const struct snapshot *bridge, u32 slot, const struct fdb_key *key,
                   const struct fdb_value *value)
{
	struct fdb_count *learned = bpf_map_lookup_elem(&fdb_learned, &slot);
	u32 *removed = bpf_map_lookup_elem(&fdb_removed, &slot);
	if (!learned || !removed)
		return;
	u32 before = __sync_fetch_and_add(&learned->entries, 1);
	if (before - *removed < bridge->mac_limit &&
	    !bpf_map_update_elem(&fdb, key, value, BPF_NOEXIST))
		return;
	__sync_fetch_and_add(&learned->entries, -1);
	__sync_fetch_and_add(&learned->refused, 1);
}

FUNCTION int learn(const struct snapshot *bridge, struct frame *frame, u32 mode)
{
	if (!bridge || !frame)
		return 0;
	const struct fdb_key *key = &frame->source;
	u32 head =
	    key->mac[0] | key->mac[1] | key->mac[2] | key->mac[3] | key->mac[4] | key->mac[5];
	if (!head || key->mac[0] & 1)
		return 0;
	u32 now = tick(), number = frame->port;
	struct fdb_value value = {
	    .port = number,
	    .generation = bridge->ports[number & (MAX_PORTS - 1)].generation,
	    .seen = now,
	};
	struct fdb_value *entry = bpf_map_lookup_elem(&fdb, key);
	if (entry && entry->port == number && entry->generation == value.generation) {
		/* At most once a tick, so that the line is not torn between CPUs. */
		if (mode == SEND && entry->seen != now)
			entry->seen = now;
		return 0;
	}
	if (mode == RECORD) {
		record(EVENT_LEARN, DELIVERED, number, key->vlan);
		return 0;
	}
	if (entry)
		bpf_map_update_elem(&fdb, key, &value, BPF_EXIST);
	else
		insert(bridge, frame->bridge, key, &value);
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
