# SPDX-License-Identifier: Apache-2.0
"""Frames that controllers send, on their way into the program."""

from typing import Any

import pytest

from heliograph.kernel import packet_out
from heliograph.openflow.actions import Actions, Output, SetField
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import PacketOut
from heliograph.openflow.match import Match
from heliograph.switch.stores import BridgeStore


class Store(BridgeStore):
    """Without memory; `asked` are the actions it was to have as ops."""

    def __init__(self) -> None:
        self._program, self.number = 77, 7
        self.asked: list[Actions] = []

    def run_ops(self, actions: Actions) -> tuple[int, int]:
        self.asked.append(actions)
        return 40, 2


def test_a_packet_out_is_run_with_its_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[Any, ...]] = []
    monkeypatch.setattr(packet_out, "send", lambda *words, **more: runs.append((*words, more)))
    store = Store()
    metadata = Match.of({"reg3": (7, 0xFF)})
    packet = PacketOut(actions=(Output(2),), data=b"frame", in_port=5, metadata=metadata)
    store.packet_out(packet)
    assert runs == [(77, b"frame", {"store": 7, "in_port": 5, "ops": (40, 2)})]
    assert store.asked == [(SetField("reg3", 7, 0xFF), Output(2))]


def test_a_frame_that_the_kernel_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(packet_out, "send", refuse)
    with pytest.raises(OpenFlowError, match="a frame of 9000 bytes"):
        Store().packet_out(PacketOut(actions=(), data=bytes(9000)))
