// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The data plane's entry points.
 *
 * A frame comes in by a port's device: its ingress link holds `stub_ingress`, which tail-calls
 * the program in the array's slot. That one finds the port and the bridge's snapshot, reads both
 * once, and works (receive.h): parse, admit, decide (normal.h), mirror (mirror.h), send (output.h).
 * What has to be treated frame of the wire by frame, or wrapped for a tunnel (tunnel.h), goes
 * through the segmenter (segmenter.h); what comes out of a tunnel (untunnel.h) comes in by its
 * port. */
#include "segmenter.h"

SEC("tc")
int ingress(struct __sk_buff *skb)
{
	u32 ifindex = skb->ifindex;
	struct device *device = bpf_map_lookup_elem(&devices, &ifindex);
	if (!at_home(skb))
		return NEXT; /* it is that namespace's device now */
	if (!device)
		return DROP;
	return receive(skb, device->bridge, device->port, SEND);
}

/* Carries out a copy's instruction on the copy alone. Whatever else leaves by the device passes. */
SEC("tc")
int egress(struct __sk_buff *skb)
{
	struct instruction *instruction = take_instruction(skb);
	if (!instruction)
		return NEXT;
	struct tags tags = instruction->tags;
	u32 reason = retag(skb, instruction->pops, &tags);
	if (!reason && instruction->snaplen)
		reason = cut(skb, instruction->snaplen);
	if (!reason)
		return NEXT;
	instruction->result = reason;
	return DROP;
}

/* At the near end of the segmenter: the frame gets its mark, as an instruction says or, if it is
 * no copy, from the program that sent it. One that needs no treatment there goes no further. */
SEC("tc")
int segmenter(struct __sk_buff *skb)
{
	struct instruction *instruction = take_instruction(skb);
	if (instruction) {
		struct tags tags = instruction->tags;
		u32 mark = instruction->mark, snaplen = instruction->snaplen;
		u32 reason = retag(skb, instruction->pops, &tags);
		if (!reason && snaplen)
			reason = cut(skb, snaplen);
		skb->mark = mark;
		skb->tc_index = instruction->tc_index;
		if (reason) {
			account(mark, reason, packets_of(skb), 0);
			return DROP;
		}
	}
	u32 mark = skb->mark;
	if (!(mark & MARKED))
		return DROP; /* it is nobody's but ours */
	if (mark & MARK_DIRECT && !skb->gso_size && !checksum_pending(skb))
		return send_into_tunnel(skb, mark);
	count_passage(mark, packets_of(skb), 0);
	return NEXT;
}

/* On a device with an address that a tunnel port may receive on. */
SEC("tc")
int tunnelled(struct __sk_buff *skb)
{
	/* What is in a VLAN is for another device; VLAN 0 is none. */
	if (!at_home(skb) || skb->pkt_type != FOR_US ||
	    (skb->vlan_present && skb->vlan_tci & 0xfff))
		return NEXT;
	return leave_tunnel(skb, 0);
}

/* At the far end of the segmenter: frames of the wire. */
SEC("tc")
int segmented(struct __sk_buff *skb)
{
	u32 mark = skb->mark, deed = mark & MARK_DEEDS;
	if (!(mark & MARKED))
		return DROP;
	count_passage(mark, 0, 1);
	if (deed == MARK_ENCAPSULATE)
		return send_into_tunnel(skb, mark);
	if (deed == MARK_CUT)
		return deliver_segment(skb, mark);
	skb->mark = 0;
	return leave_tunnel(skb, 1);
}

/* Enums get into the BTF, and so to Python, only by way of a type that is used. Nobody calls this,
 * so it is not loaded. */
struct enums {
	enum limits limits;
	enum slot slot;
	enum reason reason;
	enum vlan_mode vlan_mode;
	enum port_flags port_flags;
	enum bridge_flags bridge_flags;
	enum priority_tags priority_tags;
	enum packet_in_reason packet_in_reason;
	enum event_kind event_kind;
	enum tunnel_kind tunnel_kind;
	enum tunnel_flags tunnel_flags;
	enum match match;
	enum flow_limits flow_limits;
	enum table_flags table_flags;
	enum key_word key_word;
	enum op_code op_code;
	enum op_need op_need;
	enum op_flags op_flags;
	struct store_header header;
	struct store_table table;
	struct store_mask mask;
	struct store_bucket bucket;
	struct store_rule rule;
	struct store_group group;
	struct op op;
	struct packet_in packet_in;
};

FUNCTION int emit_enums(const struct enums *enums)
{
	return enums ? (int)enums->limits : 0;
}

/* Never attached: the recording entry point, for test runs. The caller names bridge and port, so
 * no device is needed, and numbers the run. */
SEC("tc")
int recorder(struct __sk_buff *skb)
{
	u32 zero = 0;
	struct record *record = bpf_map_lookup_elem(&records, &zero);
	if (!record)
		return DROP;
	record->run = skb->cb[2];
	record->count = 0;
	return receive(skb, skb->cb[0], skb->cb[1], RECORD);
}

/* Never attached: a controller's frame (PACKET_OUT), by a test run. */
SEC("tc")
int packet_out(struct __sk_buff *skb)
{
	return send_packet_out(skb, skb->cb[0], skb->cb[1], skb->cb[2], skb->cb[3]);
}

/* What the links hold: an upgrade changes the array, never a link. An empty slot lets nothing
 * through to the host. */
SEC("tc")
int stub_ingress(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &programs, SLOT_INGRESS);
	return DROP;
}

SEC("tc")
int stub_egress(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &programs, SLOT_EGRESS);
	return NEXT;
}

SEC("tc")
int stub_segmented(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &programs, SLOT_SEGMENTED);
	return DROP;
}

SEC("tc")
int stub_segmenter(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &programs, SLOT_SEGMENTER);
	return DROP;
}

/* An empty slot leaves everything to the host. */
SEC("tc")
int stub_tunnelled(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &programs, SLOT_TUNNELLED);
	return NEXT;
}

char licence[] SEC("license") = "Dual BSD/GPL";
