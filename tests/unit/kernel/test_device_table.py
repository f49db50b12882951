# SPDX-License-Identifier: Apache-2.0
"""The table of devices: renames, and pairs whose ends contradict each other."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from heliograph.kernel.device_table import DeviceTable
from heliograph.kernel.links import Device


def device(ifindex: int, name: str, peer: int = 0, elsewhere: bool = False) -> Device:
    return Device(
        ifindex=ifindex,
        name=name,
        kind="veth",
        link_type=1,
        alias="",
        mac="02:00:00:00:00:01",
        mtu=1500,
        min_mtu=68,
        max_mtu=65535,
        admin_up=False,
        carrier=False,
        promiscuous=False,
        master=0,
        peer=peer,
        peer_elsewhere=elsewhere,
        carrier_changes=0,
        arp=True,
    )


def test_only_what_changed_is_told_and_once() -> None:
    table = DeviceTable()
    table.learn(device(1, "one"))
    table.learn(device(2, "two"))
    assert table.take_changed() == {"one", "two"}
    table.learn(device(1, "one"))
    assert table.take_changed() == set()
    table.learn(replace(device(2, "two"), mtu=9000))
    assert table.take_changed() == {"two"}
    assert table.by_name["two"].mtu == 9000


def test_replace_tells_differences_only() -> None:
    table = DeviceTable()
    table.replace([device(1, "one"), device(2, "two"), device(3, "three")])
    table.take_changed()
    table.replace([device(1, "one"), device(3, "renamed"), device(4, "four")])
    assert table.take_changed() == {"two", "three", "renamed", "four"}
    assert set(table.by_name) == {"one", "renamed", "four"}


def test_names_swapped_unheard() -> None:
    table = DeviceTable()
    table.replace([device(1, "one"), device(2, "two")])
    table.replace([device(1, "two"), device(2, "one")])
    assert {name: known.ifindex for name, known in table.by_name.items()} == {"two": 1, "one": 2}


def test_name_given_anew_before_its_former_holder_is_heard_to_be_gone() -> None:
    table = DeviceTable()
    table.learn(device(1, "one"))
    table.learn(device(2, "one"))
    table.remove(device(1, "one"))
    assert table.by_name["one"].ifindex == 2


def test_pair_just_made_is_asked_about_where_an_end_does_not_know_the_other() -> None:
    table = DeviceTable()
    assert table.learn(device(2, "first")) is None
    assert table.learn(device(3, "second", peer=2)) == 2
    assert table.learn(device(2, "first", peer=3)) is None
    assert table.learn(device(3, "second", peer=2)) is None


def test_end_left_behind_is_asked_about() -> None:
    table = DeviceTable()
    table.replace([device(2, "far", peer=3), device(3, "near", peer=2)])
    assert table.remove(device(3, "near", peer=2)) == 2
    # Told of the move already, there is nothing to ask.
    table.replace([device(2, "far", peer=3, elsewhere=True), device(3, "near", peer=2)])
    assert table.remove(device(3, "near", peer=2)) is None


def test_same_number_in_another_namespace_is_no_partner() -> None:
    table = DeviceTable()
    table.replace([device(2, "far", peer=3, elsewhere=True), device(3, "other", peer=4)])
    assert table.learn(device(2, "far", peer=3, elsewhere=True)) is None
    assert table.remove(device(2, "far", peer=3, elsewhere=True)) is None


def test_end_that_came_back_makes_the_other_be_asked_about() -> None:
    table = DeviceTable()
    table.replace([device(2, "far", peer=3, elsewhere=True)])
    assert table.learn(device(3, "near", peer=2)) == 2


def test_other_kinds_have_no_partner() -> None:
    table = DeviceTable()
    table.learn(device(2, "eth0"))
    assert table.learn(replace(device(3, "eth0.7", peer=2), kind="vlan")) is None


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["a", "b", "c", "d", None]))))
def test_any_course_of_events(course: list[tuple[int, str | None]]) -> None:
    """Against a model that holds what the kernel allows: a name belongs to one device."""
    table = DeviceTable()
    model: dict[int, str] = {}
    for ifindex, name in course:
        before = dict(model)
        if name is None:
            model.pop(ifindex, None)
            table.remove(device(ifindex, "unimportant"))
        elif name in model.values():
            continue
        else:
            model[ifindex] = name
            table.learn(device(ifindex, name))
        assert {index: known.name for index, known in table.by_index.items()} == model
        assert {name: known.ifindex for name, known in table.by_name.items()} == {
            name: index for index, name in model.items()
        }
        assert table.take_changed() == {name for _, name in model.items() ^ before.items()}
