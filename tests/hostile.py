"""Files crafted to harm their readers."""

import io
import struct

import numpy as np
import tifffile


def with_tag(data, code, count=None, value=None):
    """A little-endian TIFF with one tag of its first page changed."""
    raw = bytearray(data)
    (start,) = struct.unpack_from("<I", raw, 4)
    for place in range(start + 2, start + 2 + 12 * raw[start], 12):
        if struct.unpack_from("<H", raw, place)[0] == code:
            if count is not None:
                struct.pack_into("<I", raw, place + 4, count)
            if value is not None:
                struct.pack_into("<I", raw, place + 8, value)
            return bytes(raw)
    raise AssertionError(code)


def hostile_tiffs():
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((9, 7), np.uint8), photometric="minisblack")
    data = file.getvalue()
    (start,) = struct.unpack_from("<I", data, 4)
    end = start + 2 + 12 * data[start]
    loop = bytearray(data)
    struct.pack_into("<I", loop, end, start)
    chain = bytearray(data)
    for _ in range(120):  # beyond where tifffile looks for circles
        struct.pack_into("<I", chain, end, len(chain))
        end = len(chain) + 2 + 12 * data[start]
        chain += data[start : start + 2 + 12 * data[start]] + b"\0\0\0\0"
    struct.pack_into("<I", chain, end, start)
    beyond = bytearray(data)
    struct.pack_into("<I", beyond, start + 2 + 12 * data[start], 2**31)
    return {
        "loop": bytes(loop),
        "long loop": bytes(chain),
        "page beyond the end": bytes(beyond),
        "tag beyond the end": with_tag(data, 273, count=2**28),
        "wide": with_tag(with_tag(data, 256, value=2**31 - 1), 257, value=2**31 - 1),
        "no pages": data[:4] + b"\0\0\0\0",
        "cut": data[: start + 5],
    }
