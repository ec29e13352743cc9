"""Decoded frames to upright RGB pixels."""

import struct
import threading
from fractions import Fraction
from typing import Any

import av
import torch
from av import VideoFrame
from av.filter import Graph
from av.video.reformatter import VideoReformatter
from torch import Tensor

Matrix = tuple[int, int, int, int]  # a b c d: a source pixel (x, y) is shown at (a x + c y, b x + d y)


def to_tensor(frame: VideoFrame, size: tuple[int, int] | None, matrix: Matrix) -> Tensor:
    """``(3, height, width)`` uint8 RGB, rotated and mirrored by the display matrix."""
    a, b, c, d = matrix
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    height, width = size or (None, None)
    if turned:
        height, width = width, height
    frame = _as_rgb(frame, width, height)
    plane = frame.planes[0]
    rows = torch.frombuffer(bytearray(plane), dtype=torch.uint8).view(-1, plane.line_size)
    pixels = rows[: frame.height, : frame.width * 3].view(frame.height, frame.width, 3).permute(2, 0, 1)
    if turned:
        pixels, a, d = pixels.transpose(1, 2), c, b
    flips = [axis for axis, sign in ((2, a), (1, d)) if sign < 0]
    return pixels.flip(flips).contiguous()


_OWN = threading.local()
_ONE_THREAD: dict[str, Any] = (
    {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
)  # earlier versions share one


def _as_rgb(frame: VideoFrame, width: int | None, height: int | None) -> VideoFrame:
    """Converts in this thread, with a new converter.

    The converter that PyAV 19 shares between frames has threads, which a forked process lacks and would wait for
    forever.
    """
    if not hasattr(_OWN, "reformatter"):
        _OWN.reformatter = VideoReformatter()
    return _OWN.reformatter.reformat(
        frame, width=width, height=height, format="rgb24", interpolation="BICUBIC", **_ONE_THREAD
    )


def display_matrix(frame: VideoFrame) -> Matrix:
    """The display matrix of a frame."""
    try:
        side_data = _without_profile(frame).side_data
        if "DISPLAYMATRIX" not in side_data:
            return 1, 0, 0, 1
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side_data["DISPLAYMATRIX"]))
        return a, b, c, d
    except ValueError:  # PyAV lists no side data if one is of an unknown kind, but still gives the angle
        cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[round(frame.rotation / 90) % 4]
        return cos, -sin, sin, cos


def _without_profile(frame: VideoFrame) -> VideoFrame:
    """The frame without its colour profile: PyAV frees a named one twice, which crashes the interpreter."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1)
    )
    delete, sink = graph.add("sidedata", "mode=delete:type=ICC_PROFILE"), graph.add("buffersink")
    source.link_to(delete)
    delete.link_to(sink)
    graph.configure()
    graph.push(frame)
    bare = graph.pull()
    assert isinstance(bare, VideoFrame)
    return bare
