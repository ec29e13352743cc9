"""The causal Q-Former: a window of frames in, a few states out."""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from avfusion._shapes import Bool, Float, Int
from avfusion.errors import InvalidValueError
from avfusion.functional.attention import AttentionImplementation, check_implementation
from avfusion.functional.masks import CausalDirection, Padding, check_direction, check_padding
from avfusion.modules.attention.multi_head_attention import MultiHeadAttention
from avfusion.modules.component import Component
from avfusion.modules.qformer.inputs import check_new_frames, check_queries, check_windows
from avfusion.modules.qformer.instruction_embedding import InstructionEmbedding
from avfusion.modules.qformer.layer import CausalQFormerLayer
from avfusion.modules.qformer.state import CausalQFormerState, LayerCache, empty_state
from avfusion.modules.qformer.window_tokens import WindowTokens, embed_tokens, next_places
from avfusion.types.state import as_rows, put_rows


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
        attn_implementation: AttentionImplementation = "auto",
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
        self.attn_implementation: AttentionImplementation = attn_implementation
        self.gradient_checkpointing = False

        self.input_norm = nn.LayerNorm(input_dim)
        self.position_embedding = nn.Parameter(torch.empty(window_frames * tokens_per_frame, input_dim))
        self.query_tokens = nn.Parameter(torch.empty(num_queries, hidden_size))
        self.query_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.instruction_embedding = (
            None
            if instruction_dim is None
            else InstructionEmbedding(
                input_dim=instruction_dim, hidden_size=hidden_size, max_tokens=max_instruction_tokens
            )
        )
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
        """Draws queries and places anew; places of one frame begin alike, so that queries tell frames apart at once."""
        nn.init.normal_(self.query_tokens, std=0.02)
        nn.init.normal_(self.position_embedding, std=0.02)
        frames = torch.randn_like(self.position_embedding[:: self.tokens_per_frame])
        with torch.no_grad():
            self.position_embedding.add_(frames.repeat_interleave(self.tokens_per_frame, 0), alpha=0.5)

    def set_attn_implementation(self, attn_implementation: AttentionImplementation) -> None:
        """Changes the attention backend of every layer."""
        check_implementation(attn_implementation)
        self.attn_implementation = attn_implementation
        for module in self.modules():
            if isinstance(module, MultiHeadAttention):
                module.attn_implementation = attn_implementation

    def forward(
        self,
        tokens: Float[Tensor, "window frame token input_dim"] | Float[Tensor, "row token input_dim"],
        mask: Bool[Tensor, "window frame token"] | None = None,
        *,
        queries: Float[Tensor, "query hidden"] | None = None,
        instruction: Float[Tensor, "window length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "window length"] | None = None,
        frame_index: Int[Tensor, "window frame"] | None = None,
    ) -> Float[Tensor, "window query hidden"]:
        """Summarises windows, each on its own.

        Args:
            tokens: ``(window, frame, token, input_dim)``, 1 to ``window_frames`` frames of ``tokens_per_frame``.
            mask: ``(window, frame, token)`` bool: what is real; everything without it.
            queries: ``(query, hidden)``: other queries than the module's own (another resolution's).
            instruction: ``(window, length, instruction_dim)``: embeddings of what to look for.
            instruction_mask: ``(window, length)`` bool.
            frame_index: ``(window, frame)`` int64, for windows that overlap: ``tokens`` are then ``(row, token,
                input_dim)``, each frame once, finite where masked, and these the rows of each window's frames.

        Returns:
            ``(window, query, hidden)``; exactly zero for a window in which nothing is real.

        Raises:
            InvalidValueError: shapes that do not fit the module, or an instruction it was not built for.
            InvalidTypeError: a mask that is not boolean.
        """
        queries = self.query_tokens if queries is None else queries
        check_queries(queries, self.output_dim)
        window = self._embed(tokens, mask, frame_index)
        return self._read(window, queries, instruction, instruction_mask)

    @property
    def frame_multiple(self) -> int:
        """Short windows have a multiple of so many frames, and give what they give with masked ones behind them."""
        return 1 if self.padding == "masked" else self.window_frames

    def initial_state(self, batch_size: int = 1) -> CausalQFormerState:
        """One window without frames a row.

        Args:
            batch_size: rows.

        Raises:
            InvalidValueError: this module's frames depend on later ones: ``causal_direction="reversed"`` or
                ``padding="released"``.
        """
        self._check_streams()
        return empty_state(batch_size, len(self.layers), self.input_dim, self.output_dim, self.query_tokens)

    def step(
        self,
        tokens: Float[Tensor, "row frame token input_dim"],
        state: CausalQFormerState,
        *,
        mask: Bool[Tensor, "row frame token"] | None = None,
        lengths: Int[Tensor, " row"] | None = None,
    ) -> tuple[None, CausalQFormerState]:
        """Appends frames to each row's window; only what is new is computed.

        Args:
            tokens: ``(row, frame, token, input_dim)``.
            state: of the windows so far; not changed.
            mask: ``(row, frame, token)`` bool: what is real; everything without it.
            lengths: ``(row,)`` int64: frames that each row gets, its first; all without it.

        Returns:
            ``None``, because a window gives its states when :meth:`flush` asks for them, and the new state.

        Raises:
            InvalidValueError: shapes that do not fit, or more than ``window_frames`` frames in a window.

        Example:
            >>> import torch
            >>> from avfusion import CausalQFormer
            >>> qformer = CausalQFormer(
            ...     input_dim=24, hidden_size=16, num_heads=2, num_queries=3, window_frames=5, tokens_per_frame=4
            ... ).eval()
            >>> tokens, state = torch.randn(2, 5, 4, 24), qformer.initial_state(2)
            >>> for frame in tokens.split(1, dim=1):
            ...     _, state = qformer.step(frame, state)
            >>> torch.allclose(qformer.flush(state), qformer(tokens), atol=1e-5)
            True
        """
        self._check_streams()
        rows, frames = state.num_frames.shape[0], tokens.shape[1]
        check_new_frames(tokens, mask, lengths, rows=rows, slots=self.tokens_per_frame, width=self.input_dim)
        if lengths is not None:
            inside = (torch.arange(frames, device=tokens.device) < lengths[:, None])[..., None]
            mask = inside.expand(tokens.shape[:3]) if mask is None else mask & inside
        num_frames = state.num_frames + (frames if lengths is None else lengths)
        places = next_places(
            self.position_embedding, state.num_frames, num_frames, tokens.shape[1:3], self.window_frames
        )
        window, mask = self._embed(tokens, mask, places=places).after(state.mask)
        _, layers = self._run_layers(None, None, window, 0, state.layers)
        return None, CausalQFormerState(layers, mask, num_frames).without_padding()

    def flush(
        self,
        state: CausalQFormerState,
        *,
        queries: Float[Tensor, "query hidden"] | None = None,
        instruction: Float[Tensor, "row length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "row length"] | None = None,
    ) -> Float[Tensor, "row query hidden"]:
        """What :meth:`forward` gives for the frames so far; the window can go on afterwards.

        Args:
            state: of the windows so far.
            queries: as for :meth:`forward`, and so are ``instruction`` and ``instruction_mask``.
            instruction: ``(row, length, instruction_dim)``.
            instruction_mask: ``(row, length)`` bool.
        """
        queries = self.query_tokens if queries is None else queries
        check_queries(queries, self.output_dim)
        mask = None if bool(state.mask.all()) else state.mask
        none = self.query_tokens.new_empty(state.mask.shape[0], 0, self.input_dim)
        return self._read(WindowTokens(none, mask, None, None), queries, instruction, instruction_mask, state.layers)

    def reset(self, state: CausalQFormerState, rows: Bool[Tensor, " row"]) -> CausalQFormerState:
        """The state with new windows in some rows.

        Args:
            state: of the windows so far; not changed.
            rows: ``(row,)`` bool.
        """
        chosen = as_rows(rows, state.num_frames.shape[0], "rows", state.num_frames.device).nonzero().flatten()
        return put_rows(state, chosen, self.initial_state(len(chosen)))

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
        queries = self.query_tokens if queries is None else queries
        check_queries(queries, self.output_dim)
        window = self._embed(tokens, mask, whole=True)
        states, state_mask = self._first_states(window.tokens.shape[0], queries, instruction, instruction_mask)
        maps = []
        for layer in cast("Iterable[CausalQFormerLayer]", self.layers):
            attending = layer.self_attention(states, states, key_mask=state_mask)[:, : len(queries)]
            encoded, _ = layer.encode_tokens(window)
            maps.append(layer.cross_attention.attention.weights(attending, encoded, key_mask=window.mask))
            states, _ = layer(states, state_mask, window, len(queries))
        return torch.stack(maps).unflatten(-1, tokens.shape[1:3])

    def _embed(
        self,
        tokens: Tensor,
        mask: Tensor | None,
        frame_index: Tensor | None = None,
        *,
        places: Tensor | None = None,
        whole: bool = False,
    ) -> WindowTokens:
        """The tokens as the layers get them: of windows from their first frame on without ``places``."""
        if places is None:
            slots = self.tokens_per_frame
            check_windows(
                tokens, mask, frame_index, window_frames=self.window_frames, slots=slots, width=self.input_dim
            )
            frames = tokens.shape[1] if frame_index is None else frame_index.shape[1]
            places = self.position_embedding[: frames * slots].view(frames, slots, -1)
        return embed_tokens(
            tokens,
            mask,
            frame_index,
            norm=self.input_norm,
            places=places,
            dropout=self.dropout,
            direction=self.causal_direction,
            leave_out=self.padding == "masked" and not whole,
            may_factor=self.attn_implementation == "auto",
        )

    def _first_states(
        self, windows: int, queries: Tensor, instruction: Tensor | None, instruction_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What the first layer gets beside the tokens of ``windows`` windows: states, and their mask."""
        embedding, states = self.instruction_embedding, self.query_norm(queries)[None]
        if instruction is None and instruction_mask is not None:
            raise InvalidValueError("instruction_mask: must come with an instruction, found none")
        if embedding is None:
            if instruction is not None:
                raise InvalidValueError("instruction: this CausalQFormer was built without instruction_dim")
            if self.training and self.dropout.p:  # each window drops other parts of its queries
                states = states.expand(windows, -1, -1)
            return self.dropout(states), None
        if instruction is None:  # no tokens, so that the embedding's parameters still get a (zero) gradient
            instruction = queries.new_empty(windows, 0, embedding.input_dim)
        if instruction.shape[0] != windows:
            raise InvalidValueError(
                f"instruction: must be of {windows} windows, found shape {tuple(instruction.shape)}"
            )
        embedded, mask = self.query_norm(embedding(instruction, instruction_mask)), instruction_mask
        states = torch.cat([states.expand(windows, -1, -1), embedded], 1)
        return self.dropout(states), None if mask is None else pad(mask, (len(queries), 0), value=True)

    def _read(
        self,
        window: WindowTokens,
        queries: Tensor,
        instruction: Tensor | None,
        instruction_mask: Tensor | None,
        caches: tuple[LayerCache, ...] | None = None,
    ) -> Tensor:
        """The states of windows, of which ``window`` and ``caches`` hold the tokens."""
        states, state_mask = self._first_states(window.tokens.shape[0], queries, instruction, instruction_mask)
        if caches is not None and not caches[0].cross.key.shape[1]:
            return states.new_zeros(window.tokens.shape[0], *queries.shape)
        states, _ = self._run_layers(states, state_mask, window, len(queries), caches)
        states = states[:, : len(queries)]
        if window.mask is None or self.padding == "released":
            return states
        return states.masked_fill(~window.mask.any(-1)[:, None, None], 0)

    def _run_layers(
        self,
        states: Tensor | None,
        state_mask: Tensor | None,
        window: WindowTokens,
        num_queries: int,
        caches: tuple[LayerCache, ...] | None,
    ) -> tuple[Any, tuple[Any, ...]]:
        """The layers, one after the other; arguments as for :meth:`CausalQFormerLayer.forward`."""
        after = []
        for place, layer in enumerate(self.layers):
            arguments = (states, state_mask, window, num_queries, None if caches is None else caches[place])
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                states, cache = checkpoint(layer, *arguments, use_reentrant=False)
            else:
                states, cache = layer(*arguments)
            after.append(cache)
        return states, tuple(after)

    def _check_streams(self) -> None:
        """Raises if what a frame contributes depends on later frames."""
        if self.causal_direction == "reversed":
            raise InvalidValueError(
                'causal_direction: a stream needs "causal" or None, found "reversed", under which every frame of a '
                "window depends on all later ones"
            )
        if self.padding == "released":
            raise InvalidValueError(
                'padding: a stream needs "masked", found "released", under which frames see the padding behind them'
            )
