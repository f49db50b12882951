# SPDX-License-Identifier: Apache-2.0
"""What frames find in a store, beside a linear search: after changes, and in the midst of them."""

from random import Random

import pytest
from tests.oracle.flow_store import Cases, best, key_of, look_up, version_of
from tests.unit.flows.mods import DELETE, mod
from tests.unit.kernel.flow_stores import Bench

from heliograph.openflow.actions import Output
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import FlowCommand, FlowMod
from heliograph.openflow.match import ANYTHING, Match


class Checked(Bench):
    """Compares packets, and knows what each rule is to do."""

    def compare(self, packet: dict[str, int], table: int = 0) -> None:
        found = look_up(self.data, table, key_of(packet), version_of(self.data))
        wanted = best(self.tables, table, packet)
        if wanted is None:
            assert found is None, packet
            return
        assert found is not None, packet
        cell, rule = found
        assert (rule.priority, rule.flow in wanted[1]) == (wanted[0], True), packet
        assert self.store.rule_at(cell) == rule.flow


def random_mod(cases: Cases, packets: list[dict[str, int]], known: list[FlowMod]) -> FlowMod:
    random = cases.random
    if known and random.random() < 0.45:
        old = random.choice(known)
        command = random.choice(
            [FlowCommand.DELETE_STRICT, FlowCommand.MODIFY_STRICT, FlowCommand.ADD]
        )
        match, table, priority = old.match, old.table_id, old.priority
    else:
        command, match = FlowCommand.ADD, cases.match(random.choice(packets))
        table, priority = random.choice([0, 0, 1]), random.choice([1, 5, 5, 9, 100, 65535])
    if random.random() < 0.03:
        command, match = FlowCommand.DELETE, cases.match(random.choice(packets))
    return FlowMod(
        command=command,
        match=match,
        table_id=table,
        priority=priority,
        cookie=0 if command == FlowCommand.ADD else None,
        actions=tuple(Output(n) for n in range(1, random.randint(1, 7))),
    )


@pytest.mark.parametrize("seed", range(2))
def test_what_frames_find_is_what_a_linear_search_finds(seed: int) -> None:
    cases = Cases(Random(seed))
    packets = [cases.packet() for _ in range(200)]
    bench = Checked()
    known: list[FlowMod] = []
    for _ in range(100):
        mods = [
            random_mod(cases, packets, known) for _ in range(cases.random.choice([1, 1, 2, 10]))
        ]
        known += [mod for mod in mods if mod.command == FlowCommand.ADD]
        bench.change(*mods)
        bench.now += cases.random.choice([1, 10**8, 2 * 10**9])
        if cases.random.random() < 0.2:
            bench.store.tidy()
        for _ in range(10):
            bench.compare(cases.random.choice(packets), cases.random.choice([0, 1]))
    for packet in packets:
        bench.compare(packet)


@pytest.mark.parametrize("seed", range(2))
def test_a_frame_meets_a_step_whole_or_not_at_all(seed: int) -> None:
    """After every single store, frames of the old version find the old, of the new the new."""
    cases = Cases(Random(seed))
    packets = [cases.packet() for _ in range(6)]
    bench = Checked()
    known: list[FlowMod] = []

    def found(version: int) -> list[tuple[int, int] | None]:
        rules = [look_up(bench.data, 0, key_of(packet), version) for packet in packets]
        return [rule and (rule[1].flow, rule[1].count) for rule in rules]

    for _ in range(40):
        mods = [random_mod(cases, packets, known) for _ in range(cases.random.choice([1, 2, 5]))]
        known += [mod for mod in mods if mod.command == FlowCommand.ADD]
        before, number = found(version_of(bench.data)), version_of(bench.data)
        seen: list[list[tuple[int, int] | None]] = []

        def look(
            number: int = number,
            before: list[tuple[int, int] | None] = before,
            seen: list[list[tuple[int, int] | None]] = seen,
        ) -> None:
            now = version_of(bench.data)
            assert found(number) == before
            if now != number:
                seen.append(found(now))

        bench.backing.look = look
        bench.change(*mods)
        bench.backing.look = lambda: None
        after = found(version_of(bench.data))
        assert all(one == after for one in seen)
        bench.now += cases.random.choice([1, 10**8, 2 * 10**9])
        bench.store.tidy()
        for packet in packets:
            bench.compare(packet)


def test_a_store_that_is_full_takes_nothing_and_says_so() -> None:
    bench = Checked(limit=1024)
    done = 0
    with pytest.raises(OpenFlowError, match="more than 0 MiB") as caught:
        while True:
            bench.change(mod(match=Match.of({"reg0": (done, 0xFFFF_FFFF)})))
            done += 1
    assert caught.value.code.name == "OFPFMFC_TABLE_FULL"
    assert done >= 512
    for n in range(done + 2):
        bench.compare({"reg0": n})
    bench.change(mod(DELETE, match=ANYTHING))
    bench.wait()
    for n in range(done):
        bench.change(mod(match=Match.of({"reg0": (n, 0xFFFF_FFFF)})))
        bench.compare({"reg0": n})


def test_rules_of_a_step_that_failed_are_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Checked()
    link, links = bench.store._buckets.link, 0

    def fail_at_third(cell: int, value: int) -> None:
        nonlocal links
        links += 1
        if links == 3:
            raise OpenFlowError(Code.OFPFMFC_TABLE_FULL)
        link(cell, value)

    matches = [Match.of({"reg0": (n, 0xFFFF_FFFF)}) for n in range(5)]
    bench.change(mod(match=matches[4]))
    bench.wait()
    used = bench.store._cells.used
    monkeypatch.setattr(bench.store._buckets, "link", fail_at_third)
    with pytest.raises(OpenFlowError):
        bench.change(*(mod(match=match) for match in matches[:4]))
    bench.change(mod(match=matches[4], actions=(Output(9),)))
    for n in range(5):
        bench.compare({"reg0": n})
    bench.wait()
    assert (len(bench.store._rules), bench.store._cells.used) == (1, used)
    bench.change(*(mod(match=match) for match in matches))
    for n in range(5):
        bench.compare({"reg0": n})


def test_flows_with_masks_like_their_values_do_not_hash_alike() -> None:
    bench = Checked()
    for n in range(1, 100):
        bench.change(mod(match=Match.of({"metadata": (n, n)})))
    for n in range(1, 100):
        bench.compare({"metadata": n})
    assert bench.backing.size == 1024


def test_flows_that_hash_alike_on_purpose_take_no_memory_from_others() -> None:
    """What differs in the highest bit of a word does so for any seed, and the next can undo it."""

    def alike(n: int) -> dict[str, int]:
        high = [0] * 6
        for place in range(5):
            if n >> place & 1:
                high[place] ^= 1 << 31
                high[place + 1] ^= 1 << 31 | 1 << 2
        return {f"reg{2 * place}": value for place, value in enumerate(high)}

    bench = Checked()
    for n in range(32):
        match = Match.of({name: (value, 0xFFFF_FFFF) for name, value in alike(n).items()})
        if n < 10:
            bench.change(mod(match=match))
            continue
        with pytest.raises(OpenFlowError, match="other flows have the same hash"):
            bench.change(mod(match=match))
    assert len(set(bench.store._buckets.hashes.values())) == 1
    for n in range(500):
        bench.change(mod(match=Match.of({"metadata": (n, 0xFFFF)})))
    for n in range(500):
        bench.compare({"metadata": n, "reg15": 9} | (alike(n) if n < 32 else {}))
    assert bench.backing.size <= 4096
