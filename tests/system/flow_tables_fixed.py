# SPDX-License-Identifier: Apache-2.0
"""Small flow tables as a user writes them: each action, each way through tables and groups.

By name: flows and groups for ovs-ofctl. Those of 1.0 are for OpenFlow 1.0, where actions may meet
packets without what they change.
"""

Lines = tuple[str, ...]


def _for(kinds: str, actions: str) -> Lines:
    """The same actions for each kind of packet, and none for the others."""
    return tuple(f"{kind},actions={actions},output:2" for kind in kinds.split())


FIXED: dict[str, tuple[Lines, Lines]] = {
    # Where to
    "output": (("actions=output:2,output:3,output:1,LOCAL",), ()),
    "in_port": (("actions=IN_PORT,output:1",), ()),
    "all and flood": (("actions=ALL,FLOOD,IN_PORT",), ()),
    "normal": (("actions=NORMAL",), ()),
    "normal among others": (("actions=output:2,NORMAL,mod_dl_src:02:00:00:00:00:02,output:3",), ()),
    "max_len": (("actions=output(port=2,max_len=40),output:3,output(port=4,max_len=1500)",), ()),
    "drop and priorities": (
        ("priority=1,actions=output:2", "priority=9,ip,actions=drop", "priority=8,arp,actions=ALL"),
        (),
    ),
    # Addresses
    "eth": (("actions=mod_dl_src:02:00:00:00:00:03,mod_dl_dst:02:00:00:00:01:02,output:2",), ()),
    "set eth": (("actions=set_field:02:00:00:00:01:00/ff:ff:ff:ff:ff:00->eth_dst,output:2",), ()),
    "ipv4": (_for("ip tcp udp icmp", "mod_nw_src:192.0.2.1,output:3,mod_nw_dst:198.51.100.7"), ()),
    "ipv4 masked": (_for("ip", "set_field:0.0.99.0/0.0.255.0->ip_dst"), ()),
    "ipv6": (
        _for("ipv6", "set_field:2001:db8::1->ipv6_src,output:3,set_field:2001:db8::2->ipv6_dst"),
        (),
    ),
    "ipv6 label": (_for("ipv6", "set_field:0x54321->ipv6_label"), ()),
    "tos": (_for("ip ipv6", "mod_nw_tos:184,output:3,mod_nw_ecn:1"), ()),
    "dscp": (_for("ip ipv6", "set_field:10->ip_dscp"), ()),
    "ttl": (_for("ip ipv6", "mod_nw_ttl:7"), ()),
    "dec_ttl": (_for("ip ipv6", "output:3,dec_ttl,output:4,dec_ttl"), ()),
    "arp": (
        _for(
            "arp",
            "set_field:2->arp_op,set_field:192.0.2.1->arp_spa,set_field:192.0.2.2->arp_tpa,"
            "set_field:02:00:00:00:00:aa->arp_sha,set_field:02:00:00:00:00:bb->arp_tha",
        ),
        (),
    ),
    "an answer to arp": (
        (
            "arp,arp_op=1,actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],"
            "mod_dl_src:02:00:00:00:00:01,load:2->NXM_OF_ARP_OP[],"
            "move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],load:0x020000000001->NXM_NX_ARP_SHA[],"
            "move:NXM_OF_ARP_TPA[]->NXM_NX_REG0[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],"
            "move:NXM_NX_REG0[]->NXM_OF_ARP_SPA[],IN_PORT",
            "priority=1,actions=output:3",
        ),
        (),
    ),
    # Ports and what has the place of ports
    "tcp": (_for("tcp tcp6", "set_field:7777->tcp_src,output:3,set_field:1->tcp_dst"), ()),
    "udp": (_for("udp udp6", "set_field:0->udp_src,output:3,set_field:65535->udp_dst"), ()),
    "icmp": (_for("icmp", "set_field:3->icmp_type,set_field:4->icmp_code"), ()),
    "icmpv6": (_for("icmp6", "set_field:1->icmpv6_type,set_field:4->icmpv6_code"), ()),
    "addresses and ports": (
        _for("udp tcp", "mod_nw_dst:192.0.2.9,mod_tp_dst:53,dec_ttl,mod_nw_tos:8"),
        (),
    ),
    # Tags
    "1.0 strip": (("actions=output:3,strip_vlan,output:2",), ()),
    "push": (("actions=push_vlan:0x8100,set_field:4105->vlan_vid,output:2,output:3",), ()),
    "push a service tag": (("actions=push_vlan:0x88a8,set_field:5000->vlan_vid,output:2",), ()),
    "push, set, strip": (
        ("actions=push_vlan:0x8100,set_field:4105->vlan_vid,output:2,strip_vlan,output:3",),
        (),
    ),
    "vid of what is tagged": (
        ("vlan_tci=0x1000/0x1000,actions=set_field:4196->vlan_vid,set_field:6->vlan_pcp,output:2",),
        (),
    ),
    "tag by tag": (
        (
            "priority=9,dl_vlan=5,actions=strip_vlan,output:2",
            "priority=8,dl_vlan=6,dl_vlan_pcp=3,actions=output:3",
            "priority=7,vlan_tci=0/0x1fff,actions=output:4",
            "priority=6,vlan_tci=0x1000/0x1000,actions=LOCAL",
        ),
        (),
    ),
    "1.0 the tag moved": (
        (
            "actions=move:NXM_OF_VLAN_TCI[]->NXM_NX_REG0[0..15],strip_vlan,output:2,resubmit(,1)",
            "table=1,reg0=0x1005/0x1fff,actions=mod_dl_src:02:00:00:00:00:02,output:3",
        ),
        (),
    ),
    "1.0 tags": (
        ("actions=mod_vlan_vid:9,output:2,mod_vlan_pcp:5,output:3,strip_vlan,output:4",),
        (),
    ),
    "1.0 everything": (
        (
            "actions=mod_nw_src:192.0.2.1,mod_nw_dst:192.0.2.2,mod_nw_tos:40,dec_ttl,mod_vlan_vid:3,"
            "output:2",
        ),
        (),
    ),
    # Registers and ways through tables
    "registers": (
        (
            "ip,actions=load:0xabcd->NXM_NX_REG0[4..19],move:NXM_OF_IP_SRC[]->NXM_NX_REG1[],"
            "move:NXM_NX_REG1[0..7]->NXM_NX_REG7[8..15],resubmit(,1),output:4",
            "table=1,priority=9,reg0=0xabcd0,reg7=0x200/0xff00,actions=output:2",
            "table=1,priority=8,reg0=0xabcd0,actions=output:3",
            "table=1,priority=7,actions=IN_PORT",
        ),
        (),
    ),
    "wide registers": (
        (
            "actions=set_field:0x1122334455667788->xreg0,resubmit(,1)",
            "table=1,reg0=0x11223344,reg1=0x55667788,actions=output:2",
        ),
        (),
    ),
    "metadata": (
        (
            "actions=write_metadata:0x5/0xff,goto_table:1",
            "table=1,metadata=5,actions=output:2,goto_table:2",
            "table=2,metadata=0/0x2,ip,actions=output:3",
        ),
        (),
    ),
    "resubmit": (
        (
            "actions=resubmit(,1),output:2",
            "table=1,ip,actions=mod_nw_ttl:9,output:3,resubmit(,2),output:4",
            "table=2,ip,nw_ttl=9,actions=mod_nw_ttl:8",
        ),
        (),
    ),
    "resubmit with a port": (
        (
            "in_port=1,actions=resubmit(2,1),IN_PORT",
            "table=1,in_port=2,actions=output:2,output:1,resubmit(,2)",
            "table=2,in_port=1,actions=output:3,load:4->in_port,IN_PORT,output:1,resubmit(,3)",
            "table=3,in_port=4,actions=LOCAL",
        ),
        (),
    ),
    "resubmit by port alone": (("in_port=1,actions=resubmit:3", "in_port=3,actions=output:2"), ()),
    "nowhere": (("actions=resubmit(,9),output:2,goto_table:8", "table=8,arp,actions=output:3"), ()),
    "60 tables in one another": (
        (
            *(f"table={n},actions=resubmit(,{n + 1}),output:{2 + n % 3}" for n in range(60)),
            "table=60,actions=output:2",
        ),
        (),
    ),
    "exit": (
        ("actions=resubmit(,1),output:2", "table=1,ip,actions=output:3,exit,output:4"),
        (),
    ),
    "ttl ends a list": (
        (
            "ip,actions=mod_nw_ttl:1,resubmit(,1),output:2,clone(dec_ttl,output:4),LOCAL",
            "table=1,ip,actions=output:4,dec_ttl,output:3",
        ),
        (),
    ),
    "clone": (
        (
            "ip,actions=clone(mod_nw_ttl:9,push_vlan:0x8100,output:2),output:3,clone(resubmit(,1)),4",
            "table=1,ip,actions=mod_nw_src:192.0.2.7,output:4",
        ),
        (),
    ),
    "exit in a clone": (("actions=clone(output:2,exit,output:3),output:4",), ()),
    "fragments": (
        (
            "priority=9,ip,ip_frag=later,actions=output:2",
            "priority=8,ip,ip_frag=first,actions=output:3",
            "priority=7,udp,tp_src=0,actions=output:4",
            "priority=6,ipv6,ip_frag=no,actions=LOCAL",
            "priority=5,ipv6,ip_frag=yes,actions=IN_PORT",
        ),
        (),
    ),
    "flags": (
        ("tcp,tcp_flags=+syn-ack,actions=output:2", "tcp,tcp_flags=+ack,actions=output:3"),
        (),
    ),
    # Groups
    "group all": (
        ("actions=group:1,output:4",),
        (
            "group_id=1,type=all,bucket=actions=output:2,"
            "bucket=actions=mod_dl_src:02:00:00:00:00:02,output:3,bucket=actions=output:4",
        ),
    ),
    "group indirect": (
        ("ip,actions=group:1,output:4",),
        ("group_id=1,type=indirect,bucket=actions=output:2,mod_nw_ttl:3,dec_ttl",),
    ),
    "group ff": (
        ("actions=group:1,output:4",),
        (
            "group_id=1,type=ff,bucket=watch_port:99,actions=output:1,"
            "bucket=watch_port:2,actions=output:2,bucket=watch_port:3,actions=output:3",
        ),
    ),
    "group in a group": (
        ("actions=group:1,output:4",),
        (
            "group_id=2,type=all,bucket=actions=output:2,bucket=actions=resubmit(,1)",
            "group_id=1,type=all,bucket=actions=push_vlan:0x8100,group:2,bucket=actions=output:3",
        ),
    ),
    "exit behind a bucket": (
        ("actions=group:1,output:4", "table=1,actions=output:2,exit", "table=2,actions=output:3"),
        ("group_id=1,type=all,bucket=actions=resubmit(,1),bucket=actions=resubmit(,2)",),
    ),
    "a bucket is a set": (
        ("ip,actions=group:1",),
        ("group_id=1,type=all,bucket=actions=output:2,exit,output:3,dec_ttl,dec_ttl,mod_nw_ttl:9",),
    ),
}
