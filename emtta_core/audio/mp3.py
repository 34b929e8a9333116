"""MP3 files: whether they are whole, and how long those are that do not say, as ffmpeg writes them into a pipe.

Common Voice's clips are made so: https://github.com/common-voice/common-voice/blob/main/server/src/lib/clip.ts.

An encoder that can go back writes the number of frames into a frame of its own at the beginning (Xing's, or LAME's
`Info`). Without it libsndfile takes the length for size / bit rate of the first frame, and reads no further: of a
varying bit rate it loses the end, and a tag before the sound looks like sound that is missing. Here the frames are
counted, by their headers, and the count is written before them where there is none; so a file that ends within a frame,
has something else between two, or goes on behind as many as it says, is known as cut off or damaged, of which decoders
say nothing: they leave it out.

The headers are those of ISO/IEC 11172-3, 2.4.1.3, and 13818-3; the frame with the count is described at
https://www.codeproject.com/Articles/8295/MPEG-Audio-Frame-Header.
"""

from dataclasses import dataclass
from typing import Self

from emtta_core.audio.containers import is_tag, unread
from emtta_core.errors import AudioError

_ID3 = b"ID3"
_MPEG_1, _RESERVED = 3, 1
"""Versions, as a header has them; 2 is MPEG-2, 0 is MPEG-2.5, both at lower rates."""

_KBITS = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by their index from 1, of MPEG-1 and of the others."""

_HERTZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""Sample rates by version and index."""

_ROOMY = 8
"""The index of a bit rate at which a frame has room for the count, at each sample rate."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """The header of one frame of Layer III."""

    header: bytes  # its four bytes

    @classmethod
    def at(cls, data: bytes, start: int) -> Self | None:
        # The frame whose header is at `start`; None where there is none, or one of no stated bit rate.
        # Eleven bits are 1; then come version (2 bits), layer (2), no checksum (1), bit rate (4), sample rate (2),
        # padding (1).
        found = cls(data[start : start + 4])
        if len(found.header) < 4 or found.header[0] != 0xFF or found.header[1] >> 5 != 0b111:
            return None
        is_layer_3 = found.header[1] >> 1 & 3 == 1
        has_rates = 0 < found.header[2] >> 4 < 15 and found.header[2] >> 2 & 3 < 3
        return found if is_layer_3 and has_rates and found.version != _RESERVED else None

    @property
    def version(self) -> int:
        return self.header[1] >> 3 & 3

    @property
    def hertz(self) -> int:
        return _HERTZ[self.version][self.header[2] >> 2 & 3]

    @property
    def size(self) -> int:
        # A frame has 1,152 samples in MPEG-1, else 576; its bits are those of a second, by the seconds that it takes.
        kbits = _KBITS[self.version == _MPEG_1][(self.header[2] >> 4) - 1]
        padding = self.header[2] >> 1 & 1
        return (144 if self.version == _MPEG_1 else 72) * kbits * 1000 // self.hertz + padding

    @property
    def count_at(self) -> int:
        # Where a frame with the count begins to differ from silence: behind header and side information.
        mono = self.header[3] >> 6 == 3
        side = (17 if mono else 32) if self.version == _MPEG_1 else (9 if mono else 17)
        return 4 + side

    def goes_on(self, first: "_Frame") -> bool:
        # Whether this may be a frame of the stream that begins with `first`.
        # Bit rate, padding and the way in which stereo is coded may change with each frame; these two may not.
        return (self.version, self.hertz) == (first.version, first.hertz)

    def with_count(self, frames: int) -> bytes:
        # A silent frame of the same kind that says how many frames come behind it.
        second = self.header[1] | 1  # no checksum
        silent = _Frame(bytes((0xFF, second, _ROOMY << 4 | self.header[2] & 0b1100, self.header[3])))
        # Flag 1: of the four fields that may follow, the number of frames does.
        said = b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
        return (silent.header + bytes(self.count_at - 4) + said).ljust(silent.size, b"\0")


def counted(data: bytes, name: str) -> bytes:
    """An MP3 file that says how many frames it has: as it is, or with a frame before it that does.

    As of any file that says so, libsndfile then leaves out the first 529 samples, which are the decoder's own delay.
    A file that does not say so, and was cut between two frames, looks like a whole one.

    Raises:
        AudioError: it ends within a frame, holds something that is no frame, or has more frames than it says.
    """
    start = _beginning(data)
    first = _Frame.at(data, start)
    if first is None:
        raise _damaged(data, start, name)
    stated = _stated_count(data[start : start + first.size], first)
    offset, frames = start, 0
    while (frame := _Frame.at(data, offset)) is not None and frame.goes_on(first):
        if offset + frame.size > len(data):
            raise AudioError(
                f"{name}: is cut off: {len(data) - offset} of the {frame.size} bytes of its last MP3 frame are there"
            )
        if stated is not None and frames > stated + 1:  # the frame with the count is one more, which some count too
            raise unread(data, offset, name)
        offset, frames = offset + frame.size, frames + 1
    if not is_tag(data[offset:]):
        raise _damaged(data, offset, name)
    return first.with_count(frames) + data[start:offset] if stated is None else data


def _beginning(data: bytes) -> int:
    offset = 0
    while data.startswith(_ID3, offset) and offset + 10 <= len(data):
        # Seven bits a byte ("synchsafe"), so that a size never looks like the beginning of a frame.
        size = 0
        for byte in data[offset + 6 : offset + 10]:
            size = size << 7 | byte & 0x7F
        has_footer = data[offset + 5] & 0x10
        offset += 10 + size + (10 if has_footer else 0)
    return offset


def _stated_count(frame: bytes, header: _Frame) -> int | None:
    # The number of frames that a file's first one gives, if it does; a checksum moves it on.
    for offset in (header.count_at, header.count_at + 2):
        if (
            frame[offset : offset + 4] in (b"Xing", b"Info")
            and frame[offset + 7 : offset + 8]
            and frame[offset + 7] & 1
        ):
            return int.from_bytes(frame[offset + 8 : offset + 12], "big") or None
    return None


def _damaged(data: bytes, offset: int, name: str) -> AudioError:
    # The refusal of a file that has something else where a frame should be.
    return AudioError(
        f"{name}: is damaged: at byte {offset} of {len(data)} there should be an MP3 frame; get the file anew"
    )
