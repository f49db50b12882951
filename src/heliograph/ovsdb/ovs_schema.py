# SPDX-License-Identifier: Apache-2.0
"""The two databases served: Open_vSwitch 8.8.0 and _Server, in the notation of compact.py."""

from __future__ import annotations

import functools

from heliograph.ovsdb.compact import expand
from heliograph.ovsdb.schema import Schema

_OPEN_VSWITCH = """
Open_vSwitch root max(1)
  bridges: @Bridge*
  datapaths: {string: @Datapath}
  manager_options: @Manager*
  ssl: @SSL?
  next_cfg cur_cfg: integer
  ovs_version db_version system_type system_version dpdk_version: string?
  datapath_types iface_types: string*
  dpdk_initialized: boolean
  statistics: {string: string} ephemeral
  other_config external_ids: {string: string}
Bridge index(name)
  const name: string
  datapath_type datapath_version: string
  datapath_id: string? ephemeral
  ports: @Port*
  mirrors: @Mirror*
  controller: @Controller*
  netflow: @NetFlow?
  sflow: @sFlow?
  ipfix: @IPFIX?
  auto_attach: @AutoAttach?
  flow_tables: {0..254: @Flow_Table}
  flood_vlans: 0..4095*4096
  stp_enable rstp_enable mcast_snooping_enable: boolean
  protocols: (OpenFlow10 OpenFlow11 OpenFlow12 OpenFlow13 OpenFlow14 OpenFlow15)*
  fail_mode: (standalone secure)?
  status rstp_status: {string: string} ephemeral
  other_config external_ids: {string: string}
Port index(name)
  const name: string
  interfaces: @Interface+
  tag: 0..4095?
  trunks cvlans: 0..4095*4096
  vlan_mode: (trunk access native-tagged native-untagged dot1q-tunnel)?
  qos: @QoS?
  mac bond_active_slave: string?
  bond_mode: (balance-tcp balance-slb active-backup)?
  bond_updelay bond_downdelay: integer
  lacp: (active passive off)?
  bond_fake_iface fake_bridge protected: boolean
  statistics rstp_statistics: {string: integer} ephemeral
  status rstp_status: {string: string} ephemeral
  other_config external_ids: {string: string}
Interface index(name)
  const name: string
  type: string
  options lldp bfd: {string: string}
  mac error: string?
  mac_in_use: string? ephemeral
  ifindex: 0..4294967295? ephemeral
  ofport cfm_mpid cfm_flap_count: integer?
  ofport_request: 1..65279?
  mtu_request: 1..?
  mtu link_speed link_resets: integer? ephemeral
  admin_state link_state cfm_remote_opstate: (up down)? ephemeral
  duplex: (half full)? ephemeral
  ingress_policing_rate ingress_policing_burst: 0..
  ingress_policing_kpkts_rate ingress_policing_kpkts_burst: 0..
  cfm_remote_mpids: integer* ephemeral
  cfm_fault lacp_current: boolean? ephemeral
  cfm_fault_status: string* ephemeral
  cfm_health: 0..100? ephemeral
  statistics: {string: integer} ephemeral
  status bfd_status: {string: string} ephemeral
  other_config external_ids: {string: string}
Mirror
  name: string
  select_all: boolean
  select_src_port select_dst_port: ~Port*
  select_vlan: 0..4095*4096
  output_port: ~Port?
  output_vlan: 1..4095?
  snaplen: 14..65535?
  filter: string?
  statistics: {string: integer} ephemeral
  external_ids: {string: string}
Flow_Table
  name: string?
  flow_limit: 0..?
  overflow_policy: (refuse evict)?
  groups: string*
  prefixes: string*4
  external_ids: {string: string}
QoS root
  type: string
  queues: {0..4294967295: @Queue}
  other_config external_ids: {string: string}
Queue root
  dscp: 0..63?
  other_config external_ids: {string: string}
NetFlow
  targets: string+
  engine_type engine_id: 0..255?
  add_id_to_interface: boolean
  active_timeout: -1..
  external_ids: {string: string}
sFlow
  targets: string+
  sampling polling header: integer?
  agent: string?
  external_ids: {string: string}
IPFIX
  targets: string*
  sampling: 1..4294967295?
  obs_domain_id obs_point_id cache_max_flows: 0..4294967295?
  cache_active_timeout: 0..4200?
  stats_interval template_interval: 1..3600?
  other_config external_ids: {string: string}
Flow_Sample_Collector_Set root index(id bridge)
  id: 0..4294967295
  bridge: @Bridge
  ipfix: @IPFIX?
  local_group_id: 0..4294967295?
  external_ids: {string: string}
Controller
  type: (primary service)?
  target: string
  max_backoff: 1000..?
  inactivity_probe: integer?
  connection_mode: (in-band out-of-band)?
  local_ip local_netmask local_gateway: string?
  enable_async_messages: boolean?
  controller_queue_size: 1..512?
  controller_rate_limit: 100..?
  controller_burst_limit: 25..?
  is_connected: boolean ephemeral
  role: (other master slave)? ephemeral
  status: {string: string} ephemeral
  other_config external_ids: {string: string}
Manager index(target)
  target: string
  max_backoff: 1000..?
  inactivity_probe: integer?
  connection_mode: (in-band out-of-band)?
  is_connected: boolean ephemeral
  status: {string: string} ephemeral
  other_config external_ids: {string: string}
Datapath
  datapath_version: string
  ct_zones: {0..65535: @CT_Zone}
  ct_zone_default_limit: 0..4294967295?
  capabilities external_ids: {string: string}
CT_Zone
  timeout_policy: @CT_Timeout_Policy?
  limit: 0..4294967295?
  external_ids: {string: string}
CT_Timeout_Policy
  timeouts: {(%s): 0..4294967295}
  external_ids: {string: string}
SSL max(1)
  private_key certificate ca_cert: string
  bootstrap_ca_cert: boolean
  external_ids: {string: string}
AutoAttach
  system_name system_description: string
  mappings: {0..16777215: 0..4095}
"""

_CONNECTION_STATES = """
tcp_syn_sent tcp_syn_recv tcp_established tcp_fin_wait tcp_close_wait tcp_last_ack tcp_time_wait
tcp_close tcp_syn_sent2 tcp_retransmit tcp_unack
udp_first udp_single udp_multiple icmp_first icmp_reply
"""

_SERVER = """
Database
  name: string
  model: (standalone clustered relay)
  connected leader: boolean
  schema: string?
  cid sid: uuid?
  index: integer?
"""


@functools.cache
def open_vswitch() -> Schema:
    """The database that configures the switch.

    `cksum` is that of the Open vSwitch schema 8.8.0 to which this one is equal: clients
    compare it to learn whether they know the schema.
    """
    text = _OPEN_VSWITCH % " ".join(_CONNECTION_STATES.split())
    return Schema(expand("Open_vSwitch", "8.8.0", text, cksum="2823623553 27869"))


@functools.cache
def server() -> Schema:
    """The database that describes the databases (ovsdb-server(7), "_Server")."""
    return Schema(expand("_Server", "1.2.0", _SERVER))
