"""Multimodal transformers models whose processor has a chat template."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from avfusion.aveb.requests import Request
from avfusion.errors import InvalidValueError
from avfusion.media import load_media
from avfusion.models import rowwise_options

KINDS = ("image", "video", "audio")
_HANDLED_BY = {"image": "image_processor", "video": "video_processor", "audio": "feature_extractor"}


class _Pictures(NamedTuple):
    """``(frame, height, width, 3)`` and the frame rate."""

    frames: Any
    rate: float


class TransformersAnswerer:
    """Answers with a transformers model; media precede the question in the order image, video, audio.

    Args:
        model: in evaluation mode, with ``generate``.
        processor: the model's processor.
        frame_rate: frames per second of a video.
        max_frames: maximal number of frames of a video; longer videos are sampled at a lower rate.
        ignore: media to withhold, such as ``"audio"`` for a model without audio input. Otherwise a
            request with media that the processor does not take raises an error.
        **generation: options of ``generate``; greedy with at most 128 new tokens by default.

    Raises:
        InvalidValueError: media that cannot be ignored, a processor without chat template.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        frame_rate: float = 2.0,
        max_frames: int = 64,
        ignore: str | Sequence[str] = (),
        **generation: Any,
    ) -> None:
        ignored = {ignore} if isinstance(ignore, str) else {*ignore}
        if ignored - {*KINDS}:
            raise InvalidValueError(f"ignore: must be among {', '.join(KINDS)}, found {sorted(ignored - {*KINDS})}")
        if getattr(processor, "chat_template", None) is None:
            raise InvalidValueError(
                f"model: its processor must have a chat template, {type(processor).__name__} has none"
            )
        self.model = model
        self.processor = processor
        self.frame_rate = frame_rate
        self.max_frames = max_frames
        self.ignored = ignored
        self.generation = {"max_new_tokens": 128, "do_sample": False, **generation}
        processor.tokenizer.padding_side = "left"

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        dtype: str = "auto",
        device: str | None = None,
        attn_implementation: str | None = None,
        **options: Any,
    ) -> "TransformersAnswerer":
        """Loads model and processor from the Hub or a folder."""
        from transformers import AutoModelForMultimodalLM, AutoProcessor

        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            model = AutoModelForMultimodalLM.from_pretrained(name, dtype=dtype, attn_implementation=attn_implementation)
            processor = AutoProcessor.from_pretrained(name)
        except (OSError, ValueError) as error:  # of a folder without such a model
            raise InvalidValueError(f"model: cannot load {name} ({str(error).splitlines()[0]})") from error
        return cls(model.to(place).eval(), processor, **options)

    @torch.no_grad()
    def answer(self, requests: Sequence[Request]) -> list[str]:
        """One text per request."""
        given = [self._media(request) for request in requests]
        texts = [
            self.processor.apply_chat_template(_messages(request, media), tokenize=False, add_generation_prompt=True)
            for request, media in zip(requests, given, strict=True)
        ]
        inputs = self.processor(text=texts, **self._arguments(given), padding=True, return_tensors="pt")
        inputs = inputs.to(self.model.device)
        for key, value in inputs.items():
            if torch.is_floating_point(value):
                inputs[key] = value.to(self.model.dtype)
        text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        options = rowwise_options(self.model, **text, with_ids=True, **self.generation)
        tokens = self.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
        said = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in said]

    def _media(self, request: Request) -> dict[str, Any]:
        """Arrays by kind."""
        found: dict[str, Any] = {}
        for kind in KINDS:
            path = getattr(request, kind)
            if path is None or kind in self.ignored:
                continue
            taker = type(self.processor).__name__
            if getattr(self.processor, _HANDLED_BY[kind], None) is None:
                raise InvalidValueError(f"model: {taker} takes no {kind}, found {path}; withhold it with ignore={kind}")
            start, end = request.span or (0.0, None)
            found[kind] = self._sound(path, start, end) if kind == "audio" else self._pictures(path, start, end)
            if kind == "image":
                found[kind] = found[kind].frames[0]
        return found

    def _sound(self, path: Path, start: float, end: float | None) -> Any:
        rate = self.processor.feature_extractor.sampling_rate
        waveform = load_media(path, sample_rate=rate, start=start, end=end, video=False, require=["audio"]).waveform
        return torch.empty(0) if waveform is None else waveform.samples[waveform.mask].numpy()

    def _pictures(self, path: Path, start: float, end: float | None) -> _Pictures:
        rate = self.frame_rate
        while True:
            video = load_media(path, frame_rate=rate, start=start, end=end, audio=False, require=["video"]).video
            pixels = torch.empty(0) if video is None else video.pixels[0]
            if len(pixels) <= self.max_frames:
                return _Pictures(pixels.permute(0, 2, 3, 1).numpy(), rate)
            rate *= self.max_frames / (len(pixels) + 1)

    def _arguments(self, given: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The media of all requests, as processors take them."""
        arguments: dict[str, Any] = {}
        if any("image" in media for media in given):
            arguments["images"] = [[media["image"]] if "image" in media else [] for media in given]
        videos = [media["video"] for media in given if "video" in media]
        if videos:
            facts = [
                {"fps": rate, "total_num_frames": len(frames), "frames_indices": [*range(len(frames))]}
                for frames, rate in videos
            ]
            arguments |= {"videos": [frames for frames, _ in videos], "video_metadata": facts}
            arguments["do_sample_frames"] = False
        sounds = [media["audio"] for media in given if "audio" in media]
        if sounds:
            arguments |= {"audio": sounds, "sampling_rate": self.processor.feature_extractor.sampling_rate}
        return arguments


def _messages(request: Request, media: dict[str, Any]) -> list[dict[str, Any]]:
    """A dialogue whose first message has the media."""
    asked = [question for question, _ in request.history] + [request.prompt]
    said = [answer for _, answer in request.history]
    messages: list[dict[str, Any]] = []
    for number, question in enumerate(asked):
        parts = [{"type": kind} for kind in media] if number == 0 else []
        messages.append({"role": "user", "content": [*parts, {"type": "text", "text": question}]})
        if number < len(said):
            messages.append({"role": "assistant", "content": [{"type": "text", "text": said[number]}]})
    return messages
