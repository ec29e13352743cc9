"""The causal Q-Former: a window of frames in, a few states out."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from avfusion._shapes import Bool, Float
from avfusion.errors import InvalidTypeError, InvalidValueError
from avfusion.functional.attention import AttentionImplementation, check_implementation
from avfusion.functional.masks import CausalDirection, FrameCausalMask, Padding, check_direction, check_padding
from avfusion.modules.attention import MultiHeadAttention
from avfusion.modules.causal_qformer_layer import CausalQFormerLayer, LayerInput
from avfusion.modules.component import Component


class CausalQFormer(Component):
    r"""Summarises each window of frames in ``num_queries`` states.

    A BERT-style, post-norm Q-Former (FAVOR, section 3.2).
    With :math:`x = \mathrm{LN}(\text{tokens}) + p`, where :math:`p` is a learned embedding of the place in the window,
    and :math:`h` starting as the normalised learned queries, each layer computes

    .. math::

        c &= \mathrm{LN}(x + \mathrm{Attn}_\text{frame-causal}(x, x)) \\
        h &\leftarrow \mathrm{LN}(h + \mathrm{Attn}(h, h)) \\
        h &\leftarrow \mathrm{LN}(h + \mathrm{Attn}(h, c)) \\
        h &\leftarrow \mathrm{LN}(h + W_2\,\mathrm{GELU}(W_1 h))

    Every layer starts its causal attention from :math:`x` again. Tokens of a frame see each other and all earlier
    frames. Masked tokens are attended by nobody. With an instruction (InstructBLIP's way) its tokens join the queries'
    self-attention, so that the queries look for what is asked.

    Args:
        input_dim: width of the window's tokens.
        hidden_size: width of the queries.
        num_layers: layers.
        num_heads: attention heads; must divide ``input_dim`` and ``hidden_size``.
        num_queries: states a window.
        intermediate_size: inner width of the feed-forward; four times ``hidden_size`` without it.
        window_frames: most frames a window may have.
        tokens_per_frame: slots of a frame.
        causal_direction: ``"causal"``: a frame sees earlier ones, as published; ``"reversed"``: later ones, as in the
            released weights; ``None``: no attention over the window's tokens, a plain Q-Former.
        padding: ``"masked"``: nobody attends to masked tokens; ``"released"``: the causal attention does, as to tokens
            of zeros, and the queries of a window of padding average it, as the released weights were trained.
        instruction_dim: width of instruction tokens; without it there are none.
        max_instruction_tokens: longest instruction.
        dropout: probability, in training, for attention weights and for what each block adds.
        layer_norm_eps: of every LayerNorm.
        attn_implementation: backend of :func:`avfusion.functional.attention`.

    Raises:
        InvalidValueError: sizes that do not fit each other, an unknown direction or backend.

    Example:
        >>> import torch
        >>> from avfusion import CausalQFormer
        >>> qformer = CausalQFormer(
        ...     input_dim=24, hidden_size=16, num_heads=2, num_queries=3, window_frames=5, tokens_per_frame=4
        ... )
        >>> qformer(torch.randn(2, 5, 4, 24)).shape
        torch.Size([2, 3, 16])
    """

    def __init__(
        self,
        *,
        input_dim: int = 1536,
        hidden_size: int = 768,
        num_layers: int = 2,
        num_heads: int = 12,
        num_queries: int = 32,
        intermediate_size: int | None = None,
        window_frames: int = 10,
        tokens_per_frame: int = 32,
        causal_direction: CausalDirection | None = "causal",
        padding: Padding = "masked",
        instruction_dim: int | None = None,
        max_instruction_tokens: int = 128,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-12,
        attn_implementation: AttentionImplementation = "sdpa",
    ) -> None:
        super().__init__()
        for name, value in (
            ("num_layers", num_layers),
            ("num_queries", num_queries),
            ("window_frames", window_frames),
            ("tokens_per_frame", tokens_per_frame),
        ):
            if value < 1:
                raise InvalidValueError(f"{name}: must be at least 1, found {value}")
        if causal_direction is not None:
            check_direction(causal_direction)
        check_padding(padding)
        self.input_dim = input_dim
        self.output_dim = hidden_size
        self.num_queries = num_queries
        self.window_frames = window_frames
        self.tokens_per_frame = tokens_per_frame
        self.causal_direction: CausalDirection | None = causal_direction
        self.padding: Padding = padding
        self.instruction_dim = instruction_dim
        self.gradient_checkpointing = False

        self.input_norm = nn.LayerNorm(input_dim)
        self.position_embedding = nn.Parameter(torch.empty(window_frames * tokens_per_frame, input_dim))
        self.query_tokens = nn.Parameter(torch.empty(num_queries, hidden_size))
        self.query_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)
        if instruction_dim is not None:
            self.instruction_proj = nn.Linear(instruction_dim, hidden_size)
            self.instruction_position_embedding = nn.Parameter(torch.empty(max_instruction_tokens, hidden_size))
        self.layers = nn.ModuleList(
            CausalQFormerLayer(
                input_dim=input_dim,
                hidden_size=hidden_size,
                num_heads=num_heads,
                intermediate_size=4 * hidden_size if intermediate_size is None else intermediate_size,
                causal=causal_direction is not None,
                padding=padding,
                with_instruction=instruction_dim is not None,
                dropout=dropout,
                layer_norm_eps=layer_norm_eps,
                attn_implementation=attn_implementation,
            )
            for _ in range(num_layers)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the embeddings anew; the layers in them draw their own."""
        nn.init.normal_(self.query_tokens, std=0.02)
        nn.init.normal_(self.position_embedding, std=0.02)
        if self.instruction_dim is not None:
            nn.init.normal_(self.instruction_position_embedding, std=0.02)

    def set_attn_implementation(self, attn_implementation: AttentionImplementation) -> None:
        """Changes the attention backend of every layer."""
        check_implementation(attn_implementation)
        for module in self.modules():
            if isinstance(module, MultiHeadAttention):
                module.attn_implementation = attn_implementation

    def forward(
        self,
        tokens: Float[Tensor, "window frame token input_dim"],
        mask: Bool[Tensor, "window frame token"] | None = None,
        *,
        queries: Float[Tensor, "query hidden"] | None = None,
        instruction: Float[Tensor, "window length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "window length"] | None = None,
    ) -> Float[Tensor, "window query hidden"]:
        """Summarises windows, each on its own.

        Args:
            tokens: ``(window, frame, token, input_dim)``, 1 to ``window_frames`` frames of ``tokens_per_frame``.
            mask: ``(window, frame, token)`` bool: what is real; everything without it.
            queries: ``(query, hidden)``: other queries than the module's own (another resolution's).
            instruction: ``(window, length, instruction_dim)``: embeddings of what to look for.
            instruction_mask: ``(window, length)`` bool.

        Returns:
            ``(window, query, hidden)``; exactly zero for a window in which nothing is real.

        Raises:
            InvalidValueError: shapes that do not fit the module, or an instruction it was not built for.
            InvalidTypeError: a mask that is not boolean.
        """
        tokens, token_mask = self._embed(tokens, mask)
        queries = self.query_tokens if queries is None else queries
        states, state_mask = self._initial_states(queries, tokens, instruction, instruction_mask)
        inputs, causal = LayerInput(tokens, token_mask, state_mask), self._structure(tokens)
        for layer in self.layers:
            arguments = (states, inputs, causal, queries.shape[0])
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                states = checkpoint(layer, *arguments, use_reentrant=False)
            else:
                states = layer(*arguments)
        states = states[:, : queries.shape[0]]
        if token_mask is None or self.padding == "released":
            return states
        return states.masked_fill(~token_mask.any(-1)[:, None, None], 0)

    @torch.no_grad()
    def attention_maps(
        self,
        tokens: Float[Tensor, "window frame token input_dim"],
        mask: Bool[Tensor, "window frame token"] | None = None,
        *,
        queries: Float[Tensor, "query hidden"] | None = None,
        instruction: Float[Tensor, "window length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "window length"] | None = None,
    ) -> Float[Tensor, "layer window head query frame token"]:
        """Where each query looks: the cross-attention weights of every layer, for pictures.

        Args: as for :meth:`forward`.

        Returns:
            ``(layer, window, head, query, frame, token)``; sums to one over frames and tokens.

        Example:
            >>> import torch
            >>> from avfusion import CausalQFormer
            >>> qformer = CausalQFormer(
            ...     input_dim=8, hidden_size=8, num_heads=2, num_queries=3, window_frames=5, tokens_per_frame=4
            ... )
            >>> qformer.eval().attention_maps(torch.randn(1, 5, 4, 8)).shape
            torch.Size([2, 1, 2, 3, 5, 4])
        """
        frames, slots = tokens.shape[1:3]
        tokens, token_mask = self._embed(tokens, mask)
        queries = self.query_tokens if queries is None else queries
        states, state_mask = self._initial_states(queries, tokens, instruction, instruction_mask)
        inputs, causal = LayerInput(tokens, token_mask, state_mask), self._structure(tokens)
        maps = []
        for layer in cast("Iterable[CausalQFormerLayer]", self.layers):
            attending = layer.self_attention(states, states, key_mask=state_mask)[:, : queries.shape[0]]
            encoded = layer.encode_tokens(inputs, causal)
            maps.append(layer.cross_attention.attention.weights(attending, encoded, key_mask=token_mask))
            states = layer(states, inputs, causal, queries.shape[0])
        return torch.stack(maps).unflatten(-1, (frames, slots))

    def _structure(self, tokens: Tensor) -> FrameCausalMask | None:
        if self.causal_direction is None:
            return None
        return FrameCausalMask(tokens.shape[1] // self.tokens_per_frame, self.tokens_per_frame, self.causal_direction)

    def _embed(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        self._check(tokens, mask)
        if mask is not None:
            tokens = torch.where(mask[..., None], tokens, 0)
            mask = mask.flatten(1)
        tokens = tokens.flatten(1, 2)
        return self.dropout(self.input_norm(tokens) + self.position_embedding[: tokens.shape[1]]), mask

    def _initial_states(
        self, queries: Tensor, tokens: Tensor, instruction: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        windows = tokens.shape[0]
        if queries.ndim != 2 or queries.shape[1] != self.output_dim:
            raise InvalidValueError(
                f"queries: must be (query, hidden) with hidden = {self.output_dim}, found shape {tuple(queries.shape)}"
            )
        states = self.dropout(self.query_norm(queries)).expand(windows, -1, -1)
        if self.instruction_dim is None:
            if instruction is not None:
                raise InvalidValueError("instruction: this CausalQFormer was built without instruction_dim")
            return states, None
        if instruction is None:  # no tokens, so that its parameters still get a (zero) gradient
            instruction, mask = tokens.new_empty(windows, 0, self.instruction_dim), None
        self._check_instruction(instruction, mask, windows)
        if mask is not None:
            instruction = torch.where(mask[..., None], instruction, 0)
        words = self.instruction_proj(instruction) + self.instruction_position_embedding[: instruction.shape[1]]
        states = torch.cat([states, self.dropout(self.query_norm(words))], 1)
        if mask is None:
            return states, None
        return states, torch.cat([mask.new_ones(windows, queries.shape[0]), mask], 1)

    def _check(self, tokens: Tensor, mask: Tensor | None) -> None:
        slots, width = self.tokens_per_frame, self.input_dim
        if tokens.ndim != 4 or tokens.shape[2:] != (slots, width) or not 1 <= tokens.shape[1] <= self.window_frames:
            raise InvalidValueError(
                f"tokens: must be (window, 1 to {self.window_frames} frames, {slots} tokens, {width}), "
                f"found shape {tuple(tokens.shape)}"
            )
        if mask is None:
            return
        if mask.dtype != torch.bool:
            raise InvalidTypeError(f"mask: must be boolean (True = real), found {mask.dtype}")
        if mask.shape != tokens.shape[:3]:
            raise InvalidValueError(
                f"mask: must be (window, frame, token) = {tuple(tokens.shape[:3])}, found shape {tuple(mask.shape)}"
            )

    def _check_instruction(self, instruction: Tensor, mask: Tensor | None, windows: int) -> None:
        longest = self.instruction_position_embedding.shape[0]
        wide = (
            instruction.ndim == 3 and instruction.shape[0] == windows and instruction.shape[2] == self.instruction_dim
        )
        if not wide or instruction.shape[1] > longest:
            raise InvalidValueError(
                f"instruction: must be ({windows} windows, at most {longest} tokens, {self.instruction_dim}), "
                f"found shape {tuple(instruction.shape)}"
            )
        if mask is None:
            return
        if mask.dtype != torch.bool:
            raise InvalidTypeError(f"instruction_mask: must be boolean (True = real), found {mask.dtype}")
        if mask.shape != instruction.shape[:2]:
            raise InvalidValueError(
                f"instruction_mask: must be (window, length) = {tuple(instruction.shape[:2])}, "
                f"found shape {tuple(mask.shape)}"
            )
