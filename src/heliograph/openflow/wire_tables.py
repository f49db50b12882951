# SPDX-License-Identifier: Apache-2.0
"""On the wire: the switch's description, its tables, and meters, of which there are none."""

from collections.abc import Callable, Mapping
from struct import Struct, pack
from typing import Any

from heliograph.openflow import messages as m
from heliograph.openflow.buffer import Reader, fixed, text
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.message import Message

Encoded = tuple[str, Any]
_DESC = Struct("!256s256s256s32s256s")
_TABLE10, _TABLE13 = Struct("!B3x32sIIIQQ"), Struct("!B3xIQQ")
_TABLE_DESC, _TABLE_MOD = Struct("!HBxI"), Struct("!B3xI")
_TABLE_FEATURES = Struct("!HB5x32sQQII")
_METER_MOD, _METER, _METER_FEATURES = Struct("!HHI"), Struct("!I4x"), Struct("!IIIBB2x")
# Properties without which a peer takes the message for damaged; empty ones say "nothing special".
_REQUIRED = b"".join(pack("!HH4x", kind, 4) for kind in range(0, 16, 2))


def _desc(reader: Reader, _version: int) -> m.DescReply:
    return m.DescReply(*map(text, reader.unpack(_DESC)))


def _encode_desc(desc: m.DescReply, _version: int) -> Encoded:
    long = desc.manufacturer, desc.hardware, desc.software
    parts = [*(fixed(s, 256) for s in long), fixed(desc.serial, 32), fixed(desc.datapath, 256)]
    return "STATS_REPLY:DESC", [b"".join(parts)]


def _tables(reader: Reader, version: int) -> m.TableStatsReply:
    entries = []
    while len(reader):
        if version == 1:
            table, name, wild, most, active, lookups, matched = reader.unpack(_TABLE10)
            entry = m.TableStats(
                table_id=table,
                name=text(name),
                wildcards=wild,
                max_entries=most,
                active=active,
                lookups=lookups,
                matched=matched,
            )
        else:
            table, active, lookups, matched = reader.unpack(_TABLE13)
            entry = m.TableStats(table_id=table, active=active, lookups=lookups, matched=matched)
        entries.append(entry)
    return m.TableStatsReply(tuple(entries))


def _encode_table(stats: m.TableStats, version: int) -> bytes:
    counts = stats.active, stats.lookups, stats.matched
    if version == 1:
        head = stats.table_id, fixed(stats.name, 32), stats.wildcards, stats.max_entries
        return _TABLE10.pack(*head, *counts)
    return _TABLE13.pack(stats.table_id, *counts)


def _table_descs(reader: Reader, _version: int) -> m.TableDescReply:
    entries = []
    while len(reader):
        length, table, config = reader.unpack(_TABLE_DESC)
        reader.take(length - _TABLE_DESC.size)
        entries.append((table, config))
    return m.TableDescReply(tuple(entries))


def _table_features(reader: Reader, _version: int) -> m.TableFeaturesReply:
    entries = []
    while len(reader):
        length, table, name, match, write, _config, most = reader.unpack(_TABLE_FEATURES)
        reader.take(length - _TABLE_FEATURES.size)
        entries.append(
            m.TableFeatures(
                table_id=table,
                name=text(name),
                max_entries=most,
                metadata_match=match,
                metadata_write=write,
            )
        )
    return m.TableFeaturesReply(tuple(entries))


def _encode_features(table: m.TableFeatures, _version: int) -> bytes:
    length = _TABLE_FEATURES.size + len(_REQUIRED)
    metadata = table.metadata_match, table.metadata_write
    head = length, table.table_id, fixed(table.name, 32), *metadata, 0, table.max_entries
    return _TABLE_FEATURES.pack(*head) + _REQUIRED


def _table_mod(reader: Reader, version: int) -> m.TableMod:
    table, config = reader.unpack(_TABLE_MOD)
    if version >= 5:
        reader.rest()  # properties of eviction and vacancy, which are refused with the bits
    return m.TableMod(table, config)


def _meter_mod(reader: Reader, _version: int) -> m.MeterMod:
    command, _flags, meter_id = reader.unpack(_METER_MOD)
    if command > 2:
        raise OpenFlowError(Code.OFPMMFC_BAD_COMMAND, f"no command is {command}")
    reader.rest()
    return m.MeterMod(command, meter_id)


def _meters(config: bool) -> Callable[[Reader, int], Message]:
    return lambda reader, _version: m.MeterStatsRequest(reader.unpack(_METER)[0], config)


def _meter_kind(word: str, *, config: bool) -> str:
    return f"STATS_{word}:METER_CONFIG" if config else f"STATS_{word}:METER"


def _meter_features(reader: Reader, _version: int) -> m.MeterFeaturesReply:
    return m.MeterFeaturesReply(*reader.unpack(_METER_FEATURES))


def _changes(reader: Reader, _version: int) -> m.TableFeaturesRequest:
    return m.TableFeaturesRequest(changes=bool(reader.rest()))


DECODERS: Mapping[str, Callable[[Reader, int], Message]] = {
    "STATS_REQUEST:DESC": lambda _r, _v: m.DescRequest(),
    "STATS_REPLY:DESC": _desc,
    "STATS_REQUEST:TABLE": lambda _r, _v: m.TableStatsRequest(),
    "STATS_REPLY:TABLE": _tables,
    "STATS_REQUEST:TABLE_DESC": lambda _r, _v: m.TableDescRequest(),
    "STATS_REPLY:TABLE_DESC": _table_descs,
    "STATS_REQUEST:TABLE_FEATURES": _changes,
    "STATS_REPLY:TABLE_FEATURES": _table_features,
    "TABLE_MOD": _table_mod,
    "METER_MOD": _meter_mod,
    "STATS_REQUEST:METER": _meters(config=False),
    "STATS_REQUEST:METER_CONFIG": _meters(config=True),
    "STATS_REPLY:METER": lambda _r, _v: m.MeterStatsReply(config=False),
    "STATS_REPLY:METER_CONFIG": lambda _r, _v: m.MeterStatsReply(config=True),
    "STATS_REQUEST:METER_FEATURES": lambda _r, _v: m.MeterFeaturesRequest(),
    "STATS_REPLY:METER_FEATURES": _meter_features,
}
ENCODERS: Mapping[type[Any], Callable[[Any, int], Encoded]] = {
    m.DescRequest: lambda _a, _v: ("STATS_REQUEST:DESC", []),
    m.DescReply: _encode_desc,
    m.TableStatsRequest: lambda _a, _v: ("STATS_REQUEST:TABLE", []),
    m.TableStatsReply: lambda a, v: (
        "STATS_REPLY:TABLE",
        (_encode_table(entry, v) for entry in a.entries),
    ),
    m.TableDescRequest: lambda _a, _v: ("STATS_REQUEST:TABLE_DESC", []),
    m.TableDescReply: lambda a, _v: (
        "STATS_REPLY:TABLE_DESC",
        (_TABLE_DESC.pack(_TABLE_DESC.size, *entry) for entry in a.entries),
    ),
    m.TableFeaturesRequest: lambda _a, _v: ("STATS_REQUEST:TABLE_FEATURES", []),
    m.TableFeaturesReply: lambda a, v: (
        "STATS_REPLY:TABLE_FEATURES",
        (_encode_features(entry, v) for entry in a.entries),
    ),
    m.TableMod: lambda a, _v: ("TABLE_MOD", [_TABLE_MOD.pack(a.table_id, a.config)]),
    m.MeterMod: lambda a, _v: ("METER_MOD", [_METER_MOD.pack(a.command, 0, a.meter_id)]),
    m.MeterStatsRequest: lambda a, _v: (
        _meter_kind("REQUEST", config=a.config),
        [_METER.pack(a.meter_id)],
    ),
    m.MeterStatsReply: lambda a, _v: (_meter_kind("REPLY", config=a.config), []),
    m.MeterFeaturesRequest: lambda _a, _v: ("STATS_REQUEST:METER_FEATURES", []),
    m.MeterFeaturesReply: lambda a, _v: (
        "STATS_REPLY:METER_FEATURES",
        [
            _METER_FEATURES.pack(
                a.max_meters, a.band_types, a.capabilities, a.max_bands, a.max_color
            )
        ],
    ),
}
