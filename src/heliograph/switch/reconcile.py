# SPDX-License-Identifier: Apache-2.0
"""Makes the kernel equal to the plan: what differs is changed, what is equal is left alone.

The order within one pass is what frames and users can rely on: devices are made; each changed
bridge is switched over at once; only then devices that are ports no longer go. Every step is
idempotent, so a pass that was cut short, or a new process, just does the rest.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from uuid import UUID

from heliograph.errors import HeliographError
from heliograph.kernel.dataplane import ROW_BRIDGES, ROW_MIRRORS, ROW_PORTS, DataPlane
from heliograph.kernel.devices import Device, Devices, Restore, is_far_end
from heliograph.kernel.layouts import Limits
from heliograph.kernel.snapshot import BridgeEntry
from heliograph.switch.plan import DevicePlan, Existing, Internal, Plan, Slots

log = logging.getLogger(__name__)

DEFAULT_MTU = 1500


class Restores:
    """What existing devices were like before they became ports; survives a crash."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[int, Restore] = {}
        if path.exists():
            for record in json.loads(path.read_text()):
                restore = Restore(**record)
                self._known[restore.ifindex] = restore

    def __contains__(self, ifindex: int) -> bool:
        return ifindex in self._known

    def __iter__(self) -> Iterator[Restore]:
        return iter(list(self._known.values()))

    def add(self, restore: Restore) -> None:
        """Remember how a device was found; call before changing it."""
        self._known[restore.ifindex] = restore
        self._write()

    def drop(self, ifindex: int) -> None:
        """The device is as it was, or gone."""
        if self._known.pop(ifindex, None):
            self._write()

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(restore) for restore in self._known.values()]))
        fresh.rename(self._path)


class Reconciler:
    """The data plane and the devices of one switch."""

    def __init__(self, plane: DataPlane, devices: Devices, rundir: Path) -> None:
        self._plane = plane
        self._devices = devices
        self._restores = Restores(rundir / "devices.json")
        self._made: dict[UUID, tuple[Internal, int]] = {}
        self._bridges: dict[int, BridgeEntry] = {}
        self.slots = Slots(
            plane_rows(plane, ROW_BRIDGES, Limits.MAX_BRIDGES),
            plane_rows(plane, ROW_PORTS, Limits.MAX_PORTS),
            plane_rows(plane, ROW_MIRRORS, Limits.MAX_MIRROR_SLOTS),
        )

    @property
    def bridges(self) -> Mapping[int, BridgeEntry]:
        """The configurations in force, by slot."""
        return self._bridges

    # Devices.

    async def prepare(self, wanted: DevicePlan) -> tuple[dict[UUID, Device], dict[UUID, str]]:
        """Have the wanted devices there. Returns those that are, and why others are not."""
        present: dict[UUID, Device] = {}
        errors = dict(wanted.errors)
        for uuid, existing in wanted.existing.items():
            try:
                present[uuid] = await self._take(existing)
            except HeliographError as error:
                errors[uuid] = str(error)
        mtus = self._smallest_mtus(wanted, present)
        for uuid, internal in wanted.internal.items():
            try:
                present[uuid] = await self._make(internal, mtus.get(internal.bridge))
            except HeliographError as error:
                errors[uuid] = str(error)
        for uuid in self._made.keys() - wanted.internal.keys():
            del self._made[uuid]
        return present, errors

    async def _take(self, existing: Existing) -> Device:
        device = self._devices.by_name.get(existing.name)
        if device is None:
            raise HeliographError(
                f"could not open network device {existing.name} (No such device): create it and "
                "the port comes alive, or set type=internal to have it made"
            )
        if device.ifindex not in self._restores:
            refusal = self._devices.why_not(device)
            if refusal:
                raise HeliographError(refusal)
            self._restores.add(await self._devices.as_found(device.ifindex))
            await self._devices.take(device.ifindex)
        elif device.master:
            raise HeliographError(self._devices.why_not(device) or f"{device.name} has a master")
        if existing.mtu_request and device.mtu != existing.mtu_request:
            await self._devices.set_mtu(device.ifindex, existing.mtu_request)
        return self._devices.by_name.get(existing.name, device)

    @staticmethod
    def _smallest_mtus(wanted: DevicePlan, present: Mapping[UUID, Device]) -> dict[str, int]:
        """By bridge name, the smallest MTU of the existing devices that are its ports."""
        smallest: dict[str, int] = {}
        for uuid, existing in wanted.existing.items():
            if uuid in present:
                mtu = present[uuid].mtu
                smallest[existing.bridge] = min(mtu, smallest.get(existing.bridge, mtu))
        return smallest

    async def _make(self, internal: Internal, smallest: int | None) -> Device:
        mtu = internal.mtu_request or smallest or DEFAULT_MTU
        far = self._devices.by_name.get(internal.far_name)
        known = self._made.get(internal.uuid)
        if far is None:
            user, far = await self._devices.create_internal(
                internal.name, internal.far_name, str(internal.uuid), internal.mac, mtu
            )
            log.info("internal port %s made (our end is %s)", user.name, far.name)
        elif known and known != (internal, mtu):
            await self._retune(internal, far, known, mtu)
        self._made[internal.uuid] = (internal, mtu)
        return self._devices.by_name.get(internal.far_name, far)

    async def _retune(
        self, internal: Internal, far: Device, known: tuple[Internal, int], mtu: int
    ) -> None:
        """Follow a change of the wanted MAC or MTU; what the user has set himself stays his."""
        user = None if far.peer_elsewhere else self._devices.by_index.get(far.peer)
        if user is None:
            return
        if internal.mac != known[0].mac:
            await self._devices.set_mac(user.ifindex, internal.mac)
        if mtu != known[1] and (internal.mtu_request or user.mtu == known[1]):
            await self._devices.set_mtu(user.ifindex, mtu)

    async def release(self, present: Mapping[UUID, Device]) -> None:
        """Let go of every device that is a port no longer: ours are deleted, others put back."""
        kept = {device.ifindex for device in present.values()}
        leaving = [i for i in self._plane.devices() if i not in kept]
        for ifindex in leaving:
            self._plane.detach(ifindex)
            self._plane.forget_device(ifindex)
        await self._delete(leaving)
        for restore in self._restores:
            if restore.ifindex not in kept:
                await self._put_back(restore)

    async def _delete(self, ifindexes: Iterable[int]) -> None:
        ours = [i for i in ifindexes if i in self._devices.by_index]
        ours = [i for i in ours if is_far_end(self._devices.by_index[i])]
        if ours:
            await self._devices.delete(*ours)

    async def _put_back(self, restore: Restore) -> None:
        try:
            await self._devices.release(restore)
        except HeliographError as error:
            log.warning("device %s was not put back as found: %s", restore.name, error)
        self._restores.drop(restore.ifindex)

    # The data plane.

    def apply(self, plan: Plan, present: Mapping[UUID, Device]) -> dict[UUID, str]:
        """Put the plan in force; returns Interface rows whose device could not be attached."""
        self._claim(plan.slots)
        for bridge in plan.bridges.values():
            if self._bridges.get(bridge.slot) != bridge:
                self._plane.switch_over(bridge)
                self._bridges[bridge.slot] = bridge
        gone = set(self.slots.bridges.values()) | self._bridges.keys()
        for slot in gone - {bridge.slot for bridge in plan.bridges.values()}:
            self._plane.clear_bridge(slot)
            self._bridges.pop(slot, None)
        errors = self._attach(plan, present)
        self._plane.take_over()
        self._free(plan.slots)
        self.slots = plan.slots
        return errors

    def _attach(self, plan: Plan, present: Mapping[UUID, Device]) -> dict[UUID, str]:
        errors: dict[UUID, str] = {}
        known, attached = self._plane.devices(), self._plane.attached()
        homes = {p.number: b.slot for b in plan.bridges.values() for p in b.ports}
        for uuid, number in plan.ports.items():
            ifindex = present[uuid].ifindex
            if known.get(ifindex) != (homes[number], number):
                self._plane.set_device(ifindex, homes[number], number)
            if ifindex in attached:
                continue
            try:
                self._plane.attach(ifindex)
            except OSError as error:
                errors[uuid] = f"{present[uuid].name}: the data plane cannot be attached: {error}"
        return errors

    def _claim(self, slots: Slots) -> None:
        """Write whose the new slots are, with counters at 0 (rule 102), before they are used."""
        for uuid, slot in slots.bridges.items():
            if self.slots.bridges.get(uuid) != slot:
                self._plane.set_row(ROW_BRIDGES + slot, uuid)
        for uuid, slot in slots.ports.items():
            if self.slots.ports.get(uuid) != slot:
                self._plane.counters.port_map.zero(slot)
                self._plane.set_row(ROW_PORTS + slot, uuid)
        for uuid, slot in slots.mirrors.items():
            if self.slots.mirrors.get(uuid) != slot:
                self._plane.counters.mirror_map.zero(slot)
                self._plane.set_row(ROW_MIRRORS + slot, uuid)

    def _free(self, slots: Slots) -> None:
        for first, new, old in (
            (ROW_BRIDGES, slots.bridges, self.slots.bridges),
            (ROW_PORTS, slots.ports, self.slots.ports),
            (ROW_MIRRORS, slots.mirrors, self.slots.mirrors),
        ):
            for slot in set(old.values()) - set(new.values()):
                self._plane.set_row(first + slot, None)


def plane_rows(plane: DataPlane, first: int, count: int) -> dict[UUID, int]:
    """Slots that are in use, by row."""
    return {row: slot for slot, row in plane.rows(first, count).items()}
