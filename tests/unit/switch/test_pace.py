# SPDX-License-Identifier: Apache-2.0
"""How often something is tried again."""

from heliograph.switch.pace import BackOff


def test_back_off_doubles_up_to_its_limit_and_begins_anew() -> None:
    waits = BackOff()
    assert [waits.next() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    waits.reset()
    assert waits.next() == 0.1
