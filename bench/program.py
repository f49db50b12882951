# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds per frame of the ingress program, on the maps of a running switch.

Runs as a process of its own in the switch's namespace (`python -m bench.program`): it loads the
object once more onto the pinned maps, as a new start of the switch would, and runs it there with
BPF_PROG_TEST_RUN. Copies are really sent; where the frame itself goes is not included.
"""

import json
import statistics
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.lab.processes import run

from bench.rigs import OvsRig
from heliograph.kernel import bpf
from heliograph.kernel.dataplane import DataPlane

IFINDEX = 40  # offset in struct __sk_buff (linux/bpf.h)
# A run holds off softirqs, so the backlog of a veth pair (1,000 frames) must not fill up in it.
REPEAT, RUNS = 400, 101
IDLE_MIRRORS = 31


def median_run(program: int, ifindex: int, frame: bytes) -> float:
    """Median nanoseconds of a program on a frame that comes in by a device (0: by loopback)."""
    context = bytearray(68)
    struct.pack_into("=I", context, IFINDEX, ifindex)
    runs = [bpf.test_run(program, frame, bytes(context), REPEAT)[1] for _ in range(RUNS)]
    return statistics.median(runs)


def single_runs(program: int, ifindex: int, frames: Sequence[bytes]) -> float:
    """Median nanoseconds of one run for each of the frames; with what a clock costs."""
    context = bytearray(68)
    struct.pack_into("=I", context, IFINDEX, ifindex)
    runs = [bpf.test_run(program, frame, bytes(context))[1] for frame in frames]
    return statistics.median(runs)


def measure(bpffs: Path, ifindex: int, frames: Sequence[bytes]) -> float:
    """The ingress program on the maps pinned below `bpffs`: `median_run` of one frame, or
    `single_runs` of several."""
    plane = DataPlane.open(bpffs)
    try:
        program = plane.program_fd("ingress")
        if len(frames) == 1:
            return median_run(program, ifindex, frames[0])
        return single_runs(program, ifindex, frames)
    finally:
        plane.close()


def measured(rig: OvsRig, frames: Sequence[bytes], ifindex: int | None = None) -> float:
    """`measure` in a process of its own, of frames that come in by port 1."""
    device = our_end(rig) if ifindex is None else ifindex
    words = str(rig.tools.rundir / "bpf"), str(device)
    prefix = [*rig.host.prefix(), sys.executable, "-m", "bench.program", *words]
    lines = "".join(f"{frame.hex()}\n" for frame in frames)
    return float(run(prefix, stdin=lines, timeout=120).stdout)


def nanoseconds(rig: OvsRig, frame: bytes, rounds: int) -> dict[str, list[float]]:
    """The program on a unicast frame from the first guest, for each kind of configuration."""
    configurations: dict[str, Callable[[], None]] = {
        "unicast": rig.unmirror,
        f"unicast, {IDLE_MIRRORS} mirrors that do not select": lambda: _mirror_idly(rig),
        "unicast, 1 mirror that selects": rig.mirror,
    }
    samples: dict[str, list[float]] = {name: [] for name in configurations}
    for _ in range(rounds):
        for name, configure in configurations.items():
            configure()
            rig.guests[1].namespace.ping(rig.guests[0].address, 1)  # both MACs are learned
            samples[name].append(measured(rig, [frame]))
    rig.unmirror()
    return samples


def _mirror_idly(rig: OvsRig) -> None:
    """Mirrors that want every port's frames, but of VLANs that no frame is in."""
    mirrors = "".join(
        f" -- --id=@m{number} create mirror name=idle{number} select_all=true"
        f" select_vlan={number + 100} output_port=@p3"
        for number in range(IDLE_MIRRORS)
    )
    references = ",".join(f"@m{number}" for number in range(IDLE_MIRRORS))
    output = f"-- --id=@p3 get port {rig.port}3"
    rig.tools.vsctl(f"{output}{mirrors} -- set bridge br0 mirrors={references}")


def our_end(rig: OvsRig) -> int:
    """The ifindex of the switch's end of port 1, whose alias is its row's UUID."""
    row = rig.tools.vsctl(f"get interface {rig.port}1 _uuid")
    links = json.loads(rig.host.ip("-j link show"))
    return next(int(link["ifindex"]) for link in links if link.get("ifalias") == row)


if __name__ == "__main__":
    lines = sys.stdin.read().split()
    print(measure(Path(sys.argv[1]), int(sys.argv[2]), [bytes.fromhex(line) for line in lines]))
