# SPDX-License-Identifier: Apache-2.0
"""Which devices the configuration needs. Pure, like all planning."""

from dataclasses import dataclass
from uuid import UUID

from heliograph.kernel.devices import FAR_NAME, NAME_SIZE
from heliograph.switch import patches
from heliograph.switch.intent import Bridge, Intent, Interface, Port, without_repeats

INTERNAL_TYPES = {"internal"}
EXISTING_TYPES = {"", "system"}
SUPPORTED_TYPES = INTERNAL_TYPES | EXISTING_TYPES | {patches.TYPE}


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
        """A locally administered address that is the same whenever the device is made again."""
        octets = bytearray(self.uuid.bytes[-6:])
        octets[0] = octets[0] & 0xFC | 0x02
        return octets.hex(":")


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
    (wire.py) if there are Mirror rows whose copies are to be `cut`."""

    internal: dict[UUID, Internal]
    existing: dict[UUID, Existing]
    errors: dict[UUID, str]
    cut: frozenset[UUID] = frozenset()

    @property
    def segmenter(self) -> bool:
        """Whether the segmenter is needed."""
        return bool(self.cut)


def _unfit(name: str) -> str | None:
    """Why no device can have a name."""
    if FAR_NAME.fullmatch(name):
        return f"{name}: names of this form are the switch's own, choose another"
    if len(name.encode()) > NAME_SIZE:
        return f"{name}: device names have at most {NAME_SIZE} bytes, choose a shorter one"
    return None


def devices(intent: Intent) -> DevicePlan:
    """Which devices must be there."""
    once = without_repeats(intent)[0]
    cut = frozenset(m.uuid for bridge in once.bridges for m in bridge.mirrors if m.snaplen)
    wanted = DevicePlan({}, {}, {}, cut)
    wanted.errors.update(patches.pair(once)[1])
    for bridge in once.bridges:
        for port in bridge.ports:
            for interface in port.interfaces:
                _device(wanted, bridge, port, interface)
    return wanted


def _device(wanted: DevicePlan, bridge: Bridge, port: Port, interface: Interface) -> None:
    """Add the device of one interface to what is wanted, or why there is none."""
    has_device = interface.type != patches.TYPE or interface.name == bridge.name
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
    elif interface.type not in SUPPORTED_TYPES:
        wanted.errors[interface.uuid] = (
            f"interface type {interface.type!r} is not supported yet: "
            'use "internal", "patch", or "" for a device that exists'
        )
