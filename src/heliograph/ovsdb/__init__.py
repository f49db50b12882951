# SPDX-License-Identifier: Apache-2.0
"""RFC 7047, server and client on one sans-I/O wire; knows nothing of switches.

Sockets are in two files only: server.py and client.py.
"""
