# SPDX-License-Identifier: Apache-2.0
"""Rows and devices to plan with."""

import dataclasses
from typing import Any
from uuid import UUID, uuid4

import pytest

from heliograph.kernel.links import Device
from heliograph.ovsdb.ovs_schema import open_vswitch
from heliograph.ovsdb.replica import Replica
from heliograph.ovsdb.values import to_json
from heliograph.switch import intent


class Rows:
    """A replica of the columns that the switch reads, filled row by row."""

    def __init__(self) -> None:
        self.schema = open_vswitch()
        self.replica = Replica(self.schema, {t: tuple(c) for t, c in intent.COLUMNS.items()})
        self.root = self.add("Open_vSwitch")

    def add(self, table: str, **columns: Any) -> UUID:
        """A new row."""
        uuid = uuid4()
        self._apply(table, uuid, "insert", columns)
        return uuid

    def set(self, table: str, uuid: UUID, **columns: Any) -> None:
        """Other values in a row."""
        row = self.replica.tables[table][uuid]
        self._apply(table, uuid, "insert", dict(row) | columns)

    def delete(self, table: str, uuid: UUID) -> None:
        """A row is gone."""
        self.replica.apply({table: {str(uuid): {"delete": None}}})

    def _apply(self, table: str, uuid: UUID, kind: str, columns: dict[str, Any]) -> None:
        types = self.schema.tables[table].columns
        values = {name: to_json(types[name].type, value) for name, value in columns.items()}
        self.replica.apply({table: {str(uuid): {kind: values}}})

    def port(self, name: str, **columns: Any) -> UUID:
        """A Port row with an Interface row of type internal; other columns are the Port's."""
        interface = self.add("Interface", name=name, type="internal")
        return self.add("Port", name=name, interfaces=(interface,), **columns)

    def bridge(self, name: str, ports: tuple[UUID, ...] = (), **columns: Any) -> UUID:
        """A Bridge row in use."""
        uuid = self.add("Bridge", name=name, ports=tuple(sorted(ports)), **columns)
        bridges = self.replica.tables["Open_vSwitch"][self.root]["bridges"]
        self.set("Open_vSwitch", self.root, bridges=tuple(sorted((*bridges, uuid))))
        return uuid

    def interface_of(self, port: UUID) -> UUID:
        """The only Interface row of a Port row."""
        uuid: UUID = self.replica.tables["Port"][port]["interfaces"][0]
        return uuid

    @property
    def intent(self) -> intent.Intent:
        """What the rows say."""
        return intent.read(self.replica)


def device(ifindex: int, name: str = "", **facts: Any) -> Device:
    """A veth device that is up."""
    made = Device(
        ifindex=ifindex,
        name=name or f"dev{ifindex}",
        kind="veth",
        link_type=1,
        alias="",
        mac=f"02:00:00:00:{ifindex >> 8:02x}:{ifindex & 255:02x}",
        mtu=1500,
        min_mtu=68,
        max_mtu=65535,
        admin_up=True,
        carrier=True,
        promiscuous=False,
        master=0,
        peer=0,
        peer_elsewhere=False,
        carrier_changes=2,
        arp=True,
    )
    return dataclasses.replace(made, **facts)


@pytest.fixture
def rows() -> Rows:
    """An empty database."""
    return Rows()
