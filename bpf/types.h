// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Every key, value and event that Python also sees. No logic. Python's packers are generated from
 * this file by way of the object's BTF (tools/build_bpf.py), so padding has a name. Integers are
 * in host byte order. */
#pragma once
#include "flow_types.h"
#include "reasons.h"

enum limits {
	MAX_BRIDGES = 64,
	MAX_PORTS = 1024, /* of the whole switch; a port's number is its slot */
	MAX_MIRRORS = 32, /* of one bridge (rule 93): one bit each in a set */
	MAX_MIRROR_SLOTS = MAX_BRIDGES * MAX_MIRRORS,
	MAX_ROWS = MAX_BRIDGES + MAX_PORTS + MAX_MIRROR_SLOTS,
	MAX_DEVICES = 4096,
	MAX_FDB = 1 << 20,
	MAX_MOVES = 100,   /* of one MAC in one tick, before it is reported */
	FDB_SAMPLES = 128, /* places that are looked at for a victim; all of a table this small */
	MAX_VLANS = 4096,
	MAX_EVENTS = 96,    /* of one recording */
	IMAGE_BYTES = 256,  /* of a recorded output's frame that are kept */
	MAX_VLAN_SETS = 64, /* different sets of customer VLANs on one bridge */
	VLAN_WORDS = MAX_VLANS / 64,
	PORT_WORDS = MAX_PORTS / 64,
	TICK_SHIFT = 30, /* a tick is 2^30 ns of the monotonic clock: 1.07 s, and no division */
	MAX_ENDPOINTS = 8 * MAX_PORTS,
	MAX_ADDRESSES = 1 << 16,
};

/* An upgrade must find its slots where they were: new ones go to the end. */
enum slot {
	SLOT_INGRESS,
	SLOT_EGRESS,
	SLOT_SEGMENTED,
	SLOT_SEGMENTER,
	SLOT_TUNNELLED,
	USED_SLOTS,
	MAX_SLOTS = 16,
};

enum reason {
	DELIVERED,
#define X(name, key, words) DROP_##name,
	REASONS(X)
#undef X
	    MAX_REASONS
};

enum vlan_mode { ACCESS, TRUNK, NATIVE_TAGGED, NATIVE_UNTAGGED, DOT1Q_TUNNEL };

/* When a frame without VLAN leaves with a tag for its priority (rule 75). */
enum priority_tags { PRIORITY_NEVER, PRIORITY_IF_NONZERO, PRIORITY_ALWAYS };

enum port_flags {
	PORT_PEER_ELSEWHERE = 1, /* the device's peer is in another namespace, peer_mac known */
	PORT_PROTECTED = 2,      /* exchanges nothing with its like (rule 77) */
	PORT_PATCH = 4,          /* no device: leads to `peer_port` of `peer_bridge` */
	PORT_TUNNEL = 8,         /* its device is the segmenter's near end */
	/* As OpenFlow's OFPPC_NO_RECV, NO_FWD, NO_FLOOD, NO_PACKET_IN: */
	PORT_NO_RECEIVE = 16,
	PORT_NO_FORWARD = 32,
	PORT_NO_FLOOD = 64,
	PORT_NO_PACKET_IN = 128,
};

enum bridge_flags {
	BRIDGE_FORWARD_BPDU = 1,
	BRIDGE_NO_FORWARDING = 2,  /* fail closed; ingress mirrors work (rule 68) */
	BRIDGE_FLOWS = 4,          /* frames go through flow tables, not straight to NORMAL */
	BRIDGE_MIRROR_CHANGED = 8, /* a changed frame is mirrored again (rule 26) */
	BRIDGE_SECOND_STORE = 16,  /* of the bridge's two flow stores its frames find this */
};

/* devices: ifindex -> whose port it is */
struct device {
	u16 bridge;
	u16 port;
};

struct port {
	u32 ifindex;     /* 0: no such port, or it has no device now */
	u32 source;      /* the mirrors it is a source of, a bit each */
	u32 destination; /* the mirrors it is a destination of */
	u32 generation;  /* MAC entries of another one are void */
	u16 tag;
	u8 mode;           /* enum vlan_mode */
	u8 flags;          /* enum port_flags */
	u16 service_tpid;  /* of the tag that dot1q-tunnel pushes */
	u8 priority_tags;  /* enum priority_tags */
	u8 customer_vlans; /* number of its set; 0: all */
	u16 peer_bridge;
	u16 peer_port;
	u8 peer_mac[6]; /* of the device's peer in another namespace */
	u16 ofport;
};

struct mirror {
	u32 same; /* the mirrors with the same destination, this one included (rule 22) */
	u16 output_port;
	u16 snaplen;     /* 0: whole */
	u32 slot;        /* of its counters */
	u16 output_vlan; /* 0: to output_port */
	u16 padding;
};

struct vlan {
	u32 mirrors;             /* that select it */
	u32 flood;               /* nothing is learned or looked up in it (flood_vlans) */
	u64 members[PORT_WORDS]; /* ports that carry it */
};

/* All that a frame consults of a bridge's configuration. Never changed once it is in a slot of
 * the map `bridges`: a change is a new snapshot in that slot. */
struct snapshot {
	u32 flags;      /* enum bridge_flags */
	u32 mac_age;    /* ticks */
	u32 mac_limit;  /* entries of the MAC table */
	u32 vlan_limit; /* tags that are parsed: 1 or 2 (rule 39) */
	u32 segmenter;  /* ifindex of its near end; 0: there is none */
	u32 padding;
	u64 reserved[PORT_WORDS]; /* ports that are a mirror's output (rule 51) */
	u64 all[PORT_WORDS];      /* the bridge's ports */
	u64 flood[PORT_WORDS];    /* of these, those that take part in floods */
	u16 numbers[1 << 16];     /* ofport -> number of the port + 1, 0: none */
	struct mirror mirrors[MAX_MIRRORS];
	struct port ports[MAX_PORTS];
	u64 vlan_sets[MAX_VLAN_SETS][VLAN_WORDS];
	struct vlan vlans[MAX_VLANS];
};

enum tunnel_kind { NO_TUNNEL, GRE, ERSPAN_II, ERSPAN_III, VXLAN };

enum tunnel_flags {
	TUNNEL_IPV6 = 1,
	TUNNEL_KEY = 2,          /* GRE: send the key field (rule 104) */
	TUNNEL_CHECKSUM = 4,     /* of GRE or UDP */
	TUNNEL_SEQUENCE = 8,     /* GRE: send the sequence field */
	TUNNEL_DF = 16,          /* rule 111 */
	TUNNEL_INHERIT_TTL = 32, /* rule 110 */
	TUNNEL_INHERIT_TOS = 64,
	TUNNEL_CUT = 128,       /* a copy that is too long for the path is cut, not dropped */
	TUNNEL_DIRECTION = 256, /* ERSPAN: always `direction`, not each copy's own (D5) */
	TUNNEL_VIA_IPV6 = 512,  /* the next hop has an IPv6 address */
};

/* An IPv4 or IPv6 address in network byte order, the former in the first word. */
struct address {
	u32 words[4];
};

/* A tunnel port: what its frames are wrapped in, and where that goes now. */
struct tunnel {
	u32 kind;    /* enum tunnel_kind */
	u32 flags;   /* enum tunnel_flags */
	u32 state;   /* enum reason: why nothing can be sent now, or DELIVERED */
	u32 ifindex; /* it leaves by */
	u32 mtu;     /* of an outer packet on the way, in bytes */
	u32 key;     /* GRE's, VXLAN's VNI, ERSPAN's session ID */
	u32 erspan_index;
	u16 dst_port;
	u8 ttl;
	u8 tos;
	u8 hwid; /* ERSPAN */
	u8 direction;
	u16 padding;
	struct address local;
	struct address remote;
	struct address hop; /* the next on the way */
};

/* All that is known of tunnels and of the way they take. Never changed once it is in the map
 * `underlay`, like a bridge's snapshot. */
struct underlay {
	u32 segmenter;          /* ifindex of its near end */
	u32 tai_offset;         /* seconds that TAI is ahead of UTC */
	u64 udp_ports[1 << 10]; /* those on which VXLAN ports receive, a bit each */
	struct tunnel tunnels[MAX_PORTS];
};

/* What an arrived frame and a tunnel port have in common. Those that miss one thing are known
 * too, so that what is wrong with a frame is counted where it is looked for. */
enum match {
	MATCH_ALL,       /* key and remote address are the port's */
	MATCH_KEY,       /* the port takes any remote address (remote_ip=flow) */
	MATCH_REMOTE,    /* the port takes any key (key=flow) */
	MATCH_ANY,       /* both */
	MATCHES,         /* the end of those; the others are no match, but near: */
	MISSED_REMOTE,   /* a port with this key has another remote address */
	MISSED_KEY,      /* a port with this remote address has another key */
	MISSED_PROTOCOL, /* the same, whatever else is in the packet */
	/* The other way round: what a port sends, `local` being where from. */
	SENT,
	SENT_COPY, /* by a port that a mirror's copies go to */
};

/* endpoints: whose port it is that receives such frames (struct device). `key`, `remote` and
 * `local` are 0 where they do not count. */
struct endpoint {
	u8 kind;  /* enum tunnel_kind; ERSPAN_II for both */
	u8 match; /* enum match */
	u8 ipv6;
	u8 padding;
	u32 dst_port; /* 0 unless VXLAN; 0 in MISSED_PROTOCOL */
	u32 key;
	struct address local;
	struct address remote;
};

/* addresses: those of this host at which ports receive that name none. */
struct own_address {
	u32 ipv6;
	struct address address;
};

/* fdb: the MAC table. A value is replaced as a whole, but for `seen`, one word. */
struct fdb_key {
	u8 mac[6];
	u16 vlan;
	u32 bridge;
};

struct fdb_value {
	u32 port;
	u32 generation; /* of the port when it was learned */
	u32 seen;       /* tick */
	u32 place;      /* in fdb_order */
	u32 moved;      /* tick of its last move to another port */
	u32 moves;      /* in that tick */
};

/* fdb_order: place of an entry in its bridge's table -> its key, to choose a victim from. A place
 * whose entry is gone, or says another place, is free. */
struct fdb_place {
	u32 bridge;
	u32 place;
};

/* fdb_flaps: the MAC of a bridge that moved too often last. */
struct fdb_flap {
	struct fdb_key key;
	u32 tick;
	u32 from; /* ports */
	u32 to;
};

/* Only the program writes `learned`, only user space `removed`, in maps of their own, so that
 * neither needs the other's lock. */
struct fdb_count {
	u32 entries;
	u32 refused; /* frames whose source found the table full */
	u32 cursor;  /* place to try next */
	u32 largest; /* the port that had most entries when a victim was looked for */
	u32 looked;  /* tick of that */
};

struct port_counters {
	u64 rx_packets;
	u64 rx_bytes;
	u64 tx_packets;
	u64 tx_bytes;
	u64 handed;  /* packets of the wire that went into the segmenter */
	u64 arrived; /* and came out of it */
	u64 cut_mtu; /* frames cut to the MTU of a tunnel's way */
	u64 drops[MAX_REASONS];
};

struct mirror_counters {
	u64 selected; /* packets of the wire */
	u64 selected_bytes;
	u64 delivered;
	u64 handed;
	u64 arrived;
	u64 cut_mtu;
	u64 drops[MAX_REASONS];
};

/* rows: whose a slot is. Bridges first, then ports, then mirrors. All zero: free. */
struct row {
	u8 uuid[16];
};

/* Tags from the outside in. */
struct tags {
	u16 number;
	u16 priority; /* PCP of the image's outermost tag, where it is in a TCI */
	u16 tpid[2];
	u16 tci[2];
};

/* What the egress program is to do to one copy, and to nothing else. */
struct instruction {
	u32 active;
	u32 ifindex; /* of the device it is meant for */
	u16 pops;
	u16 snaplen;
	u32 result; /* enum reason */
	u32 mark;   /* 0: leave it, and `tc_index` too */
	u16 tc_index;
	u16 padding;
	struct tags tags;
};

/* EVENT_FLOW: `port` is the table, `length` the rule's cell, 0 if none matched. EVENT_ACTION:
 * `port` is the code of the op (enum op_code), `length` its number. */
enum event_kind {
	EVENT_DROP,
	EVENT_LEARN,
	EVENT_LOOKUP,
	EVENT_MIRROR,
	EVENT_OUTPUT,
	EVENT_FLOW,
	EVENT_ACTION,
};

/* One decision about a recorded frame. */
struct event {
	u16 kind;        /* enum event_kind */
	u16 reason;      /* of EVENT_DROP */
	u16 port;        /* the port learned, found, or sent to */
	u16 mirror;      /* whose copy an output is; NO_MIRROR: the frame itself */
	u16 vlan;        /* as learned, looked up, or selected by */
	u16 tag_present; /* the image has a tag beside its bytes */
	u16 tag_tpid;
	u16 tag_tci;
	u32 length; /* of the whole frame as output, without that tag */
	u32 image_length;
	u8 image[IMAGE_BYTES];
};

enum { NO_MIRROR = 0xffff };

struct record {
	u32 run;   /* the caller's number for it */
	u32 count; /* of events; those past MAX_EVENTS are not kept */
	struct event events[MAX_EVENTS];
};
