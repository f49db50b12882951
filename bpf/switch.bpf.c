// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The data plane's entry points.
 *
 * A frame comes in by a port's device: its ingress link holds `stub_ingress`, which tail-calls
 * the program in the array's slot. That one finds the port and the bridge's snapshot, reads both
 * once, and works: parse, admit, decide (normal.h), mirror (mirror.h), send (output.h). */
#include "cut.h"
#include "home.h"
#include "normal.h"
#include "parse.h"

enum { NEXT = -1, DROP = 2 }; /* verdicts of tcx; TCX_DROP is 2 */

INLINE struct snapshot *snapshot_of(u32 slot)
{
	u32 zero = 0;
	void *map = bpf_map_lookup_elem(&bridges, &slot);
	return map ? bpf_map_lookup_elem(map, &zero) : 0;
}

INLINE int refuse(u32 port, u32 reason, u32 packets, u32 mode)
{
	if (mode == RECORD)
		record(EVENT_DROP, reason, port, 0);
	else
		count_drop(port, reason, packets);
	return DROP;
}

/* The frame itself goes last: as a redirect it costs no clone, and its tags may be changed. */
INLINE int depart(struct __sk_buff *skb, struct frame *frame)
{
	struct tags tags = frame->departure.tags;
	u32 ifindex = frame->departure_ifindex;
	if (!fits(frame, &tags) && retag(skb, frame->raw.number, &tags))
		return refuse(frame->departure.port, DROP_RETAG, frame->packets, SEND);
	return frame->departs > 1 ? bpf_redirect_peer(ifindex, 0) : bpf_redirect(ifindex, 0);
}

INLINE void begin(struct frame *frame)
{
	frame->visited = 0;
	frame->hops = 0;
	frame->crossed = 0;
	frame->crossings = 0;
	frame->outputs = 0;
	frame->depth = 0;
	frame->departs = 0;
}

/* The frame is at the door of a bridge, with frame->tags as on the wire of the port: admit it,
 * mirror it (not if it comes from a patch port, rule 13), and act. */
INLINE u32 enter(struct __sk_buff *skb, struct snapshot *bridge, struct frame *frame, u32 slot,
                 u32 number, u32 sources, u32 mode)
{
	const struct port *port = &bridge->ports[number & (MAX_PORTS - 1)];
	struct tags wire = frame->tags;
	u64 visit = 1ull << (slot & (MAX_BRIDGES - 1));
	frame->bridge = slot;
	frame->port = number;
	if (!(frame->visited & visit))
		*done_set(frame) = 0;
	frame->visited |= visit;
	frame->protected = port->flags & PORT_PROTECTED;
	if (has_bit(bridge->reserved, number))
		return DROP_RESERVED_PORT;
	if (!inward(bridge, port, number, &frame->tags))
		return DROP_VLAN;
	frame->source.bridge = frame->target.bridge = slot;
	frame->source.vlan = frame->target.vlan = vid(&frame->tags);
	/* Copies as received before any output (rule 35), and whatever becomes of the frame
	 * (rule 4). */
	select_mirrors(bridge, frame, sources, number, port, &wire);
	if (frame->depth)
		work_off(skb, bridge, frame, mode);
	u32 reason = normal(skb, bridge, frame, mode);
	if (frame->depth)
		work_off(skb, bridge, frame, mode);
	return reason;
}

/* Does the frame's next passage through a patch port. */
static long cross_over(u32 turn, struct walk *walk)
{
	struct frame *frame = walk->frame;
	u32 number = frame->crossed;
	if (number >= frame->crossings || number >= MAX_CROSSINGS)
		return 1;
	frame->crossed = number + 1;
	const struct crossing *crossing = &frame->crossing[number];
	u32 slot = crossing->bridge, port = crossing->port;
	struct snapshot *bridge = snapshot_of(slot);
	frame->hops = crossing->depth;
	frame->tags = crossing->tags;
	if (!bridge || !(bridge->ports[port & (MAX_PORTS - 1)].flags & PORT_PATCH)) {
		refuse(port, DROP_NOT_READY, frame->packets, walk->mode);
		return 0;
	}
	if (walk->mode == SEND)
		count_received(port, frame->packets, frame->bytes);
	u32 reason = enter(walk->skb, bridge, frame, slot, port, 0, walk->mode);
	if (reason)
		refuse(port, reason, frame->packets, walk->mode);
	return 0;
}

INLINE int receive(struct __sk_buff *skb, u32 slot, u32 number, u32 mode)
{
	u32 which = mode;
	struct frame *frame = bpf_map_lookup_elem(&frames, &which);
	struct snapshot *bridge = snapshot_of(slot);
	if (!frame || !bridge)
		return refuse(number, DROP_NOT_READY, 1, mode);
	const struct port *port = &bridge->ports[number & (MAX_PORTS - 1)];
	if (!port->ifindex || (mode == SEND && port->ifindex != skb->ifindex))
		return refuse(number, DROP_NOT_READY, 1, mode);
	begin(frame);
	measure(skb, &frame->packets, &frame->bytes, &frame->segment);
	if (mode == SEND)
		count_received(number, frame->packets, frame->bytes);
	u32 reason = parse(skb, bridge->vlan_limit, frame);
	if (reason)
		return refuse(number, reason, frame->packets, mode);
	frame->recorded = frame->raw.number;
	frame->tags = frame->wire;
	reason = enter(skb, bridge, frame, slot, number, port->source, mode);
	if (frame->crossings) {
		struct walk walk = {skb, bridge, frame, mode};
		bpf_loop(MAX_CROSSINGS, cross_over, &walk, 0);
	}
	if (!reason && !frame->departs && !frame->outputs && mode == SEND)
		reason = DROP_NO_PORT;
	if (reason)
		refuse(number, reason, frame->packets, mode);
	/* What departs may also be a copy that another bridge has forwarded. */
	return frame->departs ? depart(skb, frame) : DROP;
}

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
	u32 zero = 0;
	struct instruction *instruction = bpf_map_lookup_elem(&instructions, &zero);
	if (!instruction || !instruction->active || instruction->ifindex != skb->ifindex)
		return NEXT;
	instruction->active = 0;
	struct tags tags = instruction->tags;
	u32 reason = retag(skb, instruction->pops, &tags);
	if (instruction->mark)
		skb->mark = instruction->mark;
	if (!reason && instruction->snaplen)
		reason = cut(skb, instruction->snaplen);
	if (!reason)
		return NEXT;
	instruction->result = reason;
	return DROP;
}

/* At the far end of the segmenter: one frame of the wire of a mirror's copy, to be cut and handed
 * over. The frame is ours, so cutting it harms nobody. */
SEC("tc")
int segmented(struct __sk_buff *skb)
{
	u32 mark = skb->mark, slot = marked_slot(mark), number = marked_port(mark);
	struct mirror_counters *counters = bpf_map_lookup_elem(&mirror_stats, &slot);
	struct snapshot *bridge = snapshot_of(slot / MAX_MIRRORS);
	if (!(mark & SEGMENT_MARK) || !counters)
		return DROP;
	counters->arrived++;
	skb->mark = 0; /* it was ours; the receiver's firewall shall not see it */
	const struct mirror *mirror = bridge ? &bridge->mirrors[slot % MAX_MIRRORS] : 0;
	const struct port *port = bridge ? &bridge->ports[number & (MAX_PORTS - 1)] : 0;
	u32 reason = DROP_NOT_READY;
	if (mirror && port && mirror->same && port->ifindex)
		reason = mirror->snaplen ? cut(skb, cut_length(skb, mirror->snaplen)) : DELIVERED;
	u32 length = skb->len + (skb->vlan_present ? 4 : 0);
	if (reason == DELIVERED && port)
		reason = outcome(bpf_clone_redirect(skb, port->ifindex, 0));
	count_delivery(number, reason, 1, length);
	if (reason == DELIVERED)
		counters->delivered++;
	else if (reason < MAX_REASONS)
		counters->drops[reason]++;
	return DROP;
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
	enum event_kind event_kind;
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

char licence[] SEC("license") = "Dual BSD/GPL";
