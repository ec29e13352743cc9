"""The causal Q-Former: a window of frames in, a few states out."""

import torch
from torch import Tensor, nn

from avfusion._shapes import Bool, Float, Int
from avfusion.functional.attention import AttentionImplementation, check_implementation
from avfusion.functional.connector_sizes import check_size
from avfusion.functional.masks import CausalDirection, Padding, check_direction, check_padding
from avfusion.modules.attention.multi_head_attention import MultiHeadAttention
from avfusion.modules.component import Component
from avfusion.modules.qformer.inputs import (
    check_instruction,
    check_new_frames,
    check_queries,
    check_streams,
    check_windows,
)
from avfusion.modules.qformer.instruction_embedding import InstructionEmbedding
from avfusion.modules.qformer.layer import CausalQFormerLayer
from avfusion.modules.qformer.layers import cross_attention_weights, run_layers
from avfusion.modules.qformer.query_states import QueryStates, first_states
from avfusion.modules.qformer.state import CausalQFormerState, LayerCache, empty_state
from avfusion.modules.qformer.window_tokens import WindowTokens, embed_tokens, next_places
from avfusion.types.lengths import within_lengths
from avfusion.types.state import chosen_rows, put_rows


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
    frames. Masked tokens are never attended to. Tokens of an instruction join the queries' self-attention, as in
    InstructBLIP, and so condition the queries.

    Args:
        input_dim: width of the window's tokens.
        hidden_size: width of the queries.
        num_layers: layers.
        num_heads: attention heads; must divide ``input_dim`` and ``hidden_size``.
        num_queries: states per window.
        intermediate_size: inner width of the feed-forward; four times ``hidden_size`` by default.
        window_frames: maximum number of frames of a window.
        tokens_per_frame: slots of a frame.
        causal_direction: ``"causal"``: a frame sees earlier ones, as published; ``"reversed"``: later ones, as in the
            released weights; ``None``: no attention over the window's tokens, a plain Q-Former.
        padding: ``"masked"``: masked tokens are never attended to; ``"released"``, as the released weights were
            trained: the causal attention sees them as zeros, and queries average the tokens of a fully masked window.
        instruction_dim: width of instruction tokens; ``None`` for a module without conditioning.
        max_instruction_tokens: longest instruction.
        dropout: probability, in training, for attention weights and residual branches.
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
        check_size("num_layers", num_layers)
        check_size("num_queries", num_queries)
        check_size("window_frames", window_frames)
        check_size("tokens_per_frame", tokens_per_frame)
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
        """Initialises queries and positions; positions within a frame start similar, so that frames are told apart."""
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
            mask: ``(window, frame, token)`` bool; all real by default.
            queries: ``(query, hidden)`` in place of the module's own, such as those of another resolution.
            instruction: ``(window, length, instruction_dim)``: conditioning.
            instruction_mask: ``(window, length)`` bool.
            frame_index: ``(window, frame)`` int64, for windows that overlap: ``tokens`` are then ``(row, token,
                input_dim)``, each frame once, finite where masked, and these the rows of each window's frames.

        Returns:
            ``(window, query, hidden)``; exactly zero for a window without real tokens.

        Raises:
            InvalidValueError: shapes that do not fit the module, or an instruction it was not built for.
            InvalidTypeError: a mask that is not boolean.
        """
        window = self._embed(tokens, mask, frame_index)
        return self._read(window, queries, instruction, instruction_mask)

    @property
    def frame_multiple(self) -> int:
        """Windows of a multiple of this many frames give the same result as when padded with masked frames."""
        return 1 if self.padding == "masked" else self.window_frames

    def initial_state(self, batch_size: int = 1) -> CausalQFormerState:
        """The state before any frames, one window per row.

        Args:
            batch_size: rows.

        Raises:
            InvalidValueError: this module's frames depend on later ones: ``causal_direction="reversed"`` or
                ``padding="released"``.
        """
        check_streams(self.causal_direction, self.padding)
        return empty_state(batch_size, len(self.layers), self.input_dim, self.output_dim, self.query_tokens)

    def step(
        self,
        tokens: Float[Tensor, "row frame token input_dim"],
        state: CausalQFormerState,
        *,
        mask: Bool[Tensor, "row frame token"] | None = None,
        lengths: Int[Tensor, " row"] | None = None,
    ) -> tuple[None, CausalQFormerState]:
        """Appends frames to each row's window; only new frames are computed.

        Args:
            tokens: ``(row, frame, token, input_dim)``.
            state: of the windows so far; not changed.
            mask: ``(row, frame, token)`` bool; all real by default.
            lengths: ``(row,)`` int64: number of new frames of each row; all by default.

        Returns:
            ``None``, because :meth:`flush` returns a window's states, and the new state.

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
        check_streams(self.causal_direction, self.padding)
        rows, frames = state.num_frames.shape[0], tokens.shape[1]
        check_new_frames(tokens, mask, rows=rows, slots=self.tokens_per_frame, width=self.input_dim)
        if lengths is not None:
            inside = within_lengths(lengths, rows, frames, "row")[..., None]
            mask = inside.expand(tokens.shape[:3]) if mask is None else mask & inside
        num_frames = state.num_frames + (frames if lengths is None else lengths)
        places = next_places(
            self.position_embedding, state.num_frames, num_frames, tokens.shape[1:3], self.window_frames
        )
        window, mask = self._embed(tokens, mask, places=places).after(state.mask)
        _, layers = run_layers(self.layers, None, window, state.layers, checkpointed=self._checkpointed)
        return None, CausalQFormerState(layers, mask, num_frames).without_padding()

    def flush(
        self,
        state: CausalQFormerState,
        *,
        queries: Float[Tensor, "query hidden"] | None = None,
        instruction: Float[Tensor, "row length instruction_dim"] | None = None,
        instruction_mask: Bool[Tensor, "row length"] | None = None,
    ) -> Float[Tensor, "row query hidden"]:
        """What :meth:`forward` returns for the frames so far; the window may continue afterwards.

        Args:
            state: of the windows so far.
            queries: as for :meth:`forward`, and so are ``instruction`` and ``instruction_mask``.
            instruction: ``(row, length, instruction_dim)``.
            instruction_mask: ``(row, length)`` bool.
        """
        mask = None if bool(state.mask.all()) else state.mask
        none = self.query_tokens.new_empty(state.mask.shape[0], 0, self.input_dim)
        return self._read(WindowTokens(none, mask, None, None), queries, instruction, instruction_mask, state.layers)

    def reset(self, state: CausalQFormerState, rows: Bool[Tensor, " row"]) -> CausalQFormerState:
        """The state with new windows in some rows.

        Args:
            state: of the windows so far; not changed.
            rows: ``(row,)`` bool.
        """
        chosen = chosen_rows(rows, state.num_frames)
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
        """The cross-attention weights of every layer, for visualisation.

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
        window = self._embed(tokens, mask, whole=True)
        first = self._first_states(window.tokens.shape[0], queries, instruction, instruction_mask)
        maps = cross_attention_weights(self.layers, first, window)
        return maps.unflatten(-1, tokens.shape[1:3])

    @property
    def _checkpointed(self) -> bool:
        return self.gradient_checkpointing and self.training and torch.is_grad_enabled()

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
        self, windows: int, queries: Tensor | None, instruction: Tensor | None, instruction_mask: Tensor | None
    ) -> QueryStates:
        """The states of queries and instruction before the first layer."""
        queries = self.query_tokens if queries is None else queries
        check_queries(queries, self.output_dim)
        check_instruction(instruction, instruction_mask, windows=windows, taken=self.instruction_dim is not None)
        return first_states(
            queries,
            instruction,
            instruction_mask,
            windows=windows,
            norm=self.query_norm,
            dropout=self.dropout,
            embedding=self.instruction_embedding,
        )

    def _read(
        self,
        window: WindowTokens,
        queries: Tensor | None,
        instruction: Tensor | None,
        instruction_mask: Tensor | None,
        caches: tuple[LayerCache, ...] | None = None,
    ) -> Tensor:
        """The states of windows, of which ``window`` and ``caches`` hold the tokens."""
        first = self._first_states(window.tokens.shape[0], queries, instruction, instruction_mask)
        if caches is not None and not caches[0].cross.key.shape[1]:
            return first.states.new_zeros(window.tokens.shape[0], first.num_queries, self.output_dim)
        states, _ = run_layers(self.layers, first, window, caches, checkpointed=self._checkpointed)
        states = states[:, : first.num_queries]
        if window.mask is None or self.padding == "released":
            return states
        return states.masked_fill(~window.mask.any(-1)[:, None, None], 0)
