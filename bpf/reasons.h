// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Every reason why a frame or a copy is not handed on, once.
 * X(NAME, key in the statistics columns is drop_<name>, the words users see)
 * The first group is counted on the port the frame came in by, the second on the port it was to
 * leave by, and on the mirror too when it was a mirror's copy. */
#pragma once

#define FRAME_REASONS(X)                                                                         \
	X(NOT_READY, not_ready, "the device is not in its bridge's configuration yet")           \
	X(MALFORMED, malformed, "shorter than its own headers")                                  \
	X(RESERVED_PORT, reserved_port, "came in by a port reserved as a mirror's output")       \
	X(VLAN, vlan, "its VLAN is not allowed on the port")                                     \
	X(NO_FORWARDING, no_forwarding, "the bridge's configuration lets it forward nothing")    \
	X(RESERVED_MAC, reserved_mac, "its destination MAC is reserved and forward-bpdu is off") \
	X(SAME_PORT, same_port, "its destination was learned on the port it came in by")         \
	X(TO_RESERVED, to_reserved, "its destination was learned on a mirror's output port")     \
	X(PROTECTED, protected, "both ports are protected")                                      \
	X(NO_FLOW, no_flow, "no flow of its table matches it")                                   \
	X(FLOW, flow, "the flow it matched sends it nowhere")                                    \
	X(BUDGET, budget, "its flows take more steps, or nest deeper, than a frame may")         \
	X(NO_RECEIVE, no_receive, "ovs-ofctl mod-port has set no-receive")                       \
	X(PACKET_IN, packet_in, "more frames for controllers than user space takes")             \
	X(NO_PORT, no_port, "no other port carries its VLAN")                                    \
	X(KEY, key, "its tunnel key or session ID is not the port's")                            \
	X(REMOTE, remote, "it came from another host than the port's remote_ip")                 \
	X(VERSION, version, "its GRE or ERSPAN version is not the port's")                       \
	X(FRAGMENT, fragment, "the outer packet is a fragment")                                  \
	X(CHECKSUM, checksum, "a checksum of the outer packet is wrong")                         \
	X(ECN, ecn, "congestion on its way, and it cannot say so")                               \
	X(DECAPSULATION, decapsulation, "the kernel refused to take its outer headers off")

#define OUTPUT_REASONS(X)                                                                      \
	X(NO_DEVICE, no_device, "the port has no device")                                      \
	X(DEVICE_DOWN, device_down, "the device or its peer is down")                          \
	X(REFUSED, refused, "the device took no more: queue full or MTU too small")            \
	X(RETAG, retag, "the VLAN tag could not be changed")                                   \
	X(CUT, cut, "the copy could not be cut to the mirror's snaplen")                       \
	X(UNTREATED, untreated, "left the device without its VLAN tag or cut")                 \
	X(SUPER_FRAME, super_frame, "a later segment of a super-frame cut to the snaplen")     \
	X(NO_FORWARD, no_forward, "ovs-ofctl mod-port has set no-forward")                     \
	X(PATCH_SNAPLEN, patch_snaplen, "a copy with a snaplen does not pass a patch port")    \
	X(SEGMENTER, segmenter, "lost on its way through the segmenter, whose queue was full") \
	X(NO_ROUTE, no_route, "there is no route to the tunnel's remote_ip")                   \
	X(NO_NEIGHBOUR, no_neighbour, "the next hop to remote_ip does not answer")             \
	X(MTU, mtu, "too long for the way of the tunnel")                                      \
	X(LOOP, loop, "is a packet of a tunnel already, and would go round")                   \
	X(ENCAPSULATION, encapsulation, "the kernel refused to encapsulate it")                \
	X(TOO_DEEP, too_deep, "too many mirrors of copies or patch ports on its way")

#define REASONS(X) FRAME_REASONS(X) OUTPUT_REASONS(X)
