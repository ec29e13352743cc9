"""What is trained and compared: the whole recipe, and the recipe without one of its parts."""

from typing import NamedTuple


class Arm(NamedTuple):
    """One model and its training.

    Attributes:
        separate: a Q-Former for what is seen and another for what is heard, instead of one for both, synchronised.
        scaled: embeddings begin with the norm of the language model's word embeddings.
        aligned: the connector is trained alone first, into the language model's word embeddings.
        adapted: LoRA in the language model.
        replay: training has rows of text.
        dropped: training clips lose their frames or their sound at random.
    """

    separate: bool = False
    scaled: bool = True
    aligned: bool = True
    adapted: bool = True
    replay: bool = True
    dropped: bool = False


ARMS = {
    "synchronised": Arm(),
    "baseline": Arm(separate=True),
    "not-scaled": Arm(scaled=False),
    "not-aligned": Arm(aligned=False),
    "neither-scaled-nor-aligned": Arm(scaled=False, aligned=False),
    "not-adapted": Arm(adapted=False),
    "no-replay": Arm(replay=False),
    "modality-dropout": Arm(dropped=True),
}
