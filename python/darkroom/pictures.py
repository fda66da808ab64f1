"""Pixels: numpy and Pillow where they are installed, the standard library otherwise."""
from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

from .errors import FormatError, UnsupportedError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 1 << 28


def to_image(rgb: bytes | memoryview, width: int, height: int) -> Image:
    try:
        from PIL import Image as images
    except ImportError:
        raise UnsupportedError("images need Pillow: pip install pillow") from None
    return images.frombytes("RGB", (width, height), bytes(rgb))


def to_array(pixels: memoryview) -> Any:
    """A numpy array on the same memory; without numpy the memoryview itself, which has a shape too."""
    try:
        import numpy
    except ImportError:
        return pixels
    return numpy.asarray(pixels)


def decode(data: bytes) -> tuple[memoryview, int, int]:
    """A picture file as 8-bit RGB, its width and height. Without Pillow: PNG only."""
    try:
        from PIL import Image as images
    except ImportError:
        if not data.startswith(b"\x89PNG"):
            raise UnsupportedError("pixels of files other than PNG need Pillow: pip install pillow") from None
        rgb, width, height = decode_png(data)
    else:
        with images.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            rgb = picture.convert("RGB").tobytes()
    return memoryview(bytearray(rgb)), width, height


def decode_png(data: bytes) -> tuple[bytes, int, int]:
    """8-bit RGB and RGBA that is not interlaced, as the server writes them."""
    at, body, head = 8, b"", b""
    while at + 12 <= len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR":
            head = data[at + 8:at + 8 + size]
        elif kind == b"IDAT":
            body += data[at + 8:at + 8 + size]
        at += size + 12
    if len(head) != 13:
        raise FormatError("a PNG file without a header")
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    channels = {2: 3, 6: 4}.get(colour)
    if bits != 8 or channels is None or interlaced or not 0 < width * height <= MOST_PIXELS:
        raise UnsupportedError("this kind of PNG file needs Pillow: pip install pillow")
    stride = width * channels
    try:
        raw = zlib.decompressobj().decompress(body, height * (stride + 1))
    except zlib.error:
        raw = b""
    if len(raw) != height * (stride + 1):
        raise FormatError("a damaged PNG file")
    rgb = _unfilter(raw, height, stride, channels)
    if channels == 4:
        rgb = b"".join(rgb[i:i + 3] for i in range(0, len(rgb), 4))
    return rgb, width, height


def _unfilter(raw: bytes, height: int, stride: int, channels: int) -> bytes:
    out, above = bytearray(), bytearray(stride)
    for y in range(height):
        start = y * (stride + 1)
        row = bytearray(raw[start + 1:start + 1 + stride])
        _unfilter_row(raw[start], row, above, channels)
        out += row
        above = row
    return bytes(out)


def _unfilter_row(kind: int, row: bytearray, above: bytearray, channels: int) -> None:
    for x in range(len(row) if kind else 0):
        left = row[x - channels] if x >= channels else 0
        if kind == 1:
            row[x] = (row[x] + left) & 255
        elif kind == 2:
            row[x] = (row[x] + above[x]) & 255
        elif kind == 3:
            row[x] = (row[x] + (left + above[x]) // 2) & 255
        elif kind == 4:
            row[x] = (row[x] + _paeth(left, above[x], above[x - channels] if x >= channels else 0)) & 255
        else:
            raise FormatError("a damaged PNG file")


def _paeth(left: int, up: int, corner: int) -> int:
    a, b, c = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    return left if a <= b and a <= c else up if b <= c else corner
