# SPDX-License-Identifier: Apache-2.0
"""Tunnel ports for the data plane: what their rows ask for, on the network as it is. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from heliograph.kernel.devices import Device
from heliograph.kernel.layouts import Reason, TunnelFlags, TunnelKind
from heliograph.kernel.tunnels import Address, TunnelEntry, Way
from heliograph.switch.tunnels import TTL_DEFAULT, Kind, Tunnel
from heliograph.switch.underlay import Path

_KINDS = {
    (Kind.GRE, 0): TunnelKind.GRE,
    (Kind.ERSPAN, 1): TunnelKind.ERSPAN_II,
    (Kind.ERSPAN, 2): TunnelKind.ERSPAN_III,
    (Kind.VXLAN, 0): TunnelKind.VXLAN,
}
# Link kinds of the kernel's own devices for the same packets.
_OF_THE_KERNEL = {
    Kind.GRE: {"gretap", "ip6gretap"},
    Kind.ERSPAN: {"erspan", "ip6erspan"},
    Kind.VXLAN: {"vxlan"},
}
LONGEST = 65535  # an IP packet's own length field can say no more
_NOWHERE = Path(0, None, None, 0, Reason.DROP_NO_ROUTE, None)


@dataclass(frozen=True, slots=True)
class Network:
    """What is known of tunnels, by the UUID of their Interface row: the `paths` to those that have
    a remote, and the device each leaves by (`egress`). `addresses` are those of this host at which
    they may receive, `receivers` the devices on which packets for them arrive; `kinds` are those of
    the host's devices."""

    tunnels: Mapping[UUID, Tunnel] = field(default_factory=dict)
    paths: Mapping[UUID, Path] = field(default_factory=dict)
    egress: Mapping[UUID, Device] = field(default_factory=dict)
    addresses: frozenset[Address] = frozenset()
    receivers: frozenset[int] = frozenset()
    tai_offset: int = 0
    kinds: frozenset[str] = frozenset()

    def problem(self, interface: UUID) -> str | None:
        """Why a tunnel port sends nothing, or None."""
        if self.tunnels[interface].remote is None:
            return "options:remote_ip=flow names no host to send to"
        return self.paths[interface].problem

    def entry(self, interface: UUID, number: int, bridge: int) -> TunnelEntry:
        """The data plane's entry of a tunnel that is port `number` of the bridge in a slot."""
        tunnel, path = self.tunnels[interface], self.paths.get(interface, _NOWHERE)
        return TunnelEntry(
            number=number,
            bridge=bridge,
            kind=_KINDS[tunnel.kind, tunnel.version],
            flags=_flags(tunnel),
            remote=tunnel.remote,
            local=tunnel.local,
            family=tunnel.family,
            in_key=tunnel.in_key,
            way=Way(path.reason, path.ifindex, path.source, path.hop, min(path.mtu, LONGEST)),
            key=tunnel.out_key or 0,
            ttl=TTL_DEFAULT if tunnel.ttl is None else tunnel.ttl,
            tos=tunnel.tos or 0,
            dst_port=tunnel.dst_port,
            index=tunnel.index,
            hwid=tunnel.hwid,
            direction=tunnel.direction or 0,
            alone=self.kinds.isdisjoint(_OF_THE_KERNEL[tunnel.kind]),
        )


def _flags(tunnel: Tunnel) -> int:
    chosen = {
        TunnelFlags.TUNNEL_KEY: tunnel.out_key is not None,
        TunnelFlags.TUNNEL_CHECKSUM: tunnel.csum,
        TunnelFlags.TUNNEL_SEQUENCE: tunnel.seq,
        TunnelFlags.TUNNEL_DF: tunnel.df,
        TunnelFlags.TUNNEL_INHERIT_TTL: tunnel.ttl is None,
        TunnelFlags.TUNNEL_INHERIT_TOS: tunnel.tos is None,
        TunnelFlags.TUNNEL_CUT: tunnel.cut,
        TunnelFlags.TUNNEL_DIRECTION: tunnel.direction is not None,
    }
    return sum(flag for flag, so in chosen.items() if so)
