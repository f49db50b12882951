# SPDX-License-Identifier: Apache-2.0
"""What the switch's agent says of each bridge, and what it must be able to do when asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

from heliograph.control.plane import DataPlane
from heliograph.openflow.messages import PortConfig, PortDesc, PortStats


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedController:
    """A row of Controller, its columns as they are; None: empty."""

    uuid: UUID
    target: str
    max_backoff: int | None = None  # milliseconds, like the next
    inactivity_probe: int | None = None
    connection_mode: str | None = None
    rate_limit: int | None = None
    burst_limit: int | None = None
    kind: str | None = None  # the column "type"
    enable_async: bool = True

    @property
    def is_primary(self) -> bool:
        """Whether the switch connects to it, and it decides what the bridge does."""
        if self.kind is not None:
            return self.kind == "primary"
        return not self.target.startswith(("ptcp:", "punix:", "pssl:"))


class Tally(NamedTuple):
    """Of frames and their bytes."""

    packets: int = 0
    bytes: int = 0

    def plus(self, other: "Tally") -> "Tally":
        return Tally(self.packets + other.packets, self.bytes + other.bytes)

    def minus(self, other: "Tally") -> "Tally":
        return Tally(self.packets - other.packets, self.bytes - other.bytes)


NO_FRAMES = Tally()


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedBridge:
    """`departed`: of what `Hooks.received` says, what is not of the ports that are there."""

    uuid: UUID
    name: str
    datapath_id: int
    plane: DataPlane
    fail_mode: str | None = None
    protocols: frozenset[str] = frozenset()  # as "OpenFlow13"; none: the default
    controllers: tuple[WantedController, ...] = ()
    ports: tuple[PortDesc, ...] = ()
    description: str = ""
    departed: Tally = NO_FRAMES


class Hooks(Protocol):
    async def port_stats(self, bridge: UUID) -> Sequence[PortStats]:
        """Of all ports of the bridge."""

    def received(self, bridge: UUID) -> Tally:
        """What has come in by ports of the bridge for it to forward: ever more, come ports or go.

        A new process begins with the ports that are there, and all that they have received.
        """

    async def set_port(self, bridge: UUID, port: int, config: PortConfig, mask: PortConfig) -> None:
        """Make the bits of `mask` those of `config`; returns when they are in force.

        Raises OpenFlowError if they cannot be.
        """

    async def tables_needed(self, bridge: UUID, needed: bool) -> None:
        """Whether frames are to pass the bridge's tables; returns when that is in force."""

    def status_changed(self) -> None:
        """Service.status() has something new."""


@dataclass(frozen=True, slots=True)
class ControllerStatus:
    """For the columns of a Controller row; `problem` is "" or what is wrong and how to mend it."""

    is_connected: bool = False
    role: str | None = None
    status: Mapping[str, str] | None = None
    problem: str = ""
