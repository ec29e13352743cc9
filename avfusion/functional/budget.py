"""Estimates tokens, FLOPs and KV-cache size from frame rate, window and number of queries."""

import math
from typing import Any, NamedTuple, Self

import torch

from avfusion.errors import InvalidValueError
from avfusion.functional.windows import num_windows
from avfusion.types.clock import frames_until


class ConnectorSize(NamedTuple):
    """The sizes of a synchroniser and projector with a causal Q-Former; the paper's by default.

    Attributes:
        input_dim: width of a window's tokens.
        hidden_size: width of the queries.
        num_layers: layers.
        num_queries: queries per window.
        intermediate_size: inner width of the feed-forward.
        window_frames: frames per window.
        stride_frames: frames from the start of one window to the start of the next; ``None`` for no overlap.
        tokens_per_frame: slots of a frame.
        causal: whether the Q-Former has causal attention.

    Example:
        >>> ConnectorSize(num_queries=16, window_frames=5).num_queries
        16
    """

    input_dim: int = 1536
    hidden_size: int = 768
    num_layers: int = 2
    num_queries: int = 32
    intermediate_size: int = 3072
    window_frames: int = 10
    stride_frames: int | None = None
    tokens_per_frame: int = 32
    causal: bool = True

    def flops_of_window(self, llm_dim: int) -> int:
        """Floating-point operations of one full window forward, the projection to ``llm_dim`` included.

        Counts the matrix products of the plain computation, two operations per multiply-add, as
        ``torch.utils.flop_counter.FlopCounterMode`` does. Optimisations may execute fewer: see
        :func:`avfusion.functional.attention` and :class:`~avfusion.SlidingWindowProjector`.
        """
        tokens, width = self.window_frames * self.tokens_per_frame, self.input_dim
        queries, hidden = self.num_queries, self.hidden_size
        causal = 8 * tokens * width**2 + 4 * tokens**2 * width if self.causal else 0
        among_queries = 8 * queries * hidden**2 + 4 * queries**2 * hidden
        cross = 4 * queries * hidden**2 + 4 * tokens * width * hidden + 4 * queries * tokens * hidden
        feed_forward = 4 * queries * hidden * self.intermediate_size
        return self.num_layers * (causal + among_queries + cross + feed_forward) + 2 * queries * hidden * llm_dim


class LanguageModelSize(NamedTuple):
    """The sizes of a decoder-only language model with a gated feed-forward; Vicuna-7B's by default.

    Attributes:
        hidden_size: embedding width.
        num_layers: layers.
        num_heads: attention heads.
        num_key_value_heads: heads of keys and values, fewer under grouped-query attention.
        head_dim: width of a head.
        intermediate_size: inner width of the feed-forward.
        vocab_size: tokens of the vocabulary.

    Example:
        >>> from types import SimpleNamespace
        >>> config = SimpleNamespace(hidden_size=5120, num_hidden_layers=40, num_attention_heads=40)
        >>> config.intermediate_size, config.vocab_size = 13824, 32000
        >>> LanguageModelSize.from_config(config).head_dim
        128
    """

    hidden_size: int = 4096
    num_layers: int = 32
    num_heads: int = 32
    num_key_value_heads: int = 32
    head_dim: int = 128
    intermediate_size: int = 11008
    vocab_size: int = 32000

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Reads the sizes from a Hugging Face configuration like Llama's (Llama, Qwen, Mistral, Gemma, Phi)."""
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        missing = [
            name
            for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
            if getattr(text, name, None) is None
        ]
        if missing:
            raise InvalidValueError(f"config: must have {missing}, found {type(text).__name__} without")
        heads = text.num_attention_heads
        return cls(
            hidden_size=text.hidden_size,
            num_layers=text.num_hidden_layers,
            num_heads=heads,
            num_key_value_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            intermediate_size=text.intermediate_size,
            vocab_size=text.vocab_size,
        )

    def prefill_flops(self, tokens: int) -> int:
        """Floating-point operations of a prefill of this many tokens, with the logits of the last one."""
        attention_dim, cache_dim = self.num_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        maps = 2 * tokens * self.hidden_size * (2 * attention_dim + 2 * cache_dim + 3 * self.intermediate_size)
        return self.num_layers * (maps + 4 * tokens**2 * attention_dim) + 2 * self.hidden_size * self.vocab_size

    def cache_bytes(self, tokens: int, dtype: torch.dtype = torch.bfloat16) -> int:
        """Bytes of the KV cache for this many tokens."""
        return 2 * self.num_layers * self.num_key_value_heads * self.head_dim * tokens * dtype.itemsize


class Budget(NamedTuple):
    """The estimated cost of one clip.

    Attributes:
        num_frames: video frames, the partial last one included.
        num_windows: windows, each counted as full.
        num_tokens: embeddings passed to the language model.
        tokens_per_second: embeddings per second of the clip.
        connector_flops: floating-point operations of the connector's forward pass.
        prefill_flops: floating-point operations of the language model's prefill of embeddings and prompt.
        cache_bytes: size of the KV cache for embeddings and prompt.

    Example:
        >>> from avfusion import estimate_budget
        >>> cost = estimate_budget(60.0)
        >>> cost.num_frames, cost.num_windows, cost.num_tokens, cost.tokens_per_second
        (120, 12, 384, 6.4)
    """

    num_frames: int
    num_windows: int
    num_tokens: int
    tokens_per_second: float
    connector_flops: int
    prefill_flops: int
    cache_bytes: int


def estimate_budget(
    duration: float,
    *,
    frame_rate: float = 2.0,
    connector: ConnectorSize | None = None,
    language_model: LanguageModelSize | None = None,
    prompt_tokens: int = 0,
    cache_dtype: torch.dtype = torch.bfloat16,
) -> Budget:
    """Estimates tokens, FLOPs and KV-cache size of a clip.

    Args:
        duration: seconds of the clip.
        frame_rate: frames per second.
        connector: its sizes; the paper's by default.
        language_model: its sizes; Vicuna-7B's by default.
        prompt_tokens: text tokens in addition to the clip's embeddings.
        cache_dtype: dtype of the KV cache.

    Returns:
        Counts, floating-point operations and bytes.

    Raises:
        InvalidValueError: a duration or rate that is not positive and finite.

    Example:
        >>> from avfusion import ConnectorSize, estimate_budget
        >>> cost = estimate_budget(30.0)
        >>> cost.num_tokens, round(cost.connector_flops / 1e9), cost.cache_bytes >> 20
        (192, 106, 96)
        >>> estimate_budget(30.0, frame_rate=4.0, connector=ConnectorSize(window_frames=5)).num_tokens
        768
    """
    for name, value in (("duration", duration), ("frame_rate", frame_rate)):
        if not 0 < value < math.inf:
            raise InvalidValueError(f"{name}: must be positive and finite, found {value}")
    connector = ConnectorSize() if connector is None else connector
    language_model = LanguageModelSize() if language_model is None else language_model
    frames = int(frames_until(torch.tensor(duration, dtype=torch.float64), frame_rate))
    windows = num_windows(frames, connector.window_frames, connector.stride_frames)
    tokens = windows * connector.num_queries
    return Budget(
        num_frames=frames,
        num_windows=windows,
        num_tokens=tokens,
        tokens_per_second=tokens / duration,
        connector_flops=windows * connector.flops_of_window(language_model.hidden_size),
        prefill_flops=language_model.prefill_flops(tokens + prompt_tokens),
        cache_bytes=language_model.cache_bytes(tokens + prompt_tokens, cache_dtype),
    )
