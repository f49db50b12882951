// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Into a tunnel: one frame of the wire gets the outer headers of its port (section 13 of the
 * semantics). Only frames that are no super-frames and whose checksums are done come here (kernel
 * facts, "Encapsulation"). */
#pragma once
#include "checksum.h"
#include "cut.h"
#include "home.h"
#include "mirror.h"
#include "shim.h"

enum {
	PROTOCOL_GRE = 47,
	PROTOCOL_UDP = 17,
	CUT_TO_MTU = 1 << 16, /* in what encapsulate() returns */
	FAMILY_IPV4 = 2,
	FAMILY_IPV6 = 10,
};

/* What is put around a frame, without the Ethernet header. */
INLINE u32 outer_bytes(const struct tunnel *tunnel)
{
	return (tunnel->flags & TUNNEL_IPV6 ? 40 : 20) + shim_bytes(tunnel);
}

/* What of a frame's own IP header shows in the outer one, or tells where it has been. */
struct inside {
	u32 is_ip;
	u32 protocol;
	u32 transport; /* offset of what that header carries */
	u8 tos;
	u8 ttl;
};

INLINE const struct tunnel *tunnel_of(const struct underlay *all, u32 number)
{
	return &all->tunnels[number & (MAX_PORTS - 1)];
}

INLINE const struct underlay *underlay_now(void)
{
	u32 zero = 0;
	void *map = bpf_map_lookup_elem(&underlay, &zero);
	return map ? bpf_map_lookup_elem(map, &zero) : 0;
}

INLINE u32 protocol_of(const struct tunnel *tunnel)
{
	return tunnel->kind == VXLAN ? PROTOCOL_UDP : PROTOCOL_GRE;
}

/* Offset of a frame's network header, and its type: behind tags that are in the bytes. */
INLINE u32 find_network_header(struct __sk_buff *skb, u16 *type)
{
	u32 offset = 12;
	for (int i = 0; i < 3; i++) {
		if (bpf_skb_load_bytes(skb, offset, type, 2))
			break;
		*type = swap16(*type);
		offset += 2;
		if (*type != 0x8100 && *type != 0x88a8)
			return offset;
		offset += 2;
	}
	*type = 0;
	return offset;
}

INLINE void read_ipv4_header(const u32 *words, u32 offset, struct inside *inside,
                             struct endpoint *before)
{
	inside->is_ip = 1;
	inside->tos = swap32(words[0]) >> 16;
	inside->ttl = swap32(words[2]) >> 24;
	inside->protocol = swap32(words[2]) >> 16 & 0xff;
	inside->transport = offset + (swap32(words[0]) >> 24 & 15) * 4;
	before->local.words[0] = words[3];
	before->remote.words[0] = words[4];
}

INLINE void read_ipv6_header(const u32 *words, u32 offset, struct inside *inside,
                             struct endpoint *before)
{
	inside->is_ip = 1;
	inside->tos = swap32(words[0]) >> 20;
	inside->ttl = swap32(words[1]);
	inside->protocol = swap32(words[1]) >> 8 & 0xff;
	inside->transport = offset + 40;
	before->ipv6 = 1;
	for (u32 i = 0; i < 4; i++) {
		before->local.words[i] = words[2 + i];
		before->remote.words[i] = words[6 + i];
	}
}

/* Mostly the headers are at hand and no tag is in the bytes: then it takes no helper, of which
 * each costs as much as all of this. */
INLINE void look_inside(struct __sk_buff *skb, struct inside *inside, struct endpoint *before)
{
	const u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	*before = (struct endpoint){};
	if (data + 34 <= end && *(u16 *)(data + 12) == swap16(IPV4)) {
		read_ipv4_header((u32 *)(data + 14), 14, inside, before);
		return;
	}
	if (data + 54 <= end && *(u16 *)(data + 12) == swap16(IPV6)) {
		read_ipv6_header((u32 *)(data + 14), 14, inside, before);
		return;
	}
	u32 words[10];
	u16 type;
	u32 offset = find_network_header(skb, &type);
	if (type == IPV4 && !bpf_skb_load_bytes(skb, offset, words, 20))
		read_ipv4_header(words, offset, inside, before);
	else if (type == IPV6 && !bpf_skb_load_bytes(skb, offset, words, 40))
		read_ipv6_header(words, offset, inside, before);
}

/* Of which kind and with which key a frame is in a tunnel already; returns whether it is. */
INLINE int read_shim(struct __sk_buff *skb, const struct underlay *all, const struct inside *inside,
                     struct endpoint *before)
{
	u32 first = 0, word = 0, at = inside->transport;
	if (inside->protocol != PROTOCOL_GRE && inside->protocol != PROTOCOL_UDP)
		return 0;
	if (bpf_skb_load_bytes(skb, at, &first, 4))
		return 0;
	u32 low = swap32(first) & 0xffff, flags = swap32(first) >> 16;
	if (inside->protocol == PROTOCOL_UDP) {
		before->kind = VXLAN;
		before->dst_port = low;
		if (!(all->udp_ports[low >> 6 & 1023] >> (low & 63) & 1) ||
		    bpf_skb_load_bytes(skb, at + 12, &word, 4))
			return 0;
		before->key = swap32(word) >> 8;
	} else if (low == GRE_ETHERNET) {
		before->kind = GRE;
		at += flags & GRE_CHECKSUM ? 8 : 4;
		if (flags & GRE_KEY && bpf_skb_load_bytes(skb, at, &word, 4))
			return 0;
		before->key = swap32(word);
	} else {
		before->kind = ERSPAN_II;
		if ((low != GRE_ERSPAN_II && low != GRE_ERSPAN_III) ||
		    bpf_skb_load_bytes(skb, at + 8, &word, 4))
			return 0;
		before->key = swap32(word) & 0x3ff;
	}
	return 1;
}

/* What comes back from where a tunnel port has sent it must not go in there once more, and no copy
 * be made of a copy's packet: it would do so without end. */
INLINE int goes_round(struct __sk_buff *skb, const struct underlay *all, u32 mark,
                      const struct inside *inside, struct endpoint *before)
{
	if (!read_shim(skb, all, inside, before))
		return 0;
	before->match = SENT;
	struct device *sender = bpf_map_lookup_elem(&endpoints, before);
	if (sender && sender->port == marked_port(mark))
		return 1;
	before->match = SENT_COPY;
	return mark & MARK_COPY && bpf_map_lookup_elem(&endpoints, before);
}

/* Rule 110. Congestion that was met inside is no reason to think it was met outside. */
INLINE u32 outer_tos(const struct tunnel *tunnel, const struct inside *inside)
{
	u32 tos = tunnel->tos;
	if (!inside->is_ip)
		return tos;
	if (tunnel->flags & TUNNEL_INHERIT_TOS)
		tos = inside->tos & 0xfc;
	return tos | ((inside->tos & 3) == 3 ? 2 : inside->tos & 3);
}

INLINE u32 outer_ttl(const struct tunnel *tunnel, const struct inside *inside)
{
	return tunnel->flags & TUNNEL_INHERIT_TTL && inside->is_ip ? inside->ttl : tunnel->ttl;
}

/* Rule 111. `length` is that of the whole packet. */
INLINE void add_ipv4(struct envelope *envelope, const struct tunnel *tunnel, u32 length,
                     const struct inside *inside)
{
	/* An ID says which fragments belong together (RFC 6864): 0 where there can be none. */
	u32 df = tunnel->flags & TUNNEL_DF;
	u32 words[] = {
	    0x45u << 24 | outer_tos(tunnel, inside) << 16 | length,
	    df ? 0x4000 : (bpf_get_prandom_u32() & 0xffff) << 16,
	    outer_ttl(tunnel, inside) << 24 | protocol_of(tunnel) << 16,
	    swap32(tunnel->local.words[0]),
	    swap32(tunnel->remote.words[0]),
	};
	u64 sum = (u64)words[0] + words[1] + words[2] + words[3] + words[4];
	words[2] |= (u16)~fold(sum);
	for (u32 i = 0; i < 5; i++)
		add(envelope, words[i]);
}

INLINE void add_ipv6(struct envelope *envelope, const struct tunnel *tunnel, u32 length,
                     const struct inside *inside)
{
	add(envelope, 6u << 28 | outer_tos(tunnel, inside) << 20);
	add(envelope, (length - 40) << 16 | protocol_of(tunnel) << 8 | outer_ttl(tunnel, inside));
	for (u32 i = 0; i < 4; i++)
		add(envelope, swap32(tunnel->local.words[i]));
	for (u32 i = 0; i < 4; i++)
		add(envelope, swap32(tunnel->remote.words[i]));
}

/* The checksum of GRE (RFC 2784) or UDP, over all that follows the outer IP header. */
INLINE long put_checksum(struct __sk_buff *skb, const struct tunnel *tunnel, u32 at)
{
	u32 udp = tunnel->kind == VXLAN, seed = 0, end = skb->len;
	if (udp)
		seed = sum_pseudo_header(&tunnel->local, &tunnel->remote, end - at);
	u16 sum = ~sum_bytes(skb, at, end, seed);
	if (udp && !sum)
		sum = 0xffff; /* 0 would say that there is none */
	return bpf_skb_store_bytes(skb, at + (udp ? 6 : 4), &sum, 2, 0);
}

/* Puts the outer headers in front. Of the Ethernet header bpf_redirect_neigh wants the type only.
 *
 * A tag beside the data would become the outer packet's. So it is pushed into the data by another,
 * and the outer packet gets one in its bytes, to be popped off (vlan.h, retype). */
INLINE long put_headers(struct __sk_buff *skb, struct envelope *envelope, u16 type)
{
	u32 tagged = skb->vlan_present, size = envelope->count * 4;
	u32 foreign = skb->protocol != swap16(type);
	if (size > sizeof(envelope->words))
		return -1;
	HOLD(size);
	envelope->tag[0] = swap16(0x8100);
	envelope->tag[1] = swap16(1);
	envelope->type = swap16(type);
	if (tagged)
		return bpf_skb_vlan_push(skb, swap16(0x8100), 1)
		           ?: bpf_skb_change_head(skb, 18 + size, 0)
		           ?: bpf_skb_store_bytes(skb, 12, envelope->tag, 6 + size, 0)
		           ?: bpf_skb_vlan_pop(skb) ?: bpf_skb_vlan_pop(skb);
	return bpf_skb_change_head(skb, 14 + size, 0)
	           ?: bpf_skb_store_bytes(skb, 12, &envelope->type, 2 + size, 0)
	           ?: foreign ? retype(skb) : 0;
}

/* Wraps the frame for a tunnel port; `snaplen` other than 0 cuts it before (D4). Returns enum
 * reason, and CUT_TO_MTU with it if it had to be shortened for the way. */
FUNCTION u32 encapsulate(struct __sk_buff *skb, const struct underlay *all, u32 mark,
                         u32 annotation, u32 snaplen)
{
	if (!all)
		return DROP_NO_ROUTE;
	u32 zero = 0, number = marked_port(mark), result = DELIVERED;
	struct envelope *envelope = bpf_map_lookup_elem(&envelopes, &zero);
	const struct tunnel *tunnel = tunnel_of(all, number);
	u32 ipv6 = tunnel->flags & TUNNEL_IPV6, headers = outer_bytes(tunnel);
	if (!envelope || tunnel->kind == NO_TUNNEL)
		return DROP_NOT_READY;
	if (tunnel->state)
		return tunnel->state;
	struct remark remark = {annotation, skb->len, skb->vlan_present, 0};
	remark.length += remark.tagged ? 4 : 0;
	struct inside inside = {};
	look_inside(skb, &inside, &envelope->before);
	if (goes_round(skb, all, mark, &inside, &envelope->before))
		return DROP_LOOP;
	u32 inner = remark.length, hash = tunnel->kind == VXLAN ? bpf_get_hash_recalc(skb) : 0;
	if (snaplen && inner > snaplen)
		inner = snaplen < 18 && remark.tagged ? 18 : snaplen; /* D12 */
	if (inner + headers > tunnel->mtu) {
		if (!(tunnel->flags & TUNNEL_CUT && mark & MARK_COPY) || tunnel->mtu < headers + 18)
			return DROP_MTU;
		inner = tunnel->mtu - headers;
		result = CUT_TO_MTU;
	}
	remark.truncated = inner < remark.length;
	if (remark.truncated && cut(skb, inner))
		return DROP_CUT;
	envelope->count = 0;
	if (ipv6)
		add_ipv6(envelope, tunnel, inner + headers, &inside);
	else
		add_ipv4(envelope, tunnel, inner + headers, &inside);
	add_shim(envelope, all, tunnel, number, &remark, inner, hash);
	long error = put_headers(skb, envelope, ipv6 ? IPV6 : IPV4);
	if (!error && tunnel->flags & TUNNEL_CHECKSUM)
		error = put_checksum(skb, tunnel, 14 + (ipv6 ? 40 : 20));
	return error ? DROP_ENCAPSULATION : result;
}

INLINE void count_cut(u32 mark)
{
	u32 number = marked_port(mark), slot = marked_slot(mark);
	struct port_counters *port = port_counters(number);
	struct mirror_counters *mirror = bpf_map_lookup_elem(&mirror_stats, &slot);
	if (port)
		port->cut_mtu++;
	if (mirror && mark & MARK_COPY)
		mirror->cut_mtu++;
}

/* Counts the frame that a mark is of. */
INLINE void account(u32 mark, u32 reason, u32 packets, u32 length)
{
	count_delivery(marked_port(mark), reason, packets, length);
	if (mark & MARK_COPY)
		count_copy(marked_slot(mark), reason, packets);
}

/* A frame for a tunnel port goes on its way; `snaplen` as it holds for this one. */
INLINE int enter_tunnel(struct __sk_buff *skb, u32 mark, u32 snaplen)
{
	const struct underlay *all = underlay_now();
	u32 result = encapsulate(skb, all, mark, skb->tc_index, snaplen);
	u32 reason = result & (CUT_TO_MTU - 1);
	if (!all || reason != DELIVERED) {
		account(mark, reason, 1, 0);
		return 2;
	}
	const struct tunnel *tunnel = tunnel_of(all, marked_port(mark));
	account(mark, DELIVERED, 1, skb->len - 14 - outer_bytes(tunnel));
	if (result & CUT_TO_MTU)
		count_cut(mark);
	struct bpf_redir_neigh hop = {.nh_family = tunnel->flags & TUNNEL_VIA_IPV6 ? FAMILY_IPV6
	                                                                           : FAMILY_IPV4};
	for (u32 i = 0; i < 4; i++)
		hop.ipv6_nh[i] = tunnel->hop.words[i];
	skb->mark = TRAVELLED | (mark & (MARK_COPY | MARK_OF_COPY) ? TRAVELLED_COPY : 0) |
	            (((mark & MARK_DEPTH) >> MARK_DEPTH_SHIFT) + 1);
	return bpf_redirect_neigh(tunnel->ifindex, &hop, sizeof(hop), 0);
}
