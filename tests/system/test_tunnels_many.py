# SPDX-License-Identifier: Apache-2.0
"""Many tunnels at once, to one and the same host: each has its own numbers, length and counters."""

from collections import defaultdict
from collections.abc import Sequence

from tests.oracle.tunnel import Outer
from tests.system.remote_span import RemoteSpan, outers
from tests.system.site import frame
from tests.system.underlay import FAR
from tools.lab.lab import Lab

EACH = 25  # mirrors of a bridge
FRAMES = 20


def snaplen(session: int) -> int:
    """Each mirror's own: less than the frame, or more."""
    return 40 + session


def sessions(bridge: str, source: str, numbers: range) -> str:
    """Words that give a bridge one ERSPAN session and mirror for each number."""
    words = f"-- --id=@s get port {source}"
    for number in numbers:
        words += (
            f" -- add-port {bridge} t{number} -- set interface t{number} type=erspan"
            f" options:remote_ip={FAR.ipv4} options:key={number}"
            f" options:erspan_ver={number % 2 + 1}"
            f" -- --id=@p{number} get port t{number}"
            f" -- --id=@m{number} create mirror name=m{number} select_src_port=@s"
            f" output_port=@p{number} snaplen={snaplen(number)}"
            f" -- add bridge {bridge} mirrors @m{number}"
        )
    return words


def by_session(found: Sequence[Outer]) -> dict[int, list[Outer]]:
    grouped = defaultdict(list)
    for outer in found:
        assert outer.key is not None
        grouped[outer.key].append(outer)
    return grouped


def test_fifty_erspan_sessions_to_one_host(lab: Lab) -> None:
    """One frame of each bridge is one copy in each of its sessions, cut as that one's mirror says
    (D4), numbered by itself (rule 114). One that is deleted is none of the others' business."""
    span = RemoteSpan(lab)
    span.ovs.vsctl("add-br br1")
    span.site.add("br1", "tap3")
    span.under.ready()
    span.ovs.vsctl(sessions("br0", "tap1", range(1, EACH + 1)))
    span.ovs.vsctl(sessions("br1", "tap3", range(EACH + 1, 2 * EACH + 1)))
    sent = frame(length=70)
    with span.under.capture() as seen:
        for _ in range(FRAMES):
            span.site.send("tap1", sent)
            span.site.send("tap3", sent)
        found = by_session(outers(seen, 2 * EACH * FRAMES))
    assert found.keys() == set(range(1, 2 * EACH + 1))
    for session, copies in found.items():
        assert [one.seq for one in copies] == list(range(FRAMES)), session
        assert {one.inner for one in copies} == {sent[: snaplen(session)]}, session
        assert {one.kind for one in copies} == {f"erspan{session % 2 + 1}"}
        truncated = {one.erspan.truncated for one in copies if one.erspan}
        assert truncated == {int(snaplen(session) < len(sent))}, session
    for session in 1, EACH, 2 * EACH:
        octets = FRAMES * len(sent)  # rule 101; what is delivered is the Port's matter
        assert span.site.live(f"m{session}") == {"tx_packets": FRAMES, "tx_bytes": octets}
        shorter = FRAMES * min(len(sent), snaplen(session))
        assert span.site.live(f"t{session}", "port")["tx_bytes"] == shorter
    span.ovs.vsctl("del-port t7")
    assert span.site.said("m7") != "", "its mirror has no output any more (D1)"
    with span.under.capture() as seen:
        span.site.send("tap1", sent)
        left = by_session(outers(seen, EACH - 1))
    assert left.keys() == set(range(1, EACH + 1)) - {7}
    assert {one.seq for copies in left.values() for one in copies} == {FRAMES}
