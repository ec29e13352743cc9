"""What the model refuses: media, features, text and labels that do not belong together."""

from collections.abc import Mapping

import torch
from torch import Tensor

from avfusion import InvalidValueError, PlaceholderError
from examples.favor.parts import STREAMS


def check_features(features: Mapping[str, Tensor], **media: Tensor | None) -> None:
    """Refuses features that lack their mask or times, and features beside media, which would not be looked at."""
    for tokens, mask, times in STREAMS.values():
        missing = [name for name in (mask, times) if name not in features]
        if tokens in features and missing:
            raise InvalidValueError(f"{tokens}: must come with {mask} and {times}, found no {' and no '.join(missing)}")
    both = [name for name, value in media.items() if value is not None]
    if both:
        given = [names[0] for names in STREAMS.values() if names[0] in features]
        raise InvalidValueError(f"{', '.join(given)}: must not come with media, found {', '.join(both)}")


def check_no_placeholders(input_ids: Tensor, token: int) -> None:
    """Refuses text that keeps places for embeddings of media that were not given."""
    if torch.compiler.is_compiling():  # a look at values would break the graph
        return
    counts = (input_ids == token).sum(1).tolist()
    wrong = [f"row {row} has {count}" for row, count in enumerate(counts) if count]
    if wrong:
        raise PlaceholderError(
            f"input_ids: must not hold the media token ({token}) where no media and no features are given; "
            f"{'; '.join(wrong[:5])}{f' and {len(wrong) - 5} more rows' if len(wrong) > 5 else ''}"
        )


def check_labels(labels: Tensor | None, token: int) -> None:
    """Refuses labels that would teach the model to say the media token."""
    if labels is None or torch.compiler.is_compiling():
        return
    count = int((labels == token).sum())
    if count:
        raise PlaceholderError(f"labels: must be -100 where input_ids holds the media token ({token}), found {count}")
