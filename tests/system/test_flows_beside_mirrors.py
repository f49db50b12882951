# SPDX-License-Identifier: Apache-2.0
"""Mirrors that see what flows did, on real frames: Open vSwitch 3.1 and we send the same copies.

That version mirrors a changed frame once, as we do unless told otherwise (D9), and floods to mirror
ports, as we do not (D7): nothing here floods.
"""

from collections.abc import Iterator
from random import Random

import pytest
from tests.oracle.flow_pipeline_frames import Frames
from tools.lab.flows import PORTS, Side, StockSide
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openvswitch import Tools

SEED = 20_261_121
NAMES = ["br0", "p1", "p2", "p3", "p4"]
# Port 4 is where they go, so nothing comes in there.
MIRRORS = {
    "ingress": "select_src_port=@p1 output_port=@p4",
    "egress": "select_dst_port=@p2 output_port=@p4",
    "both": "select_src_port=@p1,@p2 select_dst_port=@p1,@p2 output_port=@p4",
    "everything": "select_all=true output_port=@p4",
    "a VLAN": "select_all=true select_vlan=5 output_port=@p4",
    "to a VLAN": "select_src_port=@p1 select_dst_port=@p3 output_vlan=9",
    "cut": "select_dst_port=@p2,@p3 output_port=@p4 snaplen=64",
}
MODES = {
    "trunks": "",
    "access ports": "-- set port p2 vlan_mode=access tag=5 -- set port p1 vlan_mode=access tag=6",
    "native ports": "-- set port p2 vlan_mode=native-untagged tag=5"
    " -- set port p4 vlan_mode=native-tagged tag=5",
}
FLOWS = [
    ["ip,actions=output:2,dec_ttl,output:3,output:2", "priority=1,actions=output:3"],
    ["actions=mod_vlan_vid:5,output:2,mod_dl_src:02:00:00:00:00:02,output:3,IN_PORT"],
    ["actions=strip_vlan,output:2,output:3", "priority=9,arp,actions=drop"],
    ["actions=resubmit(,1),output:3,LOCAL", "table=1,actions=mod_dl_src:02:00:00:00:00:02,2"],
    [
        "tcp,actions=mod_nw_src:192.0.2.1,mod_tp_dst:7,clone(dec_ttl,output:2),output:3",
        "priority=1,actions=4",
    ],
]


@pytest.fixture
def sides(lab: Lab, switch: Heliograph, ovs: Tools) -> Iterator[tuple[Side, Side]]:
    made = StockSide(lab), Side(lab, ovs, switch.host)
    yield made
    for side in made:
        side.close()


def configure(side: Side, columns: str, modes: str) -> None:
    plain = " ".join(f"-- clear port p{n} vlan_mode -- clear port p{n} tag" for n in (1, 2, 3, 4))
    ports = " ".join(f"-- --id=@{name} get port {name}" for name in NAMES)
    side.tools.vsctl(
        f"clear bridge br0 mirrors {plain} {modes} {ports}"
        f" -- --id=@m create mirror name=m {columns} -- set bridge br0 mirrors=@m"
    )
    side.settle()


def says_something(frame: bytes) -> bool:
    """Not a tag of VLAN 0: in copies of that, what Open vSwitch makes of it depends on the frame
    before."""
    return frame[12:14] not in {b"\x81\0", b"\x88\xa8"} or frame[14:16] != bytes(2)


@pytest.mark.parametrize("modes", MODES.values(), ids=list(MODES))
def test_the_same_copies(sides: tuple[Side, Side], modes: str) -> None:
    random = Frames(Random(SEED), stock=True)
    for name, columns in MIRRORS.items():
        for side in sides:
            configure(side, columns, modes)
        for flows in FLOWS:
            for side in sides:
                side.install(flows, version="OpenFlow10")
            for frame in [frame for _ in range(4) if says_something(frame := random.frame())]:
                for in_port in PORTS:
                    if in_port != 4:
                        stock, ours = (side.send(in_port, [frame]) for side in sides)
                        assert ours == stock, (name, flows, in_port, frame.hex())
