# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds per frame of the ingress program with many ports and with many MACs.

Runs as a process of its own in a namespace (`python -m bench.plane`): it loads the data plane
below a bpffs of its own and gives it a bridge whose ports have ifindexes but no devices; frames
come in by the namespace's loopback device. Nothing is sent: the program ends with a redirect.
"""

import json
import random
import statistics
import struct
import sys
from pathlib import Path

from tools.lab.lab import Lab

from bench.program import median_run
from heliograph.kernel import bpf, bpffs, layouts
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.fdb import now_tick
from heliograph.kernel.layouts import VlanMode
from heliograph.kernel.snapshot import BridgeEntry, PortEntry

BRIDGE, LOOPBACK = 3, 1
PORTS = 2, 64, 1024
MACS = 100_000
CYCLE = 20_000  # frames that are run once each, to MACs drawn at random
FRAME = 60
Samples = dict[str, list[float]]  # nanoseconds by configuration
REDIRECT = 7  # the verdict TC_ACT_REDIRECT
SOURCE, KNOWN = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"


def nanoseconds(lab: Lab, figure: str, rounds: int) -> Samples:
    """The samples of so many rounds by configuration; `figure` is "ports" or "macs"."""
    host = lab.namespace("plane")
    arguments = (str(lab.path("plane")), figure, str(rounds))
    result = host.run(sys.executable, "-m", "bench.plane", *arguments, timeout=120)
    samples: Samples = json.loads(result.stdout)
    return samples


def _frame(target: bytes) -> bytes:
    return (target + SOURCE + b"\x88\xb6").ljust(FRAME, b"\0")


def _configure(plane: DataPlane, ports: int) -> None:
    """A bridge of ports that trunk everything; a MAC is known to be behind the last."""
    entries = tuple(
        PortEntry(
            number=number,
            ifindex=1000 + number if number else LOOPBACK,
            mode=VlanMode.TRUNK,
            tag=0,
            trunks=frozenset(),
            generation=1,
        )
        for number in range(ports)
    )
    plane.switch_over(
        BridgeEntry(
            slot=BRIDGE,
            forwarding=True,
            forward_bpdu=False,
            mac_age=300,
            mac_limit=1_000_000,
            ports=entries,
            mirrors=(),
        )
    )
    _learn(plane, KNOWN, ports - 1)


def _learn(plane: DataPlane, mac: bytes, port: int) -> None:
    key = layouts.FdbKey(mac, 0, BRIDGE)
    value = layouts.FdbValue(port=port, generation=1, seen=now_tick(), place=0, moved=0, moves=0)
    bpf.update(plane.map_fd("fdb"), key.pack(), value.pack())


def _one_by_one(program: int, frames: list[bytes]) -> float:
    """Median nanoseconds of one run for each of the frames."""
    context = bytes(68)
    runs = [bpf.test_run(program, frame, context) for frame in frames]
    if {verdict for verdict, _ in runs} != {REDIRECT}:
        raise RuntimeError("a frame to a known MAC was not sent to its port")
    return statistics.median(nanoseconds for _, nanoseconds in runs)


def _by_ports(plane: DataPlane, rounds: int) -> Samples:
    program = plane.program_fd("ingress")
    samples: Samples = {f"{count:,} ports": [] for count in PORTS}
    for _ in range(rounds):
        for count, found in zip(PORTS, samples.values(), strict=True):
            _configure(plane, count)
            _one_by_one(program, [_frame(KNOWN)])
            found.append(median_run(program, 0, _frame(KNOWN)))
    return samples


def _by_macs(plane: DataPlane, rounds: int) -> Samples:
    program = plane.program_fd("ingress")
    learned = [struct.pack("!HI", 0x0264, number) for number in range(MACS)]
    keys = [layouts.FdbKey(mac, 0, BRIDGE).pack() for mac in learned]
    samples: Samples = {}

    def measure(count: int, targets: list[bytes]) -> None:
        for how, sample in (
            ("one destination", median_run(program, 0, _frame(KNOWN))),
            ("single runs", _one_by_one(program, [_frame(mac) for mac in targets])),
        ):
            samples.setdefault(f"{count:,} MACs, {how}", []).append(sample)

    _configure(plane, 2)
    for turn in range(rounds):
        measure(2, [KNOWN] * CYCLE)
        for mac in learned:
            _learn(plane, mac, 1)
        measure(MACS, random.Random(turn).sample(learned, CYCLE))
        bpf.delete_batch(plane.map_fd("fdb"), keys)
    return samples


def main(root: Path, figure: str, rounds: int) -> None:
    bpffs.mount(root)
    try:
        plane = DataPlane.open(root)
        try:
            plane.set_device(LOOPBACK, BRIDGE, 0)
            measure = {"ports": _by_ports, "macs": _by_macs}[figure]
            print(json.dumps(measure(plane, rounds)))
        finally:
            plane.close()
    finally:
        bpffs.unmount(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
