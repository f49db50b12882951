# SPDX-License-Identifier: Apache-2.0
"""Who is told what, as seen of Open vSwitch 3.1."""

import pytest

from heliograph.control.subscriptions import Kind, Subscription, check_config, default_config
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import PacketInReason, RemovedReason
from heliograph.openflow.messages import AsyncConfig, PortReason, Role


@pytest.mark.parametrize(
    ("version", "packet_ins", "removed"), [(1, 3, 7), (4, 3, 15), (5, 0x3B, 0x3F), (6, 0x3B, 0x3F)]
)
def test_what_is_sent_unless_it_is_said(version: int, packet_ins: int, removed: int) -> None:
    assert default_config(version) == AsyncConfig(
        packet_in=(packet_ins, 0), port_status=(7, 7), flow_removed=(removed, 0)
    )


def test_a_service_is_told_nothing_before_it_asks() -> None:
    service, primary = Subscription(Kind.SERVICE, 1), Subscription(Kind.PRIMARY, 1)
    assert (service.miss_send_len, primary.miss_send_len) == (0, 128)
    assert primary.wants_misses()
    assert primary.wants_port_status(PortReason.ADD)
    assert not service.wants_misses()
    assert not service.wants_port_status(PortReason.ADD)
    service.miss_send_len = 1
    assert service.wants_misses()
    assert service.wants_flow_removed(RemovedReason.DELETE)


def test_a_secondary_is_told_of_ports_only() -> None:
    one = Subscription(Kind.PRIMARY, 1, role=Role.SECONDARY)
    assert one.wants_port_status(PortReason.ADD)
    assert not one.wants_flow_removed(RemovedReason.DELETE)
    assert not one.wants_misses()


def test_frames_that_nothing_matches_are_for_early_versions() -> None:
    assert not Subscription(Kind.PRIMARY, 4).wants_misses()
    numbered = Subscription(Kind.PRIMARY, 1)
    numbered.controller_id = 3
    assert not numbered.wants_misses()


def test_later_reasons_are_actions_to_early_versions() -> None:
    one = Subscription(Kind.PRIMARY, 4)
    one.config = AsyncConfig(packet_in=(2, 0), port_status=(0, 0), flow_removed=(0, 0))
    assert one.wants_packet_in(PacketInReason.GROUP)
    assert not one.wants_packet_in(PacketInReason.NO_MATCH)
    late = Subscription(Kind.PRIMARY, 5)
    late.config = one.config
    assert not late.wants_packet_in(PacketInReason.GROUP)


def test_frames_whose_time_is_over_are_asked_for() -> None:
    one = Subscription(Kind.PRIMARY, 1)
    assert not one.wants_packet_in(PacketInReason.INVALID_TTL)
    one.set_invalid_ttl(True)
    assert one.wants_packet_in(PacketInReason.INVALID_TTL)
    one.set_invalid_ttl(False)
    assert one.config == default_config(1)


def test_a_controller_may_be_told_nothing_at_all() -> None:
    one = Subscription(Kind.PRIMARY, 4, enabled=False)
    assert not one.wants_port_status(PortReason.ADD)


def test_reasons_that_there_are_not() -> None:
    good = AsyncConfig(packet_in=(0x3F, 0), port_status=(7, 7), flow_removed=(0, 0x3F))
    bad = AsyncConfig(packet_in=(0, 0), port_status=(0, 8), flow_removed=(0, 0))
    check_config(good, 6)
    check_config(bad, 4)
    with pytest.raises(OpenFlowError, match="OFPACFC_INVALID"):
        check_config(bad, 5)
