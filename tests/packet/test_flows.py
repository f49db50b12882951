# SPDX-License-Identifier: Apache-2.0
"""Random flow tables and frames through the recording entry point, against the model: which flows
are hit, what leaves where, byte for byte. `make soak` runs many more of the same.

Tables are made as controllers make them, by way of our own tables, compiler and store.
"""

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from tests.oracle.flow_pipeline_cases import Cases
from tests.oracle.flow_pipeline_frames import Frames
from tests.oracle.flow_pipeline_program import NUMBERS, FlowProgram, bridge, run_random
from tests.packet.flows import add

from heliograph.kernel.dataplane import DataPlane
from heliograph.openflow import actions as a
from heliograph.openflow.messages import Version

SEED = 20_261_121
TABLES, FRAMES = 150, 40
RULES = 3000


@pytest.fixture(scope="module")
def program(plane: DataPlane) -> Iterator[FlowProgram]:
    made = FlowProgram(plane)
    yield made
    made.close()


def test_random_tables(program: FlowProgram) -> None:
    compared, refused = 0, Counter[str]()
    for number in range(TABLES):
        count, said = run_random(program, f"{SEED}/{number}", FRAMES)
        assert not said, f"seed {SEED}/{number}\n{said}"
        compared += count
        refused.update(program.refused)
    assert compared > TABLES * FRAMES * 0.9, "too few frames could be compared"
    assert set(refused) <= {
        "OFPBAC_MATCH_INCONSISTENT",
        "OFPBAC_BAD_SET_ARGUMENT",
        "OFPBAC_BAD_OUT_GROUP",
        "OFPBAC_BAD_TAG",
    }


def test_two_tags_are_parsed_where_the_bridge_says_so(program: FlowProgram) -> None:
    for number in range(TABLES // 5):
        count, said = run_random(program, f"{SEED}/two/{number}", FRAMES, vlan_limit=2)
        assert not said, f"seed {SEED}/two/{number}\n{said}"
        assert count


def test_select_groups_take_one_of_their_buckets(program: FlowProgram) -> None:
    for number in range(TABLES // 5):
        _, said = run_random(program, f"{SEED}/select/{number}", FRAMES, chosen=True)
        assert not said, f"seed {SEED}/select/{number}\n{said}"


def test_a_linear_search_in_a_large_table(program: FlowProgram) -> None:
    """Thousands of flows under many masks; only which one is hit counts."""
    random = Random(SEED)
    cases, frames = Cases(random), Frames(random)
    cases.samples = [frames.frame() for _ in range(300)]
    program.start()
    matches = [cases.match(0) for _ in range(RULES)]
    matches.sort(key=lambda match: sum(mask.bit_count() for _, _, mask in match))
    mods = [add(a.Output(1 + n % 4), priority=n, match=match) for n, match in enumerate(matches)]
    program.change(mods)
    assert program.tables.tables[0].masks > 100
    pipeline = program.pipeline()
    hit = Counter[int]()
    for _ in range(2000):
        in_port, frame = (
            random.choice(list(NUMBERS)),
            random.choice([cases.samples[0], frames.frame()]),
        )
        said = program.difference(pipeline, in_port, frame)
        assert not said, (in_port, frame.hex(), said)
        hit.update(flow.priority for _, flow in pipeline.run(frame, in_port).hits if flow)
    assert len(hit) > 100


def test_flows_come_and_go(program: FlowProgram) -> None:
    """After each change a frame meets the flows that are there then, and no others."""
    random = Random(SEED)
    cases, frames = Cases(random), Frames(random)
    cases.samples = [frames.frame() for _ in range(10)]
    program.start()
    program.change([cases.group(number) for number in (1, 2, 3)])
    for number in range(300):
        old = random.choice(list(program.tables.flows.values()) or [None])
        if old is None or random.random() < 0.6:
            mod = cases.flow(random.choice([0, 0, 1]), number + 1)
        else:
            mod = add(
                *old.actions, table=old.table_id, priority=old.priority, match=old.match, gone=True
            )
        program.change([mod])
        pipeline = program.pipeline()
        for _ in range(5):
            frame = random.choice([*cases.samples, frames.frame()])
            said = program.difference(pipeline, 1, frame)
            assert not said, (number, mod, frame.hex(), said)


def test_open_flow_10_changes_what_is_there(program: FlowProgram) -> None:
    """Actions that meet a packet without what they change do nothing."""
    everything = (
        a.SetIpv4Src(1),
        a.SetIpv4Dst(2),
        a.SetTos(40),
        a.SetTpSrc(3),
        a.SetTpDst(4),
        a.DecTtl(),
        a.SetVlanVid(5),
        a.Output(2),
    )
    program.start(bridge())
    program.change([add(*everything)], Version.V10)
    assert not program.refused
    frames = Frames(Random(SEED))
    for frame in (frames.frame() for _ in range(300)):
        assert not program.difference(program.pipeline(), 1, frame), frame.hex()
