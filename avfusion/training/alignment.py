"""Alignment of a connector with a language model's word embeddings, before the language model runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avfusion.errors import InvalidValueError
from avfusion.models import MediaBatch, embedding_norm
from avfusion.training.timed_text import TimedText, assign_texts
from avfusion.types import LLMEmbeddings

_REMEMBERED = 10_000  # texts whose embeddings are kept


class AlignmentOutput(NamedTuple):
    """Result of :class:`~avfusion.training.AlignmentLoss`; scalars.

    Attributes:
        loss: the sum that is minimised. First, so that Trainer finds it.
        distance: mean squared distance from the targets, relative to a word embedding's squared norm.
        cross_entropy: mean cross-entropy over the candidates, in nats.
        accuracy: share of queries whose nearest candidate is their target.

    Example:
        >>> import torch
        >>> from avfusion.training import AlignmentOutput
        >>> AlignmentOutput(*torch.tensor([0.5, 0.3, 0.2, 1.0])).loss
        tensor(0.5000)
    """

    loss: Tensor
    distance: Tensor
    cross_entropy: Tensor
    accuracy: Tensor


class AlignmentLoss(nn.Module):
    r"""Regresses the connector's embeddings onto the language model's own embeddings of what is said or seen.

    :func:`assign_texts` gives each query :math:`q` its target texts. The embedding :math:`e_c` of a text is the mean of
    its tokens' embeddings, and :math:`t_q` is the mean over the query's texts. With :math:`\nu` the norm of word
    embeddings (:func:`~avfusion.models.embedding_norm`) and :math:`d(s, e) = \lVert s - e \rVert^2 / \nu^2`, the loss
    of the connector's embedding :math:`s_q` is

    .. math:: d(s_q, t_q) - w \sum_c p_{qc} \log \operatorname{softmax}_c(-\tau\, d(s_q, e_c))

    averaged over the queries that have texts. :math:`p_q` is uniform over the query's texts. The candidates
    :math:`c` are the texts of the batch and ``candidates``. Targets that are embeddings have only the first term. The
    language model does not run: only its table of embeddings is used.

    Args:
        language_model: a causal language model of transformers, possibly with adapters. It is not a part of this
            module, and not trained by it.
        tokenizer: its tokenizer.
        candidates: texts that are told apart in every batch, such as all labels.
        temperature: :math:`\tau`, positive.
        cross_entropy_weight: :math:`w`, at least 0.

    Raises:
        InvalidValueError: options out of range.

    Example:
        >>> import torch
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        >>> from avfusion import AudioVisualConnector
        >>> from avfusion.training import AlignmentLoss, TimedText
        >>> rule = Tokenizer(models.WordLevel({"<unk>": 0, "dog": 1, "sun": 2}, unk_token="<unk>"))
        >>> rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rule, unk_token="<unk>")
        >>> llm = LlamaForCausalLM(LlamaConfig(
        ...     vocab_size=3, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        ... ))
        >>> sizes = {"num_queries": 2, "hidden_size": 16, "window_seconds": 2.0}
        >>> connector = AudioVisualConnector.from_dims(audio=8, llm=16, **sizes)
        >>> align = AlignmentLoss(llm, tokenizer)
        >>> out = align(
        ...     connector(audio=torch.randn(1, 200, 8)),  # 4 s: two windows
        ...     [[TimedText(0.2, 0.6, "dog"), TimedText(2.5, 2.9, "sun")]],
        ... )
        >>> out.loss.backward()
    """

    def __init__(
        self,
        language_model: Any,
        tokenizer: Any,
        *,
        candidates: Iterable[str] = (),
        temperature: float = 8.0,
        cross_entropy_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise InvalidValueError(f"temperature: must be positive and finite, found {temperature}")
        if not 0 <= cross_entropy_weight < float("inf"):
            raise InvalidValueError(
                f"cross_entropy_weight: must be finite and at least 0, found {cross_entropy_weight}"
            )
        self.temperature, self.cross_entropy_weight = temperature, cross_entropy_weight
        self.norm = embedding_norm(language_model)
        self.candidates = tuple(candidates)
        self._tokenizer = tokenizer
        self._parts = (language_model,)  # in a tuple: not a submodule
        self._known: dict[str, Tensor] = {}

    def forward(self, out: LLMEmbeddings, targets: Sequence[Sequence[TimedText]]) -> AlignmentOutput:
        """Computes the loss of a batch.

        Args:
            out: the connector's output for ``batch`` clips.
            targets: the texts of each clip.

        Raises:
            InvalidValueError: another number of clips, no query with a text, or embeddings of another width.
        """
        if len(targets) != len(out.mask):
            raise InvalidValueError(
                f"targets: must be one list for each of {len(out.mask)} clips, found {len(targets)}"
            )
        said, wanted = self._queries(out, targets)
        # In float32 also under autocast, which would round the products to half precision.
        with torch.autocast(said.device.type, enabled=False):
            return self._loss(said, wanted)

    def _loss(self, said: Tensor, wanted: list[list[TimedText]]) -> AlignmentOutput:
        texts = dict.fromkeys(self.candidates)
        texts |= dict.fromkeys(one.text for some in wanted for one in some if isinstance(one.text, str))
        captions = [one.text for some in wanted for one in some if isinstance(one.text, Tensor)]
        place: dict[Any, int] = {text: row for row, text in enumerate(texts)}
        place |= {id(caption): len(texts) + row for row, caption in enumerate(captions)}
        table = self._table([self.embed(text) for text in texts] + captions, said)

        share = torch.zeros(len(wanted), len(table), dtype=said.dtype)
        for row, some in enumerate(wanted):
            for one in some:
                share[row, place[one.text if isinstance(one.text, str) else id(one.text)]] += 1 / len(some)
        named = (share[:, len(texts) :].sum(1) == 0).nonzero()[:, 0].to(said.device)
        share = share.to(said.device)
        distance = (said - share @ table).square().sum(-1).mean() / self.norm**2
        if not len(named):
            return AlignmentOutput(distance, distance.detach(), distance.new_zeros(()), distance.new_zeros(()))

        known, names = said[named], table[: len(texts)]
        # Expanded, so that no tensor of queries times candidates times width is made.
        squares = known.square().sum(-1, keepdim=True) - 2 * known @ names.T + names.square().sum(-1)
        gaps = squares / self.norm**2
        share = share[named, : len(texts)]
        cross_entropy = F.cross_entropy(-self.temperature * gaps, share)
        hit = share.gather(1, gaps.argmin(1, keepdim=True)) > 0
        return AlignmentOutput(
            distance + self.cross_entropy_weight * cross_entropy,
            distance.detach(),
            cross_entropy.detach(),
            hit.to(said.dtype).mean(),
        )

    def embed(self, text: str) -> Tensor:
        """``(llm_dim,)`` float32 on the CPU: the mean embedding of a text's tokens, as they follow a space."""
        if text not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            with torch.no_grad():
                embeddings = self._parts[0].get_input_embeddings()
                ids = torch.tensor(self._ids(text), device=embeddings.weight.device)
                self._known[text] = embeddings(ids).float().mean(0).cpu()
        return self._known[text]

    def _ids(self, text: str) -> list[int]:
        def encode(words: str) -> list[int]:
            ids: list[int] = self._tokenizer(words, add_special_tokens=False)["input_ids"]
            return ids

        before, both = encode("a"), encode(f"a {text}")
        after = both[len(before) :] if both[: len(before)] == before else []
        ids = after or encode(text)
        if not ids:
            raise InvalidValueError(f"text: must have tokens, found none in {text!r:.80}")
        return ids

    @staticmethod
    def _queries(out: LLMEmbeddings, targets: Sequence[Sequence[TimedText]]) -> tuple[Tensor, list[list[TimedText]]]:
        """The embeddings in float32 that have texts, and their texts."""
        rows, columns, wanted = [], [], []
        for row, (mask, spans) in enumerate(zip(out.mask.tolist(), out.spans.tolist(), strict=True)):
            real = [column for column, kept in enumerate(mask) if kept]
            for column, some in zip(
                real, assign_texts([tuple(spans[column]) for column in real], targets[row]), strict=True
            ):
                if some:
                    rows.append(row)
                    columns.append(column)
                    wanted.append(some)
        if not wanted:
            raise InvalidValueError("targets: must have a text in some window, found none in the batch")
        embeddings = out.embeddings[rows, columns]
        return embeddings if embeddings.dtype == torch.float64 else embeddings.float(), wanted

    @staticmethod
    def _table(rows: Sequence[Tensor], like: Tensor) -> Tensor:
        """``(row, llm_dim)``: embeddings in the dtype and on the device of ``like``."""
        width = like.shape[-1]
        wrong = next((len(row) for row in rows if len(row) != width), None)
        if wrong is not None:
            raise InvalidValueError(f"text: an embedding must have the connector's width {width}, found {wrong}")
        return torch.stack([row.to(like) for row in rows])


class ConnectorAlignment(nn.Module):
    """The alignment stage as a model: only the connector is a part of it, so only the connector trains.

    Trainer takes it as its model, with :class:`AlignmentCollator`. The connector is the model's own: after the stage
    the model is aligned.

    Args:
        model: an :class:`~avfusion.models.AudioVisualLanguageModel`. Its encoders run without gradients where they are.
        loss: such as ``AlignmentLoss(model.language_model, tokenizer)``.

    Example:
        >>> import torch
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        >>> from avfusion import AudioVisualConnector, TokenStream
        >>> from avfusion.models import AudioVisualLanguageModel, MediaBatch
        >>> from avfusion.training import AlignmentLoss, ConnectorAlignment, TimedText
        >>> rule = Tokenizer(models.WordLevel({"<unk>": 0, "dog": 1, "sun": 2}, unk_token="<unk>"))
        >>> rule.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rule, unk_token="<unk>")
        >>> model = AudioVisualLanguageModel(
        ...     language_model=LlamaForCausalLM(LlamaConfig(
        ...         vocab_size=3, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        ...     )),
        ...     connector=AudioVisualConnector.from_dims(audio=8, llm=16, num_queries=2, hidden_size=16),
        ...     placeholder_token_id=3,
        ... )
        >>> alignment = ConnectorAlignment(model, AlignmentLoss(model.language_model, tokenizer))
        >>> heard = MediaBatch(features={"audio": TokenStream.from_rate(torch.randn(1, 150, 8), rate=50.0)})
        >>> alignment(media=heard, targets=[[TimedText(0.2, 0.6, "dog")]]).loss.backward()  # or let Trainer do it
        >>> model.language_model.lm_head.weight.grad is None
        True
    """

    def __init__(self, model: Any, loss: AlignmentLoss) -> None:
        super().__init__()
        self.connector = model.connector
        self.loss = loss
        self._model = (model,)  # in a tuple: not a submodule

    def forward(self, media: MediaBatch, targets: Sequence[Sequence[TimedText]]) -> AlignmentOutput:
        """Computes the loss of a batch of clips, given as media or as kept features."""
        model, features = self._model[0], media.features
        if features is None:
            with torch.no_grad():
                features = model.encode(media.video, media.waveform)
        return self.loss(model.connect(features), targets)


class AlignmentCollator:
    """Makes batches for :class:`~avfusion.training.ConnectorAlignment`, as Trainer's ``data_collator``.

    Args:
        processor: the model's processor.

    Example:
        >>> import torch
        >>> from avfusion import TokenStream
        >>> from avfusion.models import Clip, conversation
        >>> from avfusion.training import AlignmentCollator, TimedText
        >>> heard = Clip(features={"audio": TokenStream.from_rate(torch.randn(1, 150, 8), rate=50.0)})
        >>> row = {"messages": conversation("What?", video=heard), "targets": [TimedText(0.2, 0.6, "dog")]}
        >>> class Reader:  # in your code AudioVisualProcessor.from_model(model)
        ...     def read_clips(self, conversations):
        ...         return [heard], [0]
        ...     def encode_media(self, clips):
        ...         return {"media": clips[0].features}, [2]
        >>> AlignmentCollator(Reader())([row])["targets"]
        [[TimedText(start=0.2, end=0.6, text='dog')]]
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Makes a batch.

        Args:
            rows: ``{"messages": conversation about a clip, "targets": list of TimedText}``. Rows with the same clip
                become one, with the texts of all.

        Raises:
            InvalidValueError: a row without a clip.
        """
        clips, index = self.processor.read_clips([row["messages"] for row in rows])
        targets: list[list[TimedText]] = [[] for _ in clips]
        for place, (row, clip) in enumerate(zip(rows, index, strict=True)):
            if clip < 0:
                raise InvalidValueError(f"messages: each row must have a clip, found none in row {place}")
            targets[clip] += row["targets"]
        data, _ = self.processor.encode_media(clips)
        return {"media": data["media"], "targets": targets}
