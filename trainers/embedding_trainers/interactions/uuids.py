"""UUIDs of 16 bytes for their text of 36, to hold and to compare many of them at less cost."""

from __future__ import annotations

import binascii

import numpy as np
import pyarrow as pa

__all__ = ["PACKED", "pack_uuids", "unpack_uuids"]

PACKED = pa.binary(16)

_LENGTH = 36
_DASHES = (8, 13, 18, 23)
# The digits between the dashes, as words, where they lie in the text and without the dashes.
_WORDS = ["u8", "u4", "u4", "u4", "u4", "u8"]
_NAMES = [f"w{n}" for n in range(len(_WORDS))]
_TEXT = np.dtype({"names": _NAMES, "formats": _WORDS, "offsets": [0, 9, 14, 19, 24, 28], "itemsize": _LENGTH})
_DIGITS = np.dtype({"names": _NAMES, "formats": _WORDS, "offsets": [0, 8, 12, 16, 20, 24], "itemsize": 32})
# A bit that the digits 0-9 and a-f have, and A-F have not.
_LOWER = np.uint64(0x2020202020202020)
# Few enough for a processor's cache.
_ROWS = 1 << 15


def pack_uuids(ids: pa.Array) -> pa.Array | None:
    """The ids as their 16 bytes, in the order of their text; None unless each is a UUID in its canonical form.

    That is lower case with dashes, so that `unpack_uuids` gives the text character by character.
    """
    if ids.type != pa.string():
        return None
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    if offsets[-1] - offsets[0] != _LENGTH * len(ids) or (np.diff(offsets) != _LENGTH).any():
        return None
    data = np.frombuffer(ids.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    packed = []
    for start in range(0, len(data), _ROWS * _LENGTH):
        text = data[start : start + _ROWS * _LENGTH]
        if not all((text[place::_LENGTH] == ord("-")).all() for place in _DASHES):
            return None
        digits = np.empty(len(text) // _LENGTH, _DIGITS)
        for name in _NAMES:
            digits[name] = text.view(_TEXT)[name]
        if np.bitwise_and.reduce(digits.view(np.uint64)) & _LOWER != _LOWER:
            return None
        try:
            packed.append(binascii.unhexlify(digits.tobytes()))
        except binascii.Error:
            return None
    return pa.FixedSizeBinaryArray.from_buffers(PACKED, len(ids), [None, pa.py_buffer(b"".join(packed))])


def unpack_uuids(packed: pa.Array) -> pa.Array:
    """The text of packed UUIDs."""
    return pa.concat_arrays([_unpacked(packed.slice(start, _ROWS)) for start in range(0, len(packed), _ROWS)])


def _unpacked(packed: pa.Array) -> pa.Array:
    width = PACKED.byte_width
    start = packed.offset * width
    digits = np.frombuffer(binascii.hexlify(packed.buffers()[1][start : start + len(packed) * width]), _DIGITS)
    text = np.full(len(packed) * _LENGTH, ord("-"), np.uint8)
    for name in _NAMES:
        text.view(_TEXT)[name] = digits[name]
    # Not by offsets of our own: Arrow refuses more text than an array of it can hold.
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(_LENGTH), len(packed), [None, pa.py_buffer(text)]).cast(
        pa.string()
    )
