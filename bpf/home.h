// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Is the device still in the switch's network namespace? One that is moved takes its program
 * along, and the ifindexes in the maps then mean other devices (kernel facts, "Lifetime").
 * Read from the kernel's own structures, because bpf_get_netns_cookie is there for this kind of
 * program only from Linux 6.15 on. */
#pragma once
#include "helpers.h"

#define KERNEL_TYPE __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} KERNEL_TYPE;

struct net {
	struct ns_common ns;
} KERNEL_TYPE;

typedef struct {
	struct net *net;
} KERNEL_TYPE possible_net_t;

struct net_device {
	possible_net_t nd_net;
} KERNEL_TYPE;

struct sk_buff {
	struct net_device *dev;
	u8 ip_summed : 2;
} KERNEL_TYPE;

extern void *bpf_cast_to_kern_ctx(void *ctx) __attribute__((section(".ksyms")));

/* Inode number of the switch's namespace; set before loading. */
const volatile u32 home_namespace SEC(".rodata.home") = 0;

INLINE int at_home(struct __sk_buff *skb)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);
	return kernel->dev->nd_net.net->ns.inum == home_namespace;
}

enum { CHECKSUM_PARTIAL = 3, BYTE_OFFSET = 0, LEFT_SHIFT = 4, RIGHT_SHIFT = 5 };

/* Whether the frame's sender has left a checksum for the device to fill in. Of a bit field the
 * loader tells where it is: its byte, and the shifts that leave its bits alone in 64. */
INLINE int checksum_pending(struct __sk_buff *skb)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);
	u64 byte = *((u8 *)kernel + __builtin_preserve_field_info(kernel->ip_summed, BYTE_OFFSET));
	byte <<= __builtin_preserve_field_info(kernel->ip_summed, LEFT_SHIFT);
	byte >>= __builtin_preserve_field_info(kernel->ip_summed, RIGHT_SHIFT);
	return byte == CHECKSUM_PARTIAL;
}
