# SPDX-License-Identifier: Apache-2.0
"""Numbers and shapes of actions that both directions need, and the names of those refused."""

from struct import Struct

VENDOR = 0xFFFF

HEADER = Struct("!HH")
B3, H2, I4 = Struct("!B3x"), Struct("!H2x"), Struct("!I")
MAC = Struct("!6s6x")
OUTPUT10, OUTPUT13 = Struct("!HH"), Struct("!IH6x")
RESUBMIT = Struct("!HB3x")
REG_MOVE = Struct("!HHH")
REG_LOAD = Struct("!HIQ")
CONTROLLER = Struct("!HHBx")
WRITE_METADATA = Struct("!6xQQ")
TRUNC = Struct("!HI")
PROPERTY = Struct("!HH")
COPY_FIELD = Struct("!HHH2x")
INSTRUCTION_METADATA = Struct("!4xQQ")

NX_RESUBMIT, NX_SET_TUNNEL, NX_REG_MOVE, NX_REG_LOAD, NX_NOTE = 1, 2, 6, 7, 8
NX_SET_TUNNEL64, NX_RESUBMIT_TABLE, NX_EXIT, NX_DEC_TTL = 9, 14, 17, 18
NX_CONTROLLER, NX_DEC_TTL_IDS, NX_WRITE_METADATA, NX_REG_LOAD2 = 20, 21, 22, 33
NX_CONTROLLER2, NX_OUTPUT_TRUNC, NX_GROUP, NX_CLONE, NX_RESUBMIT_CT = 37, 39, 40, 42, 44
ONF_COPY_FIELD = 3200

REFUSED10 = {11: "enqueue"}
REFUSED13 = {
    11: "copy_ttl_out",
    12: "copy_ttl_in",
    15: "set_mpls_ttl",
    16: "dec_mpls_ttl",
    19: "push_mpls",
    20: "pop_mpls",
    21: "set_queue",
    26: "push_pbb",
    27: "pop_pbb",
}
REFUSED_NICIRA = {
    4: "set_queue",
    5: "pop_queue",
    10: "multipath",
    12: "bundle",
    13: "bundle_load",
    15: "output_reg",
    16: "learn",
    19: "fin_timeout",
    23: "push_mpls",
    24: "pop_mpls",
    25: "set_mpls_ttl",
    26: "dec_mpls_ttl",
    27: "push",
    28: "pop",
    29: "sample",
    30: "set_mpls_label",
    31: "set_mpls_tc",
    32: "output_reg",
    34: "conjunction",
    35: "ct",
    36: "nat",
    38: "sample",
    41: "sample",
    43: "ct_clear",
    45: "learn",
    46: "encap",
    47: "decap",
    48: "dec_nsh_ttl",
    49: "check_pkt_larger",
    50: "delete_field",
    254: "debug_slow",
    255: "debug_recirc",
}
