"""Conformance checks for your own parts.

An encoder fits if it takes and returns the values of avfusion: no base class is needed. The Protocols
:class:`~avfusion.AudioEncoder`, :class:`~avfusion.VisualEncoder`, :class:`~avfusion.WindowEncoder` and
:class:`~avfusion.StreamingWindowEncoder` define it. Each function here runs a part on small clips, and raises
one :class:`~avfusion.ConformanceError` for the first property that does not hold. They need only torch, no test
framework.

Example:
    >>> from avfusion import CausalQFormer
    >>> from avfusion.testing import check_window_encoder
    >>> def test_my_window_encoder_fits():
    ...     check_window_encoder(CausalQFormer(input_dim=8, hidden_size=8, num_heads=2, tokens_per_frame=4))
    >>> test_my_window_encoder_fits()
"""

from avfusion.testing.audio import check_token_stream_encoder
from avfusion.testing.streaming import check_streaming_window_encoder
from avfusion.testing.visual import check_visual_encoder
from avfusion.testing.window import check_window_encoder

__all__ = [
    "check_streaming_window_encoder",
    "check_token_stream_encoder",
    "check_visual_encoder",
    "check_window_encoder",
]
