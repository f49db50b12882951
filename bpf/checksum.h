// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Internet checksums (RFC 1071) of what is in a frame. Sums are in network byte order, as they
 * stand in headers. */
#pragma once
#include "maps.h"

enum { SUM_CHUNK = 512 }; /* the most that bpf_csum_diff takes at once on every kernel */

struct chunk {
	u32 words[SUM_CHUNK / 4 + 1];
};
MAP(chunks, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct chunk, 1, 0);

struct summing {
	struct __sk_buff *skb;
	u32 offset;
	u32 end;
	u32 sum;
	u32 failed;
};

static long sum_chunk(u32 turn, struct summing *job)
{
	u32 zero = 0, length = job->end - job->offset;
	struct chunk *chunk = bpf_map_lookup_elem(&chunks, &zero);
	if (length > SUM_CHUNK)
		length = SUM_CHUNK;
	HOLD(length);
	if (!chunk || (int)length <= 0) /* before Linux 6.8 "not 0" tells the verifier nothing */
		return 1;
	chunk->words[length / 4] = 0; /* an odd end counts as if zeros followed */
	job->failed = bpf_skb_load_bytes(job->skb, job->offset, chunk->words, length) != 0;
	if (job->failed)
		return 1;
	job->sum = bpf_csum_diff(0, 0, chunk->words, (length + 3) & ~3u, job->sum);
	job->offset += length;
	return 0;
}

INLINE u16 fold(u64 sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return (sum >> 16) + (sum & 0xffff);
}

/* The sum of `seed` and the bytes from `offset` to before `end`: 0xffff where a right checksum is
 * among them. 0 if they cannot be read, which no sum of other than zeros is. */
FUNCTION u32 sum_bytes(struct __sk_buff *skb, u32 offset, u32 end, u32 seed)
{
	struct summing job = {skb, offset, end, seed, 0};
	bpf_loop(128, sum_chunk, &job, 0);
	return job.failed || job.offset != end ? 0 : fold(job.sum);
}

/* The part of a UDP checksum's pseudo-header (RFC 768, RFC 8200 8.1) that is not in the packet. */
INLINE u32 sum_pseudo_header(const struct address *from, const struct address *to, u32 length)
{
	u64 sum = swap32(length) + (u64)swap32(17);
	for (u32 i = 0; i < 4; i++)
		sum += (u64)from->words[i] + to->words[i];
	return fold(sum);
}
