# SPDX-License-Identifier: Apache-2.0
"""What to undo, kept in a file."""

from pathlib import Path

import pytest

from heliograph.errors import HeliographError
from heliograph.kernel.devices import Restore
from heliograph.switch.restores import Found, Restores

ETH0 = Found(Restore(4, "eth0", "02:00:00:00:00:04", False, True), mtu=1500, mtu_set=1400)
ETH1 = Found(Restore(5, "eth1", "02:00:00:00:00:05", True, False))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "devices.json"


def test_a_new_process_reads_what_the_old_one_wrote(file: Path) -> None:
    first = Restores(file)
    first.add(ETH0)
    first.add(ETH1)
    first.making = ("hg0123456789ab",)
    second = Restores(file)
    assert list(second) == [ETH0, ETH1]
    assert second.making == ("hg0123456789ab",)
    second.drop(4)
    second.drop(99)
    second.making = ()
    third = Restores(file)
    assert list(third) == [ETH1] and third.making == () and third.get(4) is None


def test_nothing_is_written_without_need(file: Path) -> None:
    restores = Restores(file)
    restores.making = ()
    restores.drop(1)
    assert not file.exists()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "nonsense", '{"found": [{}], "making": []}', '{"found": 5, "making": []}'],
)
def test_a_damaged_file_is_named(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(HeliographError, match=str(file)):
        Restores(file)
    assert file.read_text() == content
