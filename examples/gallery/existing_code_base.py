"""An existing LLaVA-style code base, before and after: two methods change, and it hears as well."""

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avfusion import AudioVisualConnector

IMAGE_TOKEN, IGNORED = -200, -100
TOWER = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


class Before(nn.Module):
    """A vision tower, an MLP, and the patches of every frame in the place of the image token."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_tower = CLIPVisionModel(CLIPVisionConfig(**TOWER, image_size=32, patch_size=8)).requires_grad_(
            False
        )
        self.llm = LlamaForCausalLM(LlamaConfig(**TOWER, vocab_size=16))
        self.mm_projector = self.build_projector()

    def build_projector(self) -> nn.Module:
        return nn.Sequential(nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 24))

    def patches(self, images: Tensor) -> Tensor:
        """``(batch, frame, 3, height, width)`` to ``(batch, frame, patch, dim)``."""
        with torch.no_grad():
            return self.vision_tower(images.flatten(0, 1)).last_hidden_state[:, 1:].unflatten(0, images.shape[:2])

    def encode_media(self, images: Tensor, mel: Tensor | None) -> list[Tensor]:
        """``(position, llm_dim)`` of each row: 8 frames of 16 patches are 128 positions."""
        return list(self.mm_projector(self.patches(images)).flatten(1, 2))

    def forward(self, input_ids: Tensor, images: Tensor, mel: Tensor | None, labels: Tensor) -> Tensor:
        rows, targets = [], []
        for ids, wanted, media in zip(input_ids, labels, self.encode_media(images, mel), strict=True):
            place = int((ids == IMAGE_TOKEN).nonzero()[0])
            text = self.llm.get_input_embeddings()(ids.masked_fill(ids == IMAGE_TOKEN, 0))
            rows.append(torch.cat([text[:place], media, text[place + 1 :]]))
            ignored = wanted.new_full((len(media),), IGNORED)
            targets.append(torch.cat([wanted[:place], ignored, wanted[place + 1 :]]))
        embeds = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(embeds.shape[1]) < lengths[:, None]).long()
        labels = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=IGNORED)
        return self.llm(inputs_embeds=embeds, attention_mask=mask, labels=labels).loss


class After(Before):
    """The connector stands where the MLP stood; the splicing into the text stays as it is."""

    def build_projector(self) -> nn.Module:
        whisper = WhisperConfig(d_model=32, encoder_layers=1, encoder_attention_heads=2, max_source_positions=200)
        self.audio_tower = WhisperEncoder(whisper).requires_grad_(False)
        return AudioVisualConnector.from_dims(
            visual=24, audio=32, llm=24, window_seconds=2.0, num_queries=4, hidden_size=32
        )

    def encode_media(self, images: Tensor, mel: Tensor | None) -> list[Tensor]:
        """``(position, llm_dim)`` of each row: 8 frames are 2 windows, and these 8 positions, with sound or without."""
        with torch.no_grad():
            sound = None if mel is None else self.audio_tower(mel).last_hidden_state  # 50 tokens a second
        out = self.mm_projector(visual=self.patches(images), audio=sound)  # at the synchroniser's rates
        return [row[real] for row, real in zip(out.embeddings, out.mask, strict=True)]


def main() -> tuple[nn.Module, Tensor, Tensor]:
    images, mel = torch.rand(2, 8, 3, 32, 32), torch.randn(2, 80, 400)  # 4 s at 2 frames and 100 spectra a second
    ids = torch.tensor([[1, IMAGE_TOKEN, 5, 6, 7], [1, 8, IMAGE_TOKEN, 9, 2]])
    labels = ids.masked_fill(ids == IMAGE_TOKEN, IGNORED)
    for kind in (Before, After):
        model = kind()
        loss = model(ids, images, mel, labels)
        loss.backward()
        embeddings = model.encode_media(images, mel)[0]
        print(f"{kind.__name__}: {len(embeddings)} positions for 4 s, loss {loss.item():.2f}")
    return model, loss, embeddings


if __name__ == "__main__":
    main()
