# SPDX-License-Identifier: Apache-2.0
"""What is written into the rows, when, and what is not."""

from typing import Any
from uuid import UUID

import pytest
from tests.unit.switch.conftest import Rows, device

from heliograph.kernel import layouts
from heliograph.kernel.counters import CounterMap, Counters
from heliograph.switch import plan
from heliograph.switch.feedback import Feedback, Port
from heliograph.switch.plan import Slots


class Numbers(CounterMap):
    """Counters by slot, without a kernel."""

    def __init__(self, size: int) -> None:
        self.width = size // 8
        self.slots: dict[int, list[int]] = {}

    def read(self, slot: int) -> list[int]:
        known = self.slots.get(slot, [])
        return known + [0] * (self.width - len(known))


class Scene:
    """br0 with tap1 (there) and tap2 (not there), mirror m0 to tap1."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.ports = tuple(rows.port(name) for name in ("tap1", "tap2"))
        self.mirror = rows.add("Mirror", name="m0", select_all=True, output_port=self.ports[0])
        self.bridge = rows.bridge("br0", self.ports, mirrors=(self.mirror,))
        self.counters = Counters(
            Numbers(layouts.PORT_COUNTERS.size), Numbers(layouts.MIRROR_COUNTERS.size)
        )
        self.teller = Feedback(rows.replica, self.counters)
        self.up = True

    def explain(self, now: float, config: int = 0) -> tuple[list[dict[str, Any]], bool]:
        one, two = (self.rows.interface_of(port) for port in self.ports)
        present = {one: device(5, carrier=self.up)}
        made = plan.plan(self.rows.intent, plan.Facts(present, {two: "no such device"}), Slots())
        self.last = made
        ports = {one: Port(made.ports[one], present[one], device(6, "tap1"))}
        return self.teller.explain(self.rows.intent, made, ports, config, now)

    def problem_writes(self, now: float, config: int = 0) -> list[tuple[str, Any]]:
        """(table, mutations) of the writes to heliograph-error; they are carried out as well."""
        operations, _ = self.explain(now, config)
        writes = []
        for operation in operations:
            if operation["op"] != "mutate":
                continue
            row = UUID(operation["where"][0][2][1])
            ids = dict(self.rows.replica.tables[operation["table"]][row]["external_ids"])
            ids.pop("heliograph-error", None)
            for _, kind, value in operation["mutations"]:
                if kind == "insert":
                    ids |= {pair[0]: pair[1] for pair in value[1]}
            self.rows.set(operation["table"], row, external_ids=dict(sorted(ids.items())))
            writes.append((operation["table"], ids))
        return writes


@pytest.fixture
def scene(rows: Rows) -> Scene:
    return Scene(rows)


def written(operations: list[dict[str, Any]], table: str) -> dict[str, Any]:
    """Columns written to the rows of a table, together."""
    found: dict[str, Any] = {}
    for operation in operations:
        if operation["table"] == table and operation["op"] == "update":
            found |= operation["row"]
    return found


def test_everything_is_in_one_transaction_with_cur_cfg(scene: Scene) -> None:
    scene.up = False
    operations, waiting = scene.explain(0.0, config=3)
    assert not waiting
    assert written(operations, "Open_vSwitch")["cur_cfg"] == 3
    errors = [o["row"] for o in operations if o["table"] == "Interface" and o["row"].get("error")]
    assert [(row["error"], row["ofport"]) for row in errors] == [("no such device", -1)]
    assert written(operations, "Mirror")["statistics"] == [
        "map",
        [["tx_bytes", 0], ["tx_packets", 0]],
    ]
    assert [o["table"] for o in operations if o["op"] == "mutate"] == ["Mirror"]


def test_what_stands_there_is_not_written_again(scene: Scene) -> None:
    """Columns that are only written are remembered; those that are read are compared."""
    scene.explain(0.0)
    again, _ = scene.explain(1.0)
    assert written(again, "Interface").keys() == {"ofport", "error"}, "never seen to arrive"
    assert written(again, "Bridge") == {}
    assert written(again, "Mirror") == {}


def test_what_did_not_arrive_is_written_again(scene: Scene) -> None:
    first, _ = scene.explain(0.0)
    scene.teller.forget()
    again, _ = scene.explain(0.0)
    assert again == first


def test_statistics_come_at_their_time_only(scene: Scene) -> None:
    scene.explain(0.0)
    slot = scene.last.slots.mirrors[scene.mirror]
    assert isinstance(scene.counters.mirror_map, Numbers)
    scene.counters.mirror_map.slots[slot] = [7, 700, 7]
    operations, _ = scene.explain(1.0)
    assert written(operations, "Mirror") == {}
    operations = scene.teller.statistics(scene.last, {}, {})
    assert written(operations, "Mirror")["statistics"] == [
        "map",
        [["tx_bytes", 700], ["tx_packets", 7]],
    ]


def test_a_mirror_that_goes_off_has_no_statistics(scene: Scene) -> None:
    scene.explain(0.0)
    scene.rows.set("Mirror", scene.mirror, output_port=None)
    operations, _ = scene.explain(1.0)
    assert written(operations, "Mirror")["statistics"] == ["map", []]


def test_problems_once_a_second_but_at_once_for_an_answer(scene: Scene) -> None:
    """D1."""
    assert scene.problem_writes(10.0) == []
    scene.up = False
    ((_, ids),) = scene.problem_writes(10.1)
    assert "is down" in ids["heliograph-error"]
    scene.up = True
    assert scene.problem_writes(10.5) == []
    assert scene.explain(10.5)[1], "it must be looked at again"
    assert scene.problem_writes(10.5, config=1) == [("Mirror", {})], "an answer does not wait"
    scene.up = False
    assert scene.problem_writes(11.0) == []
    assert len(scene.problem_writes(11.6)) == 1


def test_the_users_own_keys_stay_and_ours_is_put_back(scene: Scene) -> None:
    scene.up = False
    scene.problem_writes(0.0)
    scene.rows.set(
        "Mirror", scene.mirror, external_ids={"heliograph-error": "mine", "owner": "someone"}
    )
    ((_, ids),) = scene.problem_writes(5.0)
    assert ids["owner"] == "someone" and "is down" in ids["heliograph-error"]


def test_rows_that_are_gone_meanwhile_are_left_out(scene: Scene) -> None:
    before = scene.rows.intent
    made = plan.plan(before, plan.Facts(), Slots())
    scene.rows.delete("Mirror", scene.mirror)
    operations, _ = scene.teller.explain(before, made, {}, 0, 0.0)
    assert not [o for o in operations if o["table"] == "Mirror"]


def test_columns_that_an_older_schema_lacks_are_left_out(scene: Scene) -> None:
    columns = scene.rows.replica.schema.tables["Interface"].columns
    kept = columns.pop("duplex")
    try:
        operations, _ = scene.explain(0.0)
    finally:
        columns["duplex"] = kept
    assert "mtu" in written(operations, "Interface")
    assert "duplex" not in written(operations, "Interface")
