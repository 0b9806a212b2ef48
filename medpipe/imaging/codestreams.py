"""The size that a compressed frame declares of itself, read without decoding it."""

import struct

# ITU-T T.81 table B.1: SOF0 to SOF15 without DHT, JPG and DAC; SOF55 is JPEG-LS (T.87).
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
J2K_START = b"\xff\x4f\xff\x51"


def declared_size(frame: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG, JPEG-LS or JPEG 2000 frame; None where it says none, as run-length codes do.

    Source: ITU-T T.81 annex B.2, T.800 annex A.5.1.
    """
    place = frame[:65536].find(J2K_START)
    if place >= 0 and (place == 0 or frame[4:8] == b"jP  "):
        if place + 24 > len(frame):
            return None
        right, bottom, left, top = struct.unpack_from(">IIII", frame, place + 8)
        return bottom - top, right - left
    if not frame.startswith(b"\xff\xd8"):
        return None
    place = 2
    while place + 9 <= len(frame):
        if frame[place] != 0xFF:
            return None
        marker, size = frame[place + 1], struct.unpack_from(">H", frame, place + 2)[0]
        if marker == 0xFF:
            place += 1
        elif marker in FRAME_MARKERS:
            return struct.unpack_from(">HH", frame, place + 5)
        else:
            place += 2 + size
    return None
