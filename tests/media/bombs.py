"""Small files that ask for much; run as a command, reads them all in little memory."""

import resource
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import torch

from avfusion import MediaError
from avfusion.media import MediaLimits, load_media, open_live
from tests.media.files import grey, tone, write


def png(height: int, width: int, rows: int = 0) -> bytes:
    """A grey PNG of this size, of which the first rows are there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(width + 1)) for _ in range(rows)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def gif(height: int, width: int, *delays: int) -> bytes:
    """Frames of one pixel on a canvas of this size, each shown for so many hundredths of a second."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    pictures = b"".join(
        b"\x21\xf9\x04\x04" + struct.pack("<H", delay) + b"\0\0"
        b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"
        for delay in delays
    )  # fmt: skip
    return head + pictures + b"\x3b"


def pictures_apart(path: Path, *times: float, height: int = 24, width: int = 32) -> Path:
    return write(
        path,
        pixels=grey([50 + index for index in range(len(times))], height, width),
        times=times,
        video_codec="mpeg4",
        pixel_format="yuv420p",
    )


def sounds_apart(path: Path, *times: float, rate: int = 8000, codec: str = "pcm_s16le", seconds: float = 0.1) -> Path:
    count = round(seconds * rate)
    samples = tone(440, seconds * len(times), rate)[None]
    places = [(time, index * count) for index, time in enumerate(times)]
    return write(path, samples=samples, rate=rate, audio_codec=codec, sound_at=places)


def mp4(samples: int, tracks: int = 1, *, packed: int = 0) -> bytes:
    """Tracks that state so many samples of one byte, in a file of some kilobytes; its header packed so many times."""

    def box(kind: bytes, *content: bytes) -> bytes:
        data = b"".join(content)
        return struct.pack(">I", 8 + len(data)) + kind + data

    def table(kind: bytes, *numbers: int) -> bytes:
        return box(kind, bytes(4), struct.pack(f">{len(numbers)}I", *numbers))

    size = struct.pack(">HHIII", 32, 24, 0x480000, 0x480000, 0)
    sample = box(b"avc1", bytes(6), b"\0\1", bytes(16), size, b"\0\1", bytes(32), struct.pack(">Hh", 24, -1))
    tables = [
        box(b"stsd", bytes(4), struct.pack(">I", 1), sample),
        table(b"stts", 1, samples, 1),
        table(b"stsc", 1, 1, samples, 1),
        table(b"stsz", 1, samples),
        table(b"stco", 1, 48),
    ]
    data = box(b"dinf", box(b"dref", bytes(4), struct.pack(">I", 1), box(b"url ", b"\0\0\0\1")))
    media = box(b"minf", box(b"vmhd", bytes(12)), data, box(b"stbl", *tables))
    clock = box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, 1000, 1000, 0))
    handler = box(b"hdlr", bytes(8), b"vide", bytes(13))
    track = box(b"mdia", clock, handler, media)
    head = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1000, 1000), bytes(80))
    tracks_made = (
        box(b"trak", box(b"tkhd", struct.pack(">6I", 7, 0, 0, 1 + index, 0, 1000), bytes(52), bytes(8)), track)
        for index in range(tracks)
    )
    moov = box(b"moov", head, *tracks_made)
    for _ in range(packed):
        moov = box(
            b"moov",
            box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", len(moov)), zlib.compress(moov))),
        )
    return box(b"ftyp", b"isom", bytes(4), b"isom") + box(b"mdat", bytes(4096)) + moov


def bombs(folder: Path) -> dict[str, Path]:
    """Files of a few kilobytes that ask for gigabytes."""
    made = {
        "held": pictures_apart(folder / "held.mkv", 0.0, 3599.0, height=720, width=1280),
        "held_again": pictures_apart(
            folder / "again.mkv", *(3500.0 * part for part in range(9)), height=240, width=320
        ),
        "gif": folder / "long.gif",
        "gif_large": folder / "large.gif",
        "png": folder / "large.png",
        "png_header": folder / "header.png",
        "silence": sounds_apart(folder / "silence.mkv", *(3590.0 * part for part in range(13))),
        "silence_long": sounds_apart(folder / "long.mkv", 0.0, 40000.0),
        "slow": folder / "slow.wav",
        "index": folder / "index.mp4",
        "index_packed": folder / "packed.mp4",
    }
    made["gif"].write_bytes(gif(1000, 1000, *[65535] * 12))
    made["gif_large"].write_bytes(gif(65000, 65000, 10, 10))
    made["png"].write_bytes(png(20000, 20000, 20000))
    made["png_header"].write_bytes(png(2**31 - 1, 2**31 - 1))
    made["index"].write_bytes(mp4(60_000_000, 4))
    made["index_packed"].write_bytes(mp4(60_000_000, 4, packed=1))
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 40036, b"WAVE", b"fmt ", 16, 1, 1, 1, 1, 1, 8, b"data", 40000)
    made["slow"].write_bytes(head + bytes(40000))  # one sample a second: 640 million at 16 kHz
    return made


def main() -> int:
    """Reads them within a gigabyte more than there is already."""
    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        files = bombs(Path(folder))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, resource.RLIM_INFINITY))
        limits = MediaLimits(total_pixels=2**26, total_samples=2**23)  # 200 MB of frames and 30 MB of audio
        for name, path in files.items():
            for way in ("whole", "all", "live") if name != "slow" else ("whole",):
                try:
                    if way == "live":
                        with open_live(path, realtime=False, chunk_seconds=3600.0, limits=limits) as live:
                            for _ in live:
                                pass
                    else:
                        load_media(path, frame_rate=None if way == "all" else 2.0, limits=limits)
                    print(name, way, "was read")
                except MediaError as error:
                    print(name, way, error)
                except Exception as error:  # noqa: BLE001
                    print(name, way, "FAILED", type(error).__name__, error)
                    failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
