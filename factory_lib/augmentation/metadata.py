"""Metadata cut out of the bytes of a picture: cameras, places, authors, thumbnails. Pixels are not encoded anew.

What it takes to see the same picture is kept, and nothing that is not known to be that: the colour profile, and the
orientation in an EXIF block that holds nothing else. Formats: ITU-T T.81, T.86 and T.871 (JPEG), W3C PNG, third
edition, RFC 9649 (WebP), Exif 2.32.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from factory_lib.augmentation.operation import Operation, SampleInMaking
from factory_lib.pictures import ORIENTATION_TAG

_EXIF = b"Exif\0\0"
_SCAN, _END = 0xDA, 0xD9
_PICTURE_SEGMENTS = {*range(0xC0, 0xD0), *range(_END, 0xE0)} - {0xC8}
"""Markers of segments that a JPEG is decoded from: frames, tables, scans, its end."""
_JFIF, _PROFILE, _ADOBE = 0xE0, 0xE2, 0xEE
_BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length."""
_PNG = b"\x89PNG\r\n\x1a\n"
_PICTURE_CHUNKS = {
    *(b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"),
    *(b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"bKGD", b"pHYs"),
    *(b"acTL", b"fcTL", b"fdAT"),
}
"""Chunks of a PNG that its pixels, their colours and their motion come from."""
_PICTURE_RIFF_CHUNKS = {b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"}
_FRAME_HEADER = 16
"""Bytes before the chunks of a frame, in an ANMF chunk."""
_WEBP_PICTURE, _WEBP_EXIF = 0x20 | 0x10 | 0x02, 0x08
"""Flags of a VP8X chunk: profile, alpha and animation; EXIF."""


@dataclass(frozen=True)
class StripExif(Operation):
    """Cuts whatever is not the picture out of JPEG, PNG and WebP: EXIF, XMP, IPTC, texts, thumbnails, credentials.

    Their pixels stay as they are, bit by bit, and so does how they are turned; pictures of other formats are encoded
    anew. After an operation that changed the pixels there is nothing left to cut.
    """

    def apply(self, sample: SampleInMaking, values: Mapping[str, Any]) -> SampleInMaking:
        """The sample without metadata."""
        if sample.changed is not None:
            return sample
        header = sample.member.header()
        strip = _STRIPPED.get(header.format)
        if strip is None:
            return sample.with_picture(sample.picture)
        return sample.with_bytes(strip(sample.member.data, orientation_only(header.orientation)))


def orientation_only(orientation: int) -> bytes:
    """An EXIF block, as TIFF, that holds nothing but an orientation; empty for an upright picture."""
    if orientation == 1:
        return b""
    entry = struct.pack("<HHIHH", ORIENTATION_TAG, 3, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)


def without_segments(data: bytes, exif: bytes) -> bytes:
    """A JPEG without its metadata.

    Args:
        exif: a block to have instead; empty for none.

    Raises:
        ValueError: it is no JPEG, or ends before its picture does.
    """
    found = [b"\xff\xd8"]
    if exif:
        body = _EXIF + exif
        found.append(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body)
    found += [_kept(marker, segment) for marker, segment in _segments(data)]
    return b"".join(found)


def _kept(marker: int, segment: bytes) -> bytes:
    """What is kept of a segment: all, its fields that decoding asks for, or nothing."""
    body = segment[4:]
    if marker in _PICTURE_SEGMENTS or (marker == _PROFILE and body.startswith(b"ICC_PROFILE\0")):
        return segment
    if marker == _JFIF and body.startswith(b"JFIF\0") and len(body) >= 14:
        return b"\xff\xe0\0\x10" + body[:12] + b"\0\0"  # a thumbnail of 0 x 0 pixels
    if marker == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
        return b"\xff\xee\0\x0e" + body[:12]
    return b""


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments of a JPEG behind its beginning, up to its end, each with its marker; scans with what they hold."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("it does not begin as a JPEG")
    at = 2
    while True:
        if data[at : at + 1] != b"\xff":
            raise ValueError(f"there is no marker of a segment at byte {at} of the JPEG")
        while data[at + 1 : at + 2] == b"\xff":  # any number of them may stand before a marker
            at += 1
        if at + 1 >= len(data):
            raise ValueError("the JPEG ends before its picture does")
        marker = data[at + 1]
        if marker == _END:
            yield marker, data[at : at + 2]
            return
        if marker in _BARE:
            end = at + 2
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
            if marker == _SCAN:
                end = _end_of_scan(data, end)
        yield marker, data[at:end]
        at = end


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the next marker stands that is neither a stuffed byte nor a restart."""
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        following = data[at + 1]
        if following and not 0xD0 <= following <= 0xD7 and following != 0xFF:
            return at
        at += 1 if following == 0xFF else 2
    raise ValueError("the JPEG ends before its picture does")


def without_chunks(data: bytes, exif: bytes) -> bytes:
    """A PNG without its metadata; as for `without_segments`."""
    if not data.startswith(_PNG):
        raise ValueError("it does not begin as a PNG")
    found, at, name = [_PNG], len(_PNG), b""
    while name != b"IEND":
        size, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + size + 12
        if end > len(data):
            raise ValueError("the PNG ends before its picture does")
        if name == b"IDAT" and exif:
            checksum = zlib.crc32(b"eXIf" + exif)
            found.append(struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", checksum))
            exif = b""
        if name in _PICTURE_CHUNKS:
            found.append(data[at:end])
        at = end
    return b"".join(found)


def without_riff_chunks(data: bytes, exif: bytes) -> bytes:
    """A WebP without its metadata; as for `without_segments`."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("it does not begin as a WebP")
    found = list(_riff_chunks(data, 12, min(8 + int.from_bytes(data[4:8], "little"), len(data)), bool(exif)))
    if exif:
        found.append(_riff_chunk(b"EXIF", exif))
    body = b"WEBP" + b"".join(found)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _riff_chunks(data: bytes, at: int, last: int, has_exif: bool) -> Iterator[bytes]:
    """The chunks from `at` to `last` that are the picture; of frames, theirs."""
    while at + 8 <= last:
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + size]
        if len(body) < size:
            raise ValueError("the WebP ends before its picture does")
        if name == b"VP8X":
            body = bytes([body[0] & _WEBP_PICTURE | (_WEBP_EXIF if has_exif else 0)]) + body[1:10]
        elif name == b"ANMF":
            body = body[:_FRAME_HEADER] + b"".join(_riff_chunks(body, _FRAME_HEADER, size, has_exif))
        if name in _PICTURE_RIFF_CHUNKS:
            yield _riff_chunk(name, body)
        at += 8 + size + size % 2


def _riff_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


_STRIPPED: Mapping[str, Callable[[bytes, bytes], bytes]] = {
    "JPEG": without_segments,
    "MPO": without_segments,
    "PNG": without_chunks,
    "WEBP": without_riff_chunks,
}
"""Pillow's name of a format -> what cuts the metadata out of it."""
