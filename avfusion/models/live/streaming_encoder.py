"""Streams audio and video through encoders and connector to the embeddings of windows."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.models._features import VISUAL, place
from avfusion.models.audio_visual_language_model import AudioVisualLanguageModel
from avfusion.models.live.state import StreamingEncoderState
from avfusion.types import (
    Frames,
    LLMEmbeddings,
    StreamedEmbeddings,
    StreamingAudioEncoder,
    TokenStream,
    Video,
    Waveform,
)


class StreamingEncoder:
    """A model's encoders and connector, as a stream of one clip.

    Args:
        model: in evaluation mode.
        streams: names of those that will come; those of all encoders without it.
        max_wait: as for :meth:`~avfusion.AudioVisualConnector.initial_state`.
        conditioning: what the connector takes beside the streams.
    """

    def __init__(
        self,
        model: AudioVisualLanguageModel,
        streams: Collection[str] | None,
        max_wait: float | None,
        conditioning: Mapping[str, Tensor | None],
    ) -> None:
        if not isinstance(model, AudioVisualLanguageModel):
            raise InvalidTypeError(f"model: must be an AudioVisualLanguageModel, found {type(model).__name__}")
        if model.training:
            raise InvalidValueError("model: must be in evaluation mode, or dropout changes what it sees; call eval()")
        self.names = sorted(model.encoders if streams is None else set(streams))
        unknown = sorted(set(self.names) - set(model.encoders))
        if unknown or not self.names:
            found = unknown or "none"
            raise InvalidValueError(f"streams: must be among the encoders {sorted(model.encoders)}, found {found}")
        self.connector, self.max_wait = model.connector, max_wait
        self.visual_encoder: Any = model.visual_encoder if VISUAL in self.names else None
        self.audio_encoders: dict[str, Any] = {
            name: encoder for name, encoder in model.audio_encoders.items() if name in self.names
        }
        self.conditioning = {name: value for name, value in conditioning.items() if value is not None}
        self._check()

    def _check(self) -> None:
        for name in ("initial_state", "step"):
            if not hasattr(self.connector, name):
                kind = type(self.connector).__name__
                raise InvalidTypeError(f"connector: must have {name}() to stream, found {kind}")
        for name, encoder in self.audio_encoders.items():
            if not isinstance(encoder, StreamingAudioEncoder):
                raise InvalidTypeError(
                    f"audio_encoders: {name!r} must be a streaming one, found {type(encoder).__name__}; "
                    "avfusion.encoders.BlockwiseAudioEncoder makes one of it"
                )

    @property
    def delay(self) -> float:
        """Maximal delay of audio tokens in the audio encoders, in seconds."""
        return max((float(encoder.delay) for encoder in self.audio_encoders.values()), default=0.0)

    def initial_state(self) -> StreamingEncoderState:
        """A clip of which nothing has come."""
        return StreamingEncoderState(
            audio=tuple(encoder.initial_state(1) for encoder in self.audio_encoders.values()),
            connector=self.connector.initial_state(1, streams=self.names, max_wait=self.max_wait),
            watermark=torch.tensor([-torch.inf], dtype=torch.float64),
            ended=torch.tensor([False]),
        )

    def step(
        self,
        video: Video | None,
        waveform: Waveform | None,
        state: StreamingEncoderState,
        watermark: Mapping[str, float] | None,
        ended: bool,
    ) -> tuple[StreamedEmbeddings, StreamingEncoderState]:
        """Takes what has come; arguments as for :meth:`LiveSession.watch`."""
        self._check_media(video, waveform)
        given = self._check_watermark(watermark)
        if bool(state.ended):
            raise InvalidValueError("ended: the stream has ended and takes no more input; start another one")
        chunk: dict[str, Frames | TokenStream] = {}
        watermarks = {VISUAL: given[VISUAL]} if VISUAL in given else {}
        audio = []
        if video is not None:
            chunk[VISUAL] = self.visual_encoder(video)
        for (name, encoder), before in zip(self.audio_encoders.items(), state.audio, strict=True):
            tokens, after = encoder.step(waveform, before, watermark=given.get(name))
            chunk[name] = _joined(tokens, encoder.flush(after)) if ended else tokens
            if not ended:
                watermarks[name] = float(encoder.watermark(after))
            audio.append(after)
        end = torch.tensor([ended])
        like = next(iter(self.connector.parameters()), end)
        out, connector = self.connector.step(
            place(self.connector, chunk),
            state.connector,
            watermark=watermarks,
            end=end.to(like.device),
            **self.conditioning,
        )
        # A connector whose clip has ended stands at the next clip's beginning: the last window tells how far it came.
        last = out.finished.spans[out.finished.mask] if ended else connector.synchroniser.anchor.end
        reached = torch.cat([state.watermark, last.flatten().to(state.watermark)]).amax(0, keepdim=True)
        return out, StreamingEncoderState(tuple(audio), connector, reached, end)

    def partial(self, state: StreamingEncoderState) -> LLMEmbeddings:
        """The last window as it stands."""
        out, _ = self.connector.step({}, state.connector, partial=True, **self.conditioning)
        shown: LLMEmbeddings = out.partial
        return shown

    def late(self, out: StreamedEmbeddings) -> dict[str, int]:
        """What came too late, by stream."""
        return dict(zip(self.connector.synchroniser.dims, out.late[0].tolist(), strict=True))

    def watermark(self, state: StreamingEncoderState) -> float:
        """Seconds up to which frames are finalised."""
        return float(state.watermark)

    def _check_media(self, video: object, waveform: object) -> None:
        kinds: list[tuple[str, Any, Any, bool]] = [
            ("video", video, Video, self.visual_encoder is not None),
            ("waveform", waveform, Waveform, bool(self.audio_encoders)),
        ]
        for name, value, kind, wanted in kinds:
            if value is None:
                continue
            if not isinstance(value, kind):
                raise InvalidTypeError(f"{name}: must be an avfusion.{kind.__name__}, found {type(value).__name__}")
            if not wanted:
                raise InvalidValueError(f"{name}: must be one of the streams {self.names}")
            if value.mask.shape[0] != 1:
                raise InvalidValueError(f"{name}: must be one clip, found {value.mask.shape[0]}")

    def _check_watermark(self, watermark: Mapping[str, float] | None) -> dict[str, float]:
        given = {name: float(seconds) for name, seconds in (watermark or {}).items()}
        unknown = sorted(set(given) - set(self.names))
        if unknown:
            raise InvalidValueError(f"watermark: must name streams among {self.names}, found {unknown}")
        for name, seconds in given.items():
            if seconds != seconds:  # noqa: PLR0124  NaN
                raise InvalidValueError(f"watermark: must be seconds, found {seconds} for {name!r}")
        return given


def _joined(first: TokenStream, then: TokenStream) -> TokenStream:
    if not first.mask.shape[1]:
        return then
    return TokenStream(*(torch.cat(pair, 1) for pair in zip(first, then, strict=True)))
