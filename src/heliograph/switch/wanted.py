# SPDX-License-Identifier: Apache-2.0
"""Which devices the configuration needs. Pure, like all planning."""

from dataclasses import dataclass, field
from uuid import UUID

from heliograph.errors import UsageError
from heliograph.kernel.devices import FAR_NAME, NAME_SIZE
from heliograph.switch import patches, tunnels
from heliograph.switch.intent import Bridge, Intent, Interface, Port, without_repeats
from heliograph.switch.tunnels import Tunnel

INTERNAL_TYPES = {"internal"}
EXISTING_TYPES = {"", "system"}
SUPPORTED_TYPES = INTERNAL_TYPES | EXISTING_TYPES | {patches.TYPE} | tunnels.TYPES.keys()


def stable_mac(row: UUID) -> str:
    """A locally administered address for what a row stands for."""
    octets = bytearray(row.bytes[-6:])
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")


@dataclass(frozen=True, slots=True)
class Internal:
    """An internal port's device pair, wanted: the user's end is `name`, ours `far_name`."""

    uuid: UUID
    port: UUID
    name: str
    mac: str | None
    mtu_request: int | None
    bridge: str
    wire_frames: bool = False

    @property
    def far_name(self) -> str:
        """Our end's name: 15 characters at most, and nobody else's."""
        return f"hg{self.uuid.hex[:12]}"

    @property
    def stable_mac(self) -> str:
        """The same whenever the device is made again."""
        return stable_mac(self.uuid)


@dataclass(frozen=True, slots=True)
class Existing:
    """A device of the host's that shall become a port."""

    uuid: UUID
    port: UUID
    name: str
    mtu_request: int | None
    bridge: str
    wire_frames: bool = False


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The devices that must be there, by the UUID of their Interface row, and the segmenter
    (wire.py) if there are Mirror rows whose copies are to be `cut`, flows (which may cut as well),
    or `tunnels`: Interface rows that need no device but the way to their remote_ip."""

    internal: dict[UUID, Internal]
    existing: dict[UUID, Existing]
    errors: dict[UUID, str]
    cut: frozenset[UUID] = frozenset()
    tunnels: dict[UUID, Tunnel] = field(default_factory=dict)
    flows: bool = False

    @property
    def segmenter(self) -> bool:
        """Whether the segmenter is needed."""
        return bool(self.cut or self.tunnels or self.flows)


def _unfit(name: str) -> str | None:
    """Why no device can have a name."""
    if FAR_NAME.fullmatch(name):
        return f"{name}: names of this form are the switch's own, choose another"
    if len(name.encode()) > NAME_SIZE:
        return f"{name}: device names have at most {NAME_SIZE} bytes, choose a shorter one"
    return None


def devices(intent: Intent, *, flows: bool = False) -> DevicePlan:
    """Which devices must be there; `flows`: some bridge has more than its NORMAL flow."""
    once = without_repeats(intent)[0]
    cut = frozenset(m.uuid for bridge in once.bridges for m in bridge.mirrors if m.snaplen)
    wanted = DevicePlan({}, {}, {}, cut, flows=flows)
    wanted.errors.update(patches.pair(once)[1])
    for bridge in once.bridges:
        for port in bridge.ports:
            for interface in port.interfaces:
                _device(wanted, bridge, port, interface)
    working = {
        interface.uuid
        for bridge in once.bridges
        for port in bridge.ports
        for interface in port.interfaces
        if (interface.ofport or -1) > 0
    }
    # One that works keeps its place, whatever the name of a newcomer.
    order = sorted(wanted.tunnels.values(), key=lambda tunnel: tunnel.uuid not in working)
    refused = tunnels.conflicts(order)
    wanted.errors.update(refused)
    for uuid in refused:
        del wanted.tunnels[uuid]
    return wanted


def _device(wanted: DevicePlan, bridge: Bridge, port: Port, interface: Interface) -> None:
    """Add the device of one interface to what is wanted, or why there is none."""
    virtual = interface.type in tunnels.TYPES or interface.type == patches.TYPE
    has_device = not virtual or interface.name == bridge.name
    unfit = _unfit(interface.name) if has_device else None
    if len(port.interfaces) > 1:
        wanted.errors[interface.uuid] = (
            f"port {port.name} has several interfaces: bonds are not supported yet, "
            "give each interface a port of its own"
        )
    elif unfit:
        wanted.errors[interface.uuid] = unfit
    elif interface.type in INTERNAL_TYPES or interface.name == bridge.name:
        wanted.internal[interface.uuid] = Internal(
            interface.uuid,
            port.uuid,
            interface.name,
            interface.mac or (bridge.hwaddr if interface.name == bridge.name else None),
            interface.mtu_request,
            bridge.name,
            port.wire_frames,
        )
    elif interface.type in EXISTING_TYPES:
        wanted.existing[interface.uuid] = Existing(
            interface.uuid,
            port.uuid,
            interface.name,
            interface.mtu_request,
            bridge.name,
            port.wire_frames,
        )
    elif interface.type in tunnels.TYPES:
        try:
            wanted.tunnels[interface.uuid] = tunnels.read(interface)
        except UsageError as error:
            wanted.errors[interface.uuid] = str(error)
    elif interface.type not in SUPPORTED_TYPES:
        wanted.errors[interface.uuid] = (
            f"interface type {interface.type!r} is not supported yet: use "
            f'{", ".join(sorted(SUPPORTED_TYPES - EXISTING_TYPES))}, or "" for a device that exists'
        )
