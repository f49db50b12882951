# SPDX-License-Identifier: Apache-2.0
"""What `helio show` says, as data: the rows of the database brought together for reading."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from heliograph.ovsdb.replica import Replica, Row
from heliograph.ovsdb.values import Scalar, Value

COLUMNS: dict[str, list[str]] = {
    "Open_vSwitch": ["bridges", "cur_cfg", "next_cfg", "other_config", "external_ids"],
    "Bridge": ["name", "ports", "mirrors", "controller", "fail_mode", "external_ids"],
    "Controller": ["target", "is_connected", "role", "status", "external_ids"],
    "Port": ["name", "interfaces", "tag", "trunks", "cvlans", "vlan_mode", "external_ids"],
    "Interface": [
        *("name", "type", "ofport", "error", "mtu", "admin_state", "link_state", "statistics"),
        *("options", "status"),
    ],
    "Mirror": [
        *("name", "select_all", "select_src_port", "select_dst_port", "select_vlan", "filter"),
        *("output_port", "output_vlan", "snaplen", "statistics", "external_ids"),
    ],
}
COMPLAINT = "heliograph-error"
# vswitch.xml, stats-update-interval: milliseconds, default and least.
STATISTICS_INTERVAL = 5000


Flows = Callable[[str], int | None]


@dataclass(frozen=True)
class Counters:
    """By UUID of the Mirror or Port; named as in `statistics` of the Mirror or Interface."""

    mirrors: Mapping[UUID, Mapping[str, int]]
    ports: Mapping[UUID, Mapping[str, int]]


@dataclass(frozen=True)
class Problem:
    where: str  # 'Mirror "m0"'
    text: str


@dataclass
class Port:
    name: str
    vlan: str
    state: str
    mtu: int | None
    statistics: dict[str, int]
    problems: list[str]
    mirror_output: bool = False  # reserved for copies (rule 51)
    tunnel: str = ""  # where it leads, of a tunnel port


@dataclass
class Mirror:
    name: str
    selects: str
    output: str  # "" if it has none
    snaplen: int | None
    statistics: dict[str, int]
    problems: list[str]


@dataclass
class Controller:
    target: str
    state: str
    problems: list[str]


@dataclass
class Bridge:
    name: str
    fail_mode: str
    ports: list[Port] = field(default_factory=list)
    mirrors: list[Mirror] = field(default_factory=list)
    controllers: list[Controller] = field(default_factory=list)
    flows: int | None = None  # None: just the one that makes it a learning switch, or not known


@dataclass
class Overview:
    bridges: list[Bridge]
    problems: list[Problem]
    counters_age: float | None  # seconds at most; None: read live


class _Reader:
    def __init__(self, replica: Replica, live: Counters | None, flows: Flows) -> None:
        self._tables = replica.tables
        self._live = live
        self._flows = flows
        self.problems: list[Problem] = []

    def rows(self, table: str, value: Value, name: str = "name") -> list[Row]:
        """The rows that a column refers to, by name."""
        known = self._tables[table]
        found = [known[uuid] for uuid in _uuids(value) if uuid in known]
        return sorted(found, key=lambda row: str(row[name]))

    def complaints(self, row: Row) -> list[str]:
        """Noted under the row's own name as well."""
        text: object = None
        if row.table == "Interface":
            text = row["error"]
        else:
            ids = row["external_ids"]
            text = ids.get(COMPLAINT) if isinstance(ids, dict) else None
        if not text:
            return []
        name = row.get("name", row.get("target"))
        where = f'{row.table} "{name}"' if name else row.table
        self.problems.append(Problem(where, str(text)))
        return [str(text)]

    def bridge(self, row: Row) -> Bridge:
        self.complaints(row)
        mirrors = self.rows("Mirror", row["mirrors"])
        outputs = {uuid for mirror in mirrors for uuid in _uuids(mirror["output_port"])}
        return Bridge(
            str(row["name"]),
            str(row["fail_mode"] or ""),
            [self.port(port, port.uuid in outputs) for port in self.rows("Port", row["ports"])],
            [self.mirror(mirror) for mirror in mirrors],
            [self.controller(c) for c in self.rows("Controller", row["controller"], "target")],
            self._flows(str(row["name"])),
        )

    def controller(self, row: Row) -> Controller:
        kept = row["status"]
        status = {str(k): str(v) for k, v in kept.items()} if isinstance(kept, dict) else {}
        state = "connected" if row["is_connected"] else "not connected"
        if row["role"]:
            state += f", {row['role']}"
        if not row["is_connected"] and "last_error" in status:
            state += f": {status['last_error']}"
        return Controller(str(row["target"]), state, self.complaints(row))

    def port(self, row: Row, mirror_output: bool) -> Port:
        interfaces = self.rows("Interface", row["interfaces"])
        problems = self.complaints(row)
        for interface in interfaces:
            problems += self.complaints(interface)
        total = dict(self._live.ports.get(row.uuid, {})) if self._live else {}
        if not total:
            for interface in interfaces:
                for key, count in _statistics(interface).items():
                    total[key] = total.get(key, 0) + count
        mtus = [int(mtu) for i in interfaces if isinstance(mtu := i["mtu"], int)]
        states = dict.fromkeys(map(_state, interfaces))
        return Port(
            str(row["name"]),
            _vlan(row),
            "/".join(states),
            min(mtus, default=None),
            total,
            problems,
            mirror_output,
            " and ".join(filter(None, map(_tunnel, interfaces))),
        )

    def mirror(self, row: Row) -> Mirror:
        outputs = [str(port["name"]) for port in self.rows("Port", row["output_port"])]
        outputs += [f"VLAN {row['output_vlan']}"] if row["output_vlan"] is not None else []
        snaplen = row["snaplen"]
        live = self._live.mirrors.get(row.uuid) if self._live else None
        return Mirror(
            str(row["name"]),
            self._selects(row),
            " and ".join(outputs),
            snaplen if isinstance(snaplen, int) else None,
            dict(live) if live else _statistics(row),
            self.complaints(row),
        )

    def _selects(self, row: Row) -> str:
        parts = []
        if row["select_all"]:
            parts.append("everything")
        else:
            for word, column in (("from", "select_src_port"), ("to", "select_dst_port")):
                names = [str(port["name"]) for port in self.rows("Port", row[column])]
                parts += [f"{word} {', '.join(names)}"] if names else []
        text = " and ".join(parts) or "nothing"
        if row["select_vlan"]:
            text += f" in VLAN {ranges(_integers(row['select_vlan']))}"
        if row.get("filter"):
            text += f' matching "{row["filter"]}"'
        return text


def overview(
    replica: Replica, live: Counters | None, flows: Flows = lambda bridge: None
) -> Overview:
    """Bring the rows together. `live` replaces what the database has of counters; `flows` says of
    a bridge, by name, what is to stand in Bridge.flows."""
    reader = _Reader(replica, live, flows)
    bridges: list[Bridge] = []
    interval = STATISTICS_INTERVAL
    for root in replica.tables["Open_vSwitch"].values():
        reader.complaints(root)
        bridges += [reader.bridge(row) for row in reader.rows("Bridge", root["bridges"])]
        config = root["other_config"]
        told = str(config.get("stats-update-interval", "")) if isinstance(config, dict) else ""
        interval = max(interval, int(told) if told.isdecimal() else 0)
        if root["cur_cfg"] != root["next_cfg"]:
            reader.problems.append(
                Problem(
                    "switch",
                    f"it is at configuration {root['cur_cfg']}, {root['next_cfg']} is wanted: "
                    "is `helio run` running?",
                )
            )
    return Overview(bridges, reader.problems, None if live is not None else interval / 1000)


def _uuids(value: Value) -> Iterator[UUID]:
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, UUID):
            yield item


def _integers(value: Value) -> list[int]:
    items: tuple[Scalar | None, ...] = value if isinstance(value, tuple) else ()
    return [item for item in items if isinstance(item, int)]


def _statistics(row: Row) -> dict[str, int]:
    kept = row["statistics"]
    return {str(k): int(str(v)) for k, v in kept.items()} if isinstance(kept, dict) else {}


def _state(interface: Row) -> str:
    if interface["ofport"] in (None, -1):
        return "not set up"
    if interface["admin_state"] == "down":
        return "admin down"
    return str(interface["link_state"] or "unknown")


def _tunnel(interface: Row) -> str:
    """Where a tunnel leads, and by which device; "" for other interfaces."""
    options, status = interface["options"], interface["status"]
    if not isinstance(options, dict) or "remote_ip" not in options:
        return ""
    egress = status.get("tunnel_egress_iface") if isinstance(status, dict) else None
    return f"{interface['type']} to {options['remote_ip']}" + (f" by {egress}" if egress else "")


def _vlan(port: Row) -> str:
    """Rules 69-73 of the mirror semantics: what the VLAN columns of a Port mean together."""
    tag, mode = port["tag"], port["vlan_mode"]
    trunks = ranges(_integers(port["trunks"])) or "all"
    if mode is None:
        mode = "trunk" if tag is None else "access"
    if mode == "access":
        return f"access {tag or 0}"
    if mode == "trunk":
        return f"trunk {trunks}"
    if mode == "dot1q-tunnel":
        return f"dot1q-tunnel {tag or 0}, customer {ranges(_integers(port['cvlans'])) or 'all'}"
    return f"{mode} {tag or 0}, trunk {trunks}"


def ranges(numbers: Iterable[int]) -> str:
    """1, 2, 3, 7 as "1-3,7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
