"""Just enough of protobuf's wire format to write an ONNX model, so that serving needs no library to build graphs.

Wire format: protobuf.dev/programming-guides/encoding. Only what the graph of ``_onnx_bert`` uses is here.
"""

from __future__ import annotations

import struct


def varint(number: int) -> bytes:
    """A whole number, seven bits a byte, the lowest first.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def whole(field: int, number: int) -> bytes:
    """A field that holds a whole number of 0 or more.

    >>> whole(1, 150).hex()
    '089601'
    """
    return varint(field << 3) + varint(number)


def single(field: int, number: float) -> bytes:
    """A field that holds a float of 32 bits."""
    return varint(field << 3 | 5) + struct.pack("<f", number)


def piece(field: int, content: bytes | str) -> bytes:
    """A field that holds bytes, text or another message.

    >>> piece(2, "testing").hex()
    '120774657374696e67'
    """
    raw = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(raw)) + raw
