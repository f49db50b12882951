# SPDX-License-Identifier: Apache-2.0
"""An upgrade whose counters are others: each goes on by its name."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.lab.lab import Lab

from heliograph.kernel import bpf, bpffs, layouts, migration
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.layouts import Reason

SLOT = 7


@pytest.fixture
def root() -> Iterator[Path]:
    with Lab() as lab:
        root = lab.path("bpf")
        bpffs.mount(root)
        try:
            yield root
        finally:
            bpffs.unmount(root)


def age(root: Path, names: dict[str, list[str]] | None) -> None:
    """Make the pinned layout an earlier version's, whose counters had these names."""
    old = (root / f"layout-{layouts.LAYOUT}").rename(root / "layout-0123456789ab")
    (old / migration.NAMES).unlink()
    if names is None:
        return
    content = json.dumps(names).encode()
    fd = bpf.create_array(len(content), 1, "names")
    bpf.update(fd, bytes(4), content)
    bpf.pin(fd, old / migration.NAMES)
    os.close(fd)


def count(root: Path) -> None:
    """Every counter of a port has its own place as its value, on each CPU."""
    plane = DataPlane.open(root)
    width = layouts.PORT_COUNTERS.size // 8
    values = struct.pack(f"={width}Q", *range(width)) * bpf.cpu_count()
    bpf.update(plane.map_fd("port_stats"), struct.pack("=I", SLOT), values)
    plane.close()


def carried(root: Path) -> dict[str, int]:
    """The counters of that port after the upgrade, by name, of one CPU."""
    plane = DataPlane.open(root)
    plane.carry_over()
    found = plane.counters.port_map.read(SLOT)
    plane.close()
    assert all(value % bpf.cpu_count() == 0 for value in found)
    values = (value // bpf.cpu_count() for value in found)
    return dict(zip(migration.names()["port_stats"], values, strict=True))


def test_counters_that_have_moved_are_found_by_name(root: Path) -> None:
    """D6: the earlier version had them the other way round, one that is no more, and one less."""
    count(root)
    ours = migration.names()["port_stats"]
    theirs = ["gone" if name == "rx_bytes" else name for name in reversed(ours)]
    age(root, {"port_stats": theirs, "mirror_stats": []})
    found = carried(root)
    assert found.pop("rx_bytes") == 0
    assert found == {name: theirs.index(name) for name in found}
    assert found[Reason.DROP_TOO_DEEP.name] == 0 < found["tx_bytes"]


def test_counters_of_before_they_had_names_are_taken_if_they_have_the_same_shape(
    root: Path,
) -> None:
    count(root)
    age(root, None)
    assert carried(root) == {name: at for at, name in enumerate(migration.names()["port_stats"])}
