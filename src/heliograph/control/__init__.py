# SPDX-License-Identifier: Apache-2.0
"""OpenFlow connections of bridges: who is connected, what they ask, what they are told unasked.

Between `openflow` (bytes and messages), `flows` (what a message makes of tables) and a data plane
that is given. It knows no kernel and no database.
"""
