# SPDX-License-Identifier: Apache-2.0
"""The MAC table's counts."""

import struct

from tests.packet.conftest import Switch

from heliograph.kernel import bpf, layouts
from heliograph.kernel.snapshot import BridgeEntry


def test_a_sweep_mends_counts_that_have_gone_wrong(switch: Switch) -> None:
    """As those of a MAC that two CPUs move at once."""
    switch.configure()
    bridge = BridgeEntry(
        slot=switch.slot,
        forwarding=True,
        forward_bpdu=False,
        mac_age=300,
        mac_limit=8192,
        ports=tuple(switch.entries.values()),
        mirrors=(),
    )
    for number in range(3):
        switch.learn(f"02:00:00:00:01:{number:02x}", "a")  # behind the program's back
    fdb = switch.plane.fdb
    assert fdb.entries(switch.slot) != 3
    assert fdb.sweep({switch.slot: bridge}) == 0
    assert fdb.entries(switch.slot) == 3
    key = struct.pack("=I", switch.numbers["a"])
    learned, removed = (
        struct.unpack("=I", bpf.lookup(switch.plane.map_fd(name), key, 4) or b"")[0]
        for name in ("fdb_port_learned", "fdb_port_removed")
    )
    assert (learned - removed) & 0xFFFFFFFF == 3
    keys = [k for k, _ in bpf.items(switch.plane.map_fd("fdb"), layouts.FDB_KEY.size, 24)]
    bpf.delete_batch(switch.plane.map_fd("fdb"), keys)
    fdb.sweep({switch.slot: bridge})
    assert fdb.entries(switch.slot) == 0
