"""A session: a model watches, listens, and answers at any moment."""

import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidValueError
from avfusion.models._cache import CACHE
from avfusion.models._wrappers import unwrap
from avfusion.models.audio_visual_language_model import AudioVisualLanguageModel
from avfusion.models.live.prefill import NOT_PREFILLED, Prefilled, Prefiller, fork
from avfusion.models.live.prompt import LivePrompt
from avfusion.models.live.retention import RetentionPolicy
from avfusion.models.live.state import KeptWindows, SessionState, check_kept, no_windows, remember, windows_of
from avfusion.models.live.streaming_encoder import StreamingEncoder
from avfusion.models.live.token_streamer import stream_text
from avfusion.models.rowwise import rowwise_options
from avfusion.types import Video, Waveform, map_state, state_from_tensors, state_tensors

_OURS = ("inputs", "input_ids", "inputs_embeds", "attention_mask", "position_ids", "streamer", "cache",
         "past_key_values", "return_dict_in_generate", "num_return_sequences")  # fmt: skip


class Watched(NamedTuple):
    """Result of :meth:`~avfusion.models.LiveSession.watch`.

    Attributes:
        spans: ``(window, 2)`` seconds of the windows that were finished, float64.
        late: number of late tokens and video frames of this call that were dropped, by stream.
        forgotten: number of windows dropped by the retention policy.
        watermark: seconds up to which the next answer knows the input; ``-inf`` before the first window.

    Example:
        >>> import torch
        >>> from avfusion.models import Watched
        >>> spans = torch.tensor([[0.0, 5.0]], dtype=torch.float64)
        >>> watched = Watched(spans=spans, late={"visual": 0, "audio": 0}, forgotten=0, watermark=6.5)
        >>> len(watched.spans), watched.watermark  # session.watch(pictures, sound)
        (1, 6.5)
    """

    spans: Float[Tensor, "window 2"]
    late: dict[str, int]
    forgotten: int
    watermark: float


class LiveSession:
    """Processes live audio and video with a model, and answers questions at any time.

    Each input passes through the encoders once, and through the connector's stream. The embeddings of each finished
    window are prefilled into the language model's KV cache at once, so that an answer only has to prefill the question.
    The answer equals that of :meth:`~AudioVisualLanguageModel.generate` for the windows that are kept.

    Args:
        model: a model in evaluation mode. Its audio encoders must be streaming, such as
            :class:`~avfusion.encoders.BlockwiseAudioEncoder`; its visual encoder must encode frames independently.
        tokenizer: the language model's tokenizer.
        prompt: contains ``placeholder`` once, for the clip, and after it ``{question}`` once.
        retention: policy for the windows to keep, such as :class:`KeepNewest`; by default all are kept, and the cache
            grows. Kept windows, question and answer must fit the language model's context length.
        placeholder: the token that stands for the clip.
        add_special_tokens: let the tokenizer add its special tokens to the prompt; ``False`` for a prompt from a chat
            template.
        streams: names of the connector's streams to expect, ``"visual"`` among them; by default those of all encoders.
        max_wait: maximal time in seconds that a frame waits for a delayed stream; unlimited by default.
        instruction: ``(1, length, instruction_dim)``: a fixed instruction, for connectors with conditioning.
        instruction_mask: ``(1, length)`` bool.

    Raises:
        PlaceholderError: the prompt lacks ``placeholder`` or ``{question}``.
        InvalidValueError: a model in training mode, a stream without an encoder, or a placeholder that is not the
            model's.
        InvalidTypeError: the connector or an audio encoder cannot stream.

    Example:
        >>> import torch
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        >>> from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
        >>> from avfusion import AudioVisualConnector, CausalQFormer, FrameSynchroniser, SlidingWindowProjector
        >>> from avfusion import Waveform
        >>> from avfusion.encoders import BlockwiseAudioEncoder, WhisperAudioEncoder
        >>> from avfusion.models import AudioVisualLanguageModel, KeepNewest, LiveSession
        >>> whisper = WhisperConfig(
        ...     d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        ...     encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=8, max_source_positions=1500,
        ...     pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        ... )
        >>> ear = WhisperAudioEncoder(
        ...     model=WhisperModel(whisper), feature_extractor=WhisperFeatureExtractor(), chunk_seconds=3.0
        ... )
        >>> qformer = CausalQFormer(
        ...     input_dim=24, hidden_size=16, num_heads=2, num_queries=2, window_frames=4, tokens_per_frame=25
        ... )
        >>> llama = LlamaConfig(
        ...     vocab_size=6, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        ...     bos_token_id=None, eos_token_id=1, pad_token_id=1,
        ... )
        >>> model = AudioVisualLanguageModel(
        ...     language_model=LlamaForCausalLM(llama),
        ...     connector=AudioVisualConnector(
        ...         synchroniser=FrameSynchroniser(visual_dim=8, stream_dims={"audio": 16}, slots=25),
        ...         projector=SlidingWindowProjector(window_encoder=qformer, window_frames=4, llm_dim=16),
        ...     ),
        ...     audio_encoders={"audio": BlockwiseAudioEncoder(encoder=ear, block=1.0, left_context=2.0)},
        ...     placeholder_token_id=2,
        ... ).eval()
        >>> words = {word: index for index, word in enumerate(["<unk>", "</s>", "<av>", "what", "was", "that"])}
        >>> rule = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        >>> rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rule, eos_token="</s>", unk_token="<unk>")
        >>> session = LiveSession(model, tokenizer, prompt="<av> {question}", retention=KeepNewest(seconds=600))
        >>> for second in range(5):
        ...     heard = Waveform.from_samples(torch.randn(1, 16000), 16000, start=second)
        ...     watched = session.watch(waveform=heard)
        ...     if len(watched.spans):
        ...         print(watched.spans.tolist())
        [[0.0, 2.0]]
        [[2.0, 4.0]]
        >>> watched.watermark
        5.0
        >>> answer = "".join(session.ask("what was that", max_new_tokens=4))
        >>> answer == session.answer("what was that", max_new_tokens=4)
        True
    """

    def __init__(
        self,
        model: AudioVisualLanguageModel,
        tokenizer: Any,
        *,
        prompt: str,
        retention: RetentionPolicy | None = None,
        placeholder: str = "<av>",
        add_special_tokens: bool = True,
        streams: Collection[str] | None = None,
        max_wait: float | None = None,
        instruction: Float[Tensor, "1 length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "1 length"] | None = None,
    ) -> None:
        conditioning = {"instruction": instruction, "instruction_mask": instruction_mask}
        self._encoder = StreamingEncoder(model, streams, max_wait, conditioning)
        self._prompt = LivePrompt(tokenizer, prompt, placeholder, model.placeholder_token_id, add_special_tokens)
        self.model, self.tokenizer, self.retention = model, tokenizer, retention
        self._prefiller = Prefiller(model.language_model)
        self._state, self._prefilled = self._initial_state(), NOT_PREFILLED

    @property
    def kept(self) -> KeptWindows:
        """The windows in the context, without the partial one."""
        return self._state.kept

    @property
    def keeps_cache(self) -> bool:
        """Whether the language model's KV cache is kept; otherwise each answer prefills all kept windows again.

        It is kept for models in which every layer has full or sliding-window attention. For some models this is unknown
        before the first window; the value is then ``True``.
        """
        return self._prefiller.keeps_cache

    @property
    def delay(self) -> float:
        """Maximal delay of audio tokens in the audio encoders, in seconds."""
        return self._encoder.delay

    @torch.no_grad()
    def watch(
        self,
        video: Video | None = None,
        waveform: Waveform | None = None,
        *,
        watermark: Mapping[str, float] | None = None,
        ended: bool = False,
    ) -> Watched:
        """Takes new input, and prefills the windows that it finishes.

        After an error, the session is unchanged, and the same input may be given again.

        Args:
            video: frames of one clip on the session's clock, each later than those before.
            waveform: audio of one clip on the session's clock; after a gap, a new segment begins.
            watermark: seconds up to which streams are complete, by name; ``inf`` for a stream that has ended.
            ended: whether this is the last input.

        Raises:
            AlignmentError: timestamps go back, or tokens fit no frame or slot.
            InvalidValueError: more than one clip, media or streams without an encoder, or a session that has ended.
        """
        before = self._state
        out, encoder = self._encoder.step(video, waveform, before.encoder, watermark, ended)
        embeddings, spans = windows_of(out.finished, before.kept.embeddings)
        kept, forgotten = remember(before.kept, embeddings, spans, self.retention)
        prefilled = self._prefilled
        if spans.shape[1]:
            new = (NOT_PREFILLED, kept.embeddings) if forgotten else (prefilled, embeddings)
            prefilled = self._prefill(*new)
        watched = Watched(spans[0], self._encoder.late(out), forgotten, self._encoder.watermark(encoder))
        # Last, so that nothing is lost by a failure.
        self._state, self._prefilled = SessionState(encoder, kept), prefilled
        return watched

    def ask(self, question: str, *, partial: bool = True, **options: Any) -> Iterator[str]:
        """Answers a question about the input so far, as an iterator of text.

        Input during the answer does not change the answer, and the answer does not change the session. Tokens are
        computed only while the iterator is read; closing or deleting it stops the answer.

        Args:
            question: replaces ``{question}``.
            partial: include the last, partial window, up to the last finalised frame.
            **options: options of transformers' ``generate``: ``max_new_tokens``, ``do_sample``, ``repetition_penalty``,
                ….

        Raises:
            PlaceholderError: the question contains the placeholder.
            InvalidValueError: options that the session sets itself, or beam search, which cannot be streamed.
        """
        if self._beams(options) > 1:
            raise InvalidValueError("num_beams: must be 1 for an answer that is streamed; use answer()")
        generate = self._generation(question, partial, options)
        return stream_text(lambda streamer: generate(streamer=streamer), self.tokenizer, self._like.device)

    def answer(self, question: str, *, partial: bool = True, **options: Any) -> str:
        """The whole answer as text; arguments as for :meth:`ask`. Supports beam search."""
        ids = self._generation(question, partial, options)()
        return str(self.tokenizer.decode(ids[0], skip_special_tokens=True))

    def snapshot(self) -> dict[str, Tensor]:
        """The state of the session by name, for ``safetensors``, without the language model's KV cache."""
        return state_tensors(self._state)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores a :meth:`snapshot` of this or another session of the same model, and prefills the kept windows.

        Args:
            tensors: the snapshot.

        Raises:
            CheckpointError: tensors are missing, unknown, or of another model.
        """
        like = self._initial_state()
        state = state_from_tensors(tensors, like)
        check_kept(state.kept, self._like)
        places = iter([value.device for value in state_tensors(like).values()])
        state = map_state(lambda value: value.to(next(places)), state)
        kept = state.kept._replace(embeddings=state.kept.embeddings.to(self._like.dtype))
        prefilled = self._prefill(NOT_PREFILLED, kept.embeddings) if kept.embeddings.shape[1] else NOT_PREFILLED
        self._state, self._prefilled = state._replace(kept=kept), prefilled

    @property
    def _like(self) -> Tensor:
        """A tensor of the language model's width, dtype and device."""
        like: Tensor = self.model.get_input_embeddings().weight
        return like

    def _initial_state(self) -> SessionState:
        return SessionState(self._encoder.initial_state(), no_windows(self._like))

    def _prefill(self, prefilled: Prefilled, embeddings: Tensor) -> Prefilled:
        """Reads windows, and the prompt before the first of them."""
        before = self._embedded(self._prompt.prefix) if prefilled.cache is None else []
        return self._prefiller.prefill(prefilled, torch.cat([*before, embeddings.flatten(1, 2)], 1))

    def _embedded(self, ids: list[int]) -> list[Tensor]:
        """``(1, length, llm_dim)`` of text, or nothing."""
        return [self.model.embed(torch.tensor([ids], device=self._like.device))] if ids else []

    @torch.no_grad()
    def _generation(self, question: str, partial: bool, options: dict[str, Any]) -> Any:
        """``generate`` with all but its streamer, as things stand now."""
        refused = sorted(set(options) & set(_OURS))
        if refused:
            raise InvalidValueError(f"options: must be without those that the session sets itself, found {refused}")
        suffix, prefilled = self._prompt.suffix(question), self._prefilled
        encoder, kept = self._state.encoder, self._state.kept
        parts = [*self._embedded(self._prompt.prefix), kept.embeddings.flatten(1, 2)]
        if partial and not bool(encoder.ended):
            parts.append(windows_of(self._encoder.partial(encoder), kept.embeddings)[0].flatten(1, 2))
        embeds = torch.cat([*parts, *self._embedded(suffix)], 1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.int64, device=embeds.device)
        places = embeds.shape[1] - len(self._prompt.prefix) - len(suffix)
        ids = torch.tensor([[*self._prompt.prefix, *[self._prompt.token] * places, *suffix]], device=embeds.device)
        own = options.get("use_cache", True) and options.get("cache_implementation") is None
        # generate() passes over what the cache holds; something must be left for it to read.
        cache = fork(prefilled.cache) if own and prefilled.length < embeds.shape[1] else None
        if cache is not None:
            if self._beams(options) > 1:
                cache.batch_repeat_interleave(self._beams(options))
            options = {**options, CACHE: cache}
        llm = self.model.language_model
        options = rowwise_options(llm, ids, mask, placeholder_token_id=self._prompt.token, **options)
        return functools.partial(unwrap(llm).generate, inputs_embeds=embeds, attention_mask=mask, **options)

    def _beams(self, options: Mapping[str, Any]) -> int:
        given = options.get("generation_config") or unwrap(self.model.language_model).generation_config
        return int(options.get("num_beams", given.num_beams) or 1)
