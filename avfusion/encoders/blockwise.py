"""Streaming for any audio encoder, block by block."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool, Float
from avfusion.encoders._audio import check_waveform
from avfusion.encoders._blocks import (
    BlockwiseState,
    Lengths,
    Segment,
    Stretch,
    as_seconds,
    initial_state,
    joined_rows,
    packed,
    rows_of,
)
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.types import RegularAudioEncoder, TokenStream, Waveform
from avfusion.types.clock import latest
from avfusion.types.state import chosen_rows, ended_rows, put_rows


class BlockwiseAudioEncoder(nn.Module):
    """Encodes audio block by block, each block with left context and look-ahead.

    Whisper and similar encoders are not causal: every token depends on the whole input of 30 s, also on later audio. A
    stream needs shorter inputs. This module cuts the audio into blocks. For each block, the encoder receives
    ``left_context`` seconds before it, the block, and ``look_ahead`` seconds after it; the tokens centred in the block
    are returned. The result depends on this policy and differs from that for 30 s at once, but it does not depend on
    chunks: :meth:`forward` on a whole clip and :meth:`step` on any chunks of it give the same tokens.

    A token is available when its block and look-ahead are complete, after at most :attr:`delay` seconds. The encoder
    runs on ``left_context + block + look_ahead`` seconds for each ``block`` seconds of audio.

    Args:
        encoder: an audio encoder such as :class:`WhisperAudioEncoder`, preferably with ``chunk_seconds`` set to the
            length of its input here, ``left_context + block + look_ahead``.
        block: seconds of a block; a multiple of the interval of a token (0.02 s for Whisper).
        left_context: seconds before each block that are encoded again.
        look_ahead: seconds after each block that are encoded with it.
        max_gap: largest distance in seconds between the start of a chunk and the end of the audio so far, for example
            because of jitter. After a longer gap, a new segment begins, which is encoded like a clip of its own.
        segment_batch_size: blocks that run through the encoder at once.

    Raises:
        InvalidValueError: lengths that are out of range, or longer than the encoder's input.
        InvalidTypeError: ``encoder`` is not a module.

    Example:
        >>> import torch
        >>> from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
        >>> from avfusion import Waveform
        >>> from avfusion.encoders import BlockwiseAudioEncoder, WhisperAudioEncoder
        >>> config = WhisperConfig(
        ...     d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        ...     encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=8, max_source_positions=1500,
        ...     pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        ... )
        >>> whisper = WhisperAudioEncoder(
        ...     model=WhisperModel(config), feature_extractor=WhisperFeatureExtractor(), chunk_seconds=2.5
        ... )
        >>> audio = BlockwiseAudioEncoder(encoder=whisper, block=1.0, left_context=1.0, look_ahead=0.5)
        >>> sound, state, given = torch.randn(1, 40000), audio.initial_state(), []
        >>> for begin in range(0, 40000, 8000):
        ...     part = Waveform.from_samples(sound[:, begin : begin + 8000], 16000, start=begin / 16000)
        ...     tokens, state = audio.step(part, state)
        ...     given.append(tokens.tokens)
        >>> [part.shape[1] for part in given]
        [0, 0, 50, 0, 50]
        >>> given.append(audio.flush(state).tokens)
        >>> whole = audio(Waveform.from_samples(sound, 16000)).tokens
        >>> audio.delay, torch.allclose(torch.cat(given, 1), whole, atol=1e-5)
        (1.5, True)
    """

    encoder: Any

    def __init__(
        self,
        *,
        encoder: nn.Module,
        block: float,
        left_context: float = 0.0,
        look_ahead: float = 0.0,
        max_gap: float = 0.05,
        segment_batch_size: int = 16,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise InvalidTypeError(f"encoder: must be an nn.Module, found {type(encoder).__name__}")
        if not 0 < block < float("inf"):
            raise InvalidValueError(f"block: must be positive and finite, found {block}")
        for name, value in (("left_context", left_context), ("look_ahead", look_ahead), ("max_gap", max_gap)):
            if not 0 <= value < float("inf"):
                raise InvalidValueError(f"{name}: must be at least 0 and finite, found {value}")
        if segment_batch_size < 1:
            raise InvalidValueError(f"segment_batch_size: must be at least 1, found {segment_batch_size}")
        self.block, self.left_context, self.look_ahead, self.max_gap = block, left_context, look_ahead, max_gap
        self.segment_batch_size = segment_batch_size
        heard = left_context + block + look_ahead
        most = getattr(encoder, "chunk_seconds", heard)
        if heard > most + 1e-9:
            raise InvalidValueError(
                f"block: must fit with left_context and look_ahead into the {most:g} s that go through the encoder at "
                f"once, found {heard:g} s"
            )
        self.encoder = encoder
        self.output_dim: int = self.encoder.output_dim
        if isinstance(encoder, RegularAudioEncoder):
            self.rate, self.tokens_per_step = encoder.rate, encoder.tokens_per_step

    @property
    def delay(self) -> float:
        """Maximal delay of a token in seconds, ``block + look_ahead``; the last token of a block has ``look_ahead``."""
        return self.block + self.look_ahead

    def timeline(self, waveform: Waveform) -> TokenStream:
        """Timestamps of the tokens of :meth:`forward`; the encoder runs only if it has no ``timeline``."""
        stream = self._whole(waveform, getattr(self.encoder, "timeline", self.encoder))
        return stream._replace(tokens=stream.tokens[..., :0])

    def forward(self, waveform: Waveform) -> TokenStream:
        """Encodes whole clips, block by block.

        Args:
            waveform: audio that the encoder takes, on any device.

        Returns:
            The encoder's tokens ``(batch, time, output_dim)``, with timestamps on the clip's clock.

        Raises:
            InvalidTypeError: ``waveform`` is not a :class:`~avfusion.Waveform`.
            InvalidValueError: input that the encoder does not take, or padding before real samples.
        """
        return self._whole(waveform, self.encoder)

    def _whole(self, waveform: Waveform, encode: Callable[[Waveform], TokenStream]) -> TokenStream:
        check_waveform(waveform)
        rate, batch = waveform.sample_rate, len(waveform.start)
        lengths, state, segments = self._lengths(rate), initial_state(batch), []
        for row, samples, start in rows_of(waveform):
            stretch = Stretch(row, state)
            segments += [*stretch.add(samples, start, rate, lengths, self.max_gap), *stretch.finish(lengths)]
        if not segments:  # the encoder keeps trained parameters in the graph for clips without audio
            return encode(waveform)
        return self._tokens(segments, rate, batch, encode)

    def initial_state(self, batch_size: int = 1) -> BlockwiseState:
        """The state before any audio."""
        if batch_size < 1:
            raise InvalidValueError(f"batch_size: must be at least 1, found {batch_size}")
        return initial_state(batch_size)

    def step(
        self,
        waveform: Waveform | None,
        state: BlockwiseState,
        *,
        watermark: float | Float[Tensor, " batch"] | None = None,
        end: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[TokenStream, BlockwiseState]:
        """Takes the next chunk, and returns the tokens of complete blocks.

        Args:
            waveform: the next chunk of each clip, on the clip's clock; masked for clips without new audio. A chunk
                that begins more than ``max_gap`` after the audio so far begins a new segment; the previous segment is
                encoded to its end. ``None`` for no audio.
            state: the previous state; not modified.
            watermark: seconds up to which the audio is complete, one number or ``(batch,)``: if it is more than
                ``max_gap`` past the audio so far, the segment has ended.
            end: ``(batch,)`` bool: clips that end; new clips begin in their rows.

        Returns:
            Tokens ``(batch, time, output_dim)``, real ones first, and the new state.

        Raises:
            AlignmentError: audio that overlaps earlier audio.
            InvalidValueError: a different sample rate or batch size than before, and what :meth:`forward` raises.
        """
        batch = state.kept.shape[0]
        stretches = [Stretch(row, state) for row in range(batch)]
        rate = max(stretch.rate for stretch in stretches)
        segments: list[Segment] = []
        if waveform is not None:
            check_waveform(waveform)
            rate = waveform.sample_rate
            if waveform.mask.shape[0] != batch:
                raise InvalidValueError(
                    f"waveform: must be {batch} clips, as the state, found {waveform.mask.shape[0]}"
                )
            before = {stretch.rate for stretch in stretches} - {0, rate}
            if before:
                raise InvalidValueError(
                    f"waveform.sample_rate: must stay {before.pop()}, found {rate}: resample the audio first"
                )
            for row, samples, start in rows_of(waveform):
                segments += stretches[row].add(samples, start, rate, self._lengths(rate), self.max_gap)
        given = [-torch.inf] * batch if watermark is None else as_seconds(watermark, batch, "watermark")
        over = ended_rows(end, state.kept).tolist()
        for stretch, seconds, ended in zip(stretches, given, over, strict=True):
            silent = not stretch.received or seconds > stretch.reached + self.max_gap
            if stretch.received:
                lengths = self._lengths(stretch.rate)
                segments += stretch.finish(lengths) if silent or ended else stretch.ready(lengths)
            if silent:
                stretch.watermark = max(stretch.watermark, seconds)
            if ended:
                stretch.forget()
        tokens = self._tokens(segments, rate, batch, self.encoder) if segments else self._nothing(state)
        return tokens, packed(stretches, state)

    def flush(self, state: BlockwiseState) -> TokenStream:
        """The tokens of the remaining blocks, as if all clips ended."""
        return self.step(None, state, end=torch.ones_like(state.kept, dtype=torch.bool))[0]

    def watermark(self, state: BlockwiseState) -> Float[Tensor, " batch"]:
        """``(batch,)`` seconds up to which all tokens have been returned; ``-inf`` before the first audio."""
        return state.watermark

    def reset(self, state: BlockwiseState, rows: Bool[Tensor, " batch"]) -> BlockwiseState:
        """The state with new clips in some rows; pending audio of these rows is dropped.

        Args:
            state: the previous state; not modified.
            rows: ``(batch,)`` bool.
        """
        chosen = chosen_rows(rows, state.kept)
        return put_rows(state, chosen, initial_state(len(chosen)))

    def _lengths(self, rate: int) -> Lengths:
        block, left, ahead = (round(value * rate) for value in (self.block, self.left_context, self.look_ahead))
        return Lengths(max(block, 1), left, ahead)

    def _nothing(self, state: BlockwiseState) -> TokenStream:
        like = next((value for value in self.encoder.parameters() if value.is_floating_point()), state.samples)
        return TokenStream.empty(len(state.kept), self.output_dim, dtype=like.dtype, device=like.device)

    def _tokens(
        self, segments: list[Segment], rate: int, batch: int, encode: Callable[[Waveform], TokenStream]
    ) -> TokenStream:
        """The tokens of the blocks, concatenated per clip."""
        rows: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(batch)]
        for part in (
            segments[i : i + self.segment_batch_size] for i in range(0, len(segments), self.segment_batch_size)
        ):
            stream = encode(Waveform.from_samples([segment.samples for segment in part], rate))
            for place, segment in enumerate(part):
                times = stream.timestamps[place]
                centres = latest(times)  # a centre on a block's edge, within rounding, belongs to the next block
                mask = stream.mask[place] & (centres >= segment.begin / rate)
                mask &= centres < (torch.inf if segment.end is None else segment.end / rate)
                rows[segment.row].append((stream.tokens[place][mask], times[mask] + segment.start))
        return joined_rows(rows)
