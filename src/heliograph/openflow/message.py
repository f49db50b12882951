# SPDX-License-Identifier: Apache-2.0
"""All that a message may be."""

from heliograph.openflow import flows as f
from heliograph.openflow import messages as m
from heliograph.openflow import monitors as o

Message = (
    m.Hello
    | m.Error
    | m.EchoRequest
    | m.EchoReply
    | m.FeaturesRequest
    | m.FeaturesReply
    | m.GetConfigRequest
    | m.GetConfigReply
    | m.SetConfig
    | f.PacketIn
    | f.FlowRemoved
    | m.PortStatus
    | f.PacketOut
    | f.FlowMod
    | f.GroupMod
    | m.PortMod
    | m.TableMod
    | m.BarrierRequest
    | m.BarrierReply
    | m.RoleRequest
    | m.RoleReply
    | m.RoleStatus
    | m.SetFlowFormat
    | m.FlowModTableId
    | m.SetPacketInFormat
    | m.SetControllerId
    | m.SetAsync
    | m.GetAsyncRequest
    | m.GetAsyncReply
    | m.QueueConfigRequest
    | m.QueueConfigReply
    | m.DescRequest
    | m.DescReply
    | f.FlowStatsRequest
    | f.FlowStatsReply
    | f.AggregateRequest
    | f.AggregateReply
    | m.TableStatsRequest
    | m.TableStatsReply
    | m.PortStatsRequest
    | m.PortStatsReply
    | m.PortDescRequest
    | m.PortDescReply
    | m.QueueStatsRequest
    | m.QueueStatsReply
    | f.GroupStatsRequest
    | f.GroupStatsReply
    | f.GroupDescRequest
    | f.GroupDescReply
    | f.GroupFeaturesRequest
    | f.GroupFeaturesReply
    | m.TableDescRequest
    | m.TableDescReply
    | m.TableFeaturesRequest
    | m.TableFeaturesReply
    | m.MeterMod
    | m.MeterStatsRequest
    | m.MeterStatsReply
    | m.MeterFeaturesRequest
    | m.MeterFeaturesReply
    | m.BundleControl
    | m.BundleAdd
    | o.MonitorRequest
    | o.MonitorReply
    | o.MonitorCancel
    | o.MonitorPaused
    | o.MonitorResumed
)
