# SPDX-License-Identifier: Apache-2.0
"""What the switch tells: counters and states of devices, as columns of the rows.

Only what differs from what stands in the database is written: for columns that the switch
monitors it looks there, for the others at what it wrote last.
"""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from heliograph import __version__
from heliograph.control.wanted import ControllerStatus
from heliograph.kernel import bpf, bpffs, layouts
from heliograph.kernel.counters import Counters, Counts, MirrorCounts, PortCounts, drop_key
from heliograph.kernel.dataplane import ROW_MIRRORS, ROW_PORTS, read_rows
from heliograph.kernel.devices import Device, DeviceStats
from heliograph.kernel.layouts import Limits
from heliograph.ovsdb.replica import Replica, Row
from heliograph.ovsdb.values import to_json
from heliograph.switch.intent import ERROR_KEY, Bridge, Intent
from heliograph.switch.plan import Plan
from heliograph.switch.wanted import SUPPORTED_TYPES, stable_mac

# How often at most the problem of one row is rewritten, in seconds (departure D1).
PROBLEM_INTERVAL = 1.0

Operation = dict[str, Any]
Columns = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Port:
    """A working port: our device, and the end that the user sees (None if it cannot be seen).

    A patch port has neither, nor has a `tunnel`, whose packets leave by `egress` if there is a way;
    one that is `receiving` only needs none.
    """

    number: int
    device: Device | None
    user: Device | None
    link_speed: int | None = None
    duplex: str | None = None
    tunnel: bool = False
    egress: Device | None = None
    receiving: bool = False


@dataclass(slots=True)
class Writer:
    """Turns desired columns into operations, and remembers what it wrote."""

    replica: Replica
    _written: dict[tuple[UUID, str], Any] = field(default_factory=dict)
    _problem_times: dict[UUID, float] = field(default_factory=dict)

    def update(self, table: str, uuid: UUID, columns: Columns) -> list[Operation]:
        """Set columns of a row to values, those that differ."""
        row = self.replica.tables[table].get(uuid)
        known = self.replica.schema.tables[table].columns
        if row is None:
            return []
        changed: Columns = {}
        for column, value in columns.items():
            if column not in known:
                continue  # an older database
            before = row[column] if column in row else self._written.get((uuid, column), ...)
            if before != value:
                changed[column] = to_json(known[column].type, value)
            self._written[uuid, column] = value
        if not changed:
            return []
        where = [["_uuid", "==", ["uuid", str(uuid)]]]
        return [{"op": "update", "table": table, "where": where, "row": changed}]

    def problem(
        self, table: str, uuid: UUID, text: str | None, now: float, *, settle: bool
    ) -> list[Operation] | None:
        """Write, change or remove a row's heliograph-error.

        None: it must wait, because it was written less than a second ago and this is no answer
        to a configuration change (`settle`).
        """
        row = self.replica.tables[table].get(uuid)
        if row is None or row["external_ids"].get(ERROR_KEY) == text:
            return []
        if not settle and now - self._problem_times.get(uuid, -PROBLEM_INTERVAL) < PROBLEM_INTERVAL:
            return None
        self._problem_times[uuid] = now
        mutations: list[Any] = [["external_ids", "delete", ["set", [ERROR_KEY]]]]
        if text is not None:
            mutations.append(["external_ids", "insert", ["map", [[ERROR_KEY, text]]]])
        where = [["_uuid", "==", ["uuid", str(uuid)]]]
        return [{"op": "mutate", "table": table, "where": where, "mutations": mutations}]

    def has_filled(self, uuid: UUID, column: str) -> bool:
        """Whether the column was set over this connection, and not to nothing."""
        return bool(self._written.get((uuid, column)))

    def forget(self) -> None:
        """What was written last did not arrive: look at nothing but the rows again."""
        self._written.clear()
        self._problem_times.clear()

    def forget_gone(self) -> None:
        """Drop what is remembered of rows that are gone."""
        alive = {uuid for table in self.replica.tables.values() for uuid in table}
        for key in [key for key in self._written if key[0] not in alive]:
            del self._written[key]
        for uuid in self._problem_times.keys() - alive:
            del self._problem_times[uuid]


def mirror_statistics(counts: MirrorCounts, *, flooded: bool) -> dict[str, int]:
    """The column Mirror.statistics: 0 is written for tx_packets and tx_bytes only (D2).

    `flooded`: to an output_vlan, so there may be more copies, or fewer, than packets selected.
    """
    return (
        {"tx_packets": counts.packets, "tx_bytes": counts.bytes}
        | ({"tx_copies": counts.copies} if flooded and counts.copies else {})
        | ({"cut_mtu": counts.cut_mtu} if counts.cut_mtu else {})
        | {drop_key(reason): number for reason, number in counts.drops.items()}
    )


def interface_statistics(counts: PortCounts, device: DeviceStats | None) -> dict[str, int]:
    """The column Interface.statistics, seen from the switch: rx is what came in from the device.

    Frames are those of the wire; errors are the device's own count.
    """
    received = layouts.FRAME_REASONS
    statistics = {
        "rx_packets": counts.rx_packets,
        "rx_bytes": counts.rx_bytes,
        "tx_packets": counts.tx_packets,
        "tx_bytes": counts.tx_bytes,
        "rx_dropped": sum(n for reason, n in counts.drops.items() if reason in received),
        "tx_dropped": sum(n for reason, n in counts.drops.items() if reason not in received),
        "rx_errors": device.rx_errors if device else 0,
        "tx_errors": device.tx_errors if device else 0,
    }
    if counts.cut_mtu:
        statistics["cut_mtu"] = counts.cut_mtu
    return statistics | {drop_key(reason): number for reason, number in counts.drops.items()}


def _device_columns(port: Port) -> Columns:
    seen = port.user or port.device
    if port.tunnel:
        up = port.egress.carrier if port.egress else port.receiving
        carrier = "up" if up else "down"
        way = {}
        if port.egress:
            way["tunnel_egress_iface"] = port.egress.name
            way["tunnel_egress_iface_carrier"] = carrier
        return _NO_DEVICE | {"admin_state": "up", "link_state": carrier, "status": way}
    if seen is None:
        return _NO_DEVICE | {"admin_state": "up", "link_state": "up"}
    return {
        "status": {},
        "ifindex": seen.ifindex,
        "mac_in_use": seen.mac,
        "mtu": seen.mtu,
        "admin_state": "up" if seen.admin_up else "down",
        "link_state": "up" if seen.carrier else "down",
        "link_resets": seen.carrier_changes,
        "link_speed": port.link_speed,
        "duplex": port.duplex,
    }


_NO_DEVICE: Columns = {
    "status": {},
    "ifindex": None,
    "mac_in_use": None,
    "mtu": None,
    "admin_state": None,
    "link_state": None,
    "link_resets": None,
    "link_speed": None,
    "duplex": None,
}


class Feedback:
    """Composes the transactions of one database connection. What it composes counts as written
    until `forget` says that it did not arrive."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._writer = Writer(replica)

    def forget(self) -> None:
        """The last transaction failed: write anew whatever it may have held."""
        self._writer.forget()

    def owes(self, config: int) -> bool:
        """Whether someone may be waiting for `cur_cfg` to become `config`."""
        root = next(iter(self._replica.tables["Open_vSwitch"].values()), None)
        return root is not None and root["cur_cfg"] != config

    def uncounted(self, plan: Plan, ports: Mapping[UUID, Port]) -> tuple[list[int], list[int]]:
        """The slots of ports and of mirrors whose statistics have yet to be written at all."""
        return (
            [port.number for uuid, port in ports.items() if not self._has_statistics(uuid)],
            [slot for uuid, slot in plan.slots.mirrors.items() if not self._has_statistics(uuid)],
        )

    def _has_statistics(self, uuid: UUID) -> bool:
        return self._writer.has_filled(uuid, "statistics")

    def explain(
        self,
        intent: Intent,
        plan: Plan,
        ports: Mapping[UUID, Port],
        counts: Counts,
        controllers: Mapping[UUID, ControllerStatus],
        *,
        config: int,
        now: float,
    ) -> tuple[list[Operation], bool]:
        """What was made of the configuration whose `next_cfg` is `config`, in one transaction, with
        the statistics of what is in `counts`, and what became of Controller rows.

        Returns the operations, and whether some row's problem must wait for its second to pass.
        """
        operations: list[Operation] = []
        waiting = False
        root = next(iter(self._replica.tables["Open_vSwitch"].values()), None)
        settle = self.owes(config)
        rows = [("Open_vSwitch", intent.uuid)] if intent.uuid else []
        for bridge in intent.bridges:
            columns = {"datapath_id": f"{datapath_id(bridge, ports):016x}"}
            operations += self._writer.update("Bridge", bridge.uuid, columns)
            for port in bridge.ports:
                for interface in port.interfaces:
                    operations += self._interface(interface.uuid, plan, ports, counts)
            for mirror in bridge.mirrors:
                operations += self._mirror(mirror.uuid, plan, counts)
            rows.append(("Bridge", bridge.uuid))
            rows += [("Controller", row.uuid) for row in bridge.controllers]
            rows += [("Port", port.uuid) for port in bridge.ports]
            rows += [("Mirror", mirror.uuid) for mirror in bridge.mirrors]
        operations += self._controllers(controllers)
        for table, uuid in rows:
            status = controllers.get(uuid)
            says = (plan.problems.get(uuid), status.problem if status else None)
            text = "; ".join(filter(None, says)) or None
            written = self._writer.problem(table, uuid, text, now, settle=settle)
            waiting |= written is None
            operations += written or []
        if root is not None:
            columns = _switch_columns(self._replica, root) | {"cur_cfg": config}
            operations += self._writer.update("Open_vSwitch", root.uuid, columns)
        self._writer.forget_gone()
        return operations, waiting

    def _controllers(self, controllers: Mapping[UUID, ControllerStatus]) -> list[Operation]:
        operations: list[Operation] = []
        for uuid, status in controllers.items():
            columns = {
                "is_connected": status.is_connected,
                "role": status.role,
                "status": dict(sorted((status.status or {}).items())),
            }
            operations += self._writer.update("Controller", uuid, columns)
        return operations

    def _interface(
        self,
        uuid: UUID,
        plan: Plan,
        ports: Mapping[UUID, Port],
        counts: Counts,
        devices: Mapping[int, DeviceStats] | None = None,
    ) -> list[Operation]:
        """State of an Interface, and its statistics if they were counted."""
        error = plan.errors.get(uuid)
        columns: Columns = {"ofport": -1 if error else plan.ofports.get(uuid, -1), "error": error}
        port = ports.get(uuid)
        if port is None:
            return self._writer.update("Interface", uuid, columns | _NO_DEVICE | {"statistics": {}})
        columns |= _device_columns(port)
        if port.number in counts.ports:
            device = (devices or {}).get(port.device.ifindex) if port.device else None
            statistics = interface_statistics(counts.ports[port.number], device)
            columns["statistics"] = dict(sorted(statistics.items()))
        return self._writer.update("Interface", uuid, columns)

    def _mirror(self, uuid: UUID, plan: Plan, counts: Counts) -> list[Operation]:
        """Statistics of a Mirror, if they were counted, or none any more."""
        slot = plan.slots.mirrors.get(uuid)
        statistics = {}
        if slot is not None:
            if slot not in counts.mirrors:
                return []
            statistics = mirror_statistics(counts.mirrors[slot], flooded=slot in plan.flooding)
        columns = {"statistics": dict(sorted(statistics.items()))}
        return self._writer.update("Mirror", uuid, columns)

    def statistics(
        self,
        plan: Plan,
        ports: Mapping[UUID, Port],
        counts: Counts,
        devices: Mapping[int, DeviceStats],
        controllers: Mapping[UUID, ControllerStatus],
    ) -> list[Operation]:
        """The counters as they were read, and how controllers are, in one transaction."""
        operations = self._controllers(controllers)
        for uuid in ports:
            operations += self._interface(uuid, plan, ports, counts, devices)
        for uuid in plan.slots.mirrors:
            operations += self._mirror(uuid, plan, counts)
        return operations


def datapath_id(bridge: Bridge, ports: Mapping[UUID, Port]) -> int:
    """As configured, else from the MAC of the LOCAL port, or of its row without a device."""
    if bridge.datapath_id:
        return bridge.datapath_id
    mac = stable_mac(bridge.uuid)
    for port in bridge.ports:
        local = ports.get(port.interfaces[0].uuid) if port.name == bridge.name else None
        seen = (local.user or local.device) if local else None
        mac = seen.mac if seen else mac
    return int(mac.replace(":", ""), 16)


def _switch_columns(replica: Replica, root: Row) -> Columns:
    system = _os_release()
    columns: Columns = {
        "ovs_version": __version__,
        "db_version": replica.schema.version,
        "iface_types": tuple(sorted((SUPPORTED_TYPES - {""}) | {"system"})),
        "datapath_types": ("netdev", "system"),
    }
    # Set by the system's start-up scripts in other installations: not overwritten.
    if root["system_type"] is None:
        columns |= {
            "system_type": system.get("ID", "unknown"),
            "system_version": system.get("VERSION_ID", "unknown"),
        }
    return columns


@functools.cache
def _os_release() -> dict[str, str]:
    path = Path("/etc/os-release")
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.partition("=") for line in lines)
    return {key: value.strip('"') for key, _, value in pairs}


@dataclass(frozen=True, slots=True)
class LiveCounters:
    """Statistics as they are this moment, by UUID of the Mirror and of the Port row."""

    mirrors: dict[UUID, dict[str, int]]
    ports: dict[UUID, dict[str, int]]


def live(rundir: Path) -> LiveCounters | None:
    """Read the counters of the running data plane; None if it cannot be read from here."""
    folder = rundir / "bpf" / f"layout-{layouts.LAYOUT}"
    try:
        if not bpffs.is_mounted(rundir / "bpf"):
            return None
        rows, ports, mirrors = (
            bpf.get(folder / name, bpf.READ_ONLY) for name in ("rows", "port_stats", "mirror_stats")
        )
    except OSError:
        return None
    try:
        return _live(rows, Counters.of(ports, mirrors))
    finally:
        for fd in (rows, ports, mirrors):
            os.close(fd)


def _live(rows: int, counters: Counters) -> LiveCounters:
    ports = read_rows(rows, ROW_PORTS, Limits.MAX_PORTS)
    mirrors = read_rows(rows, ROW_MIRRORS, Limits.MAX_MIRROR_SLOTS)
    counts = counters.read(ports, mirrors)
    return LiveCounters(
        {
            mirrors[slot]: mirror_statistics(found, flooded=found.copies != found.packets)
            for slot, found in counts.mirrors.items()
        },
        {ports[slot]: interface_statistics(found, None) for slot, found in counts.ports.items()},
    )
