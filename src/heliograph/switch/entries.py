# SPDX-License-Identifier: Apache-2.0
"""A Port row and its devices as the entry of a bridge's snapshot. Pure."""

import zlib

from heliograph.kernel.devices import Device, is_far_end
from heliograph.kernel.layouts import PriorityTags, VlanMode
from heliograph.kernel.snapshot import PortEntry
from heliograph.switch.intent import Bridge, Port

VLAN_MODES = {
    "access": VlanMode.ACCESS,
    "trunk": VlanMode.TRUNK,
    "native-tagged": VlanMode.NATIVE_TAGGED,
    "native-untagged": VlanMode.NATIVE_UNTAGGED,
    "dot1q-tunnel": VlanMode.DOT1Q_TUNNEL,
}
PRIORITY_TAGS = {
    "if-nonzero": PriorityTags.PRIORITY_IF_NONZERO,
    "true": PriorityTags.PRIORITY_IF_NONZERO,
    "always": PriorityTags.PRIORITY_ALWAYS,
}


def generation(bridge: Bridge, port: Port) -> int:
    """Changes with whatever makes what was learned on a port void (rule 60), and only then; so
    entries outlive a restart of the switch, and an upgrade too: a setting that a later version
    adds is left out while it is at its default."""
    settings = {
        "port": port.uuid.hex,
        "bridge": bridge.uuid.hex,
        "vlan_mode": port.vlan_mode,
        "tag": port.tag,
        "trunks": sorted(port.trunks),
        "cvlans": sorted(port.cvlans),
        "service_tpid": port.service_tpid,
        "priority_tags": port.priority_tags,
        "protected": port.protected,
        "flood_vlans": sorted(bridge.flood_vlans),
    }
    told = {name: value for name, value in settings.items() if value not in (None, False, [])}
    return zlib.crc32(repr(sorted(told.items())).encode()) or 1


def _peer_mac(device: Device | None, user: Device | None) -> bytes:
    """Of the other end, if frames may be put straight there: not past a device of the user's,
    which would be past his shaping and whatever else he has put on its way out."""
    if device is None or user is None or not device.peer_elsewhere or not is_far_end(device):
        return b""
    return bytes.fromhex(user.mac.replace(":", ""))


def port_entry(
    bridge: Bridge,
    port: Port,
    number: int,
    ends: tuple[Device | None, Device | None],
    peer: tuple[int, int] | None,
) -> PortEntry:
    """`ends` are our device and its user's."""
    device, user = ends
    trunked = port.vlan_mode not in ("access", "dot1q-tunnel")
    return PortEntry(
        number=number,
        ifindex=device.ifindex if device else 0,
        mode=VLAN_MODES[port.vlan_mode],
        tag=port.tag or 0,
        trunks=port.trunks if trunked else frozenset(),
        generation=generation(bridge, port),
        peer_mac=_peer_mac(device, user),
        protected=port.protected,
        priority_tags=PRIORITY_TAGS.get(port.priority_tags, PriorityTags.PRIORITY_NEVER),
        service_tpid=port.service_tpid,
        customer_vlans=port.cvlans if port.vlan_mode == "dot1q-tunnel" else frozenset(),
        peer=peer,
    )
