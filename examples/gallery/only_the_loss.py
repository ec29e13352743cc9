"""Only the loss: the diversity loss on learned queries of another model, here those of BLIP-2's Q-Former.

It takes ``(window, query, hidden)`` states of any module with several queries, and needs torch and einops alone.
"""

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from avfusion import DiversityLoss
from avfusion.functional import query_similarity


class Captioner(nn.Module):
    """Pictures' patches to query states, and these to words: a stand-in for whatever is trained."""

    def __init__(self) -> None:
        super().__init__()
        # Blip2Model.from_pretrained("Salesforce/blip2-opt-2.7b").qformer
        config = Blip2QFormerConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            encoder_hidden_size=24,
            vocab_size=10,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.qformer = Blip2QFormerModel(config)
        self.queries = nn.Parameter(torch.randn(1, 8, 32))
        self.words = nn.Linear(32, 10)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        queries = self.queries.expand(len(patches), -1, -1)
        states = self.qformer(query_embeds=queries, encoder_hidden_states=patches).last_hidden_state
        return states, self.words(states)


def train(weight: float) -> tuple[Captioner, Tensor, Tensor]:
    """The model after some steps, its last loss, and the mean cosine similarity of a picture's queries."""
    torch.manual_seed(0)
    model, diversity = Captioner(), DiversityLoss(weight=weight)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    patches, target = torch.randn(4, 16, 24), torch.randint(10, (4, 8))
    real = torch.tensor([True, True, True, False])  # the last picture is padding: it counts for nothing
    for _ in range(30):
        states, logits = model(patches)
        task = nn.functional.cross_entropy(logits[real].flatten(0, 1), target[real].flatten())
        loss = task + diversity(states, real)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model, loss, query_similarity(states.detach())[real].mean()


def main() -> tuple[nn.Module, Tensor, Tensor]:
    _, _, without = train(weight=0.0)
    model, loss, similarity = train(weight=1.0)  # strong, to be seen at once; the paper's is 0.01
    print(f"mean cosine similarity of a picture's queries: {without:.2f} without the loss, {similarity:.2f} with it")
    return model, loss, torch.stack([without, similarity])


if __name__ == "__main__":
    main()
