# SPDX-License-Identifier: Apache-2.0
"""Flows as dump-flows of Open vSwitch 3.1 prints them, without what changes by itself.

What is added in these words is printed in these words; where there is no cookie, it is 0x0.
"""

_IN_ALL = """\
table=0, idle_timeout=60, hard_timeout=3600, in_port=3 actions=LOCAL
table=0, in_port=LOCAL actions=output:1
table=0, priority=0 actions=NORMAL
table=0, priority=65535,in_port=1 actions=output:2,output:3
cookie=0x1, table=0, in_port=1 actions=output:2
cookie=0xffffffffffffffff, table=0, in_port=2 actions=drop
table=1, dl_dst=01:00:00:00:00:00/01:00:00:00:00:00 actions=ALL
table=1, dl_dst=02:00:00:00:00:00/ff:ff:ff:00:00:00,dl_type=0x88b6 actions=CONTROLLER:65535
table=1, dl_vlan=5,dl_vlan_pcp=3 actions=output:2
table=1, in_port=1,dl_src=02:00:00:00:00:01 actions=FLOOD
table=1, vlan_tci=0x1000/0x1000 actions=output:2
table=1, vlan_tci=0x1005/0x1007 actions=output:2
table=2, arp actions=output:2
table=2, arp,arp_sha=02:00:00:00:00:01,arp_tha=00:00:00:00:00:00 actions=output:2
table=2, arp,arp_spa=10.0.0.1,arp_tpa=10.0.0.0/24,arp_op=1 actions=output:2
table=2, ip actions=dec_ttl,output:2
table=2, ip,nw_frag=first actions=output:2
table=2, ip,nw_frag=later actions=output:2
table=2, ip,nw_frag=no actions=output:2
table=2, ip,nw_frag=not_later actions=output:2
table=2, ip,nw_frag=yes actions=output:2
table=2, ip,nw_proto=89 actions=output:2
table=2, rarp actions=drop
table=3, icmp,icmp_type=8,icmp_code=0 actions=output:2
table=3, icmp6,icmp_type=135,icmp_code=0,nd_target=fe80::1,nd_sll=02:00:00:00:00:01 actions=output:2
table=3, icmp6,icmp_type=136,nd_target=fe80::/10,nd_tll=02:00:00:00:00:01 actions=output:2
table=3, ipv6 actions=dec_ttl,output:2
table=3, ipv6,ipv6_label=0x12345 actions=output:2
table=3, ipv6,ipv6_src=::1/::ffff actions=output:2
table=3, ipv6,ipv6_src=fe80::1,ipv6_dst=ff02::/16 actions=output:2
table=3, sctp,tp_dst=5 actions=output:2
table=3, tcp,tcp_flags=+syn-ack actions=output:2
table=3, tcp,tcp_flags=syn|ack actions=output:2
table=3, tcp,tp_dst=0x1000/0xf000 actions=output:2
table=3, tcp6,tp_dst=80 actions=output:2
table=3, udp,tp_dst=53 actions=output:2
table=3, udp6,tp_dst=80 actions=output:2
table=4, ip,reg2=0x14 actions=dec_ttl(1,2),output:2
table=4, metadata=0x5 actions=output:2
table=4, metadata=0x500000000/0xff00000000 actions=output:2
table=4, reg0=0x5 actions=output:2
table=4, reg1=0x5/0xff,reg15=0xffffffff actions=output:2
table=4, reg2=0,reg3=0x5 actions=output:2
table=4, reg2=0x10 actions=exit
table=4, reg2=0x11 actions=output:2,exit
table=4, reg2=0x12 actions=note:01.02.03.00.00.00
table=4, reg2=0x1a actions=write_metadata:0x5
table=4, reg2=0x21 actions=ALL,IN_PORT,LOCAL,FLOOD,NORMAL
table=4, reg2=0x3 actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],output:2
table=4, reg2=0x4 actions=move:NXM_NX_REG0[0..15]->NXM_NX_REG1[16..31],output:2
table=4, reg2=0x8 actions=resubmit(,5)
table=4, reg2=0x9 actions=resubmit(3,5),resubmit:4
table=4, reg2=0xa actions=resubmit:3
table=4, reg2=0xc actions=output(port=2,max_len=64)
table=4, reg2=0xd actions=controller(max_len=100,id=7)
table=4, reg2=0xe actions=controller(userdata=01.02.03)
table=4, reg2=0xf actions=group:1
table=4, reg4=0,reg5=0,reg6=0,reg7=0x5 actions=output:2
table=5, dl_type=0x05ff actions=drop
table=5, ip actions=move:NXM_OF_IP_SRC[0..7]->NXM_OF_IP_DST[8..15],output:2
table=5, ip,nw_src=10.0.0.1/255.0.255.255 actions=output:2
table=5, reg0=0x1,in_port=3 actions=drop
table=63, priority=3,in_port=CONTROLLER actions=drop
"""
_IN_1_0 = """\
table=0, in_port=4 actions=IN_PORT
table=1, dl_vlan=5 actions=strip_vlan,output:2
table=1, dl_vlan_pcp=2 actions=mod_vlan_pcp:4,output:2
table=1, vlan_tci=0x0000 actions=mod_vlan_vid:7,output:2
table=2, ip,nw_ecn=2 actions=load:0x1->NXM_NX_IP_ECN[],output:2
table=2, ip,nw_src=10.0.0.0/8,nw_dst=10.1.2.3 actions=mod_nw_src:1.2.3.4,mod_nw_dst:4.3.2.1,output:2
table=2, ip,nw_tos=184 actions=mod_nw_tos:4,output:2
table=2, ip,nw_ttl=64 actions=load:0x5->NXM_NX_IP_TTL[],output:2
table=3, tcp,tp_src=1000,tp_dst=80 actions=mod_tp_src:1,mod_tp_dst:2,output:2
table=4, reg2=0x1 actions=load:0x5->NXM_NX_REG0[],output:2
table=4, reg2=0x17,vlan_tci=0x1000/0x1000 actions=strip_vlan,output:2
table=4, reg2=0x18 actions=resubmit(,5)
table=4, reg2=0x19 actions=output:2,resubmit(,5)
table=4, reg2=0x1c actions=drop
table=4, reg2=0x1d actions=load:0x5->OXM_OF_METADATA[],output:2
table=4, reg2=0x1e actions=load:0x5->OXM_OF_PKT_REG1[],output:2
table=4, reg2=0x2 actions=load:0x5->NXM_NX_REG0[3..7],output:2
table=4, reg2=0x5 actions=mod_dl_src:02:00:00:00:00:09,output:2
table=4, reg2=0x6 actions=load:0x5->NXM_NX_REG3[0..3],output:2
table=4, reg2=0x7 actions=mod_dl_src:02:00:00:00:00:01,mod_dl_dst:02:00:00:00:00:02,output:2
table=4, reg2=0xb actions=clone(load:0x1->NXM_NX_REG0[],output:2),output:3
table=5, arp actions=load:0x2->NXM_OF_ARP_OP[],load:0x1020304->NXM_OF_ARP_SPA[],output:2
table=5, icmp actions=load:0x3->NXM_OF_ICMP_TYPE[],output:2
table=5, ipv6 actions=load:0xfe80000000000000->NXM_NX_IPV6_SRC[64..127],output:2
table=5, tcp actions=load:0x5->NXM_OF_TCP_DST[],output:2
table=5, udp,tp_src=7 actions=mod_tp_dst:9,output:2
table=63, actions=drop
table=63, priority=4,in_port=3 actions=drop
"""
_FROM_1_3 = """\
table=0, send_flow_rem in_port=4 actions=IN_PORT
table=1, dl_vlan=5 actions=pop_vlan,output:2
table=1, dl_vlan_pcp=2 actions=set_field:4->vlan_pcp,output:2
table=1, vlan_tci=0x0000/0x1fff actions=push_vlan:0x8100,set_field:4103->vlan_vid,output:2
table=2, ip,nw_ecn=2 actions=set_field:1->nw_ecn,output:2
table=2, ip,nw_src=10.0.0.0/8 actions=set_field:1.2.3.4->ip_src,set_field:4.3.2.1->ip_dst,output:2
table=2, ip,nw_tos=184 actions=set_field:1->ip_dscp,output:2
table=2, ip,nw_ttl=64 actions=mod_nw_ttl:5,output:2
table=3, tcp,tp_src=1000,tp_dst=80 actions=set_field:1->tcp_src,set_field:2->tcp_dst,output:2
table=4, reg2=0x15 actions=push_vlan:0x8100,set_field:4101->vlan_vid,output:2
table=4, reg2=0x16 actions=push_vlan:0x88a8,output:2
table=4, reg2=0x17,vlan_tci=0x1000/0x1000 actions=pop_vlan,output:2
table=4, reg2=0x18 actions=goto_table:5
table=4, reg2=0x19 actions=output:2,goto_table:5
table=4, reg2=0x1b actions=write_metadata:0x5/0xff,goto_table:6
table=4, reg2=0x1e actions=set_field:0x5->xreg1,output:2
table=4, reg2=0x5 actions=set_field:02:00:00:00:00:09->eth_src,output:2
table=4, reg2=0x7 actions=set_field:02:00:00:00:00:02->eth_dst,output:2
table=5, arp actions=set_field:2->arp_op,set_field:1.2.3.4->arp_spa,output:2
table=5, icmp actions=set_field:3->icmp_type,output:2
table=5, ipv6 actions=set_field:fe80::1->ipv6_src,set_field:0x123->ipv6_label,output:2
table=5, udp,tp_src=7 actions=set_field:9->udp_dst,output:2
table=63, check_overlap priority=4,in_port=3 actions=drop
table=63, no_packet_counts no_byte_counts priority=6,in_port=3 actions=drop
table=63, reset_counts priority=5,in_port=3 actions=drop
"""
_BEFORE_1_5 = """\
table=4, reg2=0x1 actions=load:0x5->NXM_NX_REG0[],output:2
table=4, reg2=0x1d actions=load:0x5->OXM_OF_METADATA[],output:2
table=4, reg2=0x2 actions=load:0x5->NXM_NX_REG0[3..7],output:2
table=4, reg2=0x6 actions=load:0x5->NXM_NX_REG3[0..3],output:2
table=4, reg2=0xb actions=clone(load:0x1->NXM_NX_REG0[],output:2),output:3
table=5, tcp actions=load:0x5->NXM_OF_TCP_DST[],output:2
"""
_FROM_1_4 = """\
table=63, importance=5, actions=drop
"""
_ONLY_1_5 = """\
table=4, reg2=0x1 actions=set_field:0x5->reg0,output:2
table=4, reg2=0x1d actions=set_field:0x5->metadata,output:2
table=4, reg2=0x2 actions=set_field:0x28/0xf8->reg0,output:2
table=4, reg2=0x6 actions=set_field:0x5/0xf->reg3,output:2
table=4, reg2=0xb actions=clone(set_field:0x1->reg0,output:2),output:3
table=5, tcp actions=set_field:5->tcp_dst,output:2
"""
GROUP = "group_id=1,type=all,bucket=output:2"  # which some of them name
_TEXTS = {
    "OpenFlow10": _IN_ALL + _IN_1_0,
    "OpenFlow13": _IN_ALL + _FROM_1_3 + _BEFORE_1_5,
    "OpenFlow14": _IN_ALL + _FROM_1_3 + _BEFORE_1_5 + _FROM_1_4,
    "OpenFlow15": _IN_ALL + _FROM_1_3 + _FROM_1_4 + _ONLY_1_5,
}


def texts(version: str) -> list[str]:
    lines = _TEXTS[version].splitlines()
    return sorted(line if line.startswith("cookie") else f"cookie=0x0, {line}" for line in lines)
