"""What the model refuses: media, features, text and labels that do not belong together."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from avfusion import InvalidValueError, PlaceholderError
from examples.favor.streams import STREAMS


def check_features(media: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """The kept features among media, with their masks and times; none where there are no tokens.

    Raises:
        InvalidValueError: features that lack their mask or times, or media beside them, which would not be looked at.
    """
    given = {name: value for name, value in media.items() if value is not None}
    kept = [stream for stream in STREAMS.values() if stream.tokens in given]
    for stream in kept:
        missing = [name for name in stream.features if name not in given]
        if missing:
            raise InvalidValueError(
                f"{stream.tokens}: must come with {stream.mask} and {stream.times}, found no {' and no '.join(missing)}"
            )
    both = sorted({stream.inputs[0] for stream in STREAMS.values()} & given.keys())
    if kept and both:
        names = ", ".join(stream.tokens for stream in kept)
        raise InvalidValueError(f"{names}: must not come with media, found {', '.join(both)}")
    return {name: given[name] for stream in kept for name in stream.features}


def find_placeholders(inputs_embeds: Tensor, table: nn.Embedding, token: int) -> Tensor:
    """Ids for embeddings of text that tell the media token from all others, of which one stands for all."""
    other = torch.full(inputs_embeds.shape[:2], token + 1, device=inputs_embeds.device)
    if token >= table.num_embeddings:  # it has no embedding that could be among them
        return other
    same = (inputs_embeds == table(torch.full((), token, device=inputs_embeds.device))).all(-1)
    return other.masked_fill(same, token)


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
