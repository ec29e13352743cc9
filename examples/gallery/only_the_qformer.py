"""Only the Q-Former: the causal Q-Former as a pooling layer of a model that has nothing to do with audio or language.

Here it sums up film clips, frame by frame, for a classifier. It needs torch and einops alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avfusion import CausalQFormer


class ClipClassifier(nn.Module):
    """Tokens of each frame, from any network, to classes of the clip."""

    def __init__(self, token_dim: int, classes: int) -> None:
        super().__init__()
        self.qformer = CausalQFormer(
            input_dim=token_dim,
            hidden_size=64,
            num_heads=4,
            num_layers=2,
            num_queries=4,  # states a clip, whatever its length
            window_frames=16,  # most frames of a clip
            tokens_per_frame=9,
        )
        self.head = nn.Linear(4 * 64, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """``(clip, frame, token, dim)`` and ``(clip, frame, token)``, True = real, to ``(clip, class)``."""
        return self.head(self.qformer(tokens, mask).flatten(1))


def main() -> tuple[nn.Module, Tensor, Tensor]:
    model = ClipClassifier(token_dim=32, classes=5)
    tokens = torch.randn(3, 12, 9, 32)
    mask = torch.ones(3, 12, 9, dtype=torch.bool)
    mask[1, 7:] = False  # a shorter clip: what stands in its padding does not matter
    loss = F.cross_entropy(model(tokens, mask), torch.tensor([0, 3, 1]))
    loss.backward()

    # Where each query looks: over layers, heads and the tokens of a frame.
    model.eval()
    looks = model.qformer.attention_maps(tokens, mask).mean((0, 2)).sum(-1)  # (clip, query, frame)
    print(f"loss {loss.item():.2f}; the first query of the first clip looks at frame {looks[0, 0].argmax().item()}")

    # Frame by frame, as they come: the same states, and no frame is computed twice.
    state = model.qformer.initial_state(3)
    for frame, real in zip(tokens.split(1, dim=1), mask.split(1, dim=1), strict=True):
        _, state = model.qformer.step(frame, state, mask=real)
    states = model.qformer.flush(state)
    print("as a stream:", torch.allclose(states, model.qformer(tokens, mask), atol=1e-5))
    return model, loss, states


if __name__ == "__main__":
    main()
