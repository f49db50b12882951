# SPDX-License-Identifier: Apache-2.0
"""What controllers are told of frames: by Open vSwitch and by us, on the same flows and frames."""

from collections.abc import Iterator, Sequence
from random import Random

import pytest
from tests.oracle.flow_pipeline_frames import Frames
from tools.lab.flows import Side, StockSide
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openflow import Controller
from tools.lab.openvswitch import Tools

from heliograph.openflow.flows import PacketIn, PacketInFormat
from heliograph.openflow.messages import (
    AsyncConfig,
    SetAsync,
    SetConfig,
    SetPacketInFormat,
    Version,
)

Lines = Sequence[str]
SEED = 20_261_121
INVALID_TTL = 4  # a flag of 1.0's SetConfig: be told of them
EVERY_REASON = AsyncConfig(packet_in=(0x3F, 0x3F), port_status=(0, 0), flow_removed=(0, 0))
TABLES: dict[str, tuple[Lines, Lines]] = {
    "as received": (["actions=controller"], []),
    "of a length": (["actions=controller:40,output:2"], []),
    "of a reason": (
        ["cookie=0x77,ip,actions=dec_ttl,controller(max_len=70,reason=no_match,id=0)"],
        [],
    ),
    "1.0 as changed": (
        [
            "ip,actions=mod_nw_dst:192.0.2.1,mod_vlan_vid:7,controller,strip_vlan,"
            "mod_dl_src:02:00:00:00:00:09,controller"
        ],
        [],
    ),
    "registers and tables": (
        [
            "actions=load:5->reg0,load:0x1122334455667788->metadata,controller,resubmit(2,3)",
            "table=3,in_port=2,cookie=9,actions=load:7->reg3,controller",
        ],
        [],
    ),
    "of a bucket": (
        ["actions=group:1"],
        ["group_id=1,type=all,bucket=actions=controller,bucket=actions=output:CONTROLLER"],
    ),
    "of a clone": (["actions=clone(mod_dl_src:02:00:00:00:00:09,controller),controller"], []),
    "1.0 over": (
        ["ip,actions=mod_nw_ttl:1,dec_ttl,output:2", "ipv6,actions=dec_ttl(0),output:2"],
        [],
    ),
    "userdata": (["actions=controller(userdata=01.02.03.04.05)"], []),
    "a port that was loaded": (["actions=load:3->in_port,controller"], []),
    "a miss": (["actions=goto_table:9"], []),
    "a flow for what misses": (
        ["actions=write_metadata:5,goto_table:9", "table=9,priority=0,actions=controller"],
        [],
    ),
}


@pytest.fixture
def sides(lab: Lab, switch: Heliograph, ovs: Tools) -> Iterator[tuple[Side, Side]]:
    made = StockSide(lab), Side(lab, ovs, switch.host)
    yield made
    for side in made:
        side.close()


class Listener:
    """A connection that is told everything."""

    def __init__(self, side: Side, version: Version) -> None:
        self.side, self.first = side, version == Version.V10
        self.session = Controller(side.tools.rundir / "br0.mgmt", version)
        self.configure()
        if self.first:
            self.session.send(SetPacketInFormat(PacketInFormat.NXT_PACKET_IN2))
        else:
            self.session.send(SetAsync(EVERY_REASON))

    def configure(self) -> None:
        self.session.send(SetConfig(INVALID_TTL if self.first else 0, 0xFFFF))

    def told(self, frames: list[bytes]) -> list[list[PacketIn]]:
        """Of each frame, which is sent alone."""
        found = []
        for frame in frames:
            self.side.send(1, [frame])
            self.session.unasked.clear()
            for _ in range(3):  # what is on its way to us comes before an answer
                self.configure()
            found.append([m for m in self.session.unasked if isinstance(m, PacketIn)])
        return found


def test_all_are_told_the_same(sides: tuple[Side, Side]) -> None:
    random = Frames(Random(SEED), stock=True)
    frames = [random.frame() for _ in range(10)]
    for name, (flows, groups) in TABLES.items():
        for side in sides:
            side.install(flows, groups, "OpenFlow10" if name.startswith("1.0") else "OpenFlow15")
        for version in (Version.V10, Version.V13, Version.V15):
            listeners = [Listener(side, version) for side in sides]
            stock, ours = (listener.told(frames) for listener in listeners)
            for listener in listeners:
                listener.session.close()
            for frame, theirs, own in zip(frames, stock, ours, strict=True):
                assert own == theirs, (name, version, frame.hex())
            # A miss is told to controllers of 1.0 alone.
            assert any(stock) == (name != "a miss" or version == Version.V10), (name, version)
