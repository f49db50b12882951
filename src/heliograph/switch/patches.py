# SPDX-License-Identifier: Apache-2.0
"""Patch ports: pairs of Interface rows that name each other (rule 125). Pure."""

from typing import NamedTuple
from uuid import UUID

from heliograph.switch.intent import Intent

TYPE = "patch"


class End(NamedTuple):
    """Where a patch port is: UUIDs of its Bridge, Port and Interface rows."""

    bridge: UUID
    port: UUID
    interface: UUID


def pair(intent: Intent) -> tuple[dict[UUID, End], dict[UUID, str]]:
    """The other end of each patch Interface row, and why others have none."""
    ends, wishes = {}, {}
    for bridge in intent.bridges:
        for port in bridge.ports:
            for interface in port.interfaces:
                if interface.type == TYPE and interface.name != bridge.name:
                    ends[interface.name] = End(bridge.uuid, port.uuid, interface.uuid)
                    wishes[interface.name] = interface.peer
    peers: dict[UUID, End] = {}
    errors: dict[UUID, str] = {}
    for name, peer in wishes.items():
        error = _mismatch(name, wishes)
        if error or peer is None:
            errors[ends[name].interface] = error or ""
        else:
            peers[ends[name].interface] = ends[peer]
    return peers, errors


def _mismatch(name: str, wishes: dict[str, str | None]) -> str | None:
    """Why the patch interface of that name has no usable peer."""
    peer = wishes[name]
    if not peer:
        return f"patch port {name} has no peer: set interface {name} options:peer=NAME"
    if peer == name:
        return f"patch port {name} is its own peer: set interface {name} options:peer=NAME"
    if peer not in wishes:
        return f"No usable peer '{peer}' exists: add a port {peer} of type patch with peer {name}"
    if wishes[peer] != name:
        return (
            f"No usable peer '{peer}' exists: its peer is {wishes[peer]!r}, "
            f"set interface {peer} options:peer={name}"
        )
    return None
