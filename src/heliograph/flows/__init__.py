# SPDX-License-Identifier: Apache-2.0
"""Flow tables as the control plane knows them: what OpenFlow's messages make of flows and groups,
and what the data plane is to carry out for them (`compile_*`).

No kernel, no socket, no clock: time comes as an argument, counters through `flow.Counters`. Every
message becomes a `change.Delta` for the data plane, and what that cannot take is undone.
"""
