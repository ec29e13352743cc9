"""Media files and conversations to what a model takes."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from transformers import BatchFeature, ProcessorMixin

from avfusion.errors import InvalidValueError
from avfusion.models._parts import LANGUAGE_MODEL, load_tokenizer
from avfusion.models.clip_preparing import ClipPreparing
from avfusion.models.clip_reading import ClipReading, fixed_size
from avfusion.models.clips import ClipReader
from avfusion.models.conversations import Message
from avfusion.models.counting import PlaceholderCounter
from avfusion.models.prompts import placeholder_id
from avfusion.models.rendering import PLAIN_TEMPLATE, Rendered, flat_content, render


class AudioVisualProcessor(ClipPreparing, ClipReading, ProcessorMixin):
    """Turns conversations about media files into inputs of :class:`AudioVisualLanguageModel`.

    :meth:`from_model` builds one for a model. The text is rendered by the tokenizer's own chat template, if it has one,
    with a placeholder token for each embedding of the clip. Labels cover what the template marks by
    ``{% generation %}``, or else the answers and their end tokens. A reasoning template such as Qwen 3's writes an
    empty thought before an answer; it is learned too, unless ``enable_thinking=False`` makes it part of the prompt.

    Args:
        tokenizer: the language model's tokenizer.
        chat_template: by default the tokenizer's own, or a plain one if it has none.
        placeholder: the placeholder token, a token of the tokenizer.
        frame_rate: frames per second to read from videos.
        sample_rate: sample rate of the audio in Hz.
        size: height and width of the frames; by default those of the file, which must then be equal within a batch.
        **parts: in a subclass: the parts named by its ``get_attributes`` besides the tokenizer.

    Raises:
        InvalidValueError: the placeholder is not a token.

    Example:
        >>> import torch
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        >>> from avfusion import AudioVisualConnector, TokenStream
        >>> from avfusion.models import AudioVisualLanguageModel, AudioVisualProcessor, Clip, conversation
        >>> words = ["<unk>", "</s>", "<av>", "USER:", "ASSISTANT:", "Which", "tone?", "low"]
        >>> rule = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        >>> rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rule, eos_token="</s>", unk_token="<unk>")
        >>> model = AudioVisualLanguageModel(
        ...     language_model=LlamaForCausalLM(LlamaConfig(
        ...         vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        ...     )),
        ...     connector=AudioVisualConnector.from_dims(audio=8, llm=16, num_queries=2, hidden_size=16),
        ...     placeholder_token_id=2,
        ... )
        >>> processor = AudioVisualProcessor.from_model(model, tokenizer)
        >>> heard = Clip(features={"audio": TokenStream.from_rate(torch.randn(1, 150, 8), rate=50.0)})
        >>> messages = conversation("Which tone?", audio=heard)  # or audio="clip.wav", where the model has encoders
        >>> inputs = processor.collate([[*messages, {"role": "assistant", "content": "low"}]])
        >>> inputs["input_ids"].tolist(), inputs["labels"].tolist()
        ([[3, 2, 2, 5, 6, 4, 7, 1]], [[-100, -100, -100, -100, -100, -100, 7, 1]])
        >>> model(**inputs).loss.backward()
    """

    template_takes_parts = False
    """Whether the chat template takes contents that are lists of parts; else they are made into text."""

    def __init__(
        self,
        tokenizer: Any,
        chat_template: str | None = None,
        placeholder: str = "<av>",  # not keyword-only: transformers would not read it back from a file
        frame_rate: float = 2.0,
        sample_rate: int = 16_000,
        size: Sequence[int] | int | None = None,
        **parts: Any,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template or PLAIN_TEMPLATE, **parts)
        self.placeholder = placeholder
        self.frame_rate = frame_rate
        self.sample_rate = sample_rate
        if size is None:
            size = fixed_size(parts.get("image_processor"))
        self.size = size if isinstance(size, int | None) else list(size)
        self._counter: PlaceholderCounter | None = None
        placeholder_id(tokenizer, placeholder)

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any = None, **options: Any) -> Self:
        """A processor that reads media in the format of a model's encoders and connector, and counts its embeddings.

        Args:
            model: an :class:`AudioVisualLanguageModel`.
            tokenizer: its language model's tokenizer; loaded for a model from ``from_pretrained_parts``.
            **options: the constructor's arguments, which replace those derived from the model.

        Raises:
            InvalidValueError: the placeholder is not the model's, or the encoders have different sample rates.
        """
        tokenizer = _tokenizer_of(model) if tokenizer is None else tokenizer
        rates = sorted(
            {encoder.sample_rate for encoder in model.audio_encoders.values() if hasattr(encoder, "sample_rate")}
        )
        if len(rates) > 1 and "sample_rate" not in options:
            raise InvalidValueError(f"sample_rate: must be given for audio encoders that want different ones, {rates}")
        found: dict[str, Any] = {"placeholder": tokenizer.convert_ids_to_tokens(model.placeholder_token_id)}
        if rates:
            found["sample_rate"] = rates[0]
        synchroniser = getattr(model.connector, "synchroniser", None)
        if synchroniser is not None:
            found["frame_rate"] = synchroniser.frame_rate
        own = getattr(model.visual_encoder, "image_processor", None)
        found["size"] = getattr(model.visual_encoder, "image_size", None) if own is None else fixed_size(own)
        return cls(tokenizer, **{**found, **options}).with_model(model)

    def with_model(self, model: Any) -> Self:
        """Counts embeddings with this model; needed for a processor that was loaded from a directory.

        Raises:
            InvalidValueError: the model has another placeholder.
        """
        if self.placeholder_id != model.placeholder_token_id:
            raise InvalidValueError(
                f"placeholder: must be the model's placeholder token {model.placeholder_token_id}, "
                f"found {self.placeholder!r} = {self.placeholder_id}"
            )
        self._counter = PlaceholderCounter(model)
        return self

    @property
    def placeholder_id(self) -> int:
        """Id of the placeholder token."""
        return placeholder_id(self.tokenizer, self.placeholder)

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
        """Turns one conversation or a batch of conversations into the model's inputs.

        Args:
            conversation: messages ``{"role": ..., "content": ...}``; content is text or a list of parts ``{"type":
                "text", "text": ...}`` and ``{"type": "video" | "audio" | "image", ...: file or values}``. The value's
                key is the type, ``"path"`` or ``"url"``. It is a local file, :class:`~avfusion.media.Media`,
                :class:`~avfusion.Video`, :class:`~avfusion.Waveform`, or a whole :class:`Clip`. A conversation has at
                most one video or image, and one audio track.
            chat_template: replaces the processor's.
            add_generation_prompt: begin an answer; by default if the last message is not the assistant's.
            tokenize: ``False`` returns the text, with one placeholder for a clip.
            return_labels: return labels that cover every answer and its end token.
            padding_side: ``"left"`` for generation.
            use_audio_in_video: use the audio of a video, unless an audio part is given.
            media_options: arguments of :meth:`read` for every file.
            **kwargs: arguments of the template.

        Returns:
            The model's inputs. Conversations with equal media share a clip through ``media_index``.

        Raises:
            InvalidValueError: invalid messages, or messages that the template refuses.
            MediaError: a file cannot be read.
        """
        single = isinstance(conversation[0], Mapping)
        conversations = [conversation] if single else list(conversation)
        options = {name: value for name, value in kwargs.items() if name not in ("return_dict", "return_tensors")}
        template = chat_template or self.chat_template
        rendered = [self._render(messages, template, add_generation_prompt, options) for messages in conversations]
        if not tokenize:
            return rendered[0].text if single else [one.text for one in rendered]
        clips, index = self.read_clips(conversations, use_audio_in_video=use_audio_in_video, **(media_options or {}))
        return self.prepare(
            [one.prompts for one in rendered],
            clips,
            index,
            answers=[one.answers for one in rendered],
            end=next((one.end for one in rendered if one.end is not None), None),
            return_labels=return_labels,
            padding_side=padding_side,
            add_special_tokens=self._lacks_special_tokens(template, rendered[0].prompts[0]),
        )

    def __call__(
        self,
        text: str | Sequence[str],
        videos: Sequence[Any] | None = None,
        audio: Sequence[Any] | None = None,
        *,
        media_index: Sequence[int] | None = None,
        add_special_tokens: bool = True,
        padding_side: str = "left",
        **media_options: Any,
    ) -> BatchFeature:
        """Prompts and media to the model's inputs.

        Args:
            text: a prompt a row, with one placeholder where its clip goes.
            videos: frames of each clip, files or values as for :meth:`apply_chat_template`, or ``None`` for a clip
                without; a video file brings its audio where ``audio`` has none for it.
            audio: audio of each clip, likewise.
            media_index: clip of each row, -1 for none; row ``i`` has clip ``i`` without it.
            add_special_tokens: let the tokenizer begin the prompts with its special tokens.
            padding_side: ``"left"`` for generation.
            **media_options: of :meth:`read`.

        Raises:
            InvalidValueError: different numbers of videos and sounds.
            MediaError: a file that cannot be read.
        """
        rows = [text] if isinstance(text, str) else list(text)
        tracks = {"video": videos, "audio": audio}
        counts = {len(values) for values in tracks.values() if values is not None}
        if len(counts) > 1:
            raise InvalidValueError(
                f"videos, audio: must be of one length, with None for what a clip lacks, found {sorted(counts)}"
            )
        reader = ClipReader(lambda path, **tracks: self.read(path, **tracks, **media_options))
        sources = [
            {kind: values[clip] for kind, values in tracks.items() if values is not None and values[clip] is not None}
            for clip in range(next(iter(counts), 0))
        ]
        clips = [reader.clip(source) for source in sources]
        prompts = [[row] for row in rows]
        index = (list(range(len(clips))) or [-1] * len(rows)) if media_index is None else list(media_index)
        return self.prepare(prompts, clips, index, padding_side=padding_side, add_special_tokens=add_special_tokens)

    def collate(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Turns conversations into a training batch; a ``collate_fn``, or Trainer's ``data_collator``.

        Args:
            rows: conversations, or ``{"messages": conversation}``. Padding is on the right.
        """
        messages = [row["messages"] if isinstance(row, Mapping) else row for row in rows]
        inputs = self.apply_chat_template(
            messages, return_labels=True, padding_side="right", add_generation_prompt=False
        )
        return dict(inputs)

    def _render(
        self, messages: Sequence[Message], template: str, generate: bool | None, options: Mapping[str, Any]
    ) -> Rendered:
        given = messages if self.template_takes_parts else flat_content(messages, self.placeholder)
        return render(self.tokenizer, given, template, {**self._template_options(), **options}, generate=generate)

    def _template_options(self) -> dict[str, Any]:
        """Variables that the template of a subclass takes."""
        return {}

    def _lacks_special_tokens(self, template: str, text: str) -> bool:
        """Whether the tokenizer has to begin with its special tokens: its own template writes them itself."""
        bos = self.tokenizer.bos_token
        return template != self.tokenizer.chat_template and not (bos and text.startswith(bos))


def _tokenizer_of(model: Any) -> Any:
    source = model.part_sources.get(LANGUAGE_MODEL)
    if source is None or model.placeholder is None:
        raise InvalidValueError("tokenizer: must be given for a model that is not from from_pretrained_parts")
    return load_tokenizer(source.name, model.placeholder, source.revision)
