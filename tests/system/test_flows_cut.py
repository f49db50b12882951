# SPDX-License-Identifier: Apache-2.0
"""`output(port=,max_len=)` of super-frames (rule 85, departure D10): the head of every segment
arrives, and the frame that goes on is whole."""

import re
from collections.abc import Callable

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from tools.lab.capture import Capture
from tools.lab.flow import transfer
from tools.lab.heliograph import Heliograph
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually

SIZE, LIMIT = 2_000_000, 100
FLOWS = (
    "priority=0,actions=normal",
    f"priority=9,tcp,in_port=1,actions=output(port=3,max_len={LIMIT}),output:2",
)


def counted(ovs: Tools) -> int:
    printed = ovs.run("ovs-ofctl", "dump-flows", "br0", "tcp").stdout
    return int(re.findall(r"n_packets=(\d+)", printed)[0])


def test_rule_85_and_d10_a_stream_cut_by_a_flow(
    switch: Heliograph, ovs: Tools, guest: Callable[[str], Namespace]
) -> None:
    ovs.vsctl("add-br br0")
    guests = {}
    for number in (1, 2, 3):
        name = f"p{number}"
        ovs.vsctl(f"add-port br0 {name} -- set interface {name} type=internal")
        guests[name] = guest(name)
        guests[name].set_sysctl("ipv6/conf/default/disable_ipv6", "1")
        guests[name].set_sysctl("ipv6/conf/all/disable_ipv6", "1")
        switch.move(name, guests[name], f"10.8.0.{number}/24" if number < 3 else None)
    assert eventually(lambda: guests["p1"].ping("10.8.0.2", 1) == 1)
    for flow in FLOWS:
        ovs.run("ovs-ofctl", "add-flow", "br0", flow)
    # The segmenter, which the first flow calls for, is there a pass later, and then in use.
    assert eventually(lambda: "segmenter" in switch.host.ip("-j link show"))
    ovs.vsctl("set bridge br0 external_ids:seen=segmenter")
    with Capture(guests["p3"], "p3") as capture:
        transfer(guests["p1"], guests["p2"], "10.8.0.2", SIZE)
        frames = [f for f in capture.everything() if Ether(f.data).haslayer(TCP)]
    assert max(len(f.data) for f in frames) == LIMIT
    assert len(frames) == counted(ovs) > SIZE // 1500
    segments = [Ether(f.data) for f in frames]
    sizes = {s[TCP].seq: s[IP].len - 40 - 4 * (s[TCP].dataofs - 5) for s in segments}
    first = min(sizes)
    assert sum(sizes.values()) >= SIZE and all(seq - first < 2 * SIZE for seq in sizes)
