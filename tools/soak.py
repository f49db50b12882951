# SPDX-License-Identifier: Apache-2.0
"""`make soak`: many random cases against the models (tests/oracle) of the rules and of flow tables.

    make soak [CASES=100000] [SEED=...]

So many of the one and of the other. Nine in ten go through the program's recording entry point, the
others are real frames: those of the rules are captured and counted, those of flow tables sent
through Open vSwitch as well. The seed is printed first; with it the same cases come again. A
difference ends the run with exit code 1 and says how to see it again.
"""

import contextlib
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.oracle import cases, wire
from tests.oracle.flow_pipeline_program import FlowProgram, run_random, run_random_mirrored
from tests.oracle.program import Program, difference
from tests.system.flow_beside import Beside
from tools.lab.flows import PORTS, Side, StockSide
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openvswitch import Tools

from heliograph.kernel import bpffs
from heliograph.kernel.dataplane import DataPlane

RECORDED, REAL, FLOWS = 20, 40, 50  # frames of one configuration
SAY = 10.0  # seconds between lines


class Progress:
    """Says now and then how far it is."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.start = self.said = time.monotonic()

    def at(self, done: int, *, end: bool = False) -> None:
        now = time.monotonic()
        if end or now > self.said + SAY:
            self.said = now
            rate = done / max(now - self.start, 0.001)
            print(f"{self.what}: {done} of {self.total} cases, {rate:.0f} a second", flush=True)


@contextlib.contextmanager
def loaded() -> Iterator[DataPlane]:
    """The data plane, below a bpffs of its own."""
    with tempfile.TemporaryDirectory(prefix="heliograph-") as folder:
        root = Path(folder) / "bpf"
        bpffs.mount(root)
        try:
            plane = DataPlane.open(root)
            try:
                yield plane
            finally:
                plane.close()
        finally:
            bpffs.unmount(root)


def recorded(seed: str, count: int) -> str | None:
    """Cases through the recording entry point; the first difference, if any."""
    progress, compared, number = Progress("recorded", count), 0, 0
    with loaded() as plane:
        program = Program(plane)
        while compared < count:
            rng = Random(f"{seed}/{number}")
            config = cases.configuration(rng)
            program.configure(config)
            for _ in range(RECORDED):
                case = (*rng.choice(config.inputs()), cases.frame(rng))
                said = difference(program, config, case)
                if said:
                    return f"recorded configuration {number}\n{said}{config}\n{case}"
                compared += said is not None
            number += 1
            progress.at(compared)
    progress.at(compared, end=True)
    return None


def recorded_flows(seed: str, count: int) -> str | None:
    """Flow tables in the same way, every third one with mirrors."""
    progress, compared, number = Progress("recorded flow tables", count), 0, 0
    with loaded() as plane:
        program = FlowProgram(plane)
        while compared < count:
            name = f"{seed}/flows/{number}"
            if number % 3 == 2:
                more, said = run_random_mirrored(program, name, FLOWS)
            else:
                more, said = run_random(program, name, FLOWS, chosen=number % 4 == 0)
            if said:
                return f"recorded flow tables {number}\n{program.bridge}\n{said}"
            compared += more
            number += 1
            progress.at(compared)
        program.close()
    progress.at(compared, end=True)
    return None


def real(seed: str, count: int) -> str | None:
    """Cases as real frames; the first differences, if any."""
    progress = Progress("real frames", count)
    with Lab() as lab:
        switch = Heliograph(lab)
        switch.start()
        with wire.network(lab, switch) as network:
            for number in range(-(-count // REAL)):
                said = wire.differences(network, Random(f"{seed}/{number}"), number, REAL)
                if said:
                    return "\n".join([f"real configuration {number}", *said])
                progress.at((number + 1) * REAL)
            progress.at((number + 1) * REAL, end=True)
    return None


def real_flows(seed: str, count: int) -> str | None:
    """Flow tables on real frames, beside Open vSwitch."""
    progress, each = Progress("real frames through flow tables", count), REAL * len(PORTS)
    with Lab() as lab:
        switch = Heliograph(lab)
        switch.start()
        sides = StockSide(lab), Side(lab, Tools(switch.rundir), switch.host)
        beside = Beside(*sides)
        for number in range(-(-count // each)):
            for said in beside.random(seed, number, REAL):
                return f"flow tables {number}\n{said}"
            progress.at((number + 1) * each)
        progress.at((number + 1) * each, end=True)
        for side in sides:
            side.close()
    return None


def main() -> int:
    total = int(os.environ.get("CASES") or 100_000)
    seed = os.environ.get("SEED") or str(secrets.randbits(32))
    print(f"seed {seed}, {total} cases (again: make soak SEED={seed} CASES={total})", flush=True)
    few = max(total // 10, 1)
    said = (
        recorded_flows(seed, total)
        or real_flows(seed, few)
        or recorded(seed, total - total // 10)
        or real(seed, few)
    )
    print(f"seed {seed}: {said}" if said else f"seed {seed}: no difference", flush=True)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
