"""What comes later does not reach what was given, forwards and backwards; and gradients are those of forward."""

import pytest
import torch

from avfusion import Frames, MultiResolutionProjector
from tests.core.streaming.cutting import build_projector, build_qformer


def test_no_later_frame_reaches_an_earlier_output() -> None:
    """The Jacobian of what is given after each frame by all frames."""
    qformer = build_qformer(4, 3, 5).double()
    tokens = torch.randn(1, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    state = qformer.initial_state()
    for seen in range(1, 6):
        _, state = qformer.step(tokens[:, seen - 1 : seen], state)
        (slopes,) = torch.autograd.grad(qformer.flush(state)[..., 0].sum(), tokens, retain_graph=True)
        assert slopes[:, :seen].flatten(2).any(2).all()
        assert not slopes[:, seen:].any()


@pytest.mark.parametrize("cut", [(3, 3), (4, 2)])
def test_windows_that_are_finished_depend_on_their_own_frames_alone(cut: tuple[int, int]) -> None:
    window, stride = cut
    projector = build_projector(4, 3, cut)
    tokens = torch.randn(1, 12, 3, 4, dtype=torch.float64, requires_grad=True)
    state, number = projector.initial_state(), 0
    for place, frame in enumerate(Frames.from_rate(tokens, 2.0).tokens.split(1, 1)):
        out, state = projector.step(Frames.from_rate(frame, 2.0, start=place / 2), state)
        for embeddings in out.finished.embeddings[0].unflatten(0, (-1, 2)):
            (slopes,) = torch.autograd.grad(embeddings[..., 0].sum(), tokens, retain_graph=True)
            touched = slopes[0].flatten(1).any(1).nonzero().flatten().tolist()
            assert touched == list(range(number * stride, number * stride + window))
            assert touched[-1] == place
            number += 1
    assert number == (12 - window) // stride + 1


@pytest.mark.parametrize(("cut", "fine"), [((3, 3), 0), ((4, 2), 0), ((4, 4), 2)])
def test_gradients_are_those_of_forward(cut: tuple[int, int], fine: int) -> None:
    projector = build_projector(4, 3, cut, fine)
    assert isinstance(projector, MultiResolutionProjector) == bool(fine)
    tokens = torch.randn(2, 9, 3, 4, dtype=torch.float64)
    found = []
    for streamed in (False, True):
        projector.zero_grad()
        given = tokens.clone().requires_grad_()
        if not streamed:
            parts = [projector(Frames.from_rate(given, 2.0)).embeddings]
        else:
            state, parts, start = projector.initial_state(2), [], 0
            for part in given.split([1, 2, 1, 5], 1):
                out, state = projector.step(Frames.from_rate(part, 2.0, start=start / 2), state)
                start += part.shape[1]
                parts.append(out.finished.embeddings)
            parts.append(projector.flush(state).finished.embeddings)
        torch.cat(parts, 1).square().sum().backward()
        found.append([given.grad, *(value.grad for value in projector.parameters())])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-9)
