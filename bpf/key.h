// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The key: a frame as flow tables see it (flow_types.h). What counts as a header and what is cut
 * short is as in Open vSwitch, so that flows written for it match the same frames. */
#pragma once
#include "frame.h"

enum {
	TYPE_ARP = 0x0806,
	TYPE_RARP = 0x8035,
	TYPE_IPV4 = 0x0800,
	TYPE_IPV6 = 0x86dd,
	TYPE_NONE = 0x05ff, /* of an 802.3 frame: flows say so (OFP_DL_TYPE_NOT_ETH_TYPE) */
	PROTO_ICMP = 1,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ICMPV6 = 58,
	PROTO_SCTP = 132,
	FRAGMENT_ANY = 1,
	FRAGMENT_LATER = 2,
	TAG_PRESENT = 0x1000,
	ND_SOLICIT = 135,
	ND_ADVERT = 136,
};

/* A place in the head, for the verifier. (Linux 6.12 knows less of `at` than the compiler, which
 * would leave out a mask that seems to change nothing.) */
INLINE u32 in_head(u32 at)
{
	HOLD(at);
	return at & (HEAD_BYTES - 1);
}

INLINE u16 head16(const struct flow *flow, u32 at)
{
	return swap16(*(u16 *)(flow->head + in_head(at)));
}

INLINE u32 head32(const struct flow *flow, u32 at)
{
	return swap32(*(u32 *)(flow->head + in_head(at)));
}

INLINE u64 head64(const struct flow *flow, u32 at)
{
	return __builtin_bswap64(*(u64 *)(flow->head + in_head(at)));
}

INLINE void copy_key(u64 *to, const u64 *from)
{
	for (u32 i = 0; i < KEY_WORDS; i++)
		to[i] = from[i];
}

INLINE u32 type_of(const u64 *key)
{
	return key[KEY_PORT] >> 16 & 0xffff;
}

INLINE u32 proto_of(const u64 *key)
{
	return key[KEY_ETH_DST] >> 8 & 0xff;
}

INLINE u32 is_ip(const u64 *key)
{
	return type_of(key) == TYPE_IPV4 || type_of(key) == TYPE_IPV6;
}

INLINE u32 is_arp(const u64 *key)
{
	return type_of(key) == TYPE_ARP || type_of(key) == TYPE_RARP;
}

/* Whether the frame has such a transport header. */
INLINE u32 carries(const struct flow *flow, u32 proto)
{
	return is_ip(flow->key) && proto_of(flow->key) == proto &&
	       !(flow->key[KEY_ETH_DST] & FRAGMENT_LATER);
}

/* Whether no flow has touched its tags. */
INLINE int has_own_tags(const struct frame *frame)
{
	const u64 *key = frame->flow.key, *base = frame->flow.base;
	return key[KEY_TAGS] == base[KEY_TAGS] && !((key[KEY_PORT] ^ base[KEY_PORT]) & 0xffff);
}

/* Its tags as they are now: to the bit those it came with, if nothing has changed them. */
INLINE void get_tags(const struct frame *frame, struct tags *tags)
{
	const u64 *key = frame->flow.key;
	if (has_own_tags(frame)) {
		u32 exact = frame->raw.number != frame->wire.number; /* a tag that says nothing */
		const struct tags *received = exact ? &frame->raw : &frame->wire;
		*tags = *received;
		tags->priority = pcp(tags);
		return;
	}
	u64 types = key[KEY_TAGS];
	u32 tci = key[KEY_PORT] & 0xffff, tagged = tci & TAG_PRESENT;
	tags->number = !tagged ? 0 : types & 0xffff00000000 ? 2 : 1;
	tags->priority = tagged ? tci & 0xe000 : 0;
	tags->tpid[0] = types >> 48 ?: 0x8100;
	tags->tci[0] = tci & 0xefff;
	tags->tpid[1] = types >> 32;
	tags->tci[1] = types >> 16;
}

INLINE void put_tags(u64 *key, const struct tags *tags)
{
	key[KEY_PORT] &= ~0xffffull;
	key[KEY_TAGS] = 0;
	if (!tags->number)
		return;
	key[KEY_PORT] |= (tags->tci[0] & 0xefff) | TAG_PRESENT;
	key[KEY_TAGS] = (u64)tags->tpid[0] << 48;
	if (tags->number > 1)
		key[KEY_TAGS] |= (u64)tags->tpid[1] << 32 | (u64)(tags->tci[1] & 0xefff) << 16;
}

/* Whether the head has these bytes, before `end`. */
INLINE u32 at_hand(u32 at, u32 bytes, u32 end)
{
	return at + bytes <= HEAD_BYTES && at + bytes <= end;
}

INLINE void parse_arp(struct flow *flow, u32 at, u32 end)
{
	if (!at_hand(at, 28, end) || head64(flow, at) >> 16 != 0x000108000604)
		return;
	u32 operation = head16(flow, at + 6);
	u64 *key = flow->key;
	flow->network = at;
	if (operation <= 0xff)
		key[KEY_ETH_DST] |= operation << 8;
	key[KEY_SOURCE] = head64(flow, at + 8) & ~0xffffull;
	key[KEY_TARGET] = head64(flow, at + 18) & ~0xffffull;
	key[KEY_IPV4] = (u64)head32(flow, at + 14) << 32 | head32(flow, at + 24);
}

/* Options of neighbour discovery (RFC 4861 4.6): link-layer addresses. */
INLINE void parse_options(struct flow *flow, u32 at, u32 end)
{
	for (int i = 0; i < 4; i++) {
		if (!at_hand(at, 8, end))
			return;
		u64 option = head64(flow, at);
		u32 kind = option >> 56, size = option >> 48 & 0xff;
		if (!size || at + size * 8 > end)
			break;
		u64 *place = kind == 1 ? &flow->key[KEY_SOURCE] : &flow->key[KEY_TARGET];
		if ((kind == 1 || kind == 2) && size == 1) {
			if (*place)
				break;
			*place = option << 16;
		}
		at += size * 8;
		if (at == end)
			return;
	}
	flow->key[KEY_ND_TARGET] = flow->key[KEY_ND_TARGET_LOW] = 0;
	flow->key[KEY_SOURCE] = flow->key[KEY_TARGET] = 0;
}

INLINE void parse_icmpv6(struct flow *flow, u32 at, u32 end)
{
	u32 kind = head16(flow, at); /* with its code */
	if (kind != ND_SOLICIT << 8 && kind != ND_ADVERT << 8)
		return;
	if (!at_hand(at, 24, end))
		return;
	flow->key[KEY_ND_TARGET] = head64(flow, at + 8);
	flow->key[KEY_ND_TARGET_LOW] = head64(flow, at + 16);
	if (at + 24 < end)
		parse_options(flow, at + 24, end);
}

/* Where parse_ipv4() or parse_ipv6() has found it. */
INLINE void parse_transport(struct flow *flow)
{
	u32 at = *(volatile u32 *)&flow->transport, end = flow->packet_end,
	    proto = proto_of(flow->key);
	flow->transport = 0;
	u32 bytes = proto == PROTO_TCP ? 20 : proto == PROTO_SCTP ? 12 : 8;
	u32 icmp = proto == PROTO_ICMPV6 || proto == PROTO_ICMP;
	if (!icmp && proto != PROTO_TCP && proto != PROTO_UDP && proto != PROTO_SCTP)
		return;
	if (!at_hand(at, bytes, end))
		return;
	flow->transport = at;
	u64 ports = head32(flow, at);
	if (icmp)
		flow->key[KEY_L4] = (ports >> 24) << 48 | (ports >> 16 & 0xff) << 32;
	else
		flow->key[KEY_L4] = ports << 32;
	if (proto == PROTO_TCP) {
		u32 word = head16(flow, at + 12), header = (word >> 12) * 4;
		flow->key[KEY_L4] |= (word & 0x0fff) << 16;
		if (header < 20 || at + header > end)
			flow->transport = 0; /* it is not to be relied on */
	}
	if (proto == PROTO_ICMPV6)
		parse_icmpv6(flow, at, end);
}

INLINE void parse_ipv4(struct flow *flow, u32 at, u32 end)
{
	u32 header = (flow->head[in_head(at)] & 15) * 4;
	u64 *key = flow->key;
	if (!at_hand(at, 20, end) || header < 20 || at + header > end)
		return;
	u32 total = head16(flow, at + 2), fragment = head16(flow, at + 6) & 0x3fff;
	if (total < header || at + total > end)
		return;
	flow->network = at;
	u32 proto = flow->head[in_head(at + 9)], kind = 0;
	if (fragment)
		kind = FRAGMENT_ANY | (fragment & 0x1fff ? FRAGMENT_LATER : 0);
	key[KEY_ETH_DST] |= proto << 8 | kind;
	key[KEY_ETH_SRC] |= flow->head[in_head(at + 1)] << 8 | flow->head[in_head(at + 8)];
	key[KEY_IPV4] = head64(flow, at + 12);
	flow->transport = kind & FRAGMENT_LATER ? 0 : at + header;
	flow->packet_end = at + total;
}

/* Goes through extension headers (RFC 8200); what is behind HEAD_BYTES is not seen. */
INLINE void parse_ipv6(struct flow *flow, u32 at, u32 end)
{
	u64 *key = flow->key;
	if (!at_hand(at, 40, end))
		return;
	u32 first = head32(flow, at), total = head16(flow, at + 4) + 40, kind = 0;
	if (at + total > end)
		return;
	end = at + total;
	flow->network = at;
	u32 proto = flow->head[in_head(at + 6)];
	/* In memory of which the verifier knows nothing, or it follows each number of headers to
	 * the end. */
	volatile u32 *place = &flow->transport;
	*place = at + 40;
	for (int i = 0; i < 8; i++) {
		u32 next = *place;
		if (proto != 0 && proto != 43 && proto != 60 && proto != 51 && proto != 44)
			break;
		if (!at_hand(next, 8, end)) {
			kind |= FRAGMENT_LATER; /* no transport header is found behind it */
			break;
		}
		u32 word = head16(flow, next);
		if (proto == 44) {
			u32 offset = head16(flow, next + 2);
			kind = !offset ? 0 : FRAGMENT_ANY | (offset & 0xfff8 ? FRAGMENT_LATER : 0);
			if (kind & FRAGMENT_LATER)
				break;
			*place = next + 8;
		} else {
			*place = next +
			         (proto == 51 ? ((word & 0xff) + 2) * 4 : ((word & 0xff) + 1) * 8);
			flow->routed |= proto == 43 && head16(flow, next + 2) & 0xff;
		}
		proto = word >> 8;
	}
	key[KEY_ETH_DST] |= proto << 8 | (kind & FRAGMENT_ANY ? kind : 0);
	key[KEY_ETH_SRC] |= (first >> 20 & 0xff) << 8 | flow->head[in_head(at + 7)];
	key[KEY_LABEL] = (u64)(first & 0xfffff) << 32;
	for (u32 i = 0; i < 4; i++)
		key[KEY_IPV6_SRC + i] = head64(flow, at + 8 + i * 8);
	if (kind & FRAGMENT_LATER)
		*place = 0;
	flow->packet_end = end;
}

/* Reads the key of a frame whose tags parse() has found. */
FUNCTION int parse_key(struct __sk_buff *skb, struct frame *frame)
{
	if (!frame)
		return 0;
	struct flow *flow = &frame->flow;
	u64 *key = flow->key;
	u32 end = skb->len, known = end < HEAD_BYTES ? end : HEAD_BYTES;
	flow->ready = 1;
	flow->network = flow->transport = flow->routed = 0;
	for (u32 i = 0; i < KEY_WORDS; i++)
		key[i] = 0;
	HOLD(known);
	if ((int)known < 14)
		return 0;
	HOLD(known); /* else both checks become one, which tells Linux 6.12 nothing */
	if (known > HEAD_BYTES)
		return 0;
	if (bpf_skb_load_bytes(skb, 0, flow->head, known))
		return 0;
	put_tags(key, &frame->raw);
	u32 beside = skb->vlan_present ? 1 : 0;
	u32 at = 14 + 4 * ((frame->raw.number - beside) & 3);
	u32 type = head16(flow, at - 2);
	if (type < 0x600) {
		/* SNAP (RFC 1042) has a type again. */
		u64 snap = head64(flow, at);
		u32 inner = snap & 0xffff;
		type = TYPE_NONE;
		if (at_hand(at, 8, end) && snap >> 16 == 0xaaaa03000000 && inner >= 0x600) {
			type = inner;
			at += 8;
		}
	}
	key[KEY_PORT] |= type << 16;
	key[KEY_ETH_DST] = head64(flow, 0) & ~0xffffull;
	key[KEY_ETH_SRC] = head64(flow, 6) & ~0xffffull;
	if (type == TYPE_IPV4)
		parse_ipv4(flow, at, end);
	else if (type == TYPE_IPV6)
		parse_ipv6(flow, at, end);
	else if (type == TYPE_ARP || type == TYPE_RARP)
		parse_arp(flow, at, end);
	if (flow->transport)
		parse_transport(flow);
	copy_key(flow->base, key);
	if (frame->crossings)
		copy_key(flow->received, key);
	return 0;
}
