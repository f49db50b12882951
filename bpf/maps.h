// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Every map, with what it is for and who writes it. */
#pragma once
#include "types.h"

#define MAP(name, kind, keys, values, entries, how) \
	struct {                                    \
		__uint(type, kind);                 \
		__type(key, keys);                  \
		__type(value, values);              \
		__uint(max_entries, entries);       \
		__uint(map_flags, how);             \
	} name SEC(".maps")

/* The programs behind the stubs; user space swaps them at an upgrade. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(u32));
	__uint(max_entries, MAX_SLOTS);
} programs SEC(".maps");

/* Bridge slot -> its snapshot; user space switches over. */
struct snapshot_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct snapshot);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_BRIDGES);
	__type(key, u32);
	__array(values, struct snapshot_map);
} bridges SEC(".maps");

/* Its one element is replaced when a tunnel or the way of one changes; user space. */
struct underlay_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct underlay);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct underlay_map);
} underlay SEC(".maps");
MAP(endpoints, BPF_MAP_TYPE_HASH, struct endpoint, struct device, MAX_ENDPOINTS, BPF_F_NO_PREALLOC);
MAP(addresses, BPF_MAP_TYPE_HASH, struct own_address, u32, MAX_ADDRESSES, BPF_F_NO_PREALLOC);
MAP(sequences, BPF_MAP_TYPE_ARRAY, u32, u32, MAX_PORTS, 0);  /* next of a tunnel port */
MAP(super_seen, BPF_MAP_TYPE_ARRAY, u32, u32, MAX_PORTS, 0); /* tick of a port's last super-frame */

/* 2 * bridge slot, + 1 for the second -> its flow tables (flow_types.h). Two, for a process that
 * takes over builds a store of its own, with other numbers: its first snapshot says that it is the
 * one, and frames of the snapshot before stay in the other. */
struct flow_store {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__type(key, u32);
	__type(value, struct block);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2 * MAX_BRIDGES);
	__type(key, u32);
	__array(values, struct flow_store);
} flow_stores SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} packet_ins SEC(".maps"); /* frames for controllers */

MAP(devices, BPF_MAP_TYPE_HASH, u32, struct device, MAX_DEVICES, BPF_F_NO_PREALLOC);
MAP(rows, BPF_MAP_TYPE_ARRAY, u32, struct row, MAX_ROWS, 0); /* user space: adoption */
/* Not LRU: one port's flood of MACs would evict a quiet port's (kernel facts, "MAC table"). */
MAP(fdb, BPF_MAP_TYPE_HASH, struct fdb_key, struct fdb_value, MAX_FDB, BPF_F_NO_PREALLOC);
MAP(fdb_order, BPF_MAP_TYPE_HASH, struct fdb_place, struct fdb_key, MAX_FDB, BPF_F_NO_PREALLOC);
MAP(fdb_flaps, BPF_MAP_TYPE_ARRAY, u32, struct fdb_flap, MAX_BRIDGES, 0);    /* the program */
MAP(fdb_port_learned, BPF_MAP_TYPE_ARRAY, u32, u32, MAX_PORTS, 0);           /* the program */
MAP(fdb_port_removed, BPF_MAP_TYPE_ARRAY, u32, u32, MAX_PORTS, 0);           /* user space */
MAP(fdb_learned, BPF_MAP_TYPE_ARRAY, u32, struct fdb_count, MAX_BRIDGES, 0); /* the program */
MAP(fdb_removed, BPF_MAP_TYPE_ARRAY, u32, u32, MAX_BRIDGES, 0);              /* user space */
MAP(port_stats, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct port_counters, MAX_PORTS, 0);
MAP(mirror_stats, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct mirror_counters, MAX_MIRROR_SLOTS, 0);
MAP(instructions, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct instruction, 1, 0);
MAP(records, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct record, 1, 0);
