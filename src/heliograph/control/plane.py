# SPDX-License-Identifier: Apache-2.0
"""What a bridge's data plane must be able to do for OpenFlow.

Errors are OpenFlowError, and then nothing has changed.
"""

from typing import Protocol

from heliograph.flows.change import Delta
from heliograph.flows.flow import Counters
from heliograph.flows.tables import Tables
from heliograph.openflow.actions import Controller
from heliograph.openflow.flows import PacketOut


class DataPlane(Counters, Protocol):
    def load(self, tables: Tables) -> None:
        """Begin with these flows and groups, seen by a frame whole or not at all."""

    def apply(self, delta: Delta) -> None:
        """Seen by a frame whole or not at all."""

    def ports_changed(self) -> None:
        """Ports have come, gone, or have another link: groups choose anew."""

    def tidy(self) -> None:
        """Once a second: what is no longer used."""

    def misses(self, table_id: int) -> int:
        """How many frames found no flow in the table."""

    def bucket_usage(self, group_id: int, bucket_id: int) -> tuple[int, int]:
        """Packets and bytes."""

    def set_table_flags(self, table_id: int, flags: int) -> None:
        """kernel.layouts.TableFlags."""

    def packet_out(self, packet: PacketOut) -> None:
        """Send a frame of a controller."""

    def rule_at(self, cell: int) -> int | None:
        """The flow of kernel.layouts.PacketIn.rule; None: it is gone."""

    def controllers_at(self, op: int) -> tuple[Controller, ...]:
        """The actions of kernel.layouts.PacketIn.op; none: they are gone."""
