"""Conversations with media to what the model takes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin

from avfusion import Frames, FrameSynchroniser, InvalidTypeError, InvalidValueError, TokenStream, Video, Waveform
from avfusion.functional import cut_windows
from avfusion.media import Media, load_media
from avfusion.models import prepare_inputs
from examples.favor.fusion import PICTURES_ONLY
from examples.favor.parts import features_layout, microseconds, pad_features, seconds

# The published prompt. The media stand in the first turn that has them; answers end with the end token.
CHAT_TEMPLATE = """{%- for message in messages -%}
{%- if message.role == 'system' -%}
{{ message.content if message.content is string else message.content | map(attribute='text') | join }}{{ ' ' }}
{%- elif message.role == 'user' -%}
{{ 'USER: ' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- if message.content | rejectattr('type', 'equalto', 'text') | list -%}
{{ '<Img>' + media_token + '</Img> ' }}
{%- endif -%}
{{ message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join(' ') }}
{%- endif -%}
{{ '\\n' }}
{%- else -%}
{{ 'ASSISTANT:' }}{{ message.content if message.content is string else message.content | map(attribute='text') | join }}
{{- eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'ASSISTANT:' }}
{%- endif -%}"""

_ANSWER = "\x00"  # stands for an answer while a conversation is rendered: no template and no text has it


class Clip(NamedTuple):
    """What a row talks about, and the instruction in whose light InstructBLIP looks at it.

    ``features`` are what the towers gave for it, by the names of the model's inputs and without padding; they stand
    instead of the rest.
    """

    video: Video | None
    waveform: Waveform | None
    instruction: str | None
    features: Mapping[str, Tensor] | None = None


class FavorProcessor(ProcessorMixin):
    """Tokenizer, image processor and feature extractor of FAVOR.

    Args:
        tokenizer: the language model's.
        image_processor: the vision tower's; must make every picture one size.
        feature_extractor: Whisper's.
        qformer_tokenizer: of InstructBLIP's Q-Former: each clip is then seen in the light of its first question.
        chat_template: the published prompt without it.
        media_token: a token of the tokenizer that no text has; it keeps a place for each embedding.
        frame_rate: frames a second that are read from videos; as are all below, it must be the model's.
        slots: places for tokens in a frame.
        window_frames: frames a window.
        stride_frames: frames from window to window.
        num_queries: embeddings a window.
        num_query_tokens: visual tokens a frame.
        fusion: the model's.
        raw_audio: hand on the sound itself too, for a second audio tower.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        feature_extractor: Any,
        qformer_tokenizer: Any = None,
        chat_template: str | None = None,
        media_token: str = "<unk>",  # not keyword-only: transformers would not read it back from a file
        frame_rate: float = 2.0,
        slots: int = 32,
        window_frames: int = 10,
        stride_frames: int | None = None,
        num_queries: int = 32,
        num_query_tokens: int = 32,
        fusion: str = "synchronised",
        raw_audio: bool = False,
    ) -> None:
        super().__init__(tokenizer, image_processor, feature_extractor, chat_template=chat_template or CHAT_TEMPLATE)
        self._qformer_tokenizer = qformer_tokenizer
        self.media_token = media_token
        self.frame_rate = frame_rate
        self.slots = slots
        self.window_frames = window_frames
        self.stride_frames = stride_frames
        self.num_queries = num_queries
        self.num_query_tokens = num_query_tokens
        self.fusion = fusion
        self.raw_audio = raw_audio

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts that every such processor has."""
        return ["tokenizer", "image_processor", "feature_extractor"]

    @property
    def qformer_tokenizer(self) -> Any:
        """The tokenizer of InstructBLIP's Q-Former, if there is one."""
        return self._qformer_tokenizer

    @property
    def media_token_id(self) -> int:
        """Id of the token that keeps a place."""
        return int(self.tokenizer.convert_tokens_to_ids(self.media_token))

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "qformer_tokenizer": self.qformer_tokenizer is not None}

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Saves all parts; the Q-Former's tokenizer in ``qformer_tokenizer/``, as InstructBLIP's checkpoints do."""
        if self.qformer_tokenizer is not None:
            self.qformer_tokenizer.save_pretrained(Path(save_directory) / "qformer_tokenizer")
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        return super().from_args_and_dict(args, {**processor_dict, "qformer_tokenizer": None}, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:
        """Loads what :meth:`save_pretrained` wrote."""
        processor: Self = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        stored, _ = cls.get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if stored.get("qformer_tokenizer"):
            name = pretrained_model_name_or_path
            processor._qformer_tokenizer = AutoTokenizer.from_pretrained(name, subfolder="qformer_tokenizer")
        return processor

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool | None = None,
        tokenize: bool = True,
        return_labels: bool = False,
        padding_side: str = "left",
        use_audio_in_video: bool = True,
        media_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """One conversation or a batch of them to the model's inputs.

        Args:
            conversation: messages ``{"role": ..., "content": ...}``; content is text or a list of parts
                ``{"type": "text", "text": ...}`` and ``{"type": "video" | "audio" | "image", ...: file or values}``,
                where the value stands under its type's name, ``"path"`` or ``"url"``: a local file,
                :class:`~avfusion.media.Media`, :class:`~avfusion.Video`, :class:`~avfusion.Waveform`, or a whole
                :class:`Clip`. A conversation has at most one picture track and one sound track.
            chat_template: another than the processor's.
            add_generation_prompt: begin an answer; if the last message is the user's, without it.
            tokenize: ``False`` gives the text.
            return_labels: labels too, that learn every answer and its end token, and nothing else.
            padding_side: ``"left"`` for generation.
            use_audio_in_video: a video brings its sound, unless an audio part is given.
            media_options: of :meth:`read`, for every file.
            **kwargs: for the template.

        Returns:
            The model's inputs. Conversations with equal media share a clip: ``media_index`` tells which.
        """
        single = isinstance(conversation[0], Mapping)
        conversations = [conversation] if single else list(conversation)
        template = chat_template or self.chat_template
        options = {"media_token": self.media_token, **kwargs}
        texts = [self._render(messages, template, add_generation_prompt, options) for messages in conversations]
        if not tokenize:
            answers = [_answers(messages) for messages in conversations]
            whole = [_fill(text, said) for text, said in zip(texts, answers, strict=True)]
            return whole[0] if single else whole
        sources = [media_sources(messages) for messages in conversations]
        asked = [first_question(messages) if self.qformer_tokenizer is not None else None for messages in conversations]
        keys = [
            (_identity(source), question) if source else None for source, question in zip(sources, asked, strict=True)
        ]
        distinct = {
            key: (source, question)
            for key, source, question in zip(keys, sources, asked, strict=True)
            if key is not None
        }
        loaded: dict[Any, Any] = {}
        read = partial(self.read, **(media_options or {}))
        media = [self._load(*asking, use_audio_in_video, loaded, read) for asking in distinct.values()]
        place = {key: number for number, key in enumerate(distinct)}
        index = [-1 if key is None else place[key] for key in keys]
        return self(
            [text.split(_ANSWER) for text in texts],
            media,
            index,
            answers=[_answers(messages) for messages in conversations],
            return_labels=return_labels,
            padding_side=padding_side,
        )

    def load_clip(
        self, messages: Sequence[Any], *, use_audio_in_video: bool = True, **media_options: Any
    ) -> Clip | None:
        """Reads the media of a conversation, for them to stand in it instead of the files; ``None`` if it has none.

        Args:
            messages: as :meth:`apply_chat_template` takes them.
            use_audio_in_video: as there.
            **media_options: of :meth:`read`.
        """
        source = media_sources(messages)
        question = first_question(messages) if self.qformer_tokenizer is not None else None
        read = partial(self.read, **media_options)
        return self._load(source, question, use_audio_in_video, {}, read) if source else None

    def read(self, path: str | Path, *, longest: float | None = None, **options: Any) -> Media:
        """A file, or with ``start`` and ``end`` some seconds of it, at the rates and size that the towers want.

        Args:
            path: a local file.
            longest: seconds that it may last; nothing much beyond them is read, and a longer file is refused.
            **options: of :func:`avfusion.media.load_media`.

        Raises:
            MediaError: a file that cannot be read.
            InvalidValueError: a file that lasts too long.
        """
        if longest is not None:
            options = {"end": options.get("start", 0.0) + longest + 1, **options}
        media = load_media(
            path,
            frame_rate=self.frame_rate,
            sample_rate=self.feature_extractor.sampling_rate,
            size=self.picture_size,
            **options,
        )
        if longest is not None and media.duration > longest:
            raise InvalidValueError(f"{path}: must last at most {longest:g} s, found more")
        return media

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """``(height, width)`` that the vision tower wants, if it takes the whole of every picture."""
        size = dict(getattr(self.image_processor, "size", None) or {})
        whole = not getattr(self.image_processor, "do_center_crop", False) and {"height", "width"} <= size.keys()
        return (size["height"], size["width"]) if whole else None

    def __call__(
        self,
        text: Sequence[str] | Sequence[Sequence[str]],
        media: Sequence[Clip] = (),
        media_index: Sequence[int] | None = None,
        *,
        answers: Sequence[Sequence[str]] | None = None,
        return_labels: bool = False,
        padding_side: str = "left",
    ) -> BatchFeature:
        """Rendered prompts and loaded clips to the model's inputs; see :meth:`apply_chat_template` for the usual way.

        Args:
            text: one prompt a row, or a list of prompts with ``answers`` between and after them.
            media: the clips.
            media_index: clip of each row, -1 for none; row ``i`` has clip ``i`` without it.
            answers: what was answered to the prompts of each row.
            return_labels: labels for the answers.
            padding_side: ``"left"`` for generation.
        """
        prompts = [[row] if isinstance(row, str) else list(row) for row in text]
        index = list(range(len(media))) if media_index is None else list(media_index)
        index = index or [-1] * len(prompts)
        said = [list(row) for row in answers] if answers is not None else [[] for _ in prompts]
        # A template ends an answer with the end token, which is added to every answer anyway.
        end = self.tokenizer.eos_token or ""
        prompts = [[row[0], *(part.removeprefix(end) for part in row[1:])] for row in prompts]
        prompts = [row[:-1] if len(row) > 1 and not row[-1].strip() else row for row in prompts]
        data, counts = self._media(media)
        bos = self.tokenizer.bos_token
        inputs = prepare_inputs(
            self.tokenizer,
            prompts,
            [counts[clip] if clip >= 0 else 0 for clip in index],
            answers=said,
            placeholder=self.media_token,
            padding_side="left" if padding_side == "left" else "right",
            add_special_tokens=not (bos and prompts[0][0].startswith(bos)),
        )
        if not return_labels:
            del inputs["labels"]
        if media and index != list(range(len(media))):
            inputs["media_index"] = torch.tensor(index)
        return BatchFeature({**inputs, **data})

    def _render(self, messages: Any, template: str, generate: bool | None, options: dict[str, Any]) -> str:
        if any(_ANSWER in _text(message) for message in messages if message["role"] != "assistant"):
            raise InvalidValueError("conversation: text must not hold the character NUL, found it in a message")
        hidden = [
            {**message, "content": _ANSWER} if message["role"] == "assistant" else message for message in messages
        ]
        generate = messages[-1]["role"] == "user" if generate is None else generate
        rendered: str = self.tokenizer.apply_chat_template(
            hidden, chat_template=template, tokenize=False, add_generation_prompt=generate, **options
        )
        return rendered

    def _load(
        self,
        source: Mapping[str, Any],
        question: str | None,
        use_audio: bool,
        loaded: dict[Any, Any],
        read: Callable[..., Media],
    ) -> Clip:
        pictures = source.get("video", source.get("image"))
        if isinstance(pictures, Clip):
            return pictures
        video, own = self._read(pictures, "image" if "image" in source else "video", use_audio, loaded, read)
        sound = self._read(source["audio"], "audio", True, loaded, read)[1] if "audio" in source else own
        return Clip(video, sound, question)

    def _read(
        self, value: Any, kind: str, audio: bool, loaded: dict[Any, Any], read: Callable[..., Media]
    ) -> tuple[Any, Any]:
        if value is None:
            return None, None
        if isinstance(value, Video | Waveform):
            return (value, None) if isinstance(value, Video) else (None, value)
        if isinstance(value, Media):
            return (None if kind == "audio" else value.video), (value.waveform if audio else None)
        if not isinstance(value, str | Path):
            raise InvalidTypeError(f"{kind}: must be a file, Media, Video or Waveform, found {type(value).__name__}")
        key = (str(value), kind, audio)
        if key not in loaded:
            require = ["audio" if kind == "audio" else "video"]
            audio = kind != "image" and audio
            loaded[key] = read(value, video=kind != "audio", audio=audio, require=require)
        return loaded[key].video, loaded[key].waveform

    def _media(self, clips: Sequence[Clip]) -> tuple[dict[str, Tensor], list[int]]:
        """The clips' tensors, and how many embeddings each will give."""
        data: dict[str, Tensor] = {}
        streams: dict[str, Frames | TokenStream] = {}
        if self.fusion in PICTURES_ONLY:
            clips = [clip._replace(waveform=None) for clip in clips]
            for number, clip in enumerate(clips):
                if clip.video is None and "visual_features" not in (clip.features or {}):
                    raise InvalidValueError(
                        f"media: must have pictures for fusion={self.fusion!r}, clip {number} has none"
                    )
        features = [clip.features for clip in clips if clip.features is not None]
        if features:
            if len(features) < len(clips):
                raise InvalidValueError(
                    f"media: must have features for all clips or for none, found {len(features)} of {len(clips)} with"
                )
            data = pad_features(features)
            return data, self._counts(features_layout(data))
        videos = [clip.video for clip in clips]
        if any(video is not None for video in videos):
            data |= self._pictures(videos)
            mask = data["video_mask"][..., None]
            streams["visual"] = Frames(torch.zeros(*mask.shape, 1), mask, seconds(data["video_spans"]))
        waveforms = [clip.waveform for clip in clips]
        if any(waveform is not None for waveform in waveforms):
            data |= self._sound(waveforms)
            real = data["feature_attention_mask"][:, ::2].bool()
            streams["audio"] = TokenStream.from_rate(
                torch.zeros(*real.shape, 1), 50.0, mask=real, start=seconds(data["audio_start"])
            )
        if not streams:
            return data, []
        if self.qformer_tokenizer is not None and videos != [None] * len(clips):
            data |= self._instructions([clip.instruction or "" for clip in clips])
        return data, self._counts(streams)

    def _instructions(self, texts: Sequence[str]) -> dict[str, Tensor]:
        asked = self.qformer_tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return {"qformer_input_ids": asked["input_ids"], "qformer_attention_mask": asked["attention_mask"]}

    def prepare_for_threads(self) -> None:
        """Sets the tokenizers up, which else the first text does, and which two threads cannot do at once."""
        self.tokenizer("")
        if self.qformer_tokenizer is not None:
            self._instructions([""])

    def _counts(self, streams: Mapping[str, Frames | TokenStream]) -> list[int]:
        """How many embeddings the connector gives for each clip of such streams."""
        layout = FrameSynchroniser(visual_dim=1, stream_dims={"audio": 1}, frame_rate=self.frame_rate, slots=self.slots)
        counts: list[int]
        if self.fusion in PICTURES_ONLY:
            counts = (streams["visual"].mask[..., 0].sum(1) * self.num_query_tokens).tolist()
            return [min(count, self.num_query_tokens) for count in counts] if self.fusion == "averaged" else counts
        apart = self.fusion == "separate"
        grids = [layout(**{name: stream}) for name, stream in streams.items()] if apart else [layout(**streams)]
        windows = [cut_windows(grid, self.window_frames, self.stride_frames).window_mask.sum(1) for grid in grids]
        counts = (torch.stack(windows).sum(0) * self.num_queries).tolist()
        return counts

    def _pictures(self, videos: Sequence[Video | None]) -> dict[str, Tensor]:
        pixels, masks, spans = [], [], []
        for video in videos:
            frames = [] if video is None else list(video.pixels[video.mask])
            if video is not None and frames:
                floating = frames[0].is_floating_point()
                done = self.image_processor(
                    images=frames,
                    do_rescale=self.image_processor.do_rescale and not floating,
                    input_data_format="channels_first",
                    return_tensors="pt",
                )["pixel_values"]
                pixels.append(done)
                spans.append(microseconds(video.spans[video.mask]))
            else:
                pixels.append(None)
                spans.append(torch.zeros(0, 2, dtype=torch.int64))
            masks.append(torch.ones(len(frames), dtype=torch.bool))
        shape = next(value.shape[1:] for value in pixels if value is not None)
        filled = [torch.zeros(0, *shape) if value is None else value for value in pixels]
        return {
            "pixel_values_videos": pad_sequence(filled, batch_first=True),
            "video_mask": pad_sequence(masks, batch_first=True),
            "video_spans": pad_sequence(spans, batch_first=True),
        }

    def _sound(self, waveforms: Sequence[Waveform | None]) -> dict[str, Tensor]:
        extractor, features, masks = self.feature_extractor, [], []
        for wave in waveforms:
            if wave is not None and wave.sample_rate != extractor.sampling_rate:
                raise InvalidValueError(
                    f"waveform.sample_rate: must be {extractor.sampling_rate}, found {wave.sample_rate}; resample it"
                )
        samples = [torch.zeros(0) if wave is None else wave.samples[wave.mask] for wave in waveforms]
        for sound in samples:
            pieces = list(sound.split(extractor.n_samples)) or [torch.zeros(0)]
            mel = torch.zeros(len(pieces), extractor.feature_size, extractor.nb_max_frames)
            if len(sound):
                mel = extractor(
                    [piece.numpy() for piece in pieces], sampling_rate=extractor.sampling_rate, return_tensors="pt"
                )["input_features"]
            features.append(mel.transpose(0, 1).flatten(1).T)
            frames = -(-len(sound) // extractor.hop_length)
            masks.append(torch.arange(features[-1].shape[0]) < frames)
        starts = [torch.zeros(1, dtype=torch.float64) if wave is None else wave.start for wave in waveforms]
        data = {
            "input_features": pad_sequence(features, batch_first=True).transpose(1, 2),
            "feature_attention_mask": pad_sequence(masks, batch_first=True),
            "audio_start": microseconds(torch.cat(starts)),
        }
        if self.raw_audio:
            data["input_values"] = pad_sequence(samples, batch_first=True)
            real = [torch.ones(len(wave), dtype=torch.bool) for wave in samples]
            data["input_values_mask"] = pad_sequence(real, batch_first=True)
        return data


def conversation(question: str, *, video: Any = None, audio: Any = None, image: Any = None) -> list[dict[str, Any]]:
    """One question about media, as a conversation."""
    media = {"video": video, "audio": audio, "image": image}
    parts = [{"type": kind, kind: value} for kind, value in media.items() if value is not None]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def _parts(messages: Sequence[Any]) -> list[Any]:
    return [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]


def media_sources(messages: Sequence[Any]) -> dict[str, Any]:
    """The media of a conversation, by kind."""
    sources: dict[str, Any] = {}
    for part in _parts(messages):
        kind = part["type"]
        if kind == "text":
            continue
        if kind not in ("video", "audio", "image"):
            raise InvalidValueError(f'conversation: a part must be "text", "video", "audio" or "image", found {kind!r}')
        value = next((part[name] for name in (kind, "path", "url") if part.get(name) is not None), None)
        if value is None:
            raise InvalidValueError(
                f"conversation: a part of type {kind!r} must name its file under {kind!r} or 'path'"
            )
        if kind in sources or {kind, *sources} >= {"video", "image"}:
            raise InvalidValueError(
                f"conversation: must have one picture track and one sound track, found another {kind}"
            )
        sources[kind] = value
    return sources


def _identity(source: Mapping[str, Any]) -> Any:
    """What tells media apart: the names of files, and of all else the very object."""
    return tuple(
        (kind, str(value) if isinstance(value, str | Path) else id(value)) for kind, value in sorted(source.items())
    )


def _text(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else " ".join(part["text"] for part in content if part["type"] == "text")


def first_question(messages: Sequence[Any]) -> str:
    return next((_text(message) for message in messages if message["role"] == "user"), "")


def _answers(messages: Sequence[Any]) -> list[str]:
    return [_text(message) for message in messages if message["role"] == "assistant"]


def _fill(text: str, answers: Sequence[str]) -> str:
    pieces = text.split(_ANSWER)
    return pieces[0] + "".join(answer + piece for answer, piece in zip(answers, pieces[1:], strict=True))
