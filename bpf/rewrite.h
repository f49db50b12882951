// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Makes a frame's bytes what flows have made of its key, with the checksums that follow from it.
 * Tags are not in the bytes' way: output() sees to them. */
#pragma once
#include "key.h"

static long (*const bpf_l4_csum_replace)(struct __sk_buff *skb, u32 offset, u64 from, u64 to,
                                         u64 flags) = (void *)BPF_FUNC_l4_csum_replace;

INLINE u64 differing(const struct flow *flow, u32 word)
{
	return flow->key[word] ^ flow->base[word];
}

/* Where the checksum of the transport header is, and how to change it; 0 if there is none. */
INLINE u32 checksum_at(const struct flow *flow, u32 *flags)
{
	u32 proto = proto_of(flow->key);
	*flags = 0;
	if (!flow->transport)
		return 0;
	if (proto == PROTO_TCP)
		return flow->transport + 16;
	if (proto == PROTO_UDP) {
		*flags = BPF_F_MARK_MANGLED_0; /* 0 says that there is none */
		return flow->transport + 6;
	}
	return proto == PROTO_ICMP || proto == PROTO_ICMPV6 ? flow->transport + 2 : 0;
}

/* Puts the upper 48 bits of a key's word at an offset of the frame. `how`: BPF_F_RECOMPUTE_CSUM
 * where no checksum in the frame balances the change, so that a device's sum of all of it stays
 * right. */
INLINE void store48(struct __sk_buff *skb, struct flow *flow, u32 offset, u64 word, u32 how)
{
	*(u64 *)flow->head = __builtin_bswap64(word);
	bpf_skb_store_bytes(skb, offset, flow->head, 6, how);
}

INLINE void store(struct __sk_buff *skb, struct flow *flow, u32 offset, u64 value, u32 bytes,
                  u32 how)
{
	*(u64 *)flow->head = __builtin_bswap64(value << (64 - 8 * bytes));
	bpf_skb_store_bytes(skb, offset, flow->head, bytes, how);
}

/* What the MAC table is asked about follows the key. */
INLINE void put_addresses(struct frame *frame)
{
	u64 to = frame->flow.key[KEY_ETH_DST], from = frame->flow.key[KEY_ETH_SRC];
	for (u32 i = 0; i < 6; i++) {
		frame->target.mac[i] = to >> (56 - 8 * i);
		frame->source.mac[i] = from >> (56 - 8 * i);
	}
}

INLINE void rewrite_ethernet(struct __sk_buff *skb, struct frame *frame)
{
	struct flow *flow = &frame->flow;
	u64 to = flow->key[KEY_ETH_DST], from = flow->key[KEY_ETH_SRC];
	store48(skb, flow, 0, to, 0);
	store48(skb, flow, 6, from, 0);
	put_addresses(frame);
}

/* One of the two addresses: `high` is 1 for the source. */
INLINE void rewrite_ipv4_address(struct __sk_buff *skb, struct flow *flow, u32 high)
{
	u32 shift = high ? 32 : 0, at = flow->network + (high ? 12 : 16), flags;
	u32 from = swap32(flow->base[KEY_IPV4] >> shift), to = swap32(flow->key[KEY_IPV4] >> shift);
	u32 checksum = checksum_at(flow, &flags);
	if (from == to)
		return;
	if (checksum && proto_of(flow->key) != PROTO_ICMP)
		bpf_l4_csum_replace(skb, checksum, from, to, flags | BPF_F_PSEUDO_HDR | 4);
	bpf_l3_csum_replace(skb, flow->network + 10, from, to, 4);
	store(skb, flow, at, swap32(to), 4, 0);
}

INLINE void rewrite_ipv4(struct __sk_buff *skb, struct flow *flow)
{
	u64 change = differing(flow, KEY_ETH_SRC);
	u32 at = flow->network;
	if (change & 0xff00) {
		u32 from = flow->base[KEY_ETH_SRC] >> 8 & 0xff,
		    to = flow->key[KEY_ETH_SRC] >> 8 & 0xff;
		bpf_l3_csum_replace(skb, at + 10, swap16(from), swap16(to), 2);
		store(skb, flow, at + 1, to, 1, 0);
	}
	if (change & 0xff) {
		u32 from = flow->base[KEY_ETH_SRC] & 0xff, to = flow->key[KEY_ETH_SRC] & 0xff;
		bpf_l3_csum_replace(skb, at + 10, swap16(from << 8), swap16(to << 8), 2);
		store(skb, flow, at + 8, to, 1, 0);
	}
	rewrite_ipv4_address(skb, flow, 1);
	rewrite_ipv4_address(skb, flow, 0);
}

INLINE void rewrite_ipv6_address(struct __sk_buff *skb, struct flow *flow, u32 word, u32 at)
{
	u64 *old = (u64 *)(flow->head + 16), *new = (u64 *)(flow->head + 32);
	u32 flags, checksum = checksum_at(flow, &flags);
	old[0] = __builtin_bswap64(flow->base[word]);
	old[1] = __builtin_bswap64(flow->base[word + 1]);
	new[0] = __builtin_bswap64(flow->key[word]);
	new[1] = __builtin_bswap64(flow->key[word + 1]);
	if (old[0] == new[0] && old[1] == new[1])
		return;
	long sum = bpf_csum_diff(old, 16, new, 16, 0);
	if (checksum && !(flow->routed && word == KEY_IPV6_DST))
		bpf_l4_csum_replace(skb, checksum, 0, sum, flags | BPF_F_PSEUDO_HDR);
	bpf_skb_store_bytes(skb, at, new, 16, BPF_F_RECOMPUTE_CSUM);
}

INLINE void rewrite_ipv6(struct __sk_buff *skb, struct flow *flow)
{
	u64 low = flow->key[KEY_ETH_SRC], change = differing(flow, KEY_ETH_SRC);
	u32 at = flow->network;
	if (change & 0xff00 || differing(flow, KEY_LABEL))
		store(skb, flow, at,
		      6u << 28 | (low >> 8 & 0xff) << 20 | (flow->key[KEY_LABEL] >> 32 & 0xfffff),
		      4, BPF_F_RECOMPUTE_CSUM);
	if (change & 0xff)
		store(skb, flow, at + 7, low & 0xff, 1, BPF_F_RECOMPUTE_CSUM);
	rewrite_ipv6_address(skb, flow, KEY_IPV6_SRC, at + 8);
	rewrite_ipv6_address(skb, flow, KEY_IPV6_DST, at + 24);
}

INLINE void rewrite_arp(struct __sk_buff *skb, struct flow *flow)
{
	u32 at = flow->network;
	if (differing(flow, KEY_ETH_DST) & 0xff00)
		store(skb, flow, at + 6, proto_of(flow->key), 2, BPF_F_RECOMPUTE_CSUM);
	store48(skb, flow, at + 8, flow->key[KEY_SOURCE], BPF_F_RECOMPUTE_CSUM);
	store48(skb, flow, at + 18, flow->key[KEY_TARGET], BPF_F_RECOMPUTE_CSUM);
	store(skb, flow, at + 14, flow->key[KEY_IPV4] >> 32, 4, BPF_F_RECOMPUTE_CSUM);
	store(skb, flow, at + 24, flow->key[KEY_IPV4] & 0xffffffff, 4, BPF_F_RECOMPUTE_CSUM);
}

/* Ports, or type and code; `word` is as it is in the key. */
INLINE u32 first_four(const struct flow *flow, u64 word)
{
	u32 proto = proto_of(flow->key);
	if (proto == PROTO_ICMP || proto == PROTO_ICMPV6)
		return (word >> 48 & 0xff) << 8 | (word >> 32 & 0xff);
	return word >> 32;
}

INLINE void rewrite_transport(struct __sk_buff *skb, struct flow *flow)
{
	u32 flags, checksum = checksum_at(flow, &flags), at = flow->transport;
	u32 from = first_four(flow, flow->base[KEY_L4]), to = first_four(flow, flow->key[KEY_L4]);
	u32 proto = proto_of(flow->key);
	if (!checksum || from == to)
		return;
	if (proto == PROTO_ICMP || proto == PROTO_ICMPV6) {
		bpf_l4_csum_replace(skb, checksum, swap16(from), swap16(to), 2);
		store(skb, flow, at, to, 2, 0);
		return;
	}
	bpf_l4_csum_replace(skb, checksum, swap32(from), swap32(to), flags | 4);
	store(skb, flow, at, to, 4, 0);
}

FUNCTION int rewrite(struct __sk_buff *skb, struct frame *frame)
{
	if (!frame)
		return 0;
	struct flow *flow = &frame->flow;
	u32 type = type_of(flow->key);
	flow->changed = 0;
	if ((differing(flow, KEY_ETH_DST) | differing(flow, KEY_ETH_SRC)) >> 16)
		rewrite_ethernet(skb, frame);
	u64 change = (differing(flow, KEY_ETH_DST) | differing(flow, KEY_ETH_SRC)) & 0xffff;
	for (u32 i = KEY_IPV4; i <= KEY_IPV6_DST_LOW; i++)
		change |= differing(flow, i);
	change |= differing(flow, KEY_SOURCE) | differing(flow, KEY_TARGET);
	change |= differing(flow, KEY_LABEL);
	if (change && flow->network) {
		if (is_arp(flow->key))
			rewrite_arp(skb, flow);
		else if (type == TYPE_IPV4)
			rewrite_ipv4(skb, flow);
		else if (type == TYPE_IPV6)
			rewrite_ipv6(skb, flow);
		if (flow->transport && !is_arp(flow->key))
			rewrite_transport(skb, flow);
	}
	/* Tags stay in the base as they were received: they are not in the bytes' way. */
	for (u32 i = KEY_PORT + 1; i < KEY_TAGS; i++)
		flow->base[i] = flow->key[i];
	return 0;
}
