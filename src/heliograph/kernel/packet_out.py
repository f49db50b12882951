# SPDX-License-Identifier: Apache-2.0
"""Frames that a controller sends: through a bridge's ops, from user space into the data plane."""

from heliograph.kernel import bpf
from heliograph.kernel.recorder import context


def send(program_fd: int, frame: bytes, *, store: int, in_port: int, ops: tuple[int, int]) -> None:
    """Have the program `packet_out` do with `frame` what `ops` (number of the first, count) of
    `store`, one of a bridge's two, say, as if it came in there by `in_port`, an ofport.

    Raises OSError when the kernel does not take the frame, one longer than a page for example.
    """
    bpf.test_run(program_fd, frame, context(store, in_port, *ops))
