"""TensorBoard's event files, written and read without it: records with checksums, of scalars alone.

A record is its length, a checksum of that, an `Event` message of protocol buffers, and a checksum of that; see
tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto and framework/summary.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LARGEST = 1 << 26  # bytes of a record that is believed
CHECKED = 1 << 16  # bytes of a record whose checksum is computed: larger ones hold pictures, of which nothing is read


def _table() -> tuple[int, ...]:
    result = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        result.append(crc)
    return tuple(result)


_TABLE = _table()


def checksum(data: bytes) -> int:
    """CRC-32C, masked as records have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# Writing


def record(event: bytes) -> bytes:
    """An `Event` message as it stands in a file."""
    length = struct.pack("<Q", len(event))
    return b"".join((length, struct.pack("<I", checksum(length)), event, struct.pack("<I", checksum(event))))


def beginning(time: float, step: int) -> bytes:
    """The first records of a file. Readers forget what other files of the directory have of `step` and later ones."""
    return record(_event(time, 0, b"\x1a" + _sized(b"brain.Event:2"))) + restart(time, step)


def restart(time: float, step: int) -> bytes:
    """A record that has readers forget what was written before of `step` and later ones."""
    return record(_event(time, step, b"\x3a" + _sized(b"\x08\x01")))  # session_log { status: START }


def scalars(time: float, step: int, values: Mapping[str, float]) -> bytes:
    """One record of a step's values."""
    summary = b""
    for tag, value in values.items():
        try:
            single = struct.pack("<f", value)
        except OverflowError:  # more than single precision holds
            single = struct.pack("<f", math.copysign(math.inf, value))
        summary += b"\x0a" + _sized(b"\x0a" + _sized(tag.encode()) + b"\x15" + single)
    return record(_event(time, step, b"\x2a" + _sized(summary)))


def _event(time: float, step: int, rest: bytes) -> bytes:
    return b"\x09" + struct.pack("<d", time) + b"\x10" + _varint(step) + rest


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    result = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*result, number))


# Reading


@dataclass(frozen=True, slots=True)
class Scalars:
    """A step's values. `restart`: what was read before of this step and later ones does not hold."""

    time: float
    step: int
    values: Mapping[str, float]
    restart: bool = False


class Reader:
    """Reads what has come to a file since the last time. A record that is not whole yet is left for the next.

    `problem` says, in one sentence, what is wrong with the file; nothing is read behind that.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self.offset = 0

    def read(self, most: int = 1 << 24) -> Iterator[Scalars]:
        """At most so many bytes; OSError where the file can't be read."""
        if self.problem:
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(most)
            at = 0
            while len(data) - at >= 12:
                length = int.from_bytes(data[at : at + 8], "little")
                if int.from_bytes(data[at + 8 : at + 12], "little") != checksum(data[at : at + 8]) or length > LARGEST:
                    self._damaged(at)
                    break
                if len(data) - at < 16 + length:
                    data, at, self.offset = data[at:] + file.read(max(0, 16 + length - (len(data) - at))), 0, self.offset + at
                    if len(data) < 16 + length:
                        break
                event = data[at + 12 : at + 12 + length]
                if length <= CHECKED and int.from_bytes(data[at + 12 + length : at + 16 + length], "little") != checksum(event):
                    self._damaged(at)
                    break
                try:
                    found = _scalars(event)
                except (ValueError, IndexError, struct.error):
                    found = None
                if found is not None:
                    yield found
                at += 16 + length
            self.offset += at

    def _damaged(self, at: int) -> None:
        self.problem = f"{self.path.name} is damaged at byte {self.offset + at:,}: what follows is not read"


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes | int]]:
    """(number, wire type, value) of a message."""
    at, end = 0, len(data)
    while at < end:
        key, at = (data[at], at + 1) if data[at] < 0x80 else _read_varint(data, at)
        kind = key & 7
        value: bytes | int
        if kind == 0:
            value, at = _read_varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                size, at = (data[at], at + 1) if data[at] < 0x80 else _read_varint(data, at)
            elif not size:
                raise ValueError("no such wire type")
            if at + size > end:
                raise ValueError("cut off")
            value, at = data[at : at + size], at + size
        yield key >> 3, kind, value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
        if shift > 63:
            raise ValueError("no number")


def _scalars(event: bytes) -> Scalars | None:
    time, step, restart, values = 0.0, 0, False, {}
    for number, _, value in _fields(event):
        if number == 1 and isinstance(value, bytes):
            (time,) = struct.unpack("<d", value)
        elif number == 2 and isinstance(value, int):
            step = value - (1 << 64) if value >> 63 else value
        elif number == 5 and isinstance(value, bytes):
            for inner, _, summary in _fields(value):
                if inner == 1 and isinstance(summary, bytes) and (found := _value(summary)) is not None:
                    values[found[0]] = found[1]
        elif number == 7 and isinstance(value, bytes):
            restart = any(inner == 1 and status == 1 for inner, _, status in _fields(value))
    return Scalars(time, step, values, restart) if values or restart else None


def _value(summary: bytes) -> tuple[str, float] | None:
    """Tag and number of a `Summary.Value`; None for a picture, a histogram and the like."""
    tag, number, tensor, plugin = "", None, None, b""
    for field, _, value in _fields(summary):
        if isinstance(value, int):
            continue
        if field == 1:
            tag = value.decode("utf-8", "replace")
        elif field == 2 and len(value) == 4:
            (number,) = struct.unpack("<f", value)
        elif field == 8:
            tensor = value
        elif field == 9:
            data = next((inner for at, _, inner in _fields(value) if at == 1 and isinstance(inner, bytes)), b"")
            plugin = next((name for at, _, name in _fields(data) if at == 1 and isinstance(name, bytes)), b"")
    if number is None and tensor is not None and plugin in (b"scalars", b""):
        number = _tensor(tensor)
    return None if number is None or not tag else (tag, float(number))


def _tensor(data: bytes) -> float | None:
    """The one number of a `TensorProto` in single or double precision."""
    kind, content, numbers = 0, b"", b""
    for field, _, value in _fields(data):
        if field == 1 and isinstance(value, int):
            kind = value
        elif field == 4 and isinstance(value, bytes):
            content = value
        elif field in (5, 6) and isinstance(value, bytes):
            numbers += value
    layout, held = {1: "<f", 2: "<d"}.get(kind, ""), content or numbers
    return float(struct.unpack(layout, held)[0]) if layout and len(held) == struct.calcsize(layout) else None
