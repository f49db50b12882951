# SPDX-License-Identifier: Apache-2.0
"""What ovs-ofctl says is understood, and what we say is printed by it as it was meant."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.unit.openflow import ofctl
from tests.unit.openflow import strategies as s

from heliograph.openflow import actions as a
from heliograph.openflow import flows as f
from heliograph.openflow import messages as m
from heliograph.openflow.codec import encode, error_message
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.match import Match

PHASES = [Phase.explicit, Phase.generate]  # to shrink would start a process at each step
every_version = pytest.mark.parametrize("version", s.VERSIONS)
everywhere = pytest.mark.parametrize("dumped", s.VERSIONS)

# Flows as dump-flows prints them, which is how they are added.
MATCHES = """
in_port=1
in_port=LOCAL
dl_vlan=5
dl_vlan=5,dl_vlan_pcp=3
dl_vlan_pcp=3
vlan_tci=0x0000
vlan_tci=0x1000/0x1000
vlan_tci=0x0005/0x0fff
dl_src=00:11:22:33:44:55,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00
dl_type=0x88cc
priority=5,tcp,nw_src=10.0.0.0/8,tp_dst=80
tcp,nw_dst=10.0.0.1
tcp,tp_src=0x10/0xfff0
tcp,tcp_flags=+syn-ack
udp,nw_tos=40,nw_ecn=1,nw_ttl=5,tp_src=5
sctp,tp_src=7,tp_dst=8
ip,nw_frag=later
icmp,icmp_type=8,icmp_code=0
icmp,nw_frag=later,icmp_code=3
arp,arp_spa=1.2.3.0/24,arp_tpa=1.2.3.4,arp_op=1
arp,arp_sha=00:11:22:33:44:55,arp_tha=00:11:22:33:44:56
rarp
udp6,ipv6_src=fe80::/10,ipv6_dst=::1
ipv6,ipv6_label=0x12345
icmp6,icmp_type=135,nd_target=fe80::1,nd_sll=00:11:22:33:44:55
icmp6,icmp_type=136,icmp_code=0,nd_target=fe80::1,nd_tll=00:11:22:33:44:55
reg0=0x5,reg15=0x5/0xff
metadata=0x5/0xf
tun_id=0x7
tun_id=0x7/0xff,tun_src=1.2.3.4,tun_dst=10.0.0.0/8
pkt_mark=0x3/0xf
ct_state=+trk,ct_zone=5,ct_mark=0x1/0x1
mpls,mpls_label=5,mpls_tc=1,mpls_bos=1
""".strip().splitlines()
ANYWHERE = """
drop
output:2
NORMAL
FLOOD
ALL
LOCAL
IN_PORT
CONTROLLER:65535
controller(reason=no_match,max_len=128,id=5)
controller(userdata=01.02.03,pause)
output(port=1,max_len=100)
resubmit(,3)
resubmit:4
resubmit(5,6)
group:5
dec_ttl
dec_ttl(1,2)
clone(output:1,output:2)
move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]
move:NXM_NX_REG0[0..11]->OXM_OF_VLAN_VID[]
note:01.02.03.00.00.00
exit,output:1
""".strip().splitlines()
ONLY10 = """
mod_vlan_vid:5
mod_vlan_pcp:3,output:1
strip_vlan
mod_dl_src:00:11:22:33:44:55
mod_dl_dst:00:11:22:33:44:55
mod_nw_src:1.2.3.4,mod_nw_dst:1.2.3.5
mod_nw_tos:40
mod_tp_src:80,mod_tp_dst:81
set_tunnel:0x5
set_tunnel64:0x123456789
load:0x5->NXM_NX_REG0[3..7]
load:0x123456789abcdef0->OXM_OF_METADATA[]
write_metadata:0x5/0xf
""".strip().splitlines()
FROM13 = """
push_vlan:0x8100,set_field:4101->vlan_vid,output:1,pop_vlan,output:2
set_field:00:11:22:33:44:55->eth_src,set_field:1.2.3.4->ip_src,set_field:80->tcp_dst
set_field:0x5->reg3,set_field:0x7->metadata
mod_nw_ttl:7
meter:3,output:1
clear_actions,write_actions(set_field:00:11:22:33:44:55->eth_src,output:1),goto_table:9
write_metadata:0x1/0x3,goto_table:9
""".strip().splitlines()
# Where a version has no way to say what another has, what it says instead.
INSTEAD = {
    **{(n, "mod_vlan_vid:5"): "push_vlan:0x8100,set_field:4101->vlan_vid" for n in (4, 5, 6)},
    **{
        (n, "mod_vlan_pcp:3,output:1"): "push_vlan:0x8100,set_field:3->vlan_pcp,output:1"
        for n in (4, 5, 6)
    },
    **{(n, "strip_vlan"): "pop_vlan" for n in (4, 5, 6)},
    **{
        (n, f"mod_dl_{end}:00:11:22:33:44:55"): f"set_field:00:11:22:33:44:55->eth_{end}"
        for n in (4, 5, 6)
        for end in ("src", "dst")
    },
    **{
        (n, "mod_nw_src:1.2.3.4,mod_nw_dst:1.2.3.5"): "set_field:1.2.3.4->ip_src,"
        "set_field:1.2.3.5->ip_dst"
        for n in (4, 5, 6)
    },
    **{(n, "mod_nw_tos:40"): "set_field:10->ip_dscp" for n in (4, 5, 6)},
    **{
        (n, "mod_tp_src:80,mod_tp_dst:81"): "set_field:80->tcp_src,set_field:81->tcp_dst"
        for n in (4, 5, 6)
    },
    (6, "load:0x5->NXM_NX_REG0[3..7]"): "set_field:0x28/0xf8->reg0",
    (6, "load:0x123456789abcdef0->OXM_OF_METADATA[]"): "set_field:0x123456789abcdef0->metadata",
    (1, FROM13[0]): "mod_vlan_vid:5,output:1,strip_vlan,output:2",
    (1, FROM13[1]): "mod_dl_src:00:11:22:33:44:55,mod_nw_src:1.2.3.4,mod_tp_dst:80",
    (1, FROM13[2]): "load:0x5->NXM_NX_REG3[],load:0x7->OXM_OF_METADATA[]",
    (1, "mod_nw_ttl:7"): "load:0x7->NXM_NX_IP_TTL[]",
    (1, "meter:3,output:1"): "output:1",
    (1, FROM13[5]): "resubmit(,9)",
    (1, FROM13[6]): "set_field:0x1/0x3->metadata,resubmit(,9)",
}


@pytest.fixture
def switch() -> Iterator[ofctl.Switch]:
    with ofctl.switch() as made:
        yield made


def flow_texts(dump: str) -> list[str]:
    """Without what every flow has: cookie, age, table 0, counters."""
    lines = [line.strip() for line in dump.splitlines() if "actions=" in line]
    noise = r"cookie=0x0, |duration=1\.500*s, |table=0, |n_packets=0, |n_bytes=0, "
    return [re.sub(noise, "", line) for line in lines]


@every_version
@everywhere
def test_matches_are_printed_as_they_were_added(
    switch: ofctl.Switch, version: int, dumped: int
) -> None:
    added = [f"{match} actions=output:1" for match in MATCHES]
    assert switch.ofctl(version, "add-flows", "-", stdin="\n".join(added)) == ""
    if version > 1 or dumped > 1:
        # So ovs-ofctl sends "no tag", as a vlan_vid that has no priority bits.
        n = MATCHES.index("vlan_tci=0x0000")
        added[n] = added[n].replace("0x0000", "0x0000/0x1fff")
    assert flow_texts(switch.ofctl(dumped, "dump-flows")) == added
    assert switch.changed == []


@every_version
@everywhere
def test_actions_are_printed_as_they_were_added(
    switch: ofctl.Switch, version: int, dumped: int
) -> None:
    actions = ANYWHERE + (ONLY10 if version == 1 else FROM13)
    added = [f"tcp actions={words}" for words in actions]
    assert switch.ofctl(version, "add-flows", "-", stdin="\n".join(added)) == ""
    expected = [f"tcp actions={INSTEAD.get((dumped, words), words)}" for words in actions]
    assert flow_texts(switch.ofctl(dumped, "dump-flows")) == expected
    assert switch.changed == []


@every_version
def test_the_rest_of_a_flow_is_printed_as_it_was_added(switch: ofctl.Switch, version: int) -> None:
    text = "table=3, cookie=0x99, idle_timeout=5, hard_timeout=9, send_flow_rem, priority=7, ip"
    switch.ofctl(version, "add-flow", f"{text} actions=drop")
    (line,) = flow_texts(switch.ofctl(version, "dump-flows"))
    rem = "" if version == 1 else "send_flow_rem "
    times = "idle_timeout=5, hard_timeout=9, "
    assert line == f"cookie=0x99, table=3, {times}{rem}priority=7,ip actions=drop"


REFUSED = {
    "learn(table=1,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[])": "learn",
    "conjunction(1,1/2)": "conjunction",
    "push:NXM_NX_REG0[]": "push",
    "sample(probability=1)": "sample",
    "multipath(eth_src,50,modulo_n,1,0,NXM_NX_REG0[])": "multipath",
    "bundle(eth_src,50,active_backup,ofport,members:1,2)": "bundle",
    "ct(commit)": "ct",
    "output:NXM_NX_REG0[]": "output_reg",
    "check_pkt_larger(100)->NXM_NX_REG0[0]": "check_pkt_larger",
}


@every_version
@pytest.mark.parametrize("words", REFUSED)
def test_actions_to_refuse_are_known_by_name(
    switch: ofctl.Switch, version: int, words: str
) -> None:
    switch.ofctl(version, "add-flow", f"ip actions={words}")
    (flow,) = switch.flows
    (action,) = flow.actions
    assert isinstance(action, a.Unsupported)
    assert action.name == REFUSED[words]


COMMANDS = {
    "show": "dpid:0000000000001234",
    "dump-ports": r"port  1: rx pkts=5, bytes=\?",
    "dump-ports 1": r"tx pkts=\?, bytes=99",
    "dump-ports-desc": r"(?s)1\(p1\): addr:02:00:00:00:00:01.*current: +1GB-FD COPPER AUTO_NEG",
    "dump-tables": "active=1, lookup=9, matched=4",
    "dump-desc": "(?s)Manufacturer: maker.*Serial Num: serial.*DP Description: br0",
    "dump-aggregate": "packet_count=1 byte_count=2 flow_count=3",
    "dump-aggregate cookie=5/7,table=3,out_port=1": "flow_count=3",
    "queue-stats": "0 queues",
    "queue-get-config 1": r"QUEUE_(GET_CONFIG_REPLY|DESC reply)",
    "get-frags": "normal",
    "mod-port p1 down": "^$",
    "mod-port 1 no-forward": "^$",
    "packet-out in_port=1,packet=0011223344550011223344550800,actions=output:1": "^$",
    "packet-out in_port=LOCAL,packet=0011223344550011223344550800,actions=FLOOD": "^$",
    "mod-flows cookie=1/-1,actions=output:5": "^$",
    "--strict del-flows in_port=1": "^$",
    "del-flows cookie=1/3,in_port=1,out_port=5": "^$",
    "dump-group-features": r"Types:  0xf",
    "mod-group group_id=1,type=all,bucket=output:5": "^$",
    "del-groups": "^$",
    "del-groups group_id=1": "^$",
    "insert-buckets group_id=1,command_bucket_id=first,bucket=output:5": "^$",
    "remove-buckets group_id=1,command_bucket_id=last": "^$",
    "probe": "^$",
    "ct-flush": "OFPBRC_BAD_SUBTYPE",
    "dump-tlv-map": "OFPBRC_BAD_SUBTYPE",
    "dump-ipfix-bridge": "OFPBRC_BAD_SUBTYPE",
}
LATER = {
    "dump-table-features": r"(?s)table 0 \(\"t0\"\).*table 1",
    "meter-features": "max_meter:0",
    "dump-meters": "METER_CONFIG reply",
    "meter-stats": "METER reply",
    "add-meter meter=1,kbps,band=type=drop,rate=5": "^$",
}


@every_version
def test_every_command_is_answered(switch: ofctl.Switch, version: int) -> None:
    only_new = {"insert-buckets", "remove-buckets"} if version in {4, 5} else set()
    for command, expected in (COMMANDS if version == 1 else COMMANDS | LATER).items():
        words = command.split()
        if words[0].startswith("--"):
            words = [*words[1:], words[0]]
        if words[0] not in only_new:
            assert re.search(expected, switch.ofctl(version, *words)), command
    assert switch.changed == []


@pytest.mark.parametrize("version", [5, 6])
def test_descriptions_of_tables(switch: ofctl.Switch, version: int) -> None:
    assert "eviction=off" in switch.ofctl(version, "dump-table-desc")


GROUPS = """
group_id=1,type=select,bucket=weight:5,actions=output:1,bucket=weight:2,actions=output:2
group_id=2,type=ff,bucket=watch_port:1,actions=output:1,bucket=watch_group:1,actions=output:2
group_id=3,type=indirect,bucket=actions=dec_ttl,output:1
group_id=4,type=all,bucket=actions=output:1,bucket=actions=resubmit(,1)
""".strip().splitlines()


@every_version
@everywhere
def test_groups_are_printed_as_they_were_added(
    switch: ofctl.Switch, version: int, dumped: int
) -> None:
    assert switch.ofctl(version, "add-groups", "-", stdin="\n".join(GROUPS)) == ""
    lines = switch.ofctl(dumped, "dump-groups").splitlines()[1:]
    assert [re.sub(r"bucket_id:\d,", "", line.strip()) for line in lines] == GROUPS
    assert "bucket1:packet_count=1,byte_count=2" in switch.ofctl(dumped, "dump-group-stats")
    assert switch.changed == []


def test_how_a_group_selects(switch: ofctl.Switch) -> None:
    text = "group_id=6,type=select,selection_method=hash,selection_method_param=5,fields=ip_src"
    switch.ofctl(6, "add-group", f"{text},bucket=output:1")
    (group,) = switch.groups
    assert group.selection == f.Selection(method="hash", param=5, fields=(("ip_src", 0xFFFF_FFFF),))
    assert text in switch.ofctl(6, "dump-groups")


@pytest.mark.parametrize("version", [4, 5, 6])
def test_bundles(switch: ofctl.Switch, version: int) -> None:
    flows = "\n".join(f"in_port={n} actions=output:1" for n in range(1, 20))
    assert switch.ofctl(version, "add-flows", "-", "--bundle", stdin=flows) == ""
    assert len(switch.flows) == 19
    kinds = [type(message) for message in switch.received]
    assert kinds.count(m.BundleAdd) == 19
    assert kinds.count(m.BundleControl) == 2


def test_every_error_has_the_name_it_has_there() -> None:
    """All codes in all versions; what a version cannot say is said to be so."""
    for version in s.VERSIONS:
        codes = list(Code)
        data = b"".join(
            encode(error_message(OpenFlowError(code), version, b""), version) for code in codes
        )
        lines = ofctl.printed(data).splitlines()
        errors = [line for line in lines if line.startswith("OFPT_ERROR")]
        names = [line.rsplit(" ", 1)[1] for line in errors]
        unsaid = Code.NXBRC_UNENCODABLE_ERROR
        said = [
            code if code.number(version) != unsaid.number(version) else unsaid for code in codes
        ]
        assert names == [code.name for code in said]
        assert len(set(said)) > 80


@every_version
@given(data=st.data())
@settings(deadline=None, max_examples=5, suppress_health_check=list(HealthCheck), phases=PHASES)
def test_random_messages_are_never_called_damaged(version: int, data: st.DataObject) -> None:
    mods = data.draw(st.lists(s.flow_mods(version), min_size=20, max_size=20))
    groups = data.draw(st.lists(s.group_mods(version), min_size=5, max_size=5))
    sent = [*(encode(mod, version) for mod in mods), *(encode(mod, version) for mod in groups)]
    text = ofctl.printed(b"".join(sent))
    # What a packet's kind does not allow is not the codec's to know.
    inconsistent = {"OFPBAC_MATCH_INCONSISTENT", "OFPBAC_BAD_TAG"}
    assert set(re.findall(r"\*\*\*decode error: (\w+)", text)) <= inconsistent


MATCH = Match.of({"in_port": (3, 0xFFFF), "reg1": (5, 0xFF)})


@every_version
def test_packets_to_controllers_are_printed(version: int) -> None:
    frame = bytes.fromhex("000102030405060708090a0b88b5") + bytes(50)
    for form in f.PacketInFormat:
        packet = f.PacketIn(
            data=frame, total_len=200, match=MATCH, table_id=4, cookie=0x77, format=form
        )
        text = ofctl.printed(encode(packet, version))
        rich = version > 1 or form != f.PacketInFormat.STANDARD
        assert "total_len=200" in text
        assert ("reg1=0x5/0xff" in text, "cookie=0x77" in text) == (rich, rich)
        assert "in_port=3" in text
        assert "(via action) data_len=64" in text
        assert "dl_type=0x88b5" in text


@every_version
def test_removed_flows_are_printed(version: int) -> None:
    for nicira in {False, version == 1}:
        gone = f.FlowRemoved(
            match=MATCH if nicira or version > 1 else Match(),
            reason=f.RemovedReason.HARD_TIMEOUT,
            table_id=2,
            cookie=0x77,
            duration_ns=3_500_000_000,
            hard_timeout=3,
            packets=4,
            bytes=500,
            nicira=nicira,
        )
        text = ofctl.printed(encode(gone, version))
        assert "reason=hard" in text
        assert "cookie:0x77 duration3.500s" in text
        assert "pkts4 bytes500" in text
        assert ("reg1=0x5/0xff" in text) == (nicira or version > 1)


@every_version
def test_other_messages_are_printed(version: int) -> None:
    port = m.PortStatus(m.PortReason.DELETE, ofctl.PORTS[0])
    assert "DEL: 1(p1): addr:02:00:00:00:00:01" in ofctl.printed(encode(port, version))
    hello = ofctl.printed(encode(m.Hello(frozenset({1, 4, 6})), version))
    assert "version bitmap: 0x01, 0x04, 0x06" in hello
    role = m.RoleReply(m.Role.PRIMARY, nicira=version == 1)
    assert "role=primary" in ofctl.printed(encode(role, version))
    if version >= m.Version.V14:
        status = ofctl.printed(encode(m.RoleStatus(m.Role.SECONDARY, generation_id=7), version))
        assert "role=secondary generation_id=7 reason=primary_request" in status
