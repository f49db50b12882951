# SPDX-License-Identifier: Apache-2.0
"""What each message of a controller does, and how it is answered."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from heliograph import __version__
from heliograph.control.bridge import Bridge
from heliograph.control.channel import Channel
from heliograph.control.monitors import Monitors
from heliograph.control.pace import Bucket
from heliograph.control.peers import Asked
from heliograph.control.subscriptions import Subscription, check_config
from heliograph.flows import queries
from heliograph.flows.bundles import Bundles
from heliograph.flows.flow import TABLES
from heliograph.openflow import flows as f
from heliograph.openflow import messages as m
from heliograph.openflow import monitors as o
from heliograph.openflow.actions import Port
from heliograph.openflow.codec import stream
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.message import Message

_CAPABILITIES = (
    m.Capabilities.FLOW_STATS
    | m.Capabilities.TABLE_STATS
    | m.Capabilities.PORT_STATS
    | m.Capabilities.GROUP_STATS
    | m.Capabilities.QUEUE_STATS
    | m.Capabilities.ARP_MATCH_IP
    | m.Capabilities.BUNDLES
)
_ACTIONS10 = 0x7FF  # all of 1.0 but enqueue
_MOST_PORTS10 = 1364  # that fit into one message
_FRAGMENTS, _INVALID_TTL = 3, 4  # flags of SET_CONFIG
_ALL_QUEUES = 0xFFFF_FFFF
_ALL_METERS = 0xFFFF_FFFF
_METER_ADD, _METER_DELETE = 0, 2
_GROUP_TYPES = 0xF
_GROUP_CAPABILITIES = 0x7  # weights, liveness, chains
# As later versions number them: output, tags, TTL, groups, set_field.
_ACTIONS13 = 1 << 0 | 1 << 17 | 1 << 18 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25


class Conversation:
    """What one connection has asked for, once a version is agreed on."""

    def __init__(
        self,
        bridge: Bridge,
        channel: Channel,
        subscription: Subscription,
        rate: float = 0,
        burst: float = 0,
    ) -> None:
        self.bridge, self.channel = bridge, channel
        self.subscription = subscription
        self.version = subscription.version
        self.bundles = Bundles(self.version)
        self.monitors = Monitors(self.version, channel)
        self.xid = 0  # of the message at work
        self.table_ids = False  # flow mods of 1.0 name a table
        self.nicira = False  # flows of 1.0 are told in Nicira's form
        self.packet_in_format = f.PacketInFormat.STANDARD
        # Frames that nothing matches shall not keep out others that a flow sends.
        self._paces = Bucket(rate, burst), Bucket(rate, burst)

    def tell(self, message: Message) -> None:
        """Send it unasked."""
        if isinstance(message, f.FlowRemoved) and self.version == m.Version.V10:
            message = replace(message, nicira=self.nicira)
        for part in stream(message, self.version):
            self.channel.post(part)

    def tell_frame(self, message: f.PacketIn) -> None:
        """Send it, unless there are too many of them."""
        if not self._paces[message.reason == f.PacketInReason.NO_MATCH].take():
            self.channel.left_out += 1
            return
        message = replace(message, format=self.packet_in_format)
        for part in stream(message, self.version):
            self.channel.post(part, droppable=True)


async def answer(conversation: Conversation, message: Message) -> Message | None:
    """Do what the message asks for. Raises OpenFlowError."""
    handler = _HANDLERS.get(type(message))
    if handler is None:
        raise OpenFlowError(Code.OFPBRC_BAD_TYPE, f"{type(message).__name__} to a switch")
    if type(message) in _CHANGES and conversation.subscription.role == m.Role.SECONDARY:
        early = conversation.version == m.Version.V10
        raise OpenFlowError(
            Code.OFPBRC_EPERM if early else Code.OFPBRC_IS_SECONDARY,
            f"{type(message).__name__} of a secondary controller",
        )
    reply: Message | None = await handler(conversation, message)
    return reply


# The session


async def _ignore(_c: Conversation, _message: m.EchoReply) -> None:
    return None


async def _barrier(_c: Conversation, _message: m.BarrierRequest) -> Message:
    # Messages are done one after the other, so all before it are done.
    return m.BarrierReply()


async def _features(c: Conversation, _message: m.FeaturesRequest) -> Message:
    return m.FeaturesReply(
        datapath_id=c.bridge.wanted.datapath_id,
        tables=TABLES,
        capabilities=_CAPABILITIES,
        actions=_ACTIONS10,
        ports=tuple(c.bridge.sorted_ports())[:_MOST_PORTS10],
    )


async def _get_config(c: Conversation, _message: m.GetConfigRequest) -> Message:
    wants = c.subscription.config.packet_in[0] >> f.PacketInReason.INVALID_TTL & 1
    early = c.version < m.Version.V13
    return m.GetConfigReply(_INVALID_TTL * (wants and early), c.subscription.miss_send_len)


async def _set_config(c: Conversation, message: m.SetConfig) -> None:
    # Fragments are never dropped nor put together: who asks for that is told so by GET_CONFIG.
    early = c.version < m.Version.V13
    if message.flags & ~(_FRAGMENTS | _INVALID_TTL * early):
        raise OpenFlowError(Code.OFPSCFC_BAD_FLAGS, f"flags {message.flags:#x}")
    if early:
        c.subscription.set_invalid_ttl(bool(message.flags & _INVALID_TTL))
    c.subscription.miss_send_len = message.miss_send_len
    c.bridge.follow_misses()


async def _role(c: Conversation, message: m.RoleRequest) -> Message:
    c.bridge.elect(c, message)
    return m.RoleReply(c.subscription.role, c.bridge.peers.generation, message.nicira)


async def _set_async(c: Conversation, message: m.SetAsync) -> None:
    config = message.over(c.subscription.config)
    check_config(config, c.version)
    c.subscription.config = config
    c.bridge.follow_misses()


async def _get_async(c: Conversation, _message: m.GetAsyncRequest) -> Message:
    return m.GetAsyncReply(c.subscription.config)


async def _set_flow_format(c: Conversation, message: m.SetFlowFormat) -> None:
    c.nicira = message.nxm


async def _set_table_ids(c: Conversation, message: m.FlowModTableId) -> None:
    c.table_ids = message.enable


async def _set_packet_in_format(c: Conversation, message: m.SetPacketInFormat) -> None:
    c.packet_in_format = message.format


async def _set_controller_id(c: Conversation, message: m.SetControllerId) -> None:
    c.subscription.controller_id = message.controller_id
    c.bridge.follow_misses()


# Changes


async def _change(c: Conversation, message: f.FlowMod | f.GroupMod) -> None:
    await c.bridge.change(message, c.version, Asked(c, (c.xid,)))


async def _packet_out(c: Conversation, message: f.PacketOut) -> None:
    c.bridge.packet_out(message)


async def _port_mod(c: Conversation, message: m.PortMod) -> None:
    await c.bridge.modify_port(message, c)


async def _table_mod(c: Conversation, message: m.TableMod) -> None:
    if message.table_id >= TABLES and message.table_id != 0xFF:
        raise OpenFlowError(Code.OFPTMFC_BAD_TABLE, f"table {message.table_id} of {TABLES}")
    # In 1.3 there is nothing to configure, but bits that earlier versions had.
    if message.config and c.version >= m.Version.V14:
        raise OpenFlowError(Code.OFPTMFC_BAD_CONFIG, "no flow is ever evicted to make room")


async def _meter_mod(_c: Conversation, message: m.MeterMod) -> None:
    if message.command != _METER_DELETE:
        add = message.command == _METER_ADD
        code = Code.OFPMMFC_INVALID_METER if add else Code.OFPMMFC_UNKNOWN_METER
        raise OpenFlowError(code, f"meter {message.meter_id}: there are no meters")


async def _bundle_add(c: Conversation, message: m.BundleAdd) -> None:
    c.bundles.add(message)


async def _bundle_control(c: Conversation, message: m.BundleControl) -> Message:
    await c.bridge.control_bundle(c.bundles, message, c)
    return replace(message, action=m.BundleAction(message.action + 1))


# Monitors


async def _monitor(c: Conversation, message: o.MonitorRequest) -> Message:
    return c.monitors.change(message, c.bridge.tables)


async def _cancel_monitor(c: Conversation, message: o.MonitorCancel) -> None:
    c.monitors.cancel(message.monitor_id)


# Statistics


async def _desc(c: Conversation, _message: m.DescRequest) -> Message:
    said = c.bridge.wanted.description or "None"
    return m.DescReply("Heliograph", "eBPF virtual switch", __version__, "None", said)


async def _flow_stats(c: Conversation, message: f.FlowStatsRequest) -> Message:
    c.bridge.look()
    return queries.flow_stats(c.bridge.tables, message, c.bridge.now())


async def _aggregate(c: Conversation, message: f.AggregateRequest) -> Message:
    c.bridge.look()
    return queries.aggregate(c.bridge.tables, message)


async def _table_stats(c: Conversation, _message: m.TableStatsRequest) -> Message:
    c.bridge.look()
    await c.bridge.count_matched()
    return queries.table_stats(c.bridge.tables, c.bridge.lookups)


async def _table_descs(_c: Conversation, _message: m.TableDescRequest) -> Message:
    return m.TableDescReply((table_id, 0) for table_id in range(TABLES))


async def _table_features(c: Conversation, message: m.TableFeaturesRequest) -> Message:
    if message.changes:
        raise OpenFlowError(Code.OFPTFFC_EPERM, "features of tables cannot be changed")
    most = c.bridge.tables.limits.flows
    return m.TableFeaturesReply(
        m.TableFeatures(table_id=n, name="", max_entries=most) for n in range(TABLES)
    )


async def _port_stats(c: Conversation, message: m.PortStatsRequest) -> Message:
    return m.PortStatsReply(await c.bridge.port_stats(message.port))


async def _port_descs(c: Conversation, message: m.PortDescRequest) -> Message:
    return m.PortDescReply(_chosen_ports(c.bridge, message.port))


def _chosen_ports(bridge: Bridge, number: int) -> Iterator[m.PortDesc]:
    """All, or one; none for one that is not there, as in Open vSwitch."""
    return (port for port in bridge.sorted_ports() if number in {Port.NONE, port.number})


def _check_queue_port(bridge: Bridge, number: int) -> None:
    if number != Port.NONE and number not in bridge.ports:
        raise OpenFlowError(Code.OFPQOFC_BAD_PORT, f"no port {number}")


async def _queue_stats(c: Conversation, message: m.QueueStatsRequest) -> Message:
    if message.port != Port.ALL or c.version != m.Version.V10:  # which says so "any port"
        _check_queue_port(c.bridge, message.port)
    if message.queue_id != _ALL_QUEUES:
        raise OpenFlowError(Code.OFPQOFC_BAD_QUEUE, f"queue {message.queue_id}: no queues")
    return m.QueueStatsReply()


async def _queue_config(c: Conversation, message: m.QueueConfigRequest) -> Message:
    if message.port == Port.NONE and c.version == m.Version.V10:
        raise OpenFlowError(Code.OFPQOFC_BAD_PORT, "no port asked for")
    _check_queue_port(c.bridge, message.port)
    return m.QueueConfigReply(message.port)


async def _group_stats(c: Conversation, message: f.GroupStatsRequest) -> Message:
    counters = c.bridge.wanted.plane.bucket_usage
    return queries.group_stats(c.bridge.tables, message, counters, c.bridge.now())


async def _group_descs(c: Conversation, message: f.GroupDescRequest) -> Message:
    return queries.group_descs(c.bridge.tables, message)


async def _group_features(c: Conversation, _message: f.GroupFeaturesRequest) -> Message:
    most = c.bridge.tables.limits.groups
    bits = _ACTIONS10 if c.version == m.Version.V10 else _ACTIONS13
    return f.GroupFeaturesReply(
        types=_GROUP_TYPES,
        capabilities=_GROUP_CAPABILITIES,
        max_groups=(most, most, most, most),
        actions=(bits, bits, bits, bits),
    )


async def _meter_stats(_c: Conversation, message: m.MeterStatsRequest) -> Message:
    if message.meter_id != _ALL_METERS:
        raise OpenFlowError(Code.OFPMMFC_UNKNOWN_METER, f"meter {message.meter_id}: no meters")
    return m.MeterStatsReply(message.config)


async def _meter_features(_c: Conversation, _message: m.MeterFeaturesRequest) -> Message:
    return m.MeterFeaturesReply()


_CHANGES: Mapping[type[Any], Callable[[Conversation, Any], Awaitable[Message | None]]] = {
    f.FlowMod: _change,
    f.GroupMod: _change,
    f.PacketOut: _packet_out,
    m.PortMod: _port_mod,
    m.TableMod: _table_mod,
    m.MeterMod: _meter_mod,
    m.BundleAdd: _bundle_add,
    m.BundleControl: _bundle_control,
}
_HANDLERS: Mapping[type[Any], Callable[[Conversation, Any], Awaitable[Message | None]]] = {
    **_CHANGES,
    m.EchoReply: _ignore,
    m.BarrierRequest: _barrier,
    m.FeaturesRequest: _features,
    m.GetConfigRequest: _get_config,
    m.SetConfig: _set_config,
    m.RoleRequest: _role,
    m.SetAsync: _set_async,
    m.GetAsyncRequest: _get_async,
    m.SetFlowFormat: _set_flow_format,
    m.FlowModTableId: _set_table_ids,
    m.SetPacketInFormat: _set_packet_in_format,
    m.SetControllerId: _set_controller_id,
    o.MonitorRequest: _monitor,
    o.MonitorCancel: _cancel_monitor,
    m.DescRequest: _desc,
    f.FlowStatsRequest: _flow_stats,
    f.AggregateRequest: _aggregate,
    m.TableStatsRequest: _table_stats,
    m.TableDescRequest: _table_descs,
    m.TableFeaturesRequest: _table_features,
    m.PortStatsRequest: _port_stats,
    m.PortDescRequest: _port_descs,
    m.QueueStatsRequest: _queue_stats,
    m.QueueConfigRequest: _queue_config,
    f.GroupStatsRequest: _group_stats,
    f.GroupDescRequest: _group_descs,
    f.GroupFeaturesRequest: _group_features,
    m.MeterStatsRequest: _meter_stats,
    m.MeterFeaturesRequest: _meter_features,
}
