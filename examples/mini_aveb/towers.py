"""The two tiny networks that see and hear."""

from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avfusion.encoders import TimmVisualEncoder, WhisperAudioEncoder

DIM = 64  # of the tokens of both
LONGEST = 4.0  # seconds of sound that Whisper takes at once; more are cut
TOKENS = 16  # of a picture: a grid of 4 × 4
AUDIO_RATE = 50.0  # tokens a second
FRAME_RATE = 8.0  # pictures a second that are seen; models may use fewer
PIXELS = 64  # of the sides of a picture, as they are generated


class Towers(nn.Module):
    """A ResNet of timm and a Whisper encoder of transformers, both so small that they train in a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.whisper = WhisperEncoder(
            WhisperConfig(
                d_model=DIM,
                encoder_layers=2,
                encoder_attention_heads=4,
                encoder_ffn_dim=2 * DIM,
                max_source_positions=round(LONGEST * AUDIO_RATE),
            )
        )
        self.convolutions = ResNet(
            BasicBlock,
            (1, 1, 1, 1),
            channels=(24, 48, DIM, DIM),
            stem_type="deep",
            stem_width=12,
            output_stride=16,
            num_classes=0,
        )

    def encoders(self, *, frozen: bool) -> tuple[WhisperAudioEncoder, TimmVisualEncoder]:
        """As the library takes them."""
        return (
            WhisperAudioEncoder(model=self.whisper, feature_extractor=WhisperFeatureExtractor(), frozen=frozen),
            TimmVisualEncoder(
                model=self.convolutions, image_size=(PIXELS, PIXELS), frame_batch_size=256, frozen=frozen
            ),
        )
