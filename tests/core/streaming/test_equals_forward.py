"""However a clip is cut into chunks, what its stream gives is what the clip gives at once."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.strategies import Clip, clips
from tests.core.streaming.cutting import NAMES, Collected, build_connector, chunks_of, input_widths, whole

cuts = st.sampled_from([(1, 1), (2, 2), (3, 3), (4, 2), (4, 1), (5, 3)])


@settings(deadline=None, max_examples=60)
@given(
    batch=st.lists(clips(NAMES[1:]), min_size=1, max_size=3),
    fusion=st.sampled_from(["features", "tokens"]),
    cut=cuts,
    data=st.data(),
)
def test_connector(batch: list[Clip], fusion: str, cut: tuple[int, int], data: st.DataObject) -> None:
    fine = data.draw(st.sampled_from([0, 1, 2])) if cut[0] % 2 == 0 else 0
    connector = build_connector(fusion, cut, fine)
    widths = input_widths(connector)
    wanted = Collected(len(batch)).add(connector(**whole(batch, widths, data.draw)))
    state, found = connector.initial_state(len(batch)), Collected(len(batch))
    for chunk, until in chunks_of(batch, widths, data.draw):
        out, state = connector.step(chunk, state, until=until)
        found.add(out.finished)
        assert not out.late.any()
    found.add(connector.flush(state).finished).check_equal(wanted)
