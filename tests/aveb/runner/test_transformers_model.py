"""Models of transformers, tiny and random, in the benchmark."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from avfusion import InvalidValueError
from avfusion.aveb import Record, make_request
from avfusion.aveb.runner import run_task
from avfusion.aveb.runner.transformers_model import TransformersAnswerer
from avfusion.media import write_video

SPECIAL = (
    *("<pad>", "</s>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    *("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
)
SEEING = (
    "{% for m in messages %}{{ m.role }}: {% for p in m.content %}"
    "{% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif p.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ p.text }}{% endif %}{% endfor %}\n{% endfor %}assistant: "
)
HEARING = SEEING.replace("'image'", "'audio'").replace(
    "<|vision_start|><|image_pad|><|vision_end|>", "<|audio_bos|><|AUDIO|><|audio_eos|>"
)


def tokenizer() -> PreTrainedTokenizerFast:
    names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    rule = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    rule.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rule.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=rule, pad_token="<pad>", eos_token="</s>")
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL[2:])})
    return made


TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 272}


@pytest.fixture(scope="module")
def seeing() -> TransformersAnswerer:
    words = tokenizer()
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = Qwen2VLConfig(
        text_config={**TEXT, "num_key_value_heads": 2, "rope_parameters": rope, "rope_scaling": rope},
        vision_config={
            "depth": 1,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
        },
        **{f"{kind}_token_id": SPECIAL.index(f"<|{kind}_pad|>") for kind in ("image", "video")},
        vision_start_token_id=2,
        vision_end_token_id=3,
    )
    sizes = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(**sizes), words, Qwen2VLVideoProcessor(**sizes), chat_template=SEEING
    )
    torch.manual_seed(0)
    return TransformersAnswerer(Qwen2VLForConditionalGeneration(config).eval(), processor, max_new_tokens=5)


@pytest.fixture(scope="module")
def hearing() -> TransformersAnswerer:
    words = tokenizer()
    config = Qwen2AudioConfig(
        audio_config={
            "num_mel_bins": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 32,
            "max_source_positions": 1500,
        },
        text_config={**TEXT, "model_type": "qwen2", "num_key_value_heads": 2},
        audio_token_index=SPECIAL.index("<|AUDIO|>"),
        audio_token_id=SPECIAL.index("<|AUDIO|>"),
    )  # fmt: skip
    processor = Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=16), words, chat_template=HEARING)
    torch.manual_seed(0)
    return TransformersAnswerer(Qwen2AudioForConditionalGeneration(config).eval(), processor, max_new_tokens=5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    pixels = (torch.rand(16, 3, 56, 56) * 255).byte()
    write_video(folder / "clip.mp4", pixels, frame_rate=4.0, samples=torch.randn(64000) * 0.1)
    for name in ("a", "b"):
        Image.fromarray((torch.rand(56, 56, 3) * 255).byte().numpy()).save(folder / f"{name}.png")
    return folder


def said(model: Any, records: list[Record], out: Path, **options: Any) -> list[str]:
    return [answer.prediction for answer in run_task(model, records, out, **options)]


def test_pictures_and_videos(seeing: TransformersAnswerer, files: Path, tmp_path: Path) -> None:
    given = {"references": ("a",), "question": "What is it?"}
    images = [Record(id=name, task="vqa", image=files / f"{name}.png", **given) for name in ("a", "b")]
    alone = said(seeing, images, tmp_path / "1")
    assert said(seeing, images, tmp_path / "2", batch_size=2) == alone
    videos = [
        Record(id="whole", task="video_qa", video=files / "clip.mp4", **given),
        Record(id="cut", task="video_qa", video=files / "clip.mp4", span=(1.0, 3.0), needs_cut=True, **given),
        Record(id="turns", task="video_qa", video=files / "clip.mp4", history=(("Who?", "He."),), **given),
    ]
    alone = said(seeing, videos, tmp_path / "3")
    assert said(seeing, videos, tmp_path / "4", batch_size=3) == alone
    assert len(said(seeing, images, tmp_path / "5", blind=True)) == 2


def test_a_logits_processor_does_not_see_the_batch(seeing: TransformersAnswerer, files: Path, tmp_path: Path) -> None:
    """Rows of a batch differ in length; padding is no text that was said."""
    records = [
        Record(id=str(index), task="vqa", image=files / "a.png", references=("a",), question=question)
        for index, question in enumerate(["What?", "What is it, and where does it stand?", "Who is here?"])
    ]
    own = seeing.model.generation_config
    likely = {"sequence_bias": {(0,): 5.0}, "no_repeat_ngram_size": 1}  # the token that pads is said, but once
    seeing.model.generation_config = GenerationConfig(**{**own.to_diff_dict(), **likely})
    try:
        assert said(seeing, records, tmp_path / "2", batch_size=3) == said(seeing, records, tmp_path / "1")
    finally:
        seeing.model.generation_config = own


def test_what_is_seen_is_what_is_in_the_span_at_the_rate(seeing: TransformersAnswerer, files: Path) -> None:
    record = Record(id="1", task="video_qa", video=files / "clip.mp4", references=("a",), question="Who?")
    assert seeing._media(make_request(record))["video"].frames.shape == (8, 56, 56, 3)
    seeing.max_frames = 5
    try:
        frames, rate = seeing._media(make_request(record))["video"]
    finally:
        seeing.max_frames = 64
    assert len(frames) <= 5
    assert len(frames) == pytest.approx(4.0 * rate, abs=1)


def test_sound(hearing: TransformersAnswerer, files: Path, tmp_path: Path) -> None:
    records = [
        Record(id="whole", task="asr", audio=files / "clip.mp4", references=("a",)),
        Record(id="cut", task="asr", audio=files / "clip.mp4", references=("a",), span=(1.0, 3.0), needs_cut=True),
    ]
    alone = said(hearing, records, tmp_path / "1")
    assert said(hearing, records, tmp_path / "2", batch_size=2) == alone
    assert len(hearing._media(make_request(records[1]))["audio"]) == 32000


def test_media_that_a_model_does_not_take_are_never_dropped_silently(
    hearing: TransformersAnswerer, files: Path, tmp_path: Path
) -> None:
    record = Record(id="1", task="avm", image=files / "a.png", audio=files / "clip.mp4", references=("yes",))
    with pytest.raises(InvalidValueError, match=r"takes no image, found .*withhold it with ignore=image"):
        run_task(hearing, [record], tmp_path / "1")
    deaf = TransformersAnswerer(hearing.model, hearing.processor, ignore="image", max_new_tokens=2)
    assert len(said(deaf, [record], tmp_path / "2")) == 1
    with pytest.raises(InvalidValueError, match=r"ignore: must be among image, video, audio"):
        TransformersAnswerer(hearing.model, hearing.processor, ignore="sound")


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="model: cannot load"):
        TransformersAnswerer.from_pretrained(str(tmp_path))
