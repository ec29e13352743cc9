"""Streams are put onto frames on the GPU as on the CPU, to the bit."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfusion import AlignmentError, FrameSynchroniser
from tests.core import strategies
from tests.device.best import move, needs_gpu


@needs_gpu
@given(data=st.data(), batch=st.lists(strategies.clips(), min_size=1, max_size=3))
@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
def test_frames_are_those_of_the_cpu(data: st.DataObject, batch: list[strategies.Clip]) -> None:
    synchronise = FrameSynchroniser(
        visual_dim=3, stream_dims={"audio": 4, "speech": 4}, slots=12, fusion="features", padding="masked"
    )
    visual = strategies.pad_frames(batch, 2, 3, data.draw)
    streams = {name: strategies.pad_stream(batch, name, 4, data.draw) for name in ("audio", "speech")}
    results = []
    for place in (lambda value: value, move):
        try:
            results.append(synchronise(visual=place(visual), **place(streams)))
        except (AlignmentError, ValueError) as error:
            results.append(str(error))
    if isinstance(results[0], str):
        assert results[0] == results[1]
        return
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two.cpu())
