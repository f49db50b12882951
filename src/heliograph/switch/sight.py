# SPDX-License-Identifier: Apache-2.0
"""What is to be seen of devices and of the network when a pass plans, and when it is told of."""

from collections.abc import Mapping
from uuid import UUID

from heliograph.errors import HeliographError
from heliograph.kernel.devices import Device, Devices, is_far_end
from heliograph.kernel.routes import Address
from heliograph.switch import feedback, plan, wanted
from heliograph.switch.encapsulation import Network
from heliograph.switch.underlay import Underlay, Wish
from heliograph.switch.users import Users

# That a new tunnel's neighbour has to answer before the tunnel is called done.
SETTLE_SECONDS = 0.05


class Sight:
    """Who looks."""

    def __init__(self, devices: Devices, users: Users, underlay: Underlay) -> None:
        self._devices, self._users, self._underlay = devices, users, underlay

    async def network(self, needed: wanted.DevicePlan, present: Mapping[UUID, Device]) -> Network:
        """The ways of the tunnels; those that are new wait a moment for their neighbours."""
        wishes = {
            uuid: Wish(tunnel.remote, tunnel.local, tunnel.tos or 0, tunnel.family)
            for uuid, tunnel in needed.tunnels.items()
        }
        self._underlay.paths(wishes)
        await self._underlay.settle(SETTLE_SECONDS)
        paths = self._underlay.paths(wishes)
        ports = {device.ifindex for device in present.values()}
        reception = self._underlay.receivers(wishes, ports)
        by_index = self._devices.by_index
        return Network(
            needed.tunnels,
            paths,
            {u: by_index[path.ifindex] for u, path in paths.items() if path.ifindex in by_index},
            frozenset[Address]().union(*reception.addresses.values()),
            reception.devices if wishes else frozenset(),
            self._underlay.tai_offset if wishes else 0,
            frozenset(device.kind for device in by_index.values()),
        )

    async def users(self, present: Mapping[UUID, Device]) -> dict[UUID, Device]:
        """The other ends of pairs, by Interface row."""
        users = {
            uuid: await self._users.end_of(device)
            for uuid, device in present.items()
            if device.kind == "veth"
        }
        return {uuid: user for uuid, user in users.items() if user}

    async def ports(
        self,
        old: Mapping[UUID, feedback.Port],
        planned: plan.Plan,
        facts: plan.Facts,
    ) -> dict[UUID, feedback.Port]:
        """The facts of the working ports' devices, as their users see them."""
        ports = {
            uuid: feedback.Port(number, None, None) for uuid, number in planned.patches.items()
        }
        for uuid, number in planned.tunnels.items():
            egress = facts.network.egress.get(uuid)
            receiving = facts.network.tunnels[uuid].remote is None
            ports[uuid] = feedback.Port(
                number, None, None, tunnel=True, egress=egress, receiving=receiving
            )
        for uuid, number in planned.ports.items():
            device = facts.present[uuid]
            known = old.get(uuid)
            if uuid in planned.errors:
                continue
            if is_far_end(device):
                ports[uuid] = feedback.Port(number, device, facts.users.get(uuid))
            elif known and known.device == device and known.number == number:
                ports[uuid] = known
            else:
                ports[uuid] = await self._existing(number, device)
        return ports

    async def _existing(self, number: int, device: Device) -> feedback.Port:
        try:
            info = await self._devices.link_info(device.ifindex)
        except HeliographError:
            return feedback.Port(number, device, None)  # gone meanwhile; its event is on its way
        return feedback.Port(number, device, None, info.speed_bps, info.duplex)
