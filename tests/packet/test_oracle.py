# SPDX-License-Identifier: Apache-2.0
"""Random configurations and frames: the program against the model of the rules (tests/oracle).

`make soak` runs many more of the second kind.
"""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.oracle import cases
from tests.oracle.program import Program, difference

from heliograph.kernel.dataplane import DataPlane

SEED = 20_261_121
CONFIGURATIONS, FRAMES = 250, 20


@pytest.fixture(scope="module")
def program(plane: DataPlane) -> Iterator[Program]:
    made = Program(plane)
    yield made
    made.clear()


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.randoms(use_true_random=False))
def test_one_frame_which_is_made_small_when_it_fails(program: Program, rng: Random) -> None:
    config = cases.configuration(rng)
    slot, port = rng.choice(config.inputs())
    frame = cases.frame(rng)
    program.configure(config)
    assert not difference(program, config, (slot, port, frame)), (config, slot, port, frame.hex())


def test_many_frames(program: Program) -> None:
    compared = 0
    for number in range(CONFIGURATIONS):
        rng = Random(f"{SEED}/{number}")
        config = cases.configuration(rng)
        program.configure(config)
        for _ in range(FRAMES):
            slot, port = rng.choice(config.inputs())
            frame = cases.frame(rng)
            differs = difference(program, config, (slot, port, frame))
            assert not differs, (differs, SEED, number, config, slot, port, frame.hex())
            compared += differs is not None
    assert compared > CONFIGURATIONS * FRAMES * 0.9, "too few cases could be compared"
