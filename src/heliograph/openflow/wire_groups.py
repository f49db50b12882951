# SPDX-License-Identifier: Apache-2.0
"""On the wire: groups. Those of 1.5 are also those of Nicira's messages on 1.0."""

from collections.abc import Callable, Iterable, Mapping
from struct import Struct, pack
from typing import Any

from heliograph.openflow import flows as f
from heliograph.openflow import oxm
from heliograph.openflow.action_decoder import decode_actions
from heliograph.openflow.action_encoder import encode_actions
from heliograph.openflow.actions import ANY_GROUP, Port
from heliograph.openflow.buffer import Reader, fixed, padded, properties, text
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.fields import FIELDS
from heliograph.openflow.message import Message
from heliograph.openflow.ports import from_wide, to_wide

Encoded = tuple[str, Any]
_MOD13, _MOD15 = Struct("!HBxI"), Struct("!HBxIH2xI")
_BUCKET13, _BUCKET15 = Struct("!HHII4x"), Struct("!HHI")
_DESC13, _DESC15 = Struct("!HBxI"), Struct("!HBxIH6x")
_STATS = Struct("!H2xII4xQQII")
_FEATURES = Struct("!10I")
_TLV, _ID, _PAIR = Struct("!HH"), Struct("!I4x"), Struct("!QQ")
_EXPERIMENTER, _NTR, _SELECTION_METHOD = 0xFFFF, 0x154D, 1
_SELECTION = Struct("!II4x16sQ")
_LAST_BUCKET = 0xFFFF_FF00
_MOST_BYTES = 0x5000  # so that any version can say them in one message


def _new_form(version: int) -> bool:
    return version in {1, 6}


def _watch(port: int, group: int) -> tuple[int | None, int | None]:
    number = from_wide(port, Code.OFPGMFC_BAD_WATCH)
    return (
        None if number == Port.NONE else number,
        None if group == ANY_GROUP else group,
    )


def _bucket13(reader: Reader, version: int) -> f.Bucket:
    length, weight, port, group = reader.unpack(_BUCKET13)
    if length < _BUCKET13.size or length % 8:
        raise OpenFlowError(Code.OFPGMFC_BAD_BUCKET, f"bucket of {length} bytes")
    watch_port, watch_group = _watch(port, group)
    actions = decode_actions(reader.take(length - _BUCKET13.size), version)
    return f.Bucket(actions=actions, weight=weight, watch_port=watch_port, watch_group=watch_group)


def _bucket15(reader: Reader, version: int, weight: int) -> f.Bucket:
    length, actions_length, bucket_id = reader.unpack(_BUCKET15)
    if length < _BUCKET15.size or length % 8:
        raise OpenFlowError(Code.OFPGMFC_BAD_BUCKET, f"bucket of {length} bytes")
    if bucket_id > _LAST_BUCKET:
        raise OpenFlowError(Code.OFPGMFC_BAD_BUCKET, f"no bucket is {bucket_id:#x}")
    body = Reader(reader.take(length - _BUCKET15.size), Code.OFPGMFC_BAD_BUCKET)
    actions = decode_actions(body.take(actions_length), version)
    port, group = 0xFFFF_FFFF, ANY_GROUP
    while len(body):
        kind, size = body.unpack(_TLV)
        if kind == 0 and size == 8:
            weight = body.unpack(Struct("!H2x"))[0]
        elif kind == 1 and size == 8:
            port = body.unpack(Struct("!I"))[0]
        elif kind == 2 and size == 8:
            group = body.unpack(Struct("!I"))[0]
        else:
            raise OpenFlowError(Code.OFPBPC_BAD_TYPE, f"a bucket has no property {kind}")
    watch_port, watch_group = _watch(port, group)
    return f.Bucket(
        actions=actions,
        bucket_id=bucket_id,
        weight=weight,
        watch_port=watch_port,
        watch_group=watch_group,
    )


def _buckets(data: bytes, version: int, kind: int) -> tuple[f.Bucket, ...]:
    if len(data) > _MOST_BYTES:
        raise OpenFlowError(Code.OFPGMFC_OUT_OF_BUCKETS, f"{len(data)} bytes of buckets")
    reader = Reader(data, Code.OFPGMFC_BAD_BUCKET)
    buckets = []
    while len(reader):
        if _new_form(version):
            weight = 1 if kind == f.GroupType.SELECT else 0
            buckets.append(_bucket15(reader, version, weight))
        else:
            buckets.append(_bucket13(reader, version))
    return tuple(buckets)


def _selection(data: bytes) -> f.Selection:
    selection = f.Selection()
    for kind, body in properties(Reader(data, Code.OFPBPC_BAD_LEN)):
        if kind != _EXPERIMENTER:
            raise OpenFlowError(Code.OFPBPC_BAD_TYPE, f"a group has no property {kind}")
        vendor, number, name, param = body.unpack(_SELECTION)
        if vendor != _NTR:
            raise OpenFlowError(Code.OFPBPC_BAD_EXPERIMENTER, f"property of vendor {vendor:#x}")
        if number != _SELECTION_METHOD:
            raise OpenFlowError(Code.OFPBPC_BAD_EXP_TYPE, f"property {number} of a group")
        if not name.strip(b"\0"):
            raise OpenFlowError(Code.OFPBPC_BAD_VALUE, "a selection method without a name")
        selection = f.Selection(method=text(name), param=param, fields=_chosen(body.rest()))
    return selection


def _chosen(data: bytes) -> tuple[tuple[str, int], ...]:
    """Fields whose values are masks here."""
    chosen, pos = [], 0
    while pos < len(data):
        field, value, _mask, pos = oxm.read_field(data, pos)
        chosen.append((field.name, value))
    return tuple(chosen)


def _encode_selection(selection: f.Selection) -> bytes:
    if not selection.method:
        return b""
    body = _SELECTION.pack(
        _NTR, _SELECTION_METHOD, fixed(selection.method, 16), selection.param
    ) + b"".join(
        oxm.encode_field(name, mask, FIELDS[name].value_bits, 6) for name, mask in selection.fields
    )
    return padded(_TLV.pack(_EXPERIMENTER, 4 + len(body)) + body)


def _command(number: int, version: int) -> f.GroupCommand:
    only_new = {f.GroupCommand.INSERT_BUCKET, f.GroupCommand.REMOVE_BUCKET}
    if number not in set(f.GroupCommand) or (number in only_new and not _new_form(version)):
        raise OpenFlowError(Code.OFPGMFC_BAD_COMMAND, f"no command is {number}")
    return f.GroupCommand(number)


def _type(number: int) -> f.GroupType:
    if number > f.GroupType.FAST_FAILOVER:
        raise OpenFlowError(Code.OFPGMFC_BAD_TYPE, f"no type of groups is {number}")
    return f.GroupType(number)


def _group_mod(reader: Reader, version: int) -> f.GroupMod:
    bucket_id = f.BUCKET_ALL
    selection = f.Selection()
    if _new_form(version):
        command, kind, group_id, length, bucket_id = reader.unpack(_MOD15)
        buckets = _buckets(reader.take(length), version, kind)
        selection = _selection(reader.rest())
    else:
        command, kind, group_id = reader.unpack(_MOD13)
        buckets = _buckets(reader.rest(), version, kind)
        if command == f.GroupCommand.DELETE and buckets:
            raise OpenFlowError(Code.OFPGMFC_INVALID_GROUP, "buckets in a command that deletes")
    return f.GroupMod(
        command=_command(command, version),
        group_id=group_id,
        type=_type(kind),
        command_bucket_id=bucket_id,
        buckets=buckets,
        selection=selection,
    )


def _encode_bucket(bucket: f.Bucket, version: int, kind: int, n: int) -> bytes:
    actions = encode_actions(bucket.actions, version)
    port = to_wide(Port.NONE if bucket.watch_port is None else bucket.watch_port)
    group = ANY_GROUP if bucket.watch_group is None else bucket.watch_group
    if not _new_form(version):
        length = _BUCKET13.size + len(actions)
        return _BUCKET13.pack(length, bucket.weight, port, group) + actions
    body = actions
    if kind == f.GroupType.SELECT:
        body += pack("!HHH2x", 0, 8, bucket.weight)
    if bucket.watch_port is not None:
        body += pack("!HHI", 1, 8, port)
    if bucket.watch_group is not None:
        body += pack("!HHI", 2, 8, group)
    bucket_id = n if bucket.bucket_id is None else bucket.bucket_id
    return _BUCKET15.pack(_BUCKET15.size + len(body), len(actions), bucket_id) + body


def _encode_buckets(buckets: Iterable[f.Bucket], version: int, kind: int) -> bytes:
    return b"".join(_encode_bucket(b, version, kind, n) for n, b in enumerate(buckets))


def _encode_mod(mod: f.GroupMod, version: int) -> Encoded:
    buckets = _encode_buckets(mod.buckets, version, mod.type)
    head = mod.command, mod.type, mod.group_id
    if not _new_form(version):
        return "GROUP_MOD", [_MOD13.pack(*head), buckets]
    body = _MOD15.pack(*head, len(buckets), mod.command_bucket_id) + buckets
    kind = "GROUP_MOD" if version == 6 else "NX:GROUP_MOD"
    return kind, [body, _encode_selection(mod.selection)]


def _encode_desc(desc: f.GroupDesc, version: int) -> bytes:
    buckets = _encode_buckets(desc.buckets, version, desc.type)
    if not _new_form(version):
        return _DESC13.pack(_DESC13.size + len(buckets), desc.type, desc.group_id) + buckets
    body = buckets + _encode_selection(desc.selection)
    length = _DESC15.size + len(body)
    return _DESC15.pack(length, desc.type, desc.group_id, len(buckets)) + body


def _descs(reader: Reader, version: int) -> f.GroupDescReply:
    entries = []
    while len(reader):
        length = int.from_bytes(reader.data[reader.pos : reader.pos + 2], "big")
        body = Reader(reader.take(max(length, 8)))
        selection = f.Selection()
        if _new_form(version):
            _length, kind, group_id, size = body.unpack(_DESC15)
            buckets = _buckets(body.take(size), version, kind)
            selection = _selection(body.rest())
        else:
            _length, kind, group_id = body.unpack(_DESC13)
            buckets = _buckets(body.rest(), version, kind)
        entries.append(f.GroupDesc(group_id, _type(kind), buckets, selection))
    return f.GroupDescReply(tuple(entries))


def _encode_stats(stats: f.GroupStats, _version: int) -> bytes:
    body = b"".join(_PAIR.pack(*pair) for pair in stats.buckets)
    return (
        _STATS.pack(
            _STATS.size + len(body),
            stats.group_id,
            stats.ref_count,
            stats.packets,
            stats.bytes,
            *divmod(stats.duration_ns, 10**9),
        )
        + body
    )


def _stats(reader: Reader, _version: int) -> f.GroupStatsReply:
    entries = []
    while len(reader):
        length, group, refs, packets, octets, seconds, nanos = reader.unpack(_STATS)
        body = Reader(reader.take(length - _STATS.size))
        buckets = []
        while len(body):
            buckets.append(body.unpack(_PAIR))
        entries.append(
            f.GroupStats(
                group_id=group,
                ref_count=refs,
                packets=packets,
                bytes=octets,
                duration_ns=seconds * 10**9 + nanos,
                buckets=tuple((p, o) for p, o in buckets),
            )
        )
    return f.GroupStatsReply(tuple(entries))


def _features(reader: Reader, _version: int) -> f.GroupFeaturesReply:
    words = reader.unpack(_FEATURES)
    return f.GroupFeaturesReply(
        types=words[0], capabilities=words[1], max_groups=words[2:6], actions=words[6:]
    )


def _desc_request(reader: Reader, version: int) -> f.GroupDescRequest:
    return f.GroupDescRequest(reader.unpack(_ID)[0]) if _new_form(version) else f.GroupDescRequest()


def _kind(name: str, version: int) -> str:
    word, _, rest = name.partition(":")
    return f"{word}:NX:{rest}" if version == 1 else name


_BY_NAME: Mapping[str, Callable[[Reader, int], Message]] = {
    "STATS_REQUEST:GROUP": lambda r, _v: f.GroupStatsRequest(r.unpack(_ID)[0]),
    "STATS_REPLY:GROUP": _stats,
    "STATS_REQUEST:GROUP_DESC": _desc_request,
    "STATS_REPLY:GROUP_DESC": _descs,
    "STATS_REQUEST:GROUP_FEATURES": lambda _r, _v: f.GroupFeaturesRequest(),
    "STATS_REPLY:GROUP_FEATURES": _features,
}
DECODERS: Mapping[str, Callable[[Reader, int], Message]] = {
    "GROUP_MOD": _group_mod,
    "NX:GROUP_MOD": _group_mod,
    **_BY_NAME,
    **{_kind(name, 1): decode for name, decode in _BY_NAME.items()},
}
ENCODERS: Mapping[type[Any], Callable[[Any, int], Encoded]] = {
    f.GroupMod: _encode_mod,
    f.GroupStatsRequest: lambda a, v: (_kind("STATS_REQUEST:GROUP", v), [_ID.pack(a.group_id)]),
    f.GroupStatsReply: lambda a, v: (
        _kind("STATS_REPLY:GROUP", v),
        (_encode_stats(entry, v) for entry in a.entries),
    ),
    f.GroupDescRequest: lambda a, v: (
        _kind("STATS_REQUEST:GROUP_DESC", v),
        [_ID.pack(a.group_id)] if _new_form(v) else [],
    ),
    f.GroupDescReply: lambda a, v: (
        _kind("STATS_REPLY:GROUP_DESC", v),
        (_encode_desc(entry, v) for entry in a.entries),
    ),
    f.GroupFeaturesRequest: lambda _a, v: (_kind("STATS_REQUEST:GROUP_FEATURES", v), []),
    f.GroupFeaturesReply: lambda a, v: (
        _kind("STATS_REPLY:GROUP_FEATURES", v),
        [_FEATURES.pack(a.types, a.capabilities, *a.max_groups, *a.actions)],
    ),
}
