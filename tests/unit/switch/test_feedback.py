# SPDX-License-Identifier: Apache-2.0
"""What is written into the rows, when, and what is not."""

from typing import Any
from uuid import UUID

import pytest
from tests.unit.switch.conftest import Rows, device

from heliograph.control.wanted import ControllerStatus
from heliograph.kernel import layouts
from heliograph.kernel.counters import CounterMap, Counters, MirrorCounts, PortCounts
from heliograph.kernel.layouts import Reason
from heliograph.switch import plan
from heliograph.switch.feedback import (
    Feedback,
    Port,
    datapath_id,
    interface_statistics,
    mirror_statistics,
)
from heliograph.switch.slots import Slots
from heliograph.switch.wanted import stable_mac


class Numbers(CounterMap):
    """Counters by slot, without a kernel."""

    def __init__(self, size: int) -> None:
        super().__init__(-1, size, 1)
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
        self.teller = Feedback(rows.replica)
        self.up = True
        self.controllers: dict[UUID, ControllerStatus] = {}

    def explain(self, now: float, config: int = 0) -> tuple[list[dict[str, Any]], bool]:
        one, two = (self.rows.interface_of(port) for port in self.ports)
        present = {one: device(5, carrier=self.up)}
        made = plan.plan(self.rows.intent, plan.Facts(present, {two: "no such device"}), Slots())
        self.last = made
        ports = {one: Port(made.ports[one], present[one], device(6, "tap1"))}
        counts = self.counters.read(*self.teller.uncounted(made, ports))
        return self.teller.explain(
            self.rows.intent, made, ports, counts, self.controllers, config=config, now=now
        )

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
    operations = scene.teller.statistics(scene.last, {}, scene.counters.read([], [slot]), {}, {})
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
    counts = scene.counters.read([], made.slots.mirrors.values())
    operations, _ = scene.teller.explain(before, made, {}, counts, {}, config=0, now=0.0)
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


def row_of(scene: Scene, port: Port, statistics: bool = False) -> dict[str, Any]:
    """What is written into tap2's Interface row when it is such a port."""
    interface = scene.rows.interface_of(scene.ports[1])
    made = plan.plan(scene.rows.intent, plan.Facts(), Slots())
    made.errors.clear()
    made.ofports[interface] = 2
    counts = scene.counters.read([port.number] if statistics else [], [])
    operations, _ = scene.teller.explain(
        scene.rows.intent, made, {interface: port}, counts, {}, config=0, now=0.0
    )
    found: dict[str, Any] = {}
    for operation in operations:
        if operation["table"] == "Interface" and operation["where"][0][2][1] == str(interface):
            found |= operation["row"]
    return found


@pytest.mark.parametrize(("carrier", "state"), [(True, "up"), (False, "down")])
def test_a_tunnels_row_says_by_which_device_its_packets_leave(
    scene: Scene, carrier: bool, state: str
) -> None:
    """The device's carrier is the tunnel's link state, as in Open vSwitch; it is no device."""
    egress = device(9, "eth9", carrier=carrier)
    row = row_of(scene, Port(7, None, None, tunnel=True, egress=egress))
    assert row["status"] == [
        "map",
        [["tunnel_egress_iface", "eth9"], ["tunnel_egress_iface_carrier", state]],
    ]
    assert (row["admin_state"], row["link_state"], row["ofport"]) == ("up", state, 2)
    assert row["ifindex"] == row["mtu"] == row["mac_in_use"] == ["set", []]


def test_a_tunnel_without_a_way_has_no_egress(scene: Scene) -> None:
    """And what was said of one while there was goes."""
    row_of(scene, Port(7, None, None, tunnel=True, egress=device(9, "eth9")))
    row = row_of(scene, Port(7, None, None, tunnel=True))
    assert (row["status"], row["link_state"]) == (["map", []], "down")


def test_a_tunnel_that_only_receives_needs_no_way_to_be_up(scene: Scene) -> None:
    row = row_of(scene, Port(7, None, None, tunnel=True, receiving=True))
    assert (row["status"], row["link_state"]) == (["map", []], "up")


def test_a_row_that_is_a_tunnel_no_more_has_no_status(scene: Scene) -> None:
    row_of(scene, Port(7, None, None, tunnel=True, egress=device(9, "eth9")))
    row = row_of(scene, Port(7, device(5), device(6, "tap2")))
    assert (row["status"], row["ifindex"]) == (["map", []], 6)


def test_a_tunnels_statistics_say_what_was_cut_and_lost(scene: Scene) -> None:
    assert isinstance(scene.counters.port_map, Numbers)
    fields = layouts.PortCounters._fields
    values = {"rx_packets": 1, "tx_packets": 9, "handed": 10, "arrived": 10, "cut_mtu": 4}
    scene.counters.port_map.slots[7] = [values.get(name, 0) for name in fields[:-1]]
    row = row_of(scene, Port(7, None, None, tunnel=True), statistics=True)
    statistics = dict(row["statistics"][1])
    assert statistics["cut_mtu"] == 4 and statistics["tx_packets"] == 9
    assert statistics["rx_errors"] == 0, "there is no device to ask"
    assert "handed" not in statistics and "drop_segmenter" not in statistics


def test_departure_2_what_is_cut_to_the_mtu_is_delivered() -> None:
    counts = MirrorCounts(10, 1000, 8, 3, {Reason.DROP_NO_ROUTE: 2})
    assert mirror_statistics(counts, flooded=False) == {
        "tx_packets": 10,
        "tx_bytes": 1000,
        "cut_mtu": 3,
        "drop_no_route": 2,
    }
    assert "cut_mtu" not in mirror_statistics(MirrorCounts(1, 60, 1, 0, {}), flooded=False)


def test_what_a_tunnel_refuses_was_received_and_what_it_cannot_send_was_not() -> None:
    drops = {Reason.DROP_KEY: 1, Reason.DROP_CHECKSUM: 2, Reason.DROP_MTU: 4, Reason.DROP_LOOP: 8}
    found = interface_statistics(PortCounts(3, 300, 0, 0, 0, drops), None)
    assert (found["rx_dropped"], found["tx_dropped"]) == (3, 12)
    assert "cut_mtu" not in found


def test_controllers_are_told_and_what_is_wrong_with_them(scene: Scene) -> None:
    row = scene.rows.add("Controller", target="tcp:192.0.2.1", local_ip="192.0.2.2")
    scene.rows.set("Bridge", scene.bridge, controller=(row,))
    status = ControllerStatus(True, "master", {"state": "ACTIVE"}, "is odd")
    scene.controllers = {row: status}
    operations, _ = scene.explain(0.0)
    (update,) = [o for o in operations if o["table"] == "Controller" and o["op"] == "update"]
    assert update["row"] == {
        "is_connected": True,
        "role": "master",
        "status": ["map", [["state", "ACTIVE"]]],
    }
    (told,) = [text for table, text in scene.problem_writes(1.0) if table == "Controller"]
    assert "local_ip" in told["heliograph-error"] and told["heliograph-error"].endswith("; is odd")
    later = scene.teller.statistics(scene.last, {}, scene.counters.read([], []), {}, {row: status})
    assert later == []
    scene.controllers = {row: ControllerStatus(False, None, {}, "")}
    (gone,) = scene.teller.statistics(
        scene.last, {}, scene.counters.read([], []), {}, scene.controllers
    )
    assert gone["row"] == {"is_connected": False, "role": ["set", []], "status": ["map", []]}


def test_datapath_id_is_the_configured_one_or_from_a_mac(rows: Rows) -> None:
    port = rows.port("br0")
    row = rows.bridge("br0", (port,))
    (bridge,) = rows.intent.bridges
    local = Port(1, device(5), device(6, "br0", mac="02:00:00:00:00:06"))
    assert datapath_id(bridge, {rows.interface_of(port): local}) == 0x0200_0000_0006
    assert datapath_id(bridge, {}) == int(stable_mac(row).replace(":", ""), 16)
    rows.set("Bridge", row, other_config={"datapath-id": "0x7"})
    assert datapath_id(rows.intent.bridges[0], {rows.interface_of(port): local}) == 7
