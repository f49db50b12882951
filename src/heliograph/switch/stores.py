# SPDX-License-Identifier: Apache-2.0
"""A bridge's data plane as the OpenFlow service uses it."""

from collections.abc import Callable

from heliograph.kernel import packet_out
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.flow_store import FlowStore
from heliograph.kernel.flow_store_maps import KernelBacking, store_in_force
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import PacketOut


class BridgeStore(FlowStore):
    """The flow store of the bridge in a slot, and the program that takes frames to send.

    It is the one of the slot's two, by its `number`, that frames do not find yet. `port_live`:
    whether a port, by its OpenFlow number, can be used by a bucket that watches it.
    """

    def __init__(self, plane: DataPlane, slot: int, port_live: Callable[[int], bool]) -> None:
        self.number = store_in_force(plane.map_fd("bridges"), slot) ^ 1
        super().__init__(KernelBacking(plane.map_fd("flow_stores"), self.number), port_live)
        self._program = plane.program_fd("packet_out")

    def packet_out(self, packet: PacketOut) -> None:
        """Send a frame of a controller. Raises OpenFlowError for what cannot be done."""
        ops = self.run_ops(packet.steps)
        try:
            packet_out.send(
                self._program, packet.data, store=self.number, in_port=packet.in_port, ops=ops
            )
        except OSError as error:
            raise OpenFlowError(
                Code.OFPBRC_BAD_PACKET,
                f"the kernel does not take a frame of {len(packet.data)} bytes: {error}",
            ) from error
