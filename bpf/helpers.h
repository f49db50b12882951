// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The kernel's helpers that we call, by their number in the BPF ABI (enum bpf_func_id of
 * linux/bpf.h): written here so that building needs no libbpf headers. */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
/* A global function is verified once by itself, so the verifier's work does not multiply along
 * the paths that lead to it (kernel facts, "A complete prototype": 7,040 against 38,466
 * instructions). Weak, because a strong one is inlined or specialised by the compiler. */
#define FUNCTION __attribute__((weak, noinline))

#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
#define __array(name, value) typeof(value) *name[]

static void *(*const bpf_map_lookup_elem)(void *map,
                                          const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value,
                                         u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*const bpf_map_delete_elem)(void *map,
                                         const void *key) = (void *)BPF_FUNC_map_delete_elem;
static u32 (*const bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static u64 (*const bpf_ktime_get_coarse_ns)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;
static long (*const bpf_tail_call)(void *ctx, void *array, u32 slot) = (void *)BPF_FUNC_tail_call;
static long (*const bpf_loop)(u32 times, void *callback, void *ctx,
                              u64 flags) = (void *)BPF_FUNC_loop;
static long (*const bpf_clone_redirect)(struct __sk_buff *skb, u32 ifindex,
                                        u64 flags) = (void *)BPF_FUNC_clone_redirect;
static long (*const bpf_redirect)(u32 ifindex, u64 flags) = (void *)BPF_FUNC_redirect;
static long (*const bpf_redirect_peer)(u32 ifindex, u64 flags) = (void *)BPF_FUNC_redirect_peer;
static long (*const bpf_skb_load_bytes)(const void *skb, u32 offset, void *to,
                                        u32 length) = (void *)BPF_FUNC_skb_load_bytes;
static long (*const bpf_skb_store_bytes)(struct __sk_buff *skb, u32 offset, const void *from,
                                         u32 length, u64 flags) = (void *)BPF_FUNC_skb_store_bytes;
static long (*const bpf_skb_vlan_push)(struct __sk_buff *skb, __be16 proto,
                                       u16 tci) = (void *)BPF_FUNC_skb_vlan_push;
static long (*const bpf_skb_vlan_pop)(struct __sk_buff *skb) = (void *)BPF_FUNC_skb_vlan_pop;
static long (*const bpf_skb_change_tail)(struct __sk_buff *skb, u32 length,
                                         u64 flags) = (void *)BPF_FUNC_skb_change_tail;
static long (*const bpf_skb_adjust_room)(struct __sk_buff *skb, int delta, u32 mode,
                                         u64 flags) = (void *)BPF_FUNC_skb_adjust_room;
static long (*const bpf_skb_change_head)(struct __sk_buff *skb, u32 room,
                                         u64 flags) = (void *)BPF_FUNC_skb_change_head;
static long (*const bpf_redirect_neigh)(u32 ifindex, const struct bpf_redir_neigh *hop, int size,
                                        u64 flags) = (void *)BPF_FUNC_redirect_neigh;
static long (*const bpf_csum_diff)(const void *from, u32 from_size, const void *to, u32 to_size,
                                   u32 seed) = (void *)BPF_FUNC_csum_diff;
static u32 (*const bpf_get_hash_recalc)(struct __sk_buff *skb) = (void *)BPF_FUNC_get_hash_recalc;
static u64 (*const bpf_ktime_get_tai_ns)(void) = (void *)BPF_FUNC_ktime_get_tai_ns;
static long (*const bpf_l3_csum_replace)(struct __sk_buff *skb, u32 offset, u64 from, u64 to,
                                         u64 flags) = (void *)BPF_FUNC_l3_csum_replace;

/* Keeps a value in its register from here on: one that is checked and then read from the stack
 * again is unchecked to the verifier. */
#define HOLD(value) asm volatile("" : "+r"(value))

enum { NEXT = -1, DROP = 2 }; /* verdicts of tcx; TCX_DROP is 2 */

#define swap16(x) __builtin_bswap16(x)
#define swap32(x) __builtin_bswap32(x)
