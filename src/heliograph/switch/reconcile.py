# SPDX-License-Identifier: Apache-2.0
"""Makes the kernel equal to the plan: what differs is changed, what is equal is left alone.

The order within one pass is what frames and users can rely on: devices are made; each changed
bridge is switched over at once; only then devices that are ports no longer go. Every step is
idempotent, so a pass that was cut short, or a new process, just does the rest.
"""

import errno
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from heliograph.errors import HeliographError
from heliograph.kernel.dataplane import ROW_BRIDGES, ROW_MIRRORS, ROW_PORTS, DataPlane
from heliograph.kernel.devices import Device, Devices, is_far_end
from heliograph.kernel.layouts import Limits
from heliograph.kernel.snapshot import BridgeEntry
from heliograph.switch.plan import Plan
from heliograph.switch.restores import Found, Restores, put_back
from heliograph.switch.slots import Slots
from heliograph.switch.wanted import DevicePlan, Existing, Internal
from heliograph.switch.wire import Offloads, Segmenter

log = logging.getLogger(__name__)

DEFAULT_MTU = 1500


@dataclass(slots=True)
class Prepared:
    """The devices that are there, and why others are not, by Interface row; `remarks` are of
    Port rows that work, though not everything asked of their device could be done. `segmenter` is
    the ifindex of its near end, 0 if there is none: for `segmenter_fault`, or not needed."""

    present: dict[UUID, Device] = field(default_factory=dict)
    errors: dict[UUID, str] = field(default_factory=dict)
    remarks: dict[UUID, str] = field(default_factory=dict)
    segmenter: int = 0
    segmenter_fault: str | None = None


class Reconciler:
    """The data plane and the devices of one switch."""

    def __init__(self, plane: DataPlane, devices: Devices, restores: Restores) -> None:
        self._plane = plane
        self._devices = devices
        self._restores = restores
        self._segmenter = Segmenter(plane, devices, plane.name)
        self._offloads = Offloads(devices, restores)
        self._made: dict[UUID, tuple[Internal, int]] = {}
        self._bridges: dict[int, BridgeEntry] = {}
        self._attached: dict[int, Device] = {}
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

    async def prepare(self, wanted: DevicePlan) -> Prepared:
        """Have the wanted devices there."""
        done = Prepared(errors=dict(wanted.errors))
        for uuid, existing in wanted.existing.items():
            try:
                device = done.present[uuid] = await self._take(existing)
            except HeliographError as error:
                done.errors[uuid] = str(error)
                continue
            try:
                await self._request_mtu(device, existing.mtu_request)
            except HeliographError as error:
                done.remarks[existing.port] = f"mtu_request has no effect: {error}"
            done.present[uuid] = self._devices.by_index.get(device.ifindex, device)
        self._restores.making = (
            *self._restores.making,
            *(
                internal.far_name
                for internal in wanted.internal.values()
                if internal.far_name not in self._devices.by_name
                and internal.far_name not in self._restores.making
            ),
        )
        mtus = self._smallest_mtus(wanted, done.present)
        staying = {internal.far_name for internal in wanted.internal.values()}
        for uuid, internal in wanted.internal.items():
            try:
                far = await self._make(internal, mtus.get(internal.bridge), staying)
            except HeliographError as error:
                done.errors[uuid] = str(error)
                continue
            try:
                await self._retune(internal, far, mtus.get(internal.bridge))
            except HeliographError as error:
                done.remarks[internal.port] = f"not applied: {error}"
            done.present[uuid] = self._devices.by_name.get(internal.far_name, far)
        for uuid in self._made.keys() - wanted.internal.keys():
            del self._made[uuid]
        await self._set_offloads(wanted, done)
        if wanted.segmenter:
            try:
                done.segmenter = await self._segmenter.prepare()
            except (HeliographError, OSError) as error:
                done.segmenter_fault = str(error)
                for uuid in wanted.tunnels:
                    done.errors[uuid] = f"tunnels need the segmenter's devices: {error}"
        return done

    async def _set_offloads(self, wanted: DevicePlan, done: Prepared) -> None:
        self._offloads.keep({device.ifindex for device in done.present.values()})
        ports: list[Internal | Existing] = [*wanted.internal.values(), *wanted.existing.values()]
        for port in ports:
            device = done.present.get(port.uuid)
            if device is None:
                continue
            try:
                await self._offloads.apply(device, wire_frames=port.wire_frames)
            except HeliographError as error:
                done.remarks[port.port] = f"heliograph-wire-frames has no effect: {error}"

    async def _take(self, existing: Existing) -> Device:
        device = self._devices.by_name.get(existing.name)
        if device is None:
            raise HeliographError(
                f"could not open network device {existing.name} (No such device): create it and "
                "the port comes alive, or set type=internal to have it made"
            )
        found = self._restores.get(device.ifindex)
        if found and device.name != found.restore.name and device.mac != found.restore.mac:
            found = None  # another device has the number now
        refusal = self._devices.why_not(device)
        if refusal:
            raise HeliographError(refusal)
        if found is None:
            self._restores.add(Found(await self._devices.as_found(device.ifindex)))
        if found is None or not device.promiscuous:
            await self._devices.take(device.ifindex)
        return self._devices.by_index.get(device.ifindex, device)

    async def _request_mtu(self, device: Device, wanted: int | None) -> None:
        """Follow mtu_request; without it the device has the MTU it had before there was one."""
        found = self._restores.get(device.ifindex)
        if found is None:
            return
        if wanted and device.mtu != wanted:
            before = found.mtu or device.mtu
            self._restores.add(replace(found, mtu=before, mtu_set=wanted))
            try:
                await self._devices.set_mtu(device.ifindex, wanted)
            except HeliographError:
                self._restores.add(found)
                raise
        elif not wanted and found.mtu:
            if device.mtu == found.mtu_set:
                await self._devices.set_mtu(device.ifindex, found.mtu)
            self._restores.add(replace(found, mtu=0, mtu_set=0))

    @staticmethod
    def _smallest_mtus(wanted: DevicePlan, present: Mapping[UUID, Device]) -> dict[str, int]:
        """By bridge name, the smallest MTU of the existing devices that are its ports."""
        smallest: dict[str, int] = {}
        for uuid, existing in wanted.existing.items():
            if uuid in present:
                mtu = present[uuid].mtu
                smallest[existing.bridge] = min(mtu, smallest.get(existing.bridge, mtu))
        return smallest

    async def _make(
        self, internal: Internal, smallest: int | None, staying: Collection[str]
    ) -> Device:
        """Our end of an internal port's pair, made if need be with defaults that work; `staying`
        are the names of all our ends."""
        far = self._devices.by_name.get(internal.far_name)
        if far is not None:
            if not far.admin_up:  # nobody but us has any business with it
                await self._devices.set_up(far.ifindex, True)
            return far
        await self._make_way(internal.name, staying)
        mac, mtu = internal.stable_mac, smallest or DEFAULT_MTU
        user, far = await self._devices.create_internal(
            internal.name, internal.far_name, str(internal.uuid), mac, mtu
        )
        self._made[internal.uuid] = (replace(internal, mac=mac, mtu_request=None), mtu)
        log.info("internal port %s made (our end is %s)", user.name, far.name)
        return far

    async def _make_way(self, name: str, staying: Collection[str]) -> None:
        """Delete the pair that had the name, if its row is gone."""
        other = self._devices.by_name.get(name)
        far = self._devices.by_index.get(other.peer) if other else None
        if far and far.name not in staying and far.ifindex in self._linked():
            await self._delete([far.ifindex])

    def _linked(self) -> set[int]:
        """Devices that frames come from into the data plane."""
        return self._plane.devices().keys() | self._plane.attached()

    async def _retune(self, internal: Internal, far: Device, smallest: int | None) -> None:
        """Follow a change of the wanted MAC or MTU; what the user has set himself stays his.

        Of a pair that an earlier process made it is not known what that one wanted: what the
        row asks for is set, and an MTU that is too large for the bridge.
        """
        mtu = internal.mtu_request or smallest or DEFAULT_MTU
        known = self._made.get(internal.uuid)
        if far.peer_elsewhere and internal.mtu_request:
            there = await self._devices.user_end(far.ifindex)
            if there and there.mtu != mtu:
                raise HeliographError(
                    f"mtu_request: {there.name} is in another network namespace, where you must "
                    f"set it: ip link set dev {there.name} mtu {mtu}"
                )
        user = None if far.peer_elsewhere else self._devices.by_index.get(far.peer)
        if known == (internal, mtu) or user is None:
            return
        mac = internal.mac or (internal.stable_mac if known and known[0].mac else None)
        if mac and mac.lower() != user.mac and not (known and known[0].mac == internal.mac):
            await self._devices.set_mac(user.ifindex, mac)
        ours = user.mtu == known[1] if known else smallest is not None and user.mtu > smallest
        if user.mtu != mtu and (internal.mtu_request or ours):
            await self._devices.set_mtu(user.ifindex, mtu)
        self._made[internal.uuid] = (internal, mtu)

    async def release(self, wanted: DevicePlan, present: Mapping[UUID, Device]) -> None:
        """Let go of every device that is a port no longer: ours are deleted, others put back."""
        kept = {device.ifindex for device in present.values()}
        if wanted.segmenter:
            kept |= self._segmenter.ends
        by_name = self._devices.by_name
        begun = {by_name[name].ifindex for name in self._restores.making if name in by_name}
        linked = self._linked()
        leaving = (linked | begun) - kept
        # Ours go before their pins do: those tell the next start of them if this one is cut short.
        await self._delete(leaving)
        for ifindex in leaving & linked:
            self._plane.detach(ifindex)
            self._plane.forget_device(ifindex)
        self._restores.making = ()
        names = {existing.name for existing in wanted.existing.values()}
        for found in self._restores:
            restore = found.restore
            if restore.ifindex in kept:
                continue
            away = restore.ifindex not in self._devices.by_index
            if away and restore.name in names and restore.name not in self._devices.by_name:
                continue  # moved to another namespace it is still ours when it returns
            await self._put_back(found)

    async def _delete(self, ifindexes: Iterable[int]) -> None:
        ours = [i for i in ifindexes if i in self._devices.by_index]
        ours = [i for i in ours if is_far_end(self._devices.by_index[i])]
        if ours:
            await self._devices.delete(*ours)

    async def _put_back(self, found: Found) -> None:
        try:
            await put_back(self._devices, found)
        except HeliographError as error:
            log.warning("device %s was not put back as found: %s", found.restore.name, error)
        self._restores.drop(found.restore.ifindex)

    # The data plane.

    def apply(self, plan: Plan, present: Mapping[UUID, Device]) -> dict[UUID, str]:
        """Put the plan in force; returns what the kernel refused, by Bridge or Interface row.

        A bridge that is refused keeps its old configuration, and the others go on. OSError is
        raised when nothing can be done at all.
        """
        self._plane.carry_over()
        self._claim(plan.slots)
        self._hold_back(plan)
        faults: dict[UUID, str] = {}
        for uuid, bridge in plan.bridges.items():
            if self._bridges.get(bridge.slot) != bridge:
                try:
                    self._plane.switch_over(bridge)
                except OSError as error:
                    faults[uuid] = f"the kernel refused this configuration, trying again: {error}"
                    continue
                self._bridges[bridge.slot] = bridge
        gone = set(self.slots.bridges.values()) | self._bridges.keys()
        for slot in gone - {bridge.slot for bridge in plan.bridges.values()}:
            self._plane.clear_bridge(slot)
            self._bridges.pop(slot, None)
        self._plane.put_underlay(plan.underlay)
        faults |= self._attach(plan, present)
        faults |= self._attach_receivers(plan)
        self._plane.take_over()
        self._free(plan.slots)
        self.slots = plan.slots
        return faults

    def amend(self, slot: int, change: Callable[[BridgeEntry], BridgeEntry]) -> None:
        """Change a bridge's configuration in force, if it has one, before the next pass does.
        OSError as the kernel says it."""
        entry = self._bridges.get(slot)
        if entry and (fresh := change(entry)) != entry:
            self._plane.switch_over(fresh)
            self._bridges[slot] = fresh

    def _attach(self, plan: Plan, present: Mapping[UUID, Device]) -> dict[UUID, str]:
        errors: dict[UUID, str] = {}
        known = self._plane.devices()
        homes = {p.number: b.slot for b in plan.bridges.values() for p in b.ports}
        before, self._attached = self._attached, {}
        for uuid, number in plan.ports.items():
            device = present[uuid]
            ifindex = device.ifindex
            try:
                if before.get(ifindex) != device:  # it may be another, of the same number
                    self._plane.forget_dead_links(ifindex)
                if known.get(ifindex) != (homes[number], number):
                    self._plane.set_device(ifindex, homes[number], number)
                self._plane.attach(ifindex)
                self._attached[ifindex] = device
            except OSError as error:
                errors[uuid] = f"{device.name}: the data plane cannot be attached: {error}"
        return errors

    def _hold_back(self, plan: Plan) -> None:
        """Tunnels that are new or become others carry nothing until the bridges are switched over
        too, and those that go stay until then: no frame goes as neither the old rows nor the new
        ones say. A tunnel of another kind then begins to number its packets anew."""
        before = self._plane.underlay
        if before is None:  # an earlier process's, which was as the rows were
            self._plane.put_underlay(plan.underlay)
            return
        leaving = {entry.number: entry for entry in before.tunnels}
        kept = []
        for entry in plan.underlay.tunnels:
            old = leaving.pop(entry.number, None)
            if old and old.kind != entry.kind:
                self._plane.restart_sequence(entry.number)
            if old and replace(old, way=entry.way, copies=entry.copies) == entry:
                kept.append(entry)
        if any(self._bridges.get(entry.slot) != entry for entry in plan.bridges.values()):
            tunnels = sorted([*kept, *leaving.values()], key=lambda entry: entry.number)
            shared = plan.underlay if plan.underlay.tunnels else before
            self._plane.put_underlay(replace(shared, tunnels=tuple(tunnels)))

    def _attach_receivers(self, plan: Plan) -> dict[UUID, str]:
        """Tunnels receive on these devices and on no others."""
        errors: dict[UUID, str] = {}
        for ifindex in plan.receivers:
            device = self._devices.by_index.get(ifindex)
            try:
                self._plane.attach_receiver(ifindex)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    continue  # gone a moment ago; its event is on its way
                name = device.name if device else f"device {ifindex}"
                text = f"{name}: tunnels cannot receive there: {error}"
                errors |= dict.fromkeys(plan.tunnels, text)
        for ifindex in self._plane.receivers() - plan.receivers:
            self._plane.detach_receiver(ifindex)
        return errors

    def _claim(self, slots: Slots) -> None:
        """Write whose the new slots are, with counters at 0 (rule 102), before they are used."""
        for uuid, slot in slots.bridges.items():
            if self.slots.bridges.get(uuid) != slot:
                self._plane.set_row(ROW_BRIDGES + slot, uuid)
        for uuid, slot in slots.ports.items():
            if self.slots.ports.get(uuid) != slot:
                self._plane.counters.port_map.zero(slot)
                self._plane.restart_sequence(slot)
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
