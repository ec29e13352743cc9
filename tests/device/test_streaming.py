"""A stream gives on the device what the same clips give at once."""

import pytest
import torch

from avfusion import state_tensors
from tests.device.best import BEST, assert_near, move
from tests.device.parts import connector, media

ERRORS = {torch.float32: 1e-4, torch.bfloat16: 4e-2}


@pytest.mark.parametrize("dtype", ERRORS)
@pytest.mark.parametrize("step", [1, 2, 5])
@torch.inference_mode()
def test_a_stream_is_the_clip_at_once(step: int, dtype: torch.dtype) -> None:
    module = connector(dtype).to(BEST)
    given = move(media(dtype, lengths=(9, 9)))
    visual, audio = given["visual"], given["audio"]
    wanted = module(**given)
    state = module.initial_state(2)
    parts = []
    for begin in range(0, 9, step):
        shown, heard = slice(begin, begin + step), slice(25 * begin, 25 * (begin + step))
        chunk = {
            "visual": type(visual)(*(value[:, shown] for value in visual)),
            "audio": type(audio)(*(value[:, heard] for value in audio)),
        }
        out, state = module.step(chunk, state)
        parts.append(out.finished)
        assert {value.device.type for value in state_tensors(state).values()} == {BEST}
    parts.append(module.flush(state).finished)
    rows = [torch.cat([part.embeddings[row][part.mask[row]] for part in parts]) for row in range(2)]
    for row, found in enumerate(rows):
        exact = wanted.embeddings[row][wanted.mask[row]]
        assert found.shape == exact.shape
        assert_near([found], [exact], ERRORS[dtype])
