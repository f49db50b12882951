# SPDX-License-Identifier: Apache-2.0
"""What flow tables cost: the program alone, throughput, changes of flows, and flows never seen.

The stock ovs-ofctl installs the flows, on Heliograph and on Open vSwitch alike.
"""

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice
from math import inf

from tools.lab.lab import Lab

from bench import flow_rules as rules
from bench.flow_rules import Lines, Table
from bench.program import measured
from bench.report import Report
from bench.rigs import UNMIRRORED, OvsRig, heliograph, open_vswitch
from bench.sending import Frames
from bench.traffic import SETTLE, greet, small_frames, start_server, tcp_stream, udp_frame

NANOSECONDS = "flow tables: ingress program, ns/frame"
OVER_NONE = "flow tables: that over a table without flows, ns/frame"
SINGLE = "flow tables: ingress program, single runs, ns/frame"
SMALL = "flow tables: 60-byte frames, frames/s"
LOST = "flow tables: 60-byte frames, % lost"
TCP = "flow tables: one TCP stream (both ends on one CPU), Gbit/s"
INSTALL = "flow tables: 10,000 flows by ovs-ofctl, s"
NEW = "flow tables: 60-byte frames of flows never seen, frames/s"
NEW_BY_CPU = "flow tables: 60-byte frames of flows never seen, frames/s of the sender's CPU time"
NEW_LOST = "flow tables: 60-byte frames of flows never seen, at 0.8 of that pace, % lost"
KEPT = "flow tables: 10,000 new flows a second, share of one flow's frames/s"
NO_TABLES = "NORMAL, no tables"
MASKS, FLOWS = (1, 4, 16, 64), (10, 10_000, 100_000)
CYCLE = 10_000  # frames that are run once each
LOOPBACK = 1
INSTALLED = 10_000
NEW_PER_SECOND = 10_000
ONE_FLOW, NEW_FLOWS = "one flow", f"{NEW_PER_SECOND:,} new flows a second"
PACE = 0.8  # share of what arrives of one flow's frames when they are sent as fast as can be
PATIENCE = 600.0  # seconds for ovs-ofctl
V13 = "-OOpenFlow13"


def _say(text: str) -> None:
    print(f"... flow tables: {text}", file=sys.stderr, flush=True)


def _install(rig: OvsRig, lines: Lines, *options: str) -> float:
    """Replace all flows; seconds that ovs-ofctl took to add them."""
    path = rig.tools.rundir / "bench-flows"
    path.write_text("\n".join(lines) + "\n")
    rig.tools.run("ovs-ofctl", "del-flows", "br0", timeout=PATIENCE)
    start = time.perf_counter()
    rig.tools.run("ovs-ofctl", *options, "add-flows", "br0", path, timeout=PATIENCE)
    return time.perf_counter() - start


def _tables() -> list[Table]:
    """Every number of masks with every number of flows, of which each mask has one at least."""
    return [Table(masks, max(flows, masks + 1)) for flows in FLOWS for masks in MASKS]


_DEEP: dict[str, tuple[Lines, str]] = {
    "10 tables deep, resubmit": (rules.deep(lambda table: f"resubmit(,{table})"), ""),
    "10 tables deep, goto_table": (rules.deep(lambda table: f"goto_table:{table}"), V13),
}


def _program(report: Report, rounds: int) -> None:
    """Nanoseconds of the ingress program, without what becomes of the frame then."""
    with Lab() as lab:
        rig = heliograph(lab, UNMIRRORED)
        sender, receiver = rig.guests[:2]
        frame = [udp_frame(sender, receiver)]
        greet(rig)

        def add(name: str) -> None:
            report.add(NANOSECONDS, name, *(measured(rig, frame) for _ in range(rounds)))

        nowhere = (measured(rig, frame, LOOPBACK) for _ in range(rounds))
        report.add(NANOSECONDS, "a frame of no port", *nowhere)
        add(NO_TABLES)
        _install(rig, [])
        add(none := "a table without flows, so it drops")
        _install(rig, Table(1, 10).lines("drop"))
        add(drops := "1 mask, 10 flows that drop")
        for table in _tables():
            _say(f"program, {table}")
            _install(rig, table.lines())
            add(str(table))
            _single(report, rig, table, rounds)
        for name, (lines, options) in _DEEP.items():
            _install(rig, lines, *options.split())
            add(name)
        for name, lines in (
            ("the whole budget used, by resubmits", rules.endless()),
            (f"the whole budget used, by tables of {rules.CROWD} masks", rules.crowded()),
        ):
            _install(rig, lines)
            add(name)
    base = report.median(NANOSECONDS, none)
    for name in drops, *map(str, _tables()):
        samples = report.measured[NANOSECONDS][name]
        report.add(OVER_NONE, name, *(sample - base for sample in samples))
    report.aim(OVER_NONE, str(Table(1, 10)), "<= 80")
    report.aim(NANOSECONDS, str(_tables()[2]), "<= 400")


def _single(report: Report, rig: OvsRig, table: Table, rounds: int) -> None:
    """Frames that each meet another flow, beside as many that meet the same."""
    targets = table.targets()
    if len(targets) < 100:
        return
    sender, receiver = rig.guests[:2]
    for turn in range(rounds):
        chosen = random.Random(turn).sample(targets, min(CYCLE, len(targets)))
        for name, to in ("one flow", [chosen[0]] * len(chosen)), ("each another flow", chosen):
            frames = list(rules.frames_to(sender, receiver, to))
            report.add(SINGLE, f"{table}, {name}", measured(rig, frames))


def _throughput(report: Report, rounds: int, seconds: float) -> None:
    with Lab() as lab:
        rigs = [build(lab, UNMIRRORED) for build in (heliograph, open_vswitch)]
        for rig in rigs:
            start_server(lab, rig)

        def contest(name: str, *, stream: bool) -> None:
            _say(f"throughput, {name}")
            for _ in range(rounds):
                for rig in rigs:
                    burst = small_frames(rig, seconds / 2)
                    report.add(SMALL, f"{rig}, {name}", burst.per_second)
                    report.add(LOST, f"{rig}, {name}", burst.lost * 100)
                    if stream:
                        gbit = tcp_stream(rig, seconds).gbit
                        report.add(TCP, f"{rig}, {name}", gbit)

        contest(NO_TABLES, stream=True)
        for table in _tables():
            for rig in rigs:
                _install(rig, table.lines())
            contest(str(table), stream=table.flows == 10_000)
        for name, (lines, options) in _DEEP.items():
            for rig in rigs:
                _install(rig, lines, *options.split())
            contest(name, stream=True)


def _installing(report: Report, rounds: int) -> None:
    with Lab() as lab:
        rigs = [build(lab, UNMIRRORED) for build in (heliograph, open_vswitch)]
        lines = rules.to_install(INSTALLED)
        for _ in range(rounds):
            _say(f"{INSTALLED:,} flows installed")
            for rig in rigs:
                for how, options in ("add-flows", ()), ("add-flows --bundle", ("--bundle",)):
                    report.add(INSTALL, f"{rig}, {how}", _install(rig, lines, *options))
        for how in "add-flows", "add-flows --bundle":
            report.aim(INSTALL, f"{rigs[0]}, {how}", "< 2")


@dataclass(frozen=True)
class _Burst:
    sent: float  # frames/s
    arrived: float
    per_cpu_second: float  # frames that arrived, by the sender's time on its CPU

    @property
    def lost(self) -> float:
        return max(1 - self.arrived / self.sent, 0.0)


def _burst(rig: OvsRig, seconds: float, others: Sequence[bytes], most: float = inf) -> _Burst:
    """One flow's frames, `most` a second, and 10,000 of the others a second among them."""
    sender, receiver = rig.guests[:2]
    (known,) = rules.frames_from(sender, receiver, [0])
    frames, other = Frames([known]), iter(others)
    greet(rig)
    before, sent, taken = receiver.received(), 0, 0
    with sender.namespace.packet_socket(sender.device, 0) as out:
        start, used = time.perf_counter(), time.thread_time()
        while (lasted := time.perf_counter() - start) < seconds:
            if sent >= most * lasted:
                continue
            due = min(int(lasted * NEW_PER_SECOND) - taken, frames.count)
            for n in range(due):
                frames.replace(n, next(other, known))
            sent += frames.send_once(out)
            for n in range(due):
                frames.replace(n, known)
            taken += due
        used = time.thread_time() - used
    time.sleep(SETTLE)
    arrived = receiver.received() - before
    return _Burst(sent / lasted, arrived / lasted, arrived / used)


def _cliff(report: Report, rounds: int, seconds: float) -> None:
    """One flow's frames, and the same with a frame of a flow never seen every 100 µs: as fast as
    they can be sent, and at a pace at which one flow's all arrive."""
    with Lab() as lab:
        rigs = [build(lab, UNMIRRORED) for build in (heliograph, open_vswitch)]
        each = int(NEW_PER_SECOND * seconds) + 1
        for rig in rigs:
            _install(rig, rules.pairs(1 + rounds * 2 * each))
        numbers = count(1)
        for turn in range(rounds):
            _say(f"new flows, turn {turn + 1} of {rounds}")
            batches = [list(islice(numbers, each)) for _ in range(2)]
            for rig in rigs:
                first, second = (
                    list(rules.frames_from(rig.guests[0], rig.guests[1], b)) for b in batches
                )
                # The sender has the same to do when there is nothing new.
                same = list(rules.frames_from(rig.guests[0], rig.guests[1], [0] * each))
                alone = _burst(rig, seconds, same)
                pace = alone.arrived * PACE
                for name, fast, paced in (
                    (ONE_FLOW, alone, _burst(rig, seconds, same, pace)),
                    (NEW_FLOWS, _burst(rig, seconds, first), _burst(rig, seconds, second, pace)),
                ):
                    report.add(NEW, f"{rig}, {name}", fast.arrived)
                    report.add(NEW_BY_CPU, f"{rig}, {name}", fast.per_cpu_second)
                    report.add(NEW_LOST, f"{rig}, {name}", paced.lost * 100)
        for rig in rigs:
            names = f"{rig}, {NEW_FLOWS}", f"{rig}, {ONE_FLOW}"
            report.add(KEPT, str(rig), *report.times(NEW, *names))
        # Open vSwitch's work is not done on the sender's time.
        names = f"{rigs[0]}, {NEW_FLOWS}", f"{rigs[0]}, {ONE_FLOW}"
        report.add(KEPT, f"{rigs[0]}, by CPU time", *report.times(NEW_BY_CPU, *names))
        report.aim(KEPT, str(rigs[0]), ">= 0.95")


def flows(report: Report, rounds: int, seconds: float) -> None:
    """Flow tables, beside Open vSwitch's."""
    _program(report, rounds)
    _throughput(report, rounds, seconds)
    _installing(report, rounds)
    _cliff(report, rounds, seconds)
