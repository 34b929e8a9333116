"""MP3 files: whether they are complete, and the length of those that do not state it, as when ffmpeg writes to a pipe.

Common Voice's clips are made this way: https://github.com/common-voice/common-voice/blob/main/server/src/lib/clip.ts.

An encoder that can seek writes the number of frames into a frame of its own at the beginning (Xing's, or LAME's
`Info`). Without it, libsndfile assumes a length of file size / bit rate of the first frame, and reads no further: with
a variable bit rate it loses the end, and a tag before the audio looks like missing audio. Here the frames are counted
by their headers, and a missing count is inserted before them. A file that ends within a frame, has something else
between two, or continues after the stated number is thereby detected as cut off or damaged; decoders skip such faults
silently.

The headers are those of ISO/IEC 11172-3, 2.4.1.3, and 13818-3; the frame with the count is described at
https://www.codeproject.com/Articles/8295/MPEG-Audio-Frame-Header.
"""

from dataclasses import dataclass
from typing import Self

from emtta_core.audio.containers import is_tag, unread
from emtta_core.errors import AudioError

_ID3 = b"ID3"
_MPEG_1, _RESERVED = 3, 1
"""Version codes in a header; 2 is MPEG-2, 0 is MPEG-2.5, both at lower rates."""

_KBITS = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by index from 1, for MPEG-1 and for the others."""

_HERTZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""Sample rates by version and index."""

_HIGH_BIT_RATE = 8
"""The index of a bit rate at which a frame has room for the count at every sample rate."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """The header of one frame of Layer III."""

    header: bytes  # its four bytes

    @classmethod
    def at(cls, data: bytes, start: int) -> Self | None:
        # The frame whose header is at `start`; None if there is none, or it states no bit rate.
        # Eleven bits are 1; then come version (2 bits), layer (2), no checksum (1), bit rate (4), sample rate (2),
        # padding (1).
        frame = cls(data[start : start + 4])
        if len(frame.header) < 4 or frame.header[0] != 0xFF or frame.header[1] >> 5 != 0b111:
            return None
        is_layer_3 = frame.header[1] >> 1 & 3 == 1
        has_rates = 0 < frame.header[2] >> 4 < 15 and frame.header[2] >> 2 & 3 < 3
        return frame if is_layer_3 and has_rates and frame.version != _RESERVED else None

    @property
    def version(self) -> int:
        return self.header[1] >> 3 & 3

    @property
    def hertz(self) -> int:
        return _HERTZ[self.version][self.header[2] >> 2 & 3]

    @property
    def size(self) -> int:
        # A frame has 1,152 samples in MPEG-1, otherwise 576; its size is the bit rate times its duration.
        kbits = _KBITS[self.version == _MPEG_1][(self.header[2] >> 4) - 1]
        padding = self.header[2] >> 1 & 1
        return (144 if self.version == _MPEG_1 else 72) * kbits * 1000 // self.hertz + padding

    @property
    def count_offset(self) -> int:
        # Where a frame with the count begins to differ from silence: after header and side information.
        mono = self.header[3] >> 6 == 3
        side = (17 if mono else 32) if self.version == _MPEG_1 else (9 if mono else 17)
        return 4 + side

    def continues(self, first: "_Frame") -> bool:
        # Whether this may be a frame of the stream that begins with `first`.
        # Bit rate, padding and stereo mode may change with each frame; these two may not.
        return (self.version, self.hertz) == (first.version, first.hertz)

    def with_count(self, frames: int) -> bytes:
        # A silent frame of the same kind that states how many frames follow it.
        second = self.header[1] | 1  # no checksum
        silent = _Frame(bytes((0xFF, second, _HIGH_BIT_RATE << 4 | self.header[2] & 0b1100, self.header[3])))
        # Flag 1: of the four optional fields, only the number of frames follows.
        info = b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
        return (silent.header + bytes(self.count_offset - 4) + info).ljust(silent.size, b"\0")


def counted(data: bytes, name: str) -> bytes:
    """Return an MP3 file with its frame count: unchanged, or with a frame inserted that states it.

    As for any file with a count, libsndfile then drops the first 529 samples, the decoder's delay. A file without a
    count that was cut between two frames looks complete.

    Raises:
        AudioError: it ends within a frame, contains something that is not a frame, or has more frames than stated.
    """
    start = _beginning(data)
    first = _Frame.at(data, start)
    if first is None:
        raise _damaged(data, start, name)
    stated = _stated_count(data[start : start + first.size], first)
    offset, frames = start, 0
    while (frame := _Frame.at(data, offset)) is not None and frame.continues(first):
        if offset + frame.size > len(data):
            raise AudioError(f"{name}: is cut off: its last MP3 frame has {len(data) - offset} of {frame.size} bytes")
        if stated is not None and frames > stated + 1:  # the frame with the count is one more, which some count
            raise unread(data, offset, name)
        offset, frames = offset + frame.size, frames + 1
    if not is_tag(data[offset:]):
        raise _damaged(data, offset, name)
    return first.with_count(frames) + data[start:offset] if stated is None else data


def _beginning(data: bytes) -> int:
    offset = 0
    while data.startswith(_ID3, offset) and offset + 10 <= len(data):
        # Seven bits per byte ("synchsafe"), so that a size never looks like the beginning of a frame.
        size = 0
        for byte in data[offset + 6 : offset + 10]:
            size = size << 7 | byte & 0x7F
        has_footer = data[offset + 5] & 0x10
        offset += 10 + size + (10 if has_footer else 0)
    return offset


def _stated_count(frame: bytes, header: _Frame) -> int | None:
    # The number of frames stated in a file's first frame, if any; a checksum shifts it.
    for offset in (header.count_offset, header.count_offset + 2):
        if (
            frame[offset : offset + 4] in (b"Xing", b"Info")
            and frame[offset + 7 : offset + 8]
            and frame[offset + 7] & 1
        ):
            return int.from_bytes(frame[offset + 8 : offset + 12], "big") or None
    return None


def _damaged(data: bytes, offset: int, name: str) -> AudioError:
    # The error for a file with something else where a frame should be.
    return AudioError(
        f"{name}: is damaged: at byte {offset} of {len(data)} there should be an MP3 frame; get the file again"
    )
