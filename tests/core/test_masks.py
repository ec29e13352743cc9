"""Frame-block-causal masks: what they say, and that keeping them changes nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from avfusion import InvalidValueError
from avfusion.functional import FrameCausalMask
from avfusion.functional import masks as module


@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from(["causal", "reversed"]))
@settings(deadline=None, max_examples=30)
def test_a_token_sees_its_frame_and_one_side(frames, slots, direction) -> None:
    mask = FrameCausalMask(frames, slots, direction).dense()
    assert mask.dtype == torch.bool
    assert mask.shape == (frames * slots, frames * slots)
    for i in range(frames * slots):
        for j in range(frames * slots):
            earlier, same = j // slots < i // slots, j // slots == i // slots
            assert mask[i, j] == (same or earlier == (direction == "causal"))


def test_is_built_once_a_shape_and_device() -> None:
    assert FrameCausalMask(3, 2).dense() is FrameCausalMask(3, 2).dense("cpu")
    assert FrameCausalMask(3, 2).dense() is not FrameCausalMask(3, 2, "reversed").dense()
    assert FrameCausalMask(3, 2).dense("meta").is_meta
    assert not FrameCausalMask(3, 2).dense().is_meta


def test_what_is_kept_is_bounded() -> None:
    for frames in range(1, 200):
        FrameCausalMask(frames, 1).dense()
    assert len(module._CACHE) <= module._CACHE_SIZE


def test_tensors_of_a_tracer_are_not_kept() -> None:
    mask = FrameCausalMask(7, 3)
    with FakeTensorMode():
        mask.dense()
    assert type(mask.dense()) is torch.Tensor


def test_a_mask_first_made_under_inference_mode_serves_a_backward_pass() -> None:
    mask = FrameCausalMask(9, 7)  # a shape that no other test has made
    with torch.inference_mode():
        mask.dense()
    scores = torch.randn(63, 63, requires_grad=True)
    torch.where(mask.dense(), scores, 0).sum().backward()
    assert torch.equal(scores.grad.bool(), mask.dense())


def test_an_unknown_direction_is_an_error() -> None:
    with pytest.raises(InvalidValueError, match='must be "causal", "reversed" or None, found \'true\''):
        FrameCausalMask(2, 2, "true").dense()
