# SPDX-License-Identifier: Apache-2.0
"""`make bench`: every contender in one run, turn by turn, medians of several turns.

Those of one part stand ready at the same time and take turns, so that what else the machine does
meets them alike. Everything lives in namespaces and is gone at the end. It takes half an hour.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools.lab.lab import Lab, sweep

from bench import plane
from bench.crowd import Crowd
from bench.delay import mirror_delay
from bench.flows import flows
from bench.macs import ManyMacs, flood
from bench.memory import add_ports, memory
from bench.program import nanoseconds
from bench.report import Report
from bench.rigs import (
    CONTENDERS,
    INTO_GRE,
    MIRRORED,
    TUNNELLERS,
    UNMIRRORED,
    WIRE_FRAMES,
    Build,
    Mirroring,
    Rig,
    heliograph,
    open_vswitch,
)
from bench.traffic import small_frames, start_server, tcp_stream, udp_frame

TCP = "one TCP stream (both ends on one CPU), Gbit/s"
STREAM_LOST = "that TCP stream, % of frames lost"
STREAM_COPIES_LOST = "that TCP stream, % of copies lost"
SMALL = "60-byte frames, frames/s"
LOST = "60-byte frames, % lost"
COPIES_LOST = "60-byte frames, % of copies lost"
DELAY = "a running flow is mirrored, ms after ovs-vsctl returned"
OF_TUNNELS = "tunnels: "
TIMES = "tunnels: what a mirror into GRE leaves, times that of"
PROGRAM = "ingress program, ns/frame"
PROGRAM_PORTS = "ingress program by ports of the bridge (without devices), ns/frame"
PROGRAM_MACS = "ingress program by MACs learned, ns/frame"
PSS, RSS = "100 ports: PSS of all processes, MiB", "100 ports: RSS of all processes, MiB"
PATIENCE = 10.0  # seconds to wait for a first copy


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def throughput(report: Report, rounds: int, seconds: float) -> None:
    _contest(report, CONTENDERS, "", rounds, seconds)


def tunnels(report: Report, rounds: int, seconds: float) -> None:
    """Mirrors into tunnels, beside mirrors to a local port."""
    _contest(report, TUNNELLERS, OF_TUNNELS, rounds, seconds)
    gre = f"Heliograph, {INTO_GRE}"
    for what, base in (
        (TCP, f"Heliograph, {WIRE_FRAMES}"),
        (TCP, f"Open vSwitch userspace, {INTO_GRE}"),
        (SMALL, f"Heliograph, {MIRRORED}"),
    ):
        times = report.times(OF_TUNNELS + what, gre, base)
        report.add(TIMES, f"{base}: {what}", *times)


def _contest(
    report: Report,
    contenders: Sequence[tuple[Build, Mirroring]],
    part: str,
    rounds: int,
    seconds: float,
) -> None:
    """Both loads on each in turn; `part` is put before the names of the figures."""

    def add(what: str, rig: Rig, value: float) -> None:
        report.add(part + what, str(rig), value)

    with Lab() as lab:
        rigs: list[Rig] = []
        for build, how in contenders:
            rigs.append(build(lab, how))
            start_server(lab, rigs[-1])
        for turn in range(rounds):
            _say(f"{part}turn {turn + 1} of {rounds}")
            for rig in rigs:
                # In this order: for some seconds after a port's super-frame the copies of its
                # other frames take the same, longer, way into a tunnel.
                burst = small_frames(rig, seconds / 2)
                add(SMALL, rig, burst.per_second)
                add(LOST, rig, burst.lost * 100)
                stream = tcp_stream(rig, seconds)
                add(TCP, rig, stream.gbit)
                add(STREAM_LOST, rig, stream.lost * 100)
                if rig.mirroring.count:
                    add(COPIES_LOST, rig, burst.copies_lost * 100)
                    add(STREAM_COPIES_LOST, rig, stream.copies_lost * 100)


def switches(report: Report, rounds: int, _seconds: float) -> None:
    """What only the two that ovs-vsctl drives can be asked: delay, memory, our program."""
    for build in open_vswitch, heliograph:
        with Lab() as lab:
            rig = build(lab, UNMIRRORED)
            _say(f"{rig}: delay, memory")
            for _ in range(rounds):
                report.add(DELAY, str(rig), mirror_delay(lab, rig, PATIENCE) * 1000)
            if build is heliograph:
                frame = udp_frame(*rig.guests[:2])
                for name, samples in nanoseconds(rig, frame, rounds).items():
                    report.add(PROGRAM, name, *samples)
            add_ports(rig.tools, "br0", 100 - len(rig.guests))
            time.sleep(2)
            together = memory(rig.host)
            report.add(PSS, str(rig), together.pss)
            report.add(RSS, str(rig), together.rss)


def ports(report: Report, rounds: int, seconds: float) -> None:
    """2, 64 and 1,024 ports; broadcasts to 64."""
    _program_alone(report, "ports", PROGRAM_PORTS, rounds)
    with Lab() as lab:
        crowd = Crowd(lab)
        for turn in range(rounds):
            _say(f"ports, turn {turn + 1} of {rounds}")
            crowd.turn(report.add, seconds / 2)


def macs(report: Report, rounds: int, seconds: float) -> None:
    """100,000 MACs that are learned."""
    _program_alone(report, "macs", PROGRAM_MACS, rounds)
    with Lab() as lab:
        many = ManyMacs(lab)
        for turn in range(rounds):
            _say(f"MACs, turn {turn + 1} of {rounds}")
            many.turn(report.add, seconds / 2)


def floods(report: Report, rounds: int, seconds: float) -> None:
    """A million MACs that one port floods."""
    for turn in range(rounds):
        _say(f"flood of MACs, turn {turn + 1} of {rounds}")
        flood(report.add, seconds / 2)


def _program_alone(report: Report, figure: str, what: str, rounds: int) -> None:
    with Lab() as lab:
        for name, samples in plane.nanoseconds(lab, figure, rounds).items():
            report.add(what, name, *samples)


PARTS = {f.__name__: f for f in (throughput, tunnels, switches, ports, macs, floods, flows)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a TCP stream")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="parts")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), metavar="FILE")
    options = parser.parse_args()
    sweep()
    report = Report()
    for part in options.only:
        PARTS[part](report, options.rounds, options.seconds)
    report.write(options.json)
    print(report.tables())
    print(f"\nall samples: {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
