# SPDX-License-Identifier: Apache-2.0
"""`helio vsctl`: the grammar of ovs-vsctl(8), for who has no ovs-vsctl.

words (what the line says) -> commands (records, bridges) on a transaction (an overlay on a
replica of the database) -> operations (RFC 7047) -> output. All of a line is one transaction.
"""
