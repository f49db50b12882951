# SPDX-License-Identifier: Apache-2.0
"""Carrying what is worth it from maps of another layout, an earlier version's, into ours.

Maps of the same shape are copied. Counters change their shape with every new reason for a drop, so
their fields have names, pinned beside them in the map `names` of each layout, and are copied by
those. So have those of flow stores that are read again: a store is built anew, with the counters of
the one that it finds in its place.
"""

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from heliograph.kernel import bpf, layouts
from heliograph.kernel.flow_store_maps import store_in_force
from heliograph.kernel.layouts import BridgeFlags, Limits, Reason

NAMES = "names"
STORES = "flow_stores"
_FIELDS = {
    "port_stats": layouts.PortCounters._fields[:-1],
    "mirror_stats": layouts.MirrorCounters._fields[:-1],
}
_BATCH_BYTES = 1 << 20  # of values in one system call
_ZERO = bytes(4)

Names = dict[str, list[str]]


def _key(number: int) -> bytes:
    return struct.pack("=I", number)


def names() -> Names:
    """The names of the counters, in their order, of our maps of per-CPU counters, and of what is
    in a flow store."""
    drops = [reason.name for reason in list(Reason)[:-1]]
    return {table: [*fields, *drops] for table, fields in _FIELDS.items()} | {STORES: _store()}


def _store() -> list[str]:
    """How that of a flow store is laid out which has its counters, and which one is in force."""
    return [
        f"BRIDGE_SECOND_STORE {BridgeFlags.BRIDGE_SECOND_STORE:d} at {layouts.SNAPSHOT_FLAGS}",
        *(layouts.STORE_HEADER.format, *layouts.StoreHeader._fields),
        *(layouts.STORE_BUCKET.format, *layouts.StoreBucket._fields),
        *(layouts.STORE_RULE.format, *layouts.StoreRule._fields),
    ]


def pin_names(folder: Path) -> None:
    """Have a layout's folder say what its counters are."""
    content = json.dumps(names()).encode()
    fd = bpf.create_array(len(content), 1, NAMES)
    try:
        bpf.update(fd, _ZERO, content)
        bpf.pin(fd, folder / NAMES)
    finally:
        os.close(fd)


def carry(old: Path, name: str, target: int) -> None:
    """Copy the map `name` from another layout's folder into `target`, as far as they agree."""
    source = bpf.get(old / name)
    try:
        shape, ours = bpf.map_shape(source), bpf.map_shape(target)
        if name in _FIELDS:
            there = _names_of(old).get(name, names()[name] if shape == ours else [])
            _carry_counters(source, shape, there, target, names()[name])
        elif shape == ours:
            for key, value in _items(source, shape[1], shape[2]):
                bpf.update(target, key, value)
    finally:
        os.close(source)


def carry_stores(old: Path, bridges: int, stores: int) -> None:
    """Have the stores that are in force in another layout's folder where `stores`, our array of
    them, has those that are in force by `bridges`, our snapshots."""
    if _names_of(old).get(STORES) != _store():
        return  # flows count from 0
    with contextlib.ExitStack() as opened:
        theirs, source = bpf.get(old / "bridges"), bpf.get(old / STORES)
        opened.callback(os.close, theirs)
        opened.callback(os.close, source)
        for slot in range(Limits.MAX_BRIDGES):
            found = bpf.lookup(source, _key(store_in_force(theirs, slot)), 4)
            if found is None:
                continue
            store = bpf.get_by_id(*struct.unpack("=I", found))
            opened.callback(os.close, store)
            with contextlib.suppress(OSError):  # of another shape: its flows count from 0
                bpf.update(stores, _key(store_in_force(bridges, slot)), _key(store))


def _items(source: int, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    chunk = max(1, min(4096, _BATCH_BYTES // value_size))
    return bpf.items(source, key_size, value_size, chunk=chunk)


def _names_of(folder: Path) -> Names:
    """Nothing, for a layout of before there were names."""
    if not (folder / NAMES).exists():
        return {}
    fd = bpf.get(folder / NAMES)
    try:
        content = bpf.lookup(fd, _ZERO, bpf.map_shape(fd)[2])
    finally:
        os.close(fd)
    found: Names = json.loads(content or b"{}")
    return found


def _carry_counters(
    source: int, shape: tuple[int, int, int, int], there: list[str], target: int, here: list[str]
) -> None:
    _, key_size, size, _ = shape
    cpus = bpf.cpu_count()
    moves = [(there.index(name) * 8, at * 8) for at, name in enumerate(here) if name in there]
    for key, values in _items(source, key_size, size * cpus):
        if not any(values):
            continue
        fresh = bytearray(len(here) * 8 * cpus)
        for cpu in range(cpus):
            for before, now in moves:
                start, at = cpu * size + before, cpu * len(here) * 8 + now
                fresh[at : at + 8] = values[start : start + 8]
        bpf.update(target, key, bytes(fresh))
