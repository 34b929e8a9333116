"""Checks that an audio file ends where its headers say it does.

libsndfile reads as much as the header states or the file holds, whichever is less, and does not report a difference:
of a truncated recording it returns the beginning; if the header states too little (as when a recorder lost power) or
another file was appended, the rest is never read. Here both are refused.

Sources: RIFF and RF64 (EBU Tech 3306), AIFF (Apple, 1989), AU (Sun), W64 (Sony), CAF (Apple), Ogg (RFC 3533), FLAC (RFC
9639), SPHERE (NIST). MP3 is in `emtta_core.audio.mp3`; for other formats, libsndfile's output is used unchecked.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from emtta_core.errors import AudioError

_STREAMED = 0x7FFF_0000
"""A 32-bit size of at least this means that the writer did not know the length (it wrote to a pipe)."""

_SLACK = 8
"""Bytes that may be missing from a complete file: some writers count the header too, or omit the padding."""

_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
"""The first bytes of tags that players append to files of any format."""

_SPHERE = re.compile(rb"^(sample_count|sample_n_bytes|channel_count) -i (\d+)\s*$", re.MULTILINE)

_FRAME_TAIL = 1 << 20
"""Bytes searched for the end of a FLAC file's last frame, from its beginning."""


def refuse_partial(data: bytes, name: str) -> None:
    """Refuse an audio file if part of it is missing or would not be read.

    Raises:
        AudioError: it is shorter or longer than its headers state.
    """
    for magic, check in _CHECKS.items():
        if data.startswith(magic):
            check(data, name)


def is_tag(rest: bytes) -> bool:
    """Whether what follows the audio data of a file is a tag or padding."""
    rest = rest.lstrip(b"\0")
    return not rest or rest.startswith(_TAGS)


def unread(data: bytes, end: int, name: str) -> AudioError:
    """The error for a file that continues after the end of its audio data."""
    return AudioError(
        f"{name}: its headers end the audio at byte {end} of {len(data)}, so the last {len(data) - end} bytes "
        "would not be read; write the file again from its source, or repair it, for example with `ffmpeg -i OLD NEW`"
    )


def _cut_off(data: bytes, declared: int, name: str) -> AudioError:
    return AudioError(f"{name}: is cut off: it has {len(data)} of the {declared} bytes stated in its header")


def _check_end(data: bytes, end: int, name: str) -> None:
    if end - len(data) > _SLACK:
        raise _cut_off(data, end, name)
    if not is_tag(data[end:]):
        raise unread(data, end, name)


def _chunks(data: bytes, order: Literal["little", "big"], first: int, width: int) -> Iterator[tuple[bytes, int, int]]:
    # The name of each chunk, the offset of its content, and its size, up to the first invalid chunk name.
    offset = first
    while (begin := offset + 4 + width) <= len(data) and re.fullmatch(rb"[ -~]{4}", data[offset : offset + 4]):
        size = int.from_bytes(data[offset + 4 : begin], order)
        yield data[offset : offset + 4], begin, size
        # A padding byte follows a chunk of odd size, except in CAF, whose sizes have 64 bits.
        offset = begin + size + (size % 2 if width == 4 else 0)


def _check_riff(data: bytes, name: str) -> None:
    order: Literal["little", "big"] = "big" if data.startswith(b"RIFX") else "little"
    # The file size includes neither its own four bytes nor the four before them.
    declared = int.from_bytes(data[4:8], order)
    if declared < _STREAMED and declared + 8 - len(data) > _SLACK:
        raise _cut_off(data, declared + 8, name)
    large = None
    end = 12
    for chunk, begin, size in _chunks(data, order, 12, 4):
        if chunk == b"ds64":
            # RF64: sizes too large for 32 bits are all ones in their place and given in full here, the data's after
            # the file's.
            large = int.from_bytes(data[begin + 8 : begin + 16], "little")
        if chunk == b"data" and size >= _STREAMED:
            if large is not None:
                _check_end(data, begin + large, name)
            return
        if chunk == b"data" and begin + size - len(data) > _SLACK:
            raise _cut_off(data, begin + size, name)
        if chunk in (b"RIFF", b"RIFX", b"RF64") or begin + size > len(data) + _SLACK:
            break  # not a chunk but another file, or bytes that happen to look like a name
        end = begin + size + size % 2
    if data[8:12] == b"WAVE":
        _check_end(data, end, name)


def _check_aiff(data: bytes, name: str) -> None:
    if re.match(rb"AIF[FC]|(8|16)SV", data[8:12]):
        _check_end(data, 8 + int.from_bytes(data[4:8], "big"), name)


def _check_au(data: bytes, name: str) -> None:
    size = int.from_bytes(data[8:12], "big")
    if size < _STREAMED:
        _check_end(data, int.from_bytes(data[4:8], "big") + size, name)


def _check_w64(data: bytes, name: str) -> None:
    size = int.from_bytes(data[16:24], "little")
    if 0 < size < 1 << 62:
        _check_end(data, size, name)


def _check_caf(data: bytes, name: str) -> None:
    end = 8
    for chunk, begin, size in _chunks(data, "big", 8, 8):
        if chunk == b"data" and size >> 63:  # -1: up to the end
            return
        if chunk != b"data" and begin + size > len(data):
            break
        end = begin + size
    _check_end(data, end, name)


def _check_sphere(data: bytes, name: str) -> None:
    header = int(data[8:16]) if data[8:16].strip().isdigit() else 1024
    numbers = {field: int(value) for field, value in _SPHERE.findall(data[:header])}
    if b"embedded" not in data[:header] and b"sample_count" in numbers:
        width = numbers.get(b"sample_n_bytes", 2) * numbers.get(b"channel_count", 1)
        _check_end(data, header + numbers[b"sample_count"] * width, name)


def _check_ogg(data: bytes, name: str) -> None:
    # Check that the pages are complete and belong to one stream: libsndfile reads only the first of a chain.
    offset = 0
    in_sound = False
    while data.startswith(b"OggS", offset):
        # A page is a 27-byte header, whose last byte is the segment count, a length byte per segment, and the segments.
        body = offset + 27 + (data[offset + 26] if offset + 26 < len(data) else 0)
        end = body + sum(data[offset + 27 : body])
        if max(body, end) > len(data):
            raise _cut_off(data, max(body, end), name)
        # Multiplexed streams all begin before any continues; one that begins later is chained to the first.
        begins = bool(data[offset + 5] & 2)
        if begins and in_sound:
            raise unread(data, offset, name)
        in_sound = not begins
        offset = end
    _check_end(data, offset, name)


def _check_flac(data: bytes, name: str) -> None:
    # Check that the header's sample count matches the frames, and that the last frame ends the file.
    offset, last = 4, False
    while not last and offset + 4 <= len(data):
        # Metadata: 1 bit for whether it is the last block, 7 for its type, 24 for its size.
        last = bool(data[offset] & 0x80)
        offset += 4 + int.from_bytes(data[offset + 1 : offset + 4], "big")
    # The first block has the number of samples in 36 bits; 0 means that the writer did not know it.
    declared = int.from_bytes(data[21:26], "big") & (1 << 36) - 1
    begin, samples = offset, 0
    for begin, frame in _flac_frames(data, offset):
        if declared and samples >= declared:
            raise unread(data, begin, name)
        samples += frame
    if samples < declared or not samples:
        return  # cut off or damaged, which libsndfile will report
    ends = _flac_frame_ends(data, begin)
    if ends and not any(is_tag(data[end:]) for end in ends):
        raise unread(data, ends[0], name)


def _flac_frames(data: bytes, offset: int) -> Iterator[tuple[int, int]]:
    # The offset and the number of samples of each frame of a FLAC file; a frame is recognised by its number.
    sync = data[offset : offset + 2]
    # The two sync bytes may also occur anywhere in the audio data. A frame is where a header's checksum is right and
    # its number is the expected one: that of the frame (fixed block size) or of its first sample (variable block size).
    expected = 0
    while sync in (b"\xff\xf8", b"\xff\xf9") and (offset := data.find(sync, offset)) >= 0:
        found = _flac_header(data, offset)
        if found is not None and found[0] == expected:
            yield offset, found[1]
            expected += 1 if sync == b"\xff\xf8" else found[1]
        offset += 2


def _flac_header(data: bytes, offset: int) -> tuple[int, int] | None:
    # The number and the sample count of the frame that begins at `offset`; None if none does.
    header = data[offset : offset + 17]
    if len(header) < 6:
        return None
    # Codes for the frame's block size and sample rate; with some, the value itself is at the end of the header.
    blocks, rate = header[2] >> 4, header[2] & 15
    more = next((count for count in range(8) if not header[4] >> (7 - count) & 1), 8)  # as in UTF-8
    length = 4 + max(more, 1)
    sizes = {6: 1, 7: 2}.get(blocks, 0)
    end = length + sizes + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if not blocks or rate == 15 or more in (1, 8) or end >= len(header) or _crc8(header[:end]) != header[end]:
        return None
    # As in UTF-8: the leading ones of the first byte count the bytes, and each further byte has six bits of the number.
    number = header[4] & (0xFF >> (more + 1) if more else 0x7F)
    for byte in header[5:length]:
        number = number << 6 | byte & 0x3F
    if sizes:
        return number, int.from_bytes(header[length : length + sizes], "big") + 1
    return number, 192 if blocks == 1 else 576 << blocks - 2 if blocks < 6 else 256 << blocks - 8


def _flac_frame_ends(data: bytes, begin: int) -> list[int]:
    # Where the frame that begins at `begin` may end: where the checksum over it, including its own, is 0.
    ends, checksum = [], 0
    for offset, byte in enumerate(data[begin : begin + _FRAME_TAIL], begin + 1):
        checksum = (checksum << 8 & 0xFFFF) ^ _CRC16[checksum >> 8 ^ byte]
        if not checksum:
            ends.append(offset)
    return ends


def _crc8(header: bytes) -> int:
    checksum = 0
    for byte in header:
        checksum = _CRC8[checksum ^ byte]
    return checksum


def _crc_table(bits: int, polynomial: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> bits - 1 else 0)
            value &= (1 << bits) - 1
        table.append(value)
    return tuple(table)


_CRC8, _CRC16 = _crc_table(8, 0x07), _crc_table(16, 0x8005)

_CHECKS: Mapping[bytes, Callable[[bytes, str], None]] = {
    b"RIFF": _check_riff,
    b"RIFX": _check_riff,
    b"RF64": _check_riff,
    b"BW64": _check_riff,
    b"FORM": _check_aiff,
    b".snd": _check_au,
    b"riff\x2e\x91\xcf\x11": _check_w64,
    b"caff": _check_caf,
    b"NIST_1A": _check_sphere,
    b"OggS": _check_ogg,
    b"fLaC": _check_flac,
}
"""The check of each format, by the first bytes of its files."""
