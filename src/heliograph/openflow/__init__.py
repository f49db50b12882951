# SPDX-License-Identifier: Apache-2.0
"""OpenFlow as a protocol: bytes to messages and back. It knows no switch, kernel or socket.

Messages have one form whichever version they came in: `messages`, `flows`, `actions`, `match`.
"""
