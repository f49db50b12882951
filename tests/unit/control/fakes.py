# SPDX-License-Identifier: Apache-2.0
"""A data plane that remembers, an agent that obeys, and the real ovs-ofctl beside them."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from tools.lab.openvswitch import environment, program

from heliograph.control.bridge import Bridge
from heliograph.control.peers import Peer
from heliograph.control.service import Service
from heliograph.control.wanted import NO_FRAMES, Tally, WantedBridge, WantedController
from heliograph.flows.change import Delta
from heliograph.flows.flow import UNUSED, Flow, Usage
from heliograph.flows.tables import Tables
from heliograph.openflow.actions import Controller
from heliograph.openflow.flows import PacketOut
from heliograph.openflow.messages import (
    PortConfig,
    PortDesc,
    PortFeatures,
    PortState,
    PortStats,
)

NAMES = {1: "OpenFlow10", 4: "OpenFlow13", 5: "OpenFlow14", 6: "OpenFlow15"}
BRIDGE = UUID(int=0xB0)
PORTS = (
    PortDesc(number=1, name="p1", address=0x020000000001, current=PortFeatures(0x2820)),
    PortDesc(number=2, name="p2", address=0x020000000002),
    PortDesc(number=0xFFFE, name="br0", address=0x020000000003, state=PortState.LINK_DOWN),
)


@dataclass
class Plane:
    """`rules` are those that frames would meet; `refusal` is raised by the next change."""

    rules: dict[int, Flow] = field(default_factory=dict)
    usages: dict[int, Usage] = field(default_factory=dict)
    groups: set[int] = field(default_factory=set)
    flags: dict[int, int] = field(default_factory=dict)
    packets: list[PacketOut] = field(default_factory=list)
    actions: dict[int, tuple[Controller, ...]] = field(default_factory=dict)
    refusal: Exception | None = None
    loads: int = 0
    port_changes: int = 0

    def usage(self, flow_id: int) -> Usage:
        return self.usages.get(flow_id, UNUSED)

    def load(self, tables: Tables) -> None:
        self.loads += 1
        winners = (tables.tables[f.table_id].winner(f.match) for f in tables.flows.values())
        self.rules = {flow.id: flow for flow in winners if flow}
        self.groups = set(tables.groups)

    def apply(self, delta: Delta) -> None:
        if self.refusal:
            refusal, self.refusal = self.refusal, None
            raise refusal
        for rule in delta.rules:
            if rule.before:
                del self.rules[rule.before.id]
            if rule.after:
                self.rules[rule.after.id] = rule.after
        for group in delta.groups:
            if group.before:
                self.groups.remove(group.before.id)
            if group.after:
                self.groups.add(group.after.id)

    def ports_changed(self) -> None:
        self.port_changes += 1

    def tidy(self) -> None:
        pass

    def misses(self, table_id: int) -> int:
        return 5 if table_id == 0 else 0

    def bucket_usage(self, group_id: int, bucket_id: int) -> tuple[int, int]:
        return bucket_id + 1, 100

    def set_table_flags(self, table_id: int, flags: int) -> None:
        self.flags[table_id] = flags

    def packet_out(self, packet: PacketOut) -> None:
        self.packets.append(packet)

    def rule_at(self, cell: int) -> int | None:
        return cell if cell in self.rules else None

    def controllers_at(self, op: int) -> tuple[Controller, ...]:
        return self.actions.get(op, ())


@dataclass
class Agent:
    """Does at once what it is asked for."""

    needed: dict[UUID, bool] = field(default_factory=dict)
    set_ports: list[tuple[int, PortConfig, PortConfig]] = field(default_factory=list)
    changes: int = 0
    came: Tally = NO_FRAMES

    def received(self, bridge: UUID) -> Tally:
        return self.came

    async def port_stats(self, bridge: UUID) -> Sequence[PortStats]:
        return [PortStats(port=port.number, rx_packets=port.number & 0xFF) for port in PORTS]

    async def set_port(self, bridge: UUID, port: int, config: PortConfig, mask: PortConfig) -> None:
        self.set_ports.append((port, config, mask))

    async def tables_needed(self, bridge: UUID, needed: bool) -> None:
        self.needed[bridge] = needed

    def status_changed(self) -> None:
        self.changes += 1


class Switch:
    """A service with one bridge, br0."""

    def __init__(self, rundir: Path, *, keep: bool = False) -> None:
        self.rundir = rundir
        self.plane, self.agent = Plane(), Agent()
        self.wanted = WantedBridge(
            uuid=BRIDGE,
            name="br0",
            datapath_id=0x1234,
            plane=self.plane,
            fail_mode="secure",
            ports=PORTS,
        )
        self.service = Service(rundir, self.agent, keep=keep)

    async def begin(self) -> None:
        await self.service.configure([self.wanted])

    @property
    def path(self) -> Path:
        return self.rundir / "br0.mgmt"

    @property
    def bridge(self) -> Bridge:
        return self.service.bridges[self.wanted.uuid]

    @property
    def peers(self) -> list[Peer]:
        return list(self.bridge.peers)

    async def configure(self, **changes: Any) -> None:
        """The same bridge, with other columns."""
        self.wanted = replace(self.wanted, **changes)
        await self.begin()

    def controller(self, target: str, *, probe: float = 5) -> WantedController:
        """A row; another for each target."""
        uuid = uuid5(BRIDGE, target)
        return WantedController(uuid=uuid, target=target, inactivity_probe=int(probe * 1000))

    def words(self, version: int, *words: str) -> list[str]:
        """`ovs-ofctl -O VERSION words[0] SWITCH words[1:]`, options going before."""
        options = [word for word in words if word.startswith("--")]
        command, *rest = [word for word in words if not word.startswith("--")]
        name = NAMES[version]
        said = [*options, "-O", name, "--timeout=60", command]
        return [str(program("ovs-ofctl")), *said, f"unix:{self.path}", *rest]

    async def ofctl(self, version: int, *words: str, stdin: str = "") -> str:
        """What `words` prints, errors too."""
        pipe, both = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        process = await asyncio.create_subprocess_exec(
            *self.words(version, *words),
            stdin=pipe,
            stdout=pipe,
            stderr=both,
            env=environment(self.rundir),
        )
        output, _ = await process.communicate(stdin.encode())
        return output.decode().strip()

    async def flows(self, version: int = 1, *words: str) -> list[str]:
        """dump-flows, without what every flow has: cookie, age, table 0, counters."""
        dump = await self.ofctl(version, "dump-flows", *words)
        lines = [line.strip() for line in dump.splitlines() if "actions=" in line]
        noise = (
            r"cookie=0x0, |duration=[\d.]+s, |table=0, |n_packets=0, |n_bytes=0, "
            r"|idle_age=\d+, |hard_age=\d+, |reset_counts "
        )
        return [re.sub(noise, "", line) for line in lines]
