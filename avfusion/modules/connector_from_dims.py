"""Connectors from the widths of the encoders and the language model."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from avfusion.errors import InvalidValueError
from avfusion.functional.connector_sizes import (
    MAX_WINDOW_TOKENS,
    check_names,
    check_size,
    most_tokens_in_frame,
    num_heads,
    stream_rates,
    stream_sizes,
    window_sizes,
)
from avfusion.functional.stream_table import VISUAL
from avfusion.modules.projector.sliding_window_projector import SlidingWindowProjector
from avfusion.modules.qformer.causal_qformer import CausalQFormer
from avfusion.modules.synchroniser.frame_synchroniser import FrameSynchroniser
from avfusion.types import AudioEncoder, RegularAudioEncoder, VisualEncoder
from avfusion.types.clock import check_rate


class ConnectorFromDims:
    """Constructors that derive most of a connector's sizes."""

    @classmethod
    def from_dims(
        cls,
        *,
        visual: int | None = None,
        audio: int | Mapping[str, int] | None = None,
        llm: int,
        tokens_per_frame: int | Mapping[str, int] = 32,
        audio_rate: float | Mapping[str, float] = 50.0,
        frame_rate: float = 2.0,
        window_seconds: float = 5.0,
        overlap_seconds: float = 0.0,
        num_queries: int = 32,
        hidden_size: int = 768,
        num_layers: int = 2,
        stream_dim: int | None = None,
        fusion: Literal["features", "tokens"] = "features",
        **options: Any,
    ) -> Self:
        """Builds a connector with a causal Q-Former from the widths of the encoders and the language model.

        What follows from other numbers is derived: the width of fused tokens, the slots of a frame, which hold the
        visual tokens and all audio tokens of a frame's length, the frames of a window and of a stride (the nearest
        whole numbers), and the number of attention heads. All others are the paper's by default.

        Args:
            visual: width of the visual tokens; ``None`` for a connector without video.
            audio: width of the audio tokens, or of each audio stream by name; ``None`` for one without audio.
            llm: width of the language model's embeddings.
            tokens_per_frame: visual tokens of a frame; or tokens of a frame by stream, ``"visual"`` for the video,
                where a stream's own number does not follow from its rate.
            audio_rate: audio tokens per second, of all streams or of each by name; 50 for streams not named.
            frame_rate: frames per second.
            window_seconds: length of a window.
            overlap_seconds: overlap of consecutive windows.
            num_queries: embeddings per window.
            hidden_size: width of the queries.
            num_layers: layers of the Q-Former.
            stream_dim: width to which every stream of another width gets a trained linear map; without it, streams
                keep their widths, unless ``fusion="tokens"`` wants them equal: then it is the first stream's.
            fusion: as for :class:`~avfusion.FrameSynchroniser`.
            **options: further arguments of :class:`~avfusion.CausalQFormer` (``dropout``, ``instruction_dim``, …), and
                ``learn_absent_tokens`` of the synchroniser.

        Raises:
            InvalidValueError: sizes, rates or lengths that are not positive, a window shorter than a frame or of more
                than 65536 tokens, an overlap as long as the window, no stream at all.
            InvalidTypeError: sizes that are no whole numbers.

        Example:
            >>> import torch
            >>> from avfusion import AudioVisualConnector
            >>> connector = AudioVisualConnector.from_dims(visual=192, audio=64, llm=512, num_queries=8)
            >>> out = connector(visual=torch.randn(1, 60, 16, 192), audio=torch.randn(1, 1500, 64))  # 30 s
            >>> out.embeddings.shape
            torch.Size([1, 48, 512])
        """
        streams = stream_sizes(audio)
        dims = streams if visual is None else {VISUAL: check_size("visual", visual), **streams}
        if not dims:
            raise InvalidValueError("visual, audio: at least one must be given, found neither")
        check_rate(frame_rate, "frame_rate")
        rates = stream_rates(audio_rate, streams)
        given = tokens_per_frame if isinstance(tokens_per_frame, Mapping) else {VISUAL: tokens_per_frame}
        check_names("tokens_per_frame", given, {VISUAL: None, **dims})
        slots = {name: most_tokens_in_frame(rate, frame_rate) for name, rate in rates.items()}
        slots |= {name: check_size("tokens_per_frame", value) for name, value in {VISUAL: 32, **given}.items()}
        slots = {name: slots[name] for name in dims}
        if stream_dim is not None or fusion == "tokens":
            width = check_size("stream_dim", next(iter(dims.values())) if stream_dim is None else stream_dim)
            mapped = dict.fromkeys(dims, width)
        else:
            mapped = dims
        synchroniser = FrameSynchroniser(
            visual_dim=mapped.get(VISUAL),
            stream_dims={name: mapped[name] for name in streams},
            frame_rate=frame_rate,
            stream_rates=rates,
            slots=slots if fusion == "tokens" else max(slots.values()),
            fusion=fusion,
            padding=options.get("padding", "masked"),
            learn_absent_tokens=options.pop("learn_absent_tokens", False),
        )
        window, stride = window_sizes(window_seconds, overlap_seconds, frame_rate)
        if window * synchroniser.tokens_per_frame > MAX_WINDOW_TOKENS:
            raise InvalidValueError(
                f"window_seconds: a window must have at most {MAX_WINDOW_TOKENS} tokens, found {window} frames of "
                f"{synchroniser.tokens_per_frame}"
            )
        width = check_size("hidden_size", hidden_size)
        qformer: dict[str, Any] = {
            "input_dim": synchroniser.output_dim,
            "hidden_size": width,
            "num_layers": check_size("num_layers", num_layers),
            "num_heads": num_heads(synchroniser.output_dim, width),
            "num_queries": check_size("num_queries", num_queries),
            "window_frames": window,
            "tokens_per_frame": synchroniser.tokens_per_frame,
        }
        projector = SlidingWindowProjector(
            window_encoder=CausalQFormer(**{**qformer, **options}),
            window_frames=window,
            stride_frames=stride,
            llm_dim=check_size("llm", llm),
        )
        input_dims = {name: dim for name, dim in dims.items() if dim != mapped[name]}
        parts: dict[str, Any] = {"synchroniser": synchroniser, "projector": projector, "input_dims": input_dims}
        return cls(**parts)

    @classmethod
    def from_encoders(
        cls,
        *,
        visual: VisualEncoder | None = None,
        audio: AudioEncoder | Mapping[str, AudioEncoder] | None = None,
        llm: int,
        **sizes: Any,
    ) -> Self:
        """Builds a connector for these encoders, as :meth:`from_dims` does for their widths, tokens and rates.

        Args:
            visual: encoder of the video.
            audio: encoder of the audio, or one for each audio stream by name. One that is no
                :class:`~avfusion.RegularAudioEncoder` tells no rate: give ``audio_rate``.
            llm: width of the language model's embeddings.
            **sizes: of :meth:`from_dims`.

        Raises:
            InvalidValueError: an encoder that tells no rate, and what :meth:`from_dims` refuses.

        Example:
            >>> import timm, torch
            >>> from avfusion import AudioVisualConnector
            >>> from avfusion.encoders import TimmVisualEncoder
            >>> vision = TimmVisualEncoder(model=timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1))
            >>> connector = AudioVisualConnector.from_encoders(visual=vision, llm=512)
            >>> connector(visual=torch.randn(1, 20, vision.tokens_per_frame, vision.output_dim)).embeddings.shape
            torch.Size([1, 64, 512])
        """
        encoders = audio if isinstance(audio, Mapping) else {} if audio is None else {"audio": audio}
        rate = sizes.pop("audio_rate", {})
        rates = dict(rate) if isinstance(rate, Mapping) else dict.fromkeys(encoders, rate)
        frame_rate = sizes.get("frame_rate", 2.0)
        check_rate(frame_rate, "frame_rate")
        tokens: dict[str, int] = {} if visual is None else {VISUAL: visual.tokens_per_frame}
        for name, encoder in encoders.items():
            if name in rates:
                continue
            if not isinstance(encoder, RegularAudioEncoder):
                raise InvalidValueError(f"audio_rate: must be given for {type(encoder).__name__}, which tells no rate")
            rates[name] = encoder.rate * encoder.tokens_per_step
            tokens[name] = most_tokens_in_frame(encoder.rate, frame_rate, encoder.tokens_per_step)
        own = sizes.pop("tokens_per_frame", {})
        return cls.from_dims(
            visual=None if visual is None else visual.output_dim,
            audio={name: encoder.output_dim for name, encoder in encoders.items()} or None,
            llm=llm,
            audio_rate=rates,
            tokens_per_frame=tokens | (dict(own) if isinstance(own, Mapping) else {VISUAL: own}),
            **sizes,
        )
