# SPDX-License-Identifier: Apache-2.0
"""Which mirrors work, and what is said of those that do not (D1, rules 3, 91 to 94)."""

from typing import Any
from uuid import UUID

import pytest
from tests.unit.switch.conftest import Rows

from heliograph.kernel.layouts import VlanMode
from heliograph.kernel.snapshot import PortEntry
from heliograph.switch import mirrors

FINE = "works"


class Scene:
    """Bridge br0 with ports a (works), b (does not) and a stranger on br1."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.a, self.b, self.stranger = (rows.port(name) for name in ("a", "b", "stranger"))
        self.states: dict[UUID, str | None] = {self.a: None, self.b: "device b is down"}
        self.patches: frozenset[UUID] = frozenset()

    def judge(self, *, placed: bool = True, **columns: Any) -> tuple[bool, str]:
        """Whether a mirror with these columns has a place, and what is said of it."""
        mirror = self.rows.add("Mirror", name="m0", **columns)
        self.rows.bridge("br0", (self.a, self.b), mirrors=(mirror,))
        view = self.view()
        (made,) = view.bridge.mirrors
        texts = mirrors.problems(made, view, placed)
        return mirrors.can_work(made, view.numbers), "; ".join(texts) or FINE

    def view(self, patches: frozenset[UUID] = frozenset()) -> mirrors.View:
        """What the planner knows of br0: ports a and b are numbers 1 and 2, trunks of VLAN 7."""
        return mirrors.View(
            bridge=next(b for b in self.rows.intent.bridges if b.name == "br0"),
            numbers={self.a: 1, self.b: 2},
            faults=self.states,
            patches=patches | self.patches,
            entries=tuple(
                PortEntry(n, 100 + n, VlanMode.TRUNK, 0, frozenset({7}), 1) for n in (1, 2)
            ),
        )


@pytest.fixture
def scene(rows: Rows) -> Scene:
    return Scene(rows)


def test_outputs(scene: Scene) -> None:
    assert scene.judge(select_all=True, output_port=scene.a) == (True, FINE)


@pytest.mark.parametrize(
    ("output", "vlan", "works", "words"),
    [
        (
            None,
            None,
            False,
            "has no output, so the mirror is off: -- --id=@p get port PORT -- set mirror m0",
        ),
        (None, 7, True, FINE),
        (None, 8, True, "no port of bridge br0 carries its output_vlan 8"),
        ("a", 7, True, "output_vlan is ignored: clear mirror m0 output_vlan"),
        ("b", None, True, "its output does not work: device b is down"),
        ("stranger", None, False, "not on bridge br0"),
    ],
)
def test_outputs_that_are_wrong(
    scene: Scene, output: str | None, vlan: int | None, works: bool, words: str
) -> None:
    port = getattr(scene, output) if output else None
    able, said = scene.judge(select_all=True, output_port=port, output_vlan=vlan)
    assert able == works and words in said


def test_a_filter_turns_it_off(scene: Scene) -> None:
    able, said = scene.judge(select_all=True, output_port=scene.a, filter="tcp")
    assert not able and "filter is not supported" in said


def test_no_place_left(scene: Scene) -> None:
    assert (
        "32 mirrors already" in scene.judge(select_all=True, output_port=scene.a, placed=False)[1]
    )


def test_ports_of_other_bridges_are_ignored_and_none_is_not_all(scene: Scene) -> None:
    """Rule 3."""
    able, said = scene.judge(select_src_port=(scene.stranger,), output_port=scene.a)
    assert able and "1 selected port(s) are not on bridge br0" in said and "selects no port" in said
    view = scene.view()
    entry = mirrors.entry(view.bridge.mirrors[0], view, 32)
    assert entry.sources == entry.destinations == frozenset()


def test_select_all_takes_every_port_and_ignores_the_lists(scene: Scene) -> None:
    """Rule 2."""
    _, said = scene.judge(
        select_all=True, select_src_port=(scene.stranger,), output_port=scene.a, select_vlan=(5,)
    )
    assert said == FINE
    view = scene.view()
    entry = mirrors.entry(view.bridge.mirrors[0], view, 3 * 32 + 5)
    assert entry.sources == entry.destinations == {1, 2}
    assert (entry.number, entry.slot, entry.output_port, entry.vlans) == (5, 101, 1, frozenset({5}))


def test_rule_91_an_output_port_wins_over_a_vlan(scene: Scene) -> None:
    scene.judge(select_all=True, output_port=scene.a, output_vlan=7)
    view = scene.view()
    entry = mirrors.entry(view.bridge.mirrors[0], view, 0)
    assert (entry.output_port, entry.output_vlan) == (1, 0)


def test_rspan(scene: Scene) -> None:
    scene.judge(select_all=True, output_vlan=7)
    view = scene.view()
    entry = mirrors.entry(view.bridge.mirrors[0], view, 0)
    assert (entry.output_port, entry.output_vlan) == (None, 7)


def test_rule_13_patch_ports_show_nothing(scene: Scene) -> None:
    scene.patches = frozenset({scene.b})
    said = scene.judge(select_src_port=(scene.b,), output_port=scene.a)[1]
    assert "selects only patch ports" in said
    scene.states[scene.b] = None


def test_rule_81_snaplen_and_a_patch_port(scene: Scene) -> None:
    scene.patches = frozenset({scene.b})
    scene.states[scene.b] = None
    said = scene.judge(select_all=True, output_port=scene.b, snaplen=64)[1]
    assert "clear mirror m0 snaplen" in said


@pytest.mark.parametrize(("sources", "words"), [("a", "reserved for copies"), ("ab", FINE)])
def test_rule_51_a_mirror_of_its_own_output_sees_nothing(
    scene: Scene, sources: str, words: str
) -> None:
    scene.states[scene.b] = None
    ports = tuple(sorted(getattr(scene, name) for name in sources))
    assert words in scene.judge(select_src_port=ports, output_port=scene.a)[1]
