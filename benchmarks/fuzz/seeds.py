"""Small whole files of many formats, from which broken ones are drawn."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av import AudioFrame, VideoFrame
from PIL import Image

_RATES = {"libopus": 48000}
_VIDEO: tuple[tuple[str, str | None, str | None, dict[str, str]], ...] = (  # suffix, codecs, options
    ("mp4", "libx264", "aac", {}),
    ("mp4", "mpeg4", "aac", {"movflags": "frag_every_frame+empty_moov"}),
    ("mp4", "libx264", "aac", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    ("mov", "mjpeg", "pcm_s16le", {}),
    ("mkv", "libx264", "libopus", {}),
    ("mkv", "ffv1", "flac", {}),
    ("webm", "libvpx-vp9", "libopus", {}),
    ("webm", "libvpx", "libopus", {}),
    ("ts", "libx264", "aac", {}),
    ("ts", "mpeg2video", "mp2", {}),
    ("mpg", "mpeg1video", "mp2", {}),
    ("avi", "mpeg4", "libmp3lame", {}),
    ("avi", "mjpeg", "pcm_s16le", {}),
    ("flv", "flv", "aac", {}),
    ("wmv", "wmv2", "mp2", {}),
    ("nut", "mpeg4", "pcm_s16le", {}),
    ("gif", "gif", None, {}),
    ("apng", "apng", None, {}),
    ("ogg", None, "libopus", {}),
    ("wav", None, "pcm_s16le", {}),
    ("aiff", None, "pcm_s16be", {}),
    ("caf", None, "pcm_s16le", {}),
    ("w64", None, "pcm_s16le", {}),
    ("au", None, "pcm_s16be", {}),
    ("mp3", None, "libmp3lame", {}),
    ("aac", None, "aac", {}),
    ("flac", None, "flac", {}),
    ("m4a", None, "alac", {}),
)
_STILLS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "TGA", "ICO", "JPEG2000", "AVIF", "PPM")
_MUXERS = {"ts": "mpegts", "mpg": "mpeg", "wmv": "asf", "m4a": "mp4", "mkv": "matroska", "aac": "adts"}
_TEXTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n/etc/hostname\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '/etc/hostname'\n",
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n",
}


def seeds() -> dict[str, bytes]:
    """Their content by name; those that the installed FFmpeg and Pillow can write."""
    made: dict[str, bytes] = {}
    for suffix, video, audio, options in _VIDEO:
        name = "_".join(filter(None, (video, audio, *options.values()))) + f".{suffix}"
        if all(codec is None or codec in av.codecs_available for codec in (video, audio)):
            made[name] = _clip(_MUXERS.get(suffix, suffix), video, audio, options)
    Image.init()
    for kind in _STILLS:
        if kind in Image.SAVE:
            made[f"still.{kind.lower()}"] = _still(kind)
    if "WEBP" in Image.SAVE:
        made["moving.webp"] = _still("WEBP", save_all=True, append_images=[_image(1), _image(2)], duration=100)
    return {**made, **{f"list.{suffix}": text.encode() for suffix, text in _TEXTS.items()}}


def _clip(muxer: str, video: str | None, audio: str | None, options: dict[str, str]) -> bytes:
    """Pictures at 10 per second and a tone, of a second."""
    file = io.BytesIO()
    with av.open(file, "w", format=muxer, options=options) as container:
        picture: Any = container.add_stream(video, rate=25 if muxer in ("mpeg", "mpegts") else 10) if video else None
        sound: Any = container.add_stream(audio, rate=_RATES.get(audio, 16000)) if audio else None
        if sound is not None:
            sound.layout = "mono"
        if picture is not None:
            picture.width, picture.height = 48, 32
            picture.pix_fmt = picture.codec.video_formats[0].name if picture.codec.video_formats else "yuv420p"
            for index in range(10):
                frame = VideoFrame.from_image(_image(index)).reformat(format=picture.pix_fmt)
                frame.pts, frame.time_base = index, Fraction(1, 25 if muxer in ("mpeg", "mpegts") else 10)
                container.mux(picture.encode(frame))
        if sound is not None:
            samples = 8000 * np.sin(np.arange(sound.rate) * 0.1)
            frame = AudioFrame.from_ndarray(samples.astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = sound.rate, 0, Fraction(1, sound.rate)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        if picture is not None:
            container.mux(picture.encode(None))
    return file.getvalue()


def _image(index: int) -> Image.Image:
    ramp = np.add.outer(np.arange(32), np.arange(48)) * 3 % 256
    return Image.fromarray(
        np.stack([ramp, ramp.T.repeat(1, 0).reshape(32, 48), ramp * 0 + 20 * index], -1).astype(np.uint8)
    )


def _still(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    _image(0).save(file, kind, **options)
    return file.getvalue()


def suffix_of(name: str) -> str:
    return Path(name).suffix
