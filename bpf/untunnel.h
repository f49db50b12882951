// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Out of a tunnel: which port a packet that came to one of our addresses is for, and its frame
 * without the outer headers. Of what is wrong with it only that is ours to say which concerns a
 * port; all else is the host's. */
#pragma once
#include "tunnel.h"

enum {
	NOT_OURS = MAX_REASONS, /* instead of a reason: the host may have it */
	FOR_US = 0,             /* pkt_type of a frame to the device's own address */
	IPV6_FRAGMENT = 44,
	IPV6_OPTIONS = 60, /* Linux puts some, a limit for tunnels in tunnels, before GRE */
	GRE_VERSION = 7,
	CONGESTION = 3,
};

/* An outer packet, as far as it is read. */
struct outer {
	u32 ipv6;
	u32 tos;
	u32 protocol;
	u32 fragment;
	u32 later;   /* not the first */
	u32 start;   /* of what the IP header carries */
	u32 end;     /* of the packet; padding may follow */
	u32 inner;   /* the frame */
	u32 version; /* of ERSPAN, 0 for others */
	u32 checked; /* has a checksum of GRE or UDP */
	struct endpoint key;
	struct address remote;
	struct address local;
	u32 at_home; /* that is an address of this host */
	u32 tunnel_key;
	struct device owner;
};
/* Not on the stack, of which a frame's further way takes nearly all. */
MAP(outers, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct outer, 1, 0);

INLINE u32 read_ipv4(struct __sk_buff *skb, struct outer *outer)
{
	u32 words[5];
	if (bpf_skb_load_bytes(skb, 14, words, 20))
		return NOT_OURS;
	u32 first = swap32(words[0]), fragment = swap32(words[1]);
	u32 header = (first >> 24 & 15) * 4;
	if (first >> 28 != 4 || header < 20)
		return NOT_OURS;
	outer->tos = first >> 16 & 0xff;
	outer->protocol = swap32(words[2]) >> 16 & 0xff;
	outer->fragment = fragment & 0x3fff;
	outer->later = fragment & 0x1fff;
	outer->start = 14 + header;
	outer->end = 14 + (first & 0xffff);
	outer->remote.words[0] = words[3];
	outer->local.words[0] = words[4];
	return DELIVERED;
}

INLINE u32 read_ipv6(struct __sk_buff *skb, struct outer *outer)
{
	u32 words[10];
	if (bpf_skb_load_bytes(skb, 14, words, 40))
		return NOT_OURS;
	outer->ipv6 = 1;
	outer->tos = swap32(words[0]) >> 20 & 0xff;
	outer->protocol = swap32(words[1]) >> 8 & 0xff;
	outer->start = 14 + 40;
	outer->end = outer->start + (swap32(words[1]) >> 16);
	for (u32 i = 0; i < 4; i++) {
		outer->remote.words[i] = words[2 + i];
		outer->local.words[i] = words[6 + i];
	}
	if (outer->protocol != IPV6_FRAGMENT && outer->protocol != IPV6_OPTIONS)
		return DELIVERED;
	if (bpf_skb_load_bytes(skb, outer->start, words, 4))
		return NOT_OURS;
	if (outer->protocol == IPV6_OPTIONS) {
		outer->protocol = swap32(words[0]) >> 24;
		outer->start += ((swap32(words[0]) >> 16 & 0xff) + 1) * 8;
		return DELIVERED;
	}
	outer->protocol = swap32(words[0]) >> 24;
	outer->later = swap32(words[0]) & 0xfff8;
	outer->fragment = 1;
	outer->start += 8;
	return DELIVERED;
}

/* The port that has so much in common with the packet; 0 if there is none. One that names its local
 * address goes before one that receives at any. */
INLINE struct device *owner(struct outer *outer, u32 match)
{
	struct endpoint *key = &outer->key;
	int keyed = match == MATCH_ALL || match == MATCH_KEY || match == MISSED_REMOTE;
	int from = match != MATCH_KEY && match != MATCH_ANY && match != MISSED_REMOTE;
	key->match = match;
	key->key = keyed ? outer->tunnel_key : 0;
	key->remote = from ? outer->remote : (struct address){};
	key->local = outer->local;
	struct device *found = bpf_map_lookup_elem(&endpoints, key);
	if (found || !outer->at_home)
		return found;
	key->local = (struct address){};
	return bpf_map_lookup_elem(&endpoints, key);
}

/* The reason to drop the packet and count it on the port that misses one thing, if there is one. */
INLINE u32 miss(struct outer *outer, u32 match, u32 reason)
{
	struct device *near = owner(outer, match);
	if (!near)
		return NOT_OURS;
	outer->owner = *near;
	return reason;
}

INLINE u32 miss_protocol(struct outer *outer, u32 kind, u32 reason)
{
	outer->key.kind = kind;
	outer->key.dst_port = 0;
	return miss(outer, MISSED_PROTOCOL, reason);
}

/* The most specific port wins (rule 112): key, then remote address, then local address. */
INLINE u32 find_owner(struct outer *outer)
{
	for (u32 match = 0; match < MATCHES; match++) {
		struct device *found = owner(outer, match);
		if (found) {
			outer->owner = *found;
			return DELIVERED;
		}
	}
	u32 reason = miss(outer, MISSED_KEY, DROP_KEY);
	return reason == NOT_OURS ? miss(outer, MISSED_REMOTE, DROP_REMOTE) : reason;
}

/* Rule 114, 115: flags, sequence number, and then who it is for. */
INLINE u32 read_erspan(struct __sk_buff *skb, struct outer *outer, u32 flags, u32 type)
{
	u32 words[4] = {}, iii = type == GRE_ERSPAN_III, length = iii ? 12 : 8;
	u32 at = outer->start + 4;
	if (flags != GRE_SEQUENCE)
		return miss_protocol(outer, ERSPAN_II, DROP_VERSION);
	if (at + 4 + length > outer->end || bpf_skb_load_bytes(skb, at, words, iii ? 16 : 12))
		return miss_protocol(outer, ERSPAN_II, DROP_MALFORMED);
	u32 first = swap32(words[1]);
	outer->version = first >> 28;
	outer->tunnel_key = first & 0x3ff;
	outer->inner = at + 4 + length;
	if (outer->version != (iii ? 2 : 1))
		return miss_protocol(outer, ERSPAN_II, DROP_VERSION);
	if (iii && swap32(words[3]) & 1)
		outer->inner += 8; /* a platform's own header follows */
	outer->key.kind = ERSPAN_II;
	return find_owner(outer);
}

INLINE u32 read_gre(struct __sk_buff *skb, struct outer *outer)
{
	u32 word = 0, at = outer->start;
	if (outer->fragment) {
		u32 reason = miss_protocol(outer, GRE, DROP_FRAGMENT);
		return reason == NOT_OURS ? miss_protocol(outer, ERSPAN_II, DROP_FRAGMENT) : reason;
	}
	if (at + 4 > outer->end || bpf_skb_load_bytes(skb, at, &word, 4)) {
		u32 reason = miss_protocol(outer, GRE, DROP_MALFORMED);
		return reason == NOT_OURS ? miss_protocol(outer, ERSPAN_II, DROP_MALFORMED)
		                          : reason;
	}
	u32 type = swap32(word) & 0xffff, flags = swap32(word) >> 16;
	if (type == GRE_ERSPAN_II || type == GRE_ERSPAN_III)
		return read_erspan(skb, outer, flags, type);
	if (type != GRE_ETHERNET)
		return NOT_OURS;
	if (flags & GRE_VERSION)
		return miss_protocol(outer, GRE, DROP_VERSION);
	if (flags & ~(GRE_CHECKSUM | GRE_KEY | GRE_SEQUENCE))
		return miss_protocol(outer, GRE, DROP_MALFORMED);
	at += 4;
	outer->checked = flags & GRE_CHECKSUM;
	at += outer->checked ? 4 : 0;
	if (flags & GRE_KEY && bpf_skb_load_bytes(skb, at, &outer->tunnel_key, 4))
		return miss_protocol(outer, GRE, DROP_MALFORMED);
	outer->tunnel_key = swap32(outer->tunnel_key);
	at += flags & GRE_KEY ? 4 : 0;
	outer->inner = at + (flags & GRE_SEQUENCE ? 4 : 0);
	if (outer->inner > outer->end)
		return miss_protocol(outer, GRE, DROP_MALFORMED);
	outer->key.kind = GRE;
	return find_owner(outer);
}

INLINE u32 read_vxlan(struct __sk_buff *skb, const struct underlay *all, struct outer *outer)
{
	u32 words[4] = {};
	/* A later fragment does not say what it is of; without its first it is nothing. */
	if (outer->later || bpf_skb_load_bytes(skb, outer->start, words, 8))
		return NOT_OURS;
	u32 port = swap32(words[0]) & 0xffff, length = swap32(words[1]) >> 16;
	if (!(all->udp_ports[port >> 6 & 1023] >> (port & 63) & 1))
		return NOT_OURS;
	if (outer->fragment)
		return miss_protocol(outer, VXLAN, DROP_FRAGMENT);
	if (length < 16 || outer->start + length > outer->end ||
	    bpf_skb_load_bytes(skb, outer->start, words, 16) ||
	    !(swap32(words[2]) & VXLAN_VNI_VALID))
		return miss_protocol(outer, VXLAN, DROP_MALFORMED);
	outer->end = outer->start + length;
	outer->checked = swap32(words[1]) & 0xffff;
	outer->tunnel_key = swap32(words[3]) >> 8;
	outer->inner = outer->start + 16;
	outer->key.kind = VXLAN;
	outer->key.dst_port = port;
	return find_owner(outer);
}

/* Reads the outer headers; sets the owner when it returns other than NOT_OURS: DELIVERED, or the
 * reason to drop it. */
FUNCTION u32 read_outer(struct __sk_buff *skb, const struct underlay *all, struct outer *outer)
{
	if (!all || !outer)
		return NOT_OURS;
	u16 type = swap16(skb->protocol);
	u32 reason = type == IPV4   ? read_ipv4(skb, outer)
	             : type == IPV6 ? read_ipv6(skb, outer)
	                            : NOT_OURS;
	if (reason)
		return reason;
	if (outer->protocol != PROTOCOL_GRE && outer->protocol != PROTOCOL_UDP)
		return NOT_OURS;
	struct own_address own = {outer->ipv6, outer->local};
	outer->key.ipv6 = outer->ipv6;
	outer->at_home = bpf_map_lookup_elem(&addresses, &own) != 0;
	if (outer->protocol == PROTOCOL_GRE)
		return read_gre(skb, outer);
	return read_vxlan(skb, all, outer);
}

/* What else must be right with a packet that has its port. A GRE checksum that went through the
 * segmenter is none any more: of what GRO has merged, and verified, every segment has the first
 * one's. */
INLINE u32 check(struct __sk_buff *skb, const struct underlay *all, const struct outer *outer,
                 u32 segmented)
{
	const struct tunnel *tunnel = tunnel_of(all, outer->owner.port);
	u32 header = outer->ipv6 ? 40 : outer->start - 14, seed = 0;
	if (tunnel->kind == NO_TUNNEL)
		return DROP_NOT_READY;
	if (outer->version && outer->version != (tunnel->kind == ERSPAN_III ? 2 : 1))
		return DROP_VERSION;
	if (outer->inner + 14 > outer->end || outer->end > skb->len)
		return DROP_MALFORMED;
	if (!outer->ipv6 && sum_bytes(skb, 14, 14 + header, 0) != 0xffff)
		return DROP_CHECKSUM;
	if (!outer->checked || (segmented && outer->protocol == PROTOCOL_GRE))
		return DELIVERED;
	if (outer->protocol == PROTOCOL_UDP)
		seed = sum_pseudo_header(&outer->local, &outer->remote, outer->end - outer->start);
	return sum_bytes(skb, outer->start, outer->end, seed) == 0xffff ? DELIVERED : DROP_CHECKSUM;
}

/* Congestion that was met outside is told inside (RFC 6040), or the frame is dropped. */
INLINE u32 pass_congestion_on(struct __sk_buff *skb)
{
	u16 type, was, is;
	u32 offset = find_network_header(skb, &type);
	if ((type != IPV4 && type != IPV6) || bpf_skb_load_bytes(skb, offset, &was, 2))
		return DELIVERED;
	u16 bits = type == IPV4 ? 0x0003 : 0x0030;
	if (!(swap16(was) & bits))
		return DROP_ECN;
	is = was | swap16(bits);
	if (type == IPV4 && bpf_l3_csum_replace(skb, offset + 10, was, is, 2))
		return DELIVERED; /* a copy cut before its checksum is left as it is */
	u64 flags = type == IPV6 ? BPF_F_RECOMPUTE_CSUM : 0;
	return bpf_skb_store_bytes(skb, offset, &is, 2, flags) ? DROP_ECN : DELIVERED;
}

/* Takes the outer headers off. */
FUNCTION u32 decapsulate(struct __sk_buff *skb, const struct outer *outer)
{
	u8 head[14];
	if (!outer)
		return DROP_MALFORMED;
	if (skb->vlan_present && bpf_skb_vlan_pop(skb)) /* a priority tag */
		return DROP_DECAPSULATION;
	u32 length = outer->end - outer->inner, least = outer->inner + 14 + (outer->ipv6 ? 40 : 20);
	if (bpf_skb_load_bytes(skb, outer->inner, head, 14))
		return DROP_MALFORMED;
	/* The kernel leaves room for an IP header, and may not cut before the outer one is gone: it
	 * may have looked for headers in the padding. So the frame gets its length afterwards. */
	if (skb->len < least && bpf_skb_change_tail(skb, least, 0))
		return DROP_DECAPSULATION;
	if (bpf_skb_adjust_room(skb, -(int)outer->inner, BPF_ADJ_ROOM_MAC,
	                        BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    bpf_skb_store_bytes(skb, 0, head, 14, 0))
		return DROP_DECAPSULATION;
	if (skb->protocol != *(u16 *)(head + 12) && retype(skb))
		return DROP_DECAPSULATION;
	if (cut(skb, length))
		return DROP_DECAPSULATION;
	return (outer->tos & 3) == CONGESTION ? pass_congestion_on(skb) : DELIVERED;
}
