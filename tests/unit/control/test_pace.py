# SPDX-License-Identifier: Apache-2.0
"""So many a second."""

import time

import pytest

from heliograph.control.pace import Bucket


def test_a_burst_and_then_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bucket = Bucket(rate=10, burst=5)
    assert [bucket.take() for _ in range(7)] == [True] * 5 + [False] * 2
    now[0] += 0.25
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    now[0] += 100
    assert [bucket.take() for _ in range(7)].count(True) == 5


def test_no_rate_is_no_limit() -> None:
    bucket = Bucket(rate=0, burst=0)
    assert all(bucket.take() for _ in range(1000))
