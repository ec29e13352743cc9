"""Tiny random towers of every family, and the check that each of them is what the library asks for."""

from typing import Any

import timm
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    BitImageProcessor,
    BlipImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    HubertConfig,
    HubertModel,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from avfusion import TokenStream, Video, Waveform
from avfusion.encoders import (
    HFAudioEncoder,
    HFVisionEncoder,
    InstructBlipVisualEncoder,
    TimmVisualEncoder,
    WhisperAudioEncoder,
)

RATE = 16000
TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def whisper_config(positions: int = 25) -> WhisperConfig:
    return WhisperConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_mel_bins=8,
        vocab_size=8,
        max_source_positions=positions,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )


def whisper(positions: int = 25, head: bool = False, **options: Any) -> WhisperAudioEncoder:
    model = (WhisperForConditionalGeneration if head else WhisperModel)(whisper_config(positions))
    return WhisperAudioEncoder(model=model.eval(), feature_extractor=WhisperFeatureExtractor(feature_size=8), **options)


SPEECH = {
    "group_norm": (Wav2Vec2Config, Wav2Vec2Model, {"feat_extract_norm": "group"}),
    "layer_norm": (Wav2Vec2Config, Wav2Vec2Model, {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
    "hubert": (HubertConfig, HubertModel, {}),
    "wavlm": (WavLMConfig, WavLMModel, {"num_buckets": 16}),
}


def speech(family: str = "group_norm", **options: Any) -> HFAudioEncoder:
    config, model, own = SPEECH[family]
    conv = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=family == "layer_norm")
    return HFAudioEncoder(model=model(config(**TOWER, **conv, **own)).eval(), feature_extractor=extractor, **options)


def spectrogram(**options: Any) -> HFAudioEncoder:
    """AST over 0.5 s at once: 3 × 4 patches of 8 bands × 8 frames, every 6 bands and 12 frames."""
    config = ASTConfig(**TOWER, patch_size=8, frequency_stride=6, time_stride=12, max_length=50, num_mel_bins=20)
    extractor = ASTFeatureExtractor(num_mel_bins=20, max_length=50)
    return HFAudioEncoder(model=ASTModel(config).eval(), feature_extractor=extractor, **options)


VIT = {**TOWER, "image_size": 32, "patch_size": 8}
CROP = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


def picture(family: str = "clip", **options: Any) -> HFVisionEncoder:
    make: dict[str, Any] = {
        "clip": lambda: (CLIPVisionModel(CLIPVisionConfig(**VIT)), CLIPImageProcessor(**CROP)),
        "clip_both": lambda: (
            CLIPModel(CLIPConfig(vision_config=VIT, text_config={**TOWER, "vocab_size": 8, "eos_token_id": 1})),
            CLIPImageProcessor(**CROP),
        ),
        "siglip": lambda: (
            SiglipVisionModel(SiglipVisionConfig(**VIT)),
            SiglipImageProcessor(size={"height": 32, "width": 32}),
        ),
        # A checkpoint of another picture size than the processor's: its positions are interpolated.
        "dinov2": lambda: (Dinov2Model(Dinov2Config(**{**VIT, "image_size": 48})), BitImageProcessor(**CROP)),
        "dinov3": lambda: (
            DINOv3ViTModel(DINOv3ViTConfig(**VIT, num_register_tokens=4, pos_embed_rescale=None)),
            BitImageProcessor(**CROP),
        ),
        "convnext": lambda: (
            ConvNextModel(ConvNextConfig(hidden_sizes=[4, 4, 8, 16], depths=[1, 1, 1, 1])),
            SiglipImageProcessor(size={"height": 64, "width": 96}),
        ),
        "swin": lambda: (
            SwinModel(
                SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
            ),
            SiglipImageProcessor(size={"height": 32, "width": 32}),
        ),
    }
    model, processor = make[family]()
    return HFVisionEncoder(model=model.eval(), image_processor=processor, **options)


def blip_config() -> InstructBlipConfig:
    return InstructBlipConfig(
        vision_config={**TOWER, "image_size": 28},
        qformer_config={**TOWER, "vocab_size": 10, "encoder_hidden_size": 16},
        text_config={
            "model_type": "opt",
            "hidden_size": 16,
            "ffn_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 10,
            "word_embed_proj_dim": 16,
        },
        num_query_tokens=4,
        image_token_index=9,
    )


def blip(head: bool = False, **options: Any) -> InstructBlipVisualEncoder:
    model = (InstructBlipForConditionalGeneration if head else InstructBlipModel)(blip_config())
    torch.nn.init.normal_(model.query_tokens)  # which are zero, and so all alike, when made
    processor = BlipImageProcessor(size={"height": 28, "width": 28})
    return InstructBlipVisualEncoder(model=model.eval(), image_processor=processor, **options)


TIMM = {
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "embed_dim": 16, "num_heads": 2, "depth": 2}),
    "nchw": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (4, 4, 8, 16)}),
    "nhwc": ("swin_tiny_patch4_window7_224", {"img_size": 64, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}),
}


def timm_model(family: str) -> torch.nn.Module:
    name, options = TIMM[family]
    return timm.create_model(name, pretrained=False, num_classes=0, **options).eval()


def timm_picture(family: str = "vit", **options: Any) -> TimmVisualEncoder:
    size = {"image_size": (64, 64)} if family == "nchw" else {}
    return TimmVisualEncoder(model=timm_model(family), **size, **options)


AUDIO: dict[str, Any] = {
    "whisper": whisper,
    **{family: lambda family=family, **options: speech(family, **options) for family in SPEECH},
    "ast": spectrogram,
}
VISUAL: dict[str, Any] = {
    **{
        family: lambda family=family, **options: picture(family, **options)
        for family in ("clip", "clip_both", "siglip", "dinov2", "dinov3", "convnext", "swin")
    },
    "instructblip": blip,
    **{f"timm_{family}": lambda family=family, **options: timm_picture(family, **options) for family in TIMM},
}


def clips(*lengths: int, start: float = 0.0, dtype: torch.dtype = torch.float32) -> Waveform:
    return Waveform.from_samples([torch.randn(length, dtype=dtype) * 0.1 for length in lengths], RATE, start=start)


def spoil(waveform: Waveform, extra: int = 0) -> Waveform:
    """The same sound with NaN in the padding, and more padding."""
    samples = torch.nn.functional.pad(waveform.samples, (0, extra))
    mask = torch.nn.functional.pad(waveform.mask, (0, extra))
    return Waveform(samples.masked_fill(~mask, torch.nan), mask, waveform.sample_rate, waveform.start)


def row(waveform: Waveform, index: int) -> Waveform:
    """One clip alone, without padding."""
    samples = waveform.samples[index, : int(waveform.lengths[index])]
    return Waveform.from_samples([samples], waveform.sample_rate, start=float(waveform.start[index]))


def film(*lengths: int, size: tuple[int, int] = (40, 56)) -> Video:
    pixels = torch.randint(0, 256, (len(lengths), max(lengths), 3, *size), dtype=torch.uint8)
    return Video.from_rate(pixels, 2.0, lengths=list(lengths))


def assert_same_stream(found: TokenStream, wanted: TokenStream, *, atol: float = 1e-5) -> None:
    """Equal real tokens at equal times, whatever the padding."""
    torch.testing.assert_close(found.tokens[found.mask], wanted.tokens[wanted.mask], atol=atol, rtol=0)
    torch.testing.assert_close(found.timestamps[found.mask], wanted.timestamps[wanted.mask], atol=1e-12, rtol=0)
