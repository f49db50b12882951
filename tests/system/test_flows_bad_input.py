# SPDX-License-Identifier: Apache-2.0
"""Bad OpenFlow: the exact error, or that connection closed with a sentence in the log; frames and
others go on, memory is bounded, and nothing is a traceback."""

import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import pytest
from tests.system.flow_hosts import Hosts, shared
from tests.system.flow_storm import Storm
from tests.system.site import MAC2, frame, read_live
from tools.lab.flow import Flow
from tools.lab.processes import PATIENCE, eventually

from heliograph.openflow import flows as f
from heliograph.openflow import messages as m
from heliograph.openflow.actions import Controller, Note, Output, Resubmit, SetField
from heliograph.openflow.codec import Framer, decode, encode
from heliograph.openflow.errors import Code
from heliograph.openflow.match import Match
from heliograph.openflow.message import Message
from heliograph.openflow.messages import Error, Version

FRAME = frame()
HEADER = struct.Struct("!BBHI")
HELLO, ERROR, ECHO = 0, 1, 2
MiB = 1 << 20
SEED = 20_261_121


@pytest.fixture(scope="module")
def made(tokens: list[str]) -> Iterator[Hosts]:
    yield from shared(tokens)


class Watch:
    """What a test did to the switch: memory, open files, sentences."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts, self._pid = hosts, hosts.switch.child("switch")
        self._said = len(hosts.log())
        self.begun, self._files = self.memory(), self.files()

    def memory(self) -> int:
        status = Path(f"/proc/{self._pid}/status").read_text()
        (kilobytes,) = re.findall(r"VmRSS:\s+(\d+)", status)
        return int(kilobytes) << 10

    def files(self) -> int:
        return len(list(Path(f"/proc/{self._pid}/fd").iterdir()))

    def sentences(self) -> list[str]:
        """What the switch has said, of connections or as a warning."""
        said = self._hosts.log()[self._said :].splitlines()
        return [line for line in said if "heliograph.control" in line or " info " not in line]

    def healthy(self, grown: int = 16 * MiB) -> list[str]:
        """Frames go on, others are answered, and nothing is left; returns what was said."""
        hosts = self._hosts
        assert hosts.switch.child("switch") == self._pid, "the switch ended"
        hosts.replace(["priority=0,actions=NORMAL", "priority=9,in_port=1,actions=output:2"])
        assert hosts.send(1, FRAME) == {2: [FRAME]}
        assert eventually(lambda: self.files() <= self._files), "descriptors are left"
        assert eventually(lambda: self.memory() - self.begun < grown), "memory is left"
        said = self.sentences()
        assert not [line for line in said if "Traceback" in line or "fault of ours" in line], said
        return said


@pytest.fixture
def watch(made: Hosts) -> Watch:
    made.replace(["priority=0,actions=NORMAL", "priority=9,in_port=1,actions=output:2"])
    return Watch(made)


class Raw:
    """A connection of bytes."""

    def __init__(self, hosts: Hosts, version: int | None = Version.V13) -> None:
        """With a version, it says hello."""
        self.version = version or Version.V13
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(hosts.socket))
        if version is not None:
            self.socket.sendall(HEADER.pack(version, HELLO, 8, 1))
            self.socket.recv(HEADER.unpack(self.socket.recv(8))[2] - 8)

    def ask(self, data: bytes) -> list[Error]:
        """The errors that are answered; sends while it reads, as nobody else would read them."""
        last = 0xFFFF_FFFE
        sender = threading.Thread(
            target=self.socket.sendall, args=[data + encode(m.BarrierRequest(), self.version, last)]
        )
        sender.start()
        framer = Framer()
        errors: list[Error] = []
        while True:
            while (one := framer.next()) is None:
                received = self.socket.recv(1 << 16)
                assert received, "the switch closed the connection"
                framer.feed(received)
            if one.xid == last:
                sender.join()
                return errors
            if one.type == ERROR:
                answer = decode(one)
                assert isinstance(answer, Error)
                errors.append(answer)

    def ends(self) -> bytes:
        """What comes until the switch closes it."""
        received = b""
        with suppress(ConnectionResetError):
            while data := self.socket.recv(1 << 16):
                received += data
        return received

    def close(self) -> None:
        self.socket.close()


NO_HELLO = {
    "another message": (HEADER.pack(4, 5, 8, 1), "instead of a hello"),
    "no OpenFlow": (b"\x16\x03\0\x0a" + bytes(6), "instead of a hello"),
    "too short for itself": (HEADER.pack(4, HELLO, 7, 1), "message of 7 bytes"),
    "1.1 and 1.2": (HEADER.pack(9, HELLO, 16, 1) + b"\0\1\0\x08\0\0\0\x0c", "no common version"),
    "broken element": (HEADER.pack(4, HELLO, 16, 1) + b"\0\1\0\x03\0\0\0\x08", "3 bytes"),
}


def test_no_hello(made: Hosts, watch: Watch) -> None:
    for sent, _ in NO_HELLO.values():
        with closing(Raw(made, None)) as raw:
            raw.socket.sendall(sent)
            raw.ends()
    said = watch.healthy()
    assert len(said) == len(NO_HELLO)
    for line, (_, sentence) in zip(said, NO_HELLO.values(), strict=True):
        assert sentence in line and "closed connection br0<->unix#" in line


def message(kind: int, body: bytes, version: int = Version.V13) -> bytes:
    return HEADER.pack(version, kind, 8 + len(body), 77) + body


def flow_mod(fields: str = "", instructions: str = "", *, command: int = 0, kind: int = 1) -> bytes:
    """Of 1.3, of fields (OXM) and instructions in hex."""
    head = struct.pack(
        "!8x8xBBHHHIIIH2x", 0, command, 0, 0, 5, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0
    )
    oxm = bytes.fromhex(fields)
    match = struct.pack("!HH", kind, 4 + len(oxm)) + oxm
    match += bytes(-len(match) % 8)
    return message(14, head + match + bytes.fromhex(instructions))


def apply(actions: str) -> str:
    size = len(bytes.fromhex(actions)) + 8
    return f"0004{size:04x}00000000" + actions


OUT = "0000001000000002ffff000000000000"
ANYTHING = Match.of({"eth_type": (0x800, 0xFFFF), "nw_proto": (6, 0xFF), "tcp_dst": (80, 0xFFFF)})
ACTIONS = (SetField("eth_dst", 5, 0xFFFF_FFFF_FFFF), Output(2), Resubmit(None, 3), Controller())
GOOD: list[Message] = [
    m.EchoRequest(b"12345678"),
    m.FeaturesRequest(),
    m.SetConfig(0, 128),
    f.FlowMod(command=f.FlowCommand.ADD, table_id=0, match=ANYTHING, actions=ACTIONS),
    f.FlowMod(command=f.FlowCommand.DELETE_STRICT, match=ANYTHING),
    f.FlowStatsRequest(match=ANYTHING),
    f.AggregateRequest(match=ANYTHING),
    f.PacketOut(actions=ACTIONS, data=FRAME, in_port=1),
    f.GroupMod(command=f.GroupCommand.ADD, group_id=7, buckets=(f.Bucket(actions=(Output(2),)),)),
    f.GroupDescRequest(),
    m.PortStatsRequest(2),
    m.TableStatsRequest(),
    m.DescRequest(),
    m.BarrierRequest(),
]
GROUP_IN_ITSELF = "0000000000000001" + "0018 0000 ffffffff ffffffff 00000000" + "0016000800000001"
BAD = {
    "another version": (message(5, b"", Version.V15), Code.OFPBRC_BAD_VERSION),
    "a version that is none": (message(5, b"", 0x77), Code.OFPBRC_BAD_VERSION),
    "no such type": (message(99, b""), Code.OFPBRC_BAD_TYPE),
    "an answer": (message(6, bytes(24)), Code.OFPBRC_BAD_TYPE),
    "unknown experimenter": (message(4, b"\x12\x34\x56\x78" + bytes(4)), Code.OFPBRC_BAD_VENDOR),
    "unknown subtype": (message(4, b"\0\0\x23\x20\0\0\xff\xff"), Code.OFPBRC_BAD_SUBTYPE),
    "no such statistics": (message(18, b"\0\x99" + bytes(6)), Code.OFPBRC_BAD_STAT),
    "statistics of whom": (
        message(18, b"\xff\xff" + bytes(6) + b"\x12" * 8),
        Code.OFPBRC_BAD_VENDOR,
    ),
    "features with a body": (message(5, bytes(8)), Code.OFPBRC_BAD_LEN),
    "half a flow": (message(14, bytes(20)), Code.OFPBRC_BAD_LEN),
    "no such command": (flow_mod(command=9), Code.OFPFMFC_BAD_COMMAND),
    "match of another type": (flow_mod(kind=2), Code.OFPBMC_BAD_TYPE),
    "match longer than all": (flow_mod()[:50] + b"\xff\0" + flow_mod()[52:], Code.OFPBMC_BAD_LEN),
    "a field twice": (flow_mod("80000004 00000001" * 2), Code.OFPBMC_DUP_FIELD),
    "no prerequisite": (flow_mod("80001c02 0050"), Code.OFPBMC_BAD_PREREQ),
    "value without mask": (
        flow_mod("8000070c 010000000001 ff0000000000"),
        Code.OFPBMC_BAD_WILDCARDS,
    ),
    "mask of a field that has none": (flow_mod("80000108 00000001 0000ffff"), Code.OFPBMC_BAD_MASK),
    "no such field": (flow_mod("8000c804 00000001"), Code.OFPBMC_BAD_FIELD),
    "no such class": (flow_mod("12340004 00000001"), Code.OFPBMC_BAD_FIELD),
    "value out of range": (flow_mod("80000c02 1005 80000e01 09"), Code.OFPBMC_BAD_VALUE),
    "no such instruction": (flow_mod("", "0063000800000000"), Code.OFPBIC_UNKNOWN_INST),
    "an instruction twice": (flow_mod("", apply(OUT) * 2), Code.OFPBIC_DUP_INST),
    "back to a table": (flow_mod("", "0001000800000000"), Code.OFPBIC_BAD_TABLE_ID),
    "instruction too short": (flow_mod("", "0001000400000000"), Code.OFPBIC_BAD_LEN),
    "no such action": (flow_mod("", apply("0063000800000000")), Code.OFPBAC_BAD_TYPE),
    "action of whom": (
        flow_mod("", apply("ffff0010123456780000000000000000")),
        Code.OFPBAC_BAD_VENDOR,
    ),
    "action too short": (flow_mod("", apply("0000000800000002")), Code.OFPBAC_BAD_LEN),
    "set what is not there": (
        flow_mod("", apply("0019001080001c020050" + "00" * 6)),
        Code.OFPBAC_MATCH_INCONSISTENT,
    ),
    "a group that is not there": (
        flow_mod("", apply("0016000800000063")),
        Code.OFPBAC_BAD_OUT_GROUP,
    ),
    "a group in itself": (message(15, bytes.fromhex(GROUP_IN_ITSELF)), Code.OFPGMFC_LOOP),
}


def test_messages(made: Hosts, watch: Watch) -> None:
    """Each is answered with its error, and the connection goes on."""
    for name, (data, code) in BAD.items():
        with closing(Raw(made)) as raw:
            found = [(e.vendor, e.type, e.code) for e in raw.ask(data)]
            assert found == [code.number(Version.V13)], name
            assert raw.ask(encode(m.EchoRequest(), Version.V13)) == [], name
    said = watch.healthy()
    assert len(said) == len(BAD)
    for line, (_, code) in zip(said, BAD.values(), strict=True):
        assert "refused br0<->unix#" in line and f" {code.name}: " in line


def test_random_messages(made: Hosts, watch: Watch) -> None:
    """Good ones with bits turned, in each version: an error or none, and the session goes on."""
    random = Random(SEED)
    for version in Version:
        good = [encode(one, version, 77) for one in GOOD]
        bad = bytearray()
        for _ in range(800):
            one = bytearray(random.choice(good))
            for _ in range(random.choice((1, 1, 2, 8))):
                at = random.randrange(8, len(one)) if len(one) > 8 else 1
                one[at] ^= 1 << random.randrange(8)
            bad += one
        with closing(Raw(made, version)) as raw:
            raw.ask(bytes(bad))
            assert raw.ask(encode(m.EchoRequest(), version)) == []
    assert len(watch.healthy(64 * MiB)) < 300


def test_random_bytes(made: Hosts, watch: Watch) -> None:
    """Each connection is closed when what comes cannot be a message; only that one."""
    random = Random(SEED)
    for _ in range(40):
        with closing(Raw(made)) as raw, suppress(BrokenPipeError, ConnectionResetError):
            raw.socket.sendall(random.randbytes(random.randrange(1, 3000)))
            raw.socket.shutdown(socket.SHUT_WR)
            raw.ends()
    said = watch.healthy()
    assert len(said) <= 100, said


def test_10_000_masks(made: Hosts, watch: Watch) -> None:
    """256 of a table are taken, the others are refused and change nothing."""
    masks = [
        f.FlowMod(command=f.FlowCommand.ADD, table_id=5, match=Match.of({"metadata": (n, n)}))
        for n in range(1, 10_001)
    ]
    made.ofctl("add-flow", "br0", "priority=10,in_port=1,actions=resubmit(,5),output:3")
    with closing(Raw(made)) as raw:
        errors = raw.ask(b"".join(encode(one, Version.V13) for one in masks))
    found = Counter((error.type, error.code) for error in errors)
    assert found == {Code.OFPFMFC_TABLE_FULL.number(Version.V13)[1:]: 10_000 - 256}
    there = re.findall(r"metadata=0x(\w+)/", "\n".join(made.flows("table=5")))
    assert sorted(int(mask, 16) for mask in there) == list(range(1, 257))
    assert made.send(1, FRAME) == {3: [FRAME]}
    made.ofctl("add-flow", "br0", "table=5,metadata=7/7,actions=output:4")
    made.ofctl(
        "add-flow", "br0", "priority=11,in_port=1,actions=load:7->OXM_OF_METADATA[],goto_table:5"
    )
    assert made.send(1, FRAME) == {4: [FRAME]}
    said = watch.healthy()
    assert len(said) < 100 and "256 different masks" in said[0], said


LOOPS = [
    ["in_port=3,actions=resubmit(,0)"],
    ["in_port=3,actions=resubmit(,0),resubmit(,0)"],
    [
        "in_port=3,actions=resubmit(,1)",
        "table=1,actions=resubmit(,2)",
        "table=2,actions=resubmit(,1)",
    ],
    ["in_port=3,actions=clone(resubmit(,0)),clone(resubmit(,0))"],
    ["in_port=3,actions=output:4,resubmit(,0),resubmit(,0)"],
    ["in_port=3,actions=group:1,group:1", "table=1,actions=group:1,group:1"],
    ["in_port=3,actions=" + ",".join(["resubmit(,1)"] * 60)]
    + [f"table={n},actions=" + ",".join([f"resubmit(,{n + 1})"] * 60) for n in range(1, 9)],
]


@pytest.mark.parametrize("flows", LOOPS, ids=range(len(LOOPS)))
def test_loops_of_resubmit(made: Hosts, watch: Watch, flows: list[str]) -> None:
    """They end by the frame's budget and are counted; other frames go on, in time."""
    groups = ["group_id=1,type=all,bucket=resubmit(,1),bucket=resubmit(,1)"]
    made.replace(["priority=9,in_port=1,actions=output:2", *flows], groups)
    before = read_live(made.switch, made.tools, "p3", "port").get("drop_budget", 0)
    with made.capture(2) as two, Flow((made.guest, "g1"), MAC2) as others:
        begun = time.monotonic()
        made.guest.send("g3", [FRAME] * 500)
        spent = time.monotonic() - begun
        others.stop()
        assert others.arrived(two) == list(range(others.sent))
    after = read_live(made.switch, made.tools, "p3", "port")["drop_budget"]
    assert after - before == 500
    # By far the dearest of them costs 0.2 ms; what is not bounded does not end.
    assert spent / 500 < 0.02, "a frame's cost is not bounded"
    watch.healthy()


def test_a_controller_that_never_reads(made: Hosts, watch: Watch) -> None:
    """Frames for it are left out, replies wait, and others are answered."""
    many = [f"table=9,metadata={n},actions=drop" for n in range(1, 5001)]
    made.replace(["in_port=1,actions=controller,output:2", *many])
    with closing(Raw(made)) as deaf, made.capture(2) as two:
        asked = encode(m.SetConfig(0, 0xFFFF), Version.V13)
        asked += encode(f.FlowStatsRequest(), Version.V13) * 200
        deaf.socket.sendall(asked)
        with Storm(made.guest, "g1") as storm:
            eventually(lambda: len(made.dump("table=9")) == 0, 2)
            assert len(made.dump("table=9")) == 5000
        assert storm.arrived(two) == list(range(storm.sent))
        assert watch.memory() - watch.begun < 48 * MiB
    said = watch.healthy(48 * MiB)
    assert len(said) <= 2, said  # it closed, and what was left out


def test_100_connections_at_once(made: Hosts, watch: Watch) -> None:
    made.replace([f"table=9,metadata={n},actions=drop" for n in range(1, 1001)])
    answers: list[int] = []

    def ask(version: Version) -> None:
        with closing(made.controller(version)) as controller:
            answers.append(len(controller.flows()))

    versions = list(Version)
    threads = [threading.Thread(target=ask, args=[versions[n % 4]]) for n in range(100)]
    for thread in threads:
        thread.start()
    assert made.send(1, FRAME) == {}
    for thread in threads:
        thread.join()
    assert answers == [1000] * 100
    assert watch.healthy(48 * MiB) == []


def test_half_open_connections(made: Hosts, watch: Watch) -> None:
    """Who says no hello, or a part of one, is let go of after 10 s; nobody waits for them."""
    silent = [Raw(made, None) for _ in range(100)]
    for one in silent[::2]:
        one.socket.sendall(HEADER.pack(4, HELLO, 16, 1))
    assert len(made.dump()) == 2
    for one in silent[10:]:
        one.close()
    for one in silent[:10]:
        one.ends()
        one.close()
    said = watch.healthy()
    assert sum("no hello came" in line for line in said) == 10, said


def test_connections_closed_in_the_middle_of_a_dump(made: Hosts, watch: Watch) -> None:
    made.replace([f"table=9,metadata={n},actions=drop" for n in range(1, 5001)])
    for _ in range(30):
        with closing(Raw(made)) as raw:
            raw.socket.sendall(encode(f.FlowStatsRequest(), Version.V13) * 5)
            assert raw.socket.recv(1000)
    said = watch.healthy(48 * MiB)
    assert len(said) <= 30, said


def test_bundles_that_are_never_committed(made: Hosts, watch: Watch) -> None:
    """They are bounded, and gone with their connection."""
    mod = f.FlowMod(command=f.FlowCommand.ADD, table_id=0, actions=(Note(bytes(16_006)),))
    add = encode(m.BundleAdd(1, m.BundleFlags.ATOMIC, mod, 77), Version.V15, 77)
    with closing(Raw(made, Version.V15)) as raw:
        errors = [error for _ in range(10) for error in raw.ask(add * 500)]
        assert watch.memory() - watch.begun < 160 * MiB, "not bounded"
    code = Code.OFPBFC_MSG_TOO_MANY.number(Version.V15)[1:]
    assert {(error.type, error.code) for error in errors} == {code}
    assert len(watch.healthy(48 * MiB)) < 100
