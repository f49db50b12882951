# SPDX-License-Identifier: Apache-2.0
"""What the rows say, typed and frozen. Reads rows; knows nothing of devices or the kernel.

Values out of range are taken as Open vSwitch takes them (clamped, or the default), so nothing
here raises.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from heliograph.control.wanted import WantedController
from heliograph.ovsdb.replica import Replica, Row

ERROR_KEY = "heliograph-error"

MTU_OPTION = "heliograph_mtu"  # of tunnels; in external_ids for databases that refuse the option

MAC_AGE_DEFAULT, MAC_AGE_RANGE = 300, (15, 3600)  # seconds; rule 65
MAC_LIMIT_DEFAULT, MAC_LIMIT_RANGE = 8192, (10, 1_000_000)  # entries; rule 64
STATS_INTERVAL_DEFAULT = STATS_INTERVAL_LEAST = 5000  # milliseconds; rule 99

# The columns that the switch reads. What it only writes is not monitored.
COLUMNS: dict[str, list[str]] = {
    "Open_vSwitch": (
        "bridges manager_options ssl other_config external_ids next_cfg cur_cfg system_type"
    ).split(),
    "Bridge": (
        "name ports mirrors fail_mode stp_enable rstp_enable mcast_snooping_enable netflow sflow "
        "ipfix controller protocols datapath_type flood_vlans flow_tables auto_attach "
        "other_config external_ids"
    ).split(),
    "Port": (
        "name interfaces trunks cvlans tag vlan_mode qos protected other_config external_ids"
    ).split(),
    "Interface": (
        "name type options mac mtu_request ofport ofport_request error ingress_policing_rate "
        "ingress_policing_kpkts_rate bfd cfm_mpid lldp external_ids"
    ).split(),
    "Mirror": (
        "name select_all select_src_port select_dst_port select_vlan output_port output_vlan "
        "snaplen filter external_ids"
    ).split(),
    "Controller": (
        "target type max_backoff inactivity_probe connection_mode local_ip local_netmask "
        "local_gateway enable_async_messages controller_rate_limit controller_burst_limit "
        "external_ids"
    ).split(),
}
IN_BAND = ("local_ip", "local_netmask", "local_gateway")


@dataclass(frozen=True, slots=True)
class Interface:
    """An Interface row. `untuned`: columns that are set and that this version does not honour.

    `options` has what external_ids says in an option's place, if the option is not there.
    """

    uuid: UUID
    name: str
    type: str
    mac: str | None
    mtu_request: int | None
    ofport: int | None
    ofport_request: int | None
    options: Mapping[str, str]
    untuned: tuple[str, ...]

    @property
    def peer(self) -> str | None:
        """The other end, of a patch port."""
        return self.options.get("peer")


@dataclass(frozen=True, slots=True)
class Port:
    """A Port row. `trunks`, `cvlans` empty: every VLAN.

    `service_tpid` and `priority_tags` as other_config has them: qinq-ethtype, priority-tags.
    """

    uuid: UUID
    name: str
    interfaces: tuple[Interface, ...]
    vlan_mode: str
    tag: int | None
    trunks: frozenset[int]
    cvlans: frozenset[int]
    service_tpid: int
    priority_tags: str
    protected: bool
    wire_frames: bool
    untuned: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mirror:
    """A Mirror row; ports by the UUID of their row."""

    uuid: UUID
    name: str
    select_all: bool
    sources: frozenset[UUID]
    destinations: frozenset[UUID]
    vlans: frozenset[int]
    output_port: UUID | None
    output_vlan: int | None
    snaplen: int
    filter: str


@dataclass(frozen=True, slots=True)
class Bridge:
    """A Bridge row. `mac_age` in seconds, `mac_limit` in entries. `mirror_changed`: rule 26.
    `datapath_id` None: the MAC of the LOCAL port says it. `in_band` has what Controller rows ask
    of control through the bridge itself, by their UUID."""

    uuid: UUID
    name: str
    ports: tuple[Port, ...]
    mirrors: tuple[Mirror, ...]
    fail_mode: str | None
    protocols: frozenset[str]
    controllers: tuple[WantedController, ...]
    in_band: Mapping[UUID, tuple[str, ...]]
    mirror_changed: bool
    description: str
    spanning_tree: str
    forward_bpdu: bool
    mac_age: int
    mac_limit: int
    flood_vlans: frozenset[int]
    hwaddr: str | None
    datapath_id: int | None
    untuned: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Intent:
    """The whole configuration. `stats_interval` in milliseconds; `vlan_limit` 1 or 2 tags."""

    bridges: tuple[Bridge, ...] = ()
    stats_interval: int = STATS_INTERVAL_DEFAULT
    vlan_limit: int = 1
    uuid: UUID | None = None
    untuned: tuple[str, ...] = ()


def _number(config: Mapping[str, str], key: str, default: int, bounds: tuple[int, int]) -> int:
    try:
        value = int(config.get(key, ""))
    except ValueError:
        return default
    return min(max(value, bounds[0]), bounds[1]) if value else default


def _truth(config: Mapping[str, str], key: str) -> bool:
    return config.get(key, "").lower() == "true"


def _named(row: Row, *columns: str) -> tuple[str, ...]:
    return tuple(column for column in columns if row.get(column))


def _interface(row: Row) -> Interface:
    return Interface(
        uuid=row.uuid,
        name=row["name"],
        type=row["type"],
        mac=row["mac"],
        mtu_request=row["mtu_request"],
        ofport=row["ofport"],
        ofport_request=row["ofport_request"],
        options={k: v for k, v in row["external_ids"].items() if k == MTU_OPTION} | row["options"],
        untuned=_named(
            row, "ingress_policing_rate", "ingress_policing_kpkts_rate", "bfd", "cfm_mpid", "lldp"
        ),
    )


def _vlan_mode(row: Row) -> str:
    """Rule 69: without a mode, a tag makes it an access port."""
    mode: str | None = row["vlan_mode"]
    return mode or ("trunk" if row["tag"] is None else "access")


def _port(replica: Replica, row: Row) -> Port:
    interfaces = replica.tables["Interface"]
    config = row["other_config"]
    return Port(
        uuid=row.uuid,
        name=row["name"],
        interfaces=tuple(_interface(interfaces[key]) for key in row["interfaces"]),
        vlan_mode=_vlan_mode(row),
        tag=row["tag"],
        trunks=frozenset(row["trunks"]),
        cvlans=frozenset(row["cvlans"]),
        service_tpid=0x8100 if config.get("qinq-ethtype") == "802.1q" else 0x88A8,
        priority_tags=config.get("priority-tags", "never"),
        protected=row["protected"],
        wire_frames=_truth(config, "heliograph-wire-frames"),
        untuned=_named(row, "qos"),
    )


def _mirror(row: Row) -> Mirror:
    snaplen = row["snaplen"] or 0
    return Mirror(
        uuid=row.uuid,
        name=row["name"],
        select_all=row["select_all"],
        sources=frozenset(row["select_src_port"]),
        destinations=frozenset(row["select_dst_port"]),
        vlans=frozenset(row["select_vlan"]),
        output_port=row["output_port"],
        output_vlan=row["output_vlan"],
        snaplen=snaplen,  # 65535 cuts nothing (rule 79), but it is one (rule 81)
        filter=row.get("filter") or "",
    )


def _controller(row: Row) -> WantedController:
    return WantedController(
        uuid=row.uuid,
        target=row["target"],
        max_backoff=row["max_backoff"],
        inactivity_probe=row["inactivity_probe"],
        connection_mode=row["connection_mode"],
        rate_limit=row["controller_rate_limit"],
        burst_limit=row["controller_burst_limit"],
        kind=row.get("type"),
        enable_async=row["enable_async_messages"] is not False,
    )


def _datapath_id(text: str) -> int | None:
    """16 hexadecimal digits, or 0x and at most that many; anything else counts as not there."""
    if not re.fullmatch(r"[0-9a-fA-F]{16}|0[xX][0-9a-fA-F]{1,16}", text):
        return None
    return int(text, 16) or None


def _unknown_datapath(datapath_type: str) -> tuple[str, ...]:
    known = ("", "system", "netdev")  # whichever is asked for, there is one data plane
    return () if datapath_type in known else (f"datapath_type={datapath_type}",)


def _bridge(replica: Replica, row: Row) -> Bridge:
    config = row["other_config"]
    ports, mirrors = replica.tables["Port"], replica.tables["Mirror"]
    controllers = [replica.tables["Controller"][key] for key in row["controller"]]
    return Bridge(
        uuid=row.uuid,
        name=row["name"],
        ports=tuple(_port(replica, ports[key]) for key in row["ports"]),
        mirrors=tuple(_mirror(mirrors[key]) for key in sorted(row["mirrors"])),  # rule 23
        fail_mode=row["fail_mode"],
        protocols=frozenset(row["protocols"]),
        controllers=tuple(map(_controller, controllers)),
        in_band={c.uuid: asked for c in controllers if (asked := _named(c, *IN_BAND))},
        mirror_changed=_truth(config, "mirror-changed-packets"),
        description=config.get("dp-desc", ""),
        spanning_tree="STP" if row["stp_enable"] else "RSTP" if row["rstp_enable"] else "",
        forward_bpdu=_truth(config, "forward-bpdu"),
        mac_age=_number(config, "mac-aging-time", MAC_AGE_DEFAULT, MAC_AGE_RANGE),
        mac_limit=_number(config, "mac-table-size", MAC_LIMIT_DEFAULT, MAC_LIMIT_RANGE),
        flood_vlans=frozenset(row["flood_vlans"]),
        hwaddr=config.get("hwaddr"),
        datapath_id=_datapath_id(config.get("datapath-id", "")),
        untuned=_named(
            row,
            *("mcast_snooping_enable", "netflow", "sflow", "ipfix", "flow_tables", "auto_attach"),
        )
        + _unknown_datapath(row["datapath_type"]),
    )


def _vlan_limit(config: Mapping[str, str]) -> int:
    """Rule 39: one tag unless said otherwise; 0 is no limit, and two are the most there are."""
    limit = config.get("vlan-limit", "1")
    return min(int(limit) or 2, 2) if limit.isdecimal() else 1


def read(replica: Replica) -> Intent:
    """The configuration that the rows of the database state now."""
    roots = replica.tables["Open_vSwitch"].values()
    bridges = replica.tables["Bridge"]
    for root in roots:
        interval = _number(
            root["other_config"],
            "stats-update-interval",
            STATS_INTERVAL_DEFAULT,
            (STATS_INTERVAL_LEAST, 2**31),
        )
        return Intent(
            tuple(_bridge(replica, bridges[key]) for key in root["bridges"]),
            interval,
            _vlan_limit(root["other_config"]),
            root.uuid,
            _named(root, "manager_options", "ssl"),
        )
    return Intent()


def without_repeats(intent: Intent) -> tuple[Intent, dict[UUID, str]]:
    """The same, with every Port row on one bridge only and every Interface row in one port.

    The schema allows more, but one device cannot be two ports: the first one has it. Also
    returns what is to be said of the others, by Port row.
    """
    homes: dict[UUID, str] = {}
    says: dict[UUID, str] = {}
    bridges = []
    for bridge in intent.bridges:
        ports = []
        for port in bridge.ports:
            if port.uuid in homes:
                says[port.uuid] = (
                    f"is on bridge {bridge.name} too, where it does not forward: "
                    f"remove it from bridge {bridge.name} or {homes[port.uuid]} ports"
                )
                continue
            shared = [i.name for i in port.interfaces if i.uuid in homes]
            if shared:
                says[port.uuid] = (
                    f"does not forward: interface {shared[0]} is another port's already, "
                    "an interface belongs to one port"
                )
                continue
            homes[port.uuid] = bridge.name
            homes |= {interface.uuid: bridge.name for interface in port.interfaces}
            ports.append(port)
        bridges.append(replace(bridge, ports=tuple(ports)))
    return replace(intent, bridges=tuple(bridges)), says
