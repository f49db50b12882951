# SPDX-License-Identifier: Apache-2.0
"""Flow tables as the control plane knows them: what OpenFlow's messages make of flows and groups.

No kernel, no socket, no clock: time comes as an argument, counters through `flow.Counters`.
Nothing uses it yet. The classifier that will carry the flows out, and the agent's part that asks
this model and hands `change.Delta` down, are still to be written.
"""
