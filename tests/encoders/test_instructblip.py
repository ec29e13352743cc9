"""InstructBLIP's visual tower: the Q-Former's states of transformers, frame by frame, in the light of a question."""

import pytest
import torch
from transformers import BlipImageProcessor, CLIPVisionConfig, CLIPVisionModel, InstructBlipModel

from avfusion import InvalidTypeError, InvalidValueError
from avfusion.encoders import InstructBlipVisualEncoder
from tests.encoders import tiny


def test_equals_transformers() -> None:
    whole = InstructBlipModel(tiny.blip_config()).eval()
    torch.nn.init.normal_(whole.query_tokens)
    encoder = InstructBlipVisualEncoder(
        model=whole, image_processor=BlipImageProcessor(size={"height": 28, "width": 28})
    )
    video = tiny.film(3, 3)
    ids = torch.randint(1, 10, (2, 5))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    frames = encoder(video, ids, mask)
    assert (encoder.tokens_per_frame, encoder.output_dim) == (4, 16)
    for clip in range(2):
        pixels = encoder.image_processor(list(video.pixels[clip]), return_tensors="pt")["pixel_values"]
        output = whole(
            pixels,
            qformer_input_ids=ids[[clip] * 3],
            qformer_attention_mask=mask[[clip] * 3],
            input_ids=torch.full((3, 4), whole.config.image_token_id),
            inputs_embeds=torch.zeros(3, 4, 16),
        )
        torch.testing.assert_close(
            frames.tokens[clip], output.qformer_outputs.last_hidden_state[:, :4], atol=1e-5, rtol=0
        )


def test_each_clip_has_its_own_instruction_and_padding_ids_do_not_matter() -> None:
    encoder = tiny.blip(frame_batch_size=2)
    video = tiny.film(3, 2)
    ids = torch.tensor([[1, 2, 3, 9], [4, 5, 9, 9]])
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    frames = encoder(video, ids, mask)
    for clip, (length, words) in enumerate(((3, 3), (2, 2))):
        alone = encoder(
            type(video)(*(value[clip : clip + 1, :length] for value in video)), ids[clip : clip + 1, :words]
        )
        torch.testing.assert_close(frames.tokens[clip, :length], alone.tokens[0], atol=1e-5, rtol=0)
    other = encoder(video, ids.flip(0), mask.flip(0))
    assert not torch.allclose(frames.tokens[frames.mask], other.tokens[frames.mask], atol=1e-3)


def test_without_instruction_the_queries_see_the_picture_alone() -> None:
    encoder = tiny.blip()
    video = tiny.film(2)
    ids = torch.ones(1, 3, dtype=torch.long)
    silent = encoder(video, ids, torch.zeros_like(ids))
    torch.testing.assert_close(encoder(video).tokens, silent.tokens, atol=1e-5, rtol=0)


def test_the_language_model_is_not_held() -> None:
    assert {key.split(".")[0] for key in tiny.blip(head=True).state_dict()} == {
        "vision_model",
        "qformer",
        "query_tokens",
    }


def test_refuses_bad_instructions_and_models() -> None:
    encoder = tiny.blip()
    video = tiny.film(1, 1)
    ids = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(InvalidValueError, match=r"qformer_input_ids: must be \(batch, length\) with batch = 2"):
        encoder(video, ids[:1])
    with pytest.raises(InvalidValueError, match=r"qformer_attention_mask: must be .* = \(2, 3\)"):
        encoder(video, ids, ids[:, :2])
    with pytest.raises(InvalidValueError, match=r"qformer_attention_mask: must come with qformer_input_ids"):
        encoder(video, None, ids)
    processor = BlipImageProcessor(size={"height": 14, "width": 14})
    with pytest.raises(InvalidTypeError, match=r"model: must be an InstructBLIP model, found CLIPVisionModel"):
        InstructBlipVisualEncoder(model=CLIPVisionModel(CLIPVisionConfig(**tiny.VIT)), image_processor=processor)
    with pytest.raises(InvalidValueError, match=r"image_processor: must make images of 28 × 28, found \(14, 14\)"):
        InstructBlipVisualEncoder(model=InstructBlipModel(tiny.blip_config()), image_processor=processor)
