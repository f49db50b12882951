# SPDX-License-Identifier: Apache-2.0
"""What bpf.py works out by itself."""

import pytest

from heliograph.kernel import bpf


@pytest.mark.parametrize(
    ("ranges", "count"), [("0", 1), ("0-3\n", 4), ("0-3,8-11", 8), ("0,2,4-5", 4)]
)
def test_per_cpu_maps_have_a_value_for_each_possible_cpu(ranges: str, count: int) -> None:
    assert bpf.count_cpus(ranges) == count
