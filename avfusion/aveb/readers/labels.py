"""Sound-source labels out of the sentences that the published answers put them in."""

from avfusion.aveb._text import plain
from avfusion.aveb.parsers import SOUND_SOURCE_TEMPLATES, parse_label
from avfusion.aveb.readers.fields import shown
from avfusion.errors import InvalidValueError


def labels_of(answer: str) -> tuple[str, ...]:
    """The label of an answer and its synonyms, which commas part; an answer may be the label alone.

    A whole sentence that is none of the published ones is refused: its label would match nothing.

    Example:
        >>> from avfusion.aveb.readers.labels import labels_of
        >>> labels_of("The source of this sound in this scene is female speech, woman speaking.")
        ('female speech', 'woman speaking')
    """
    labels = parse_label(answer)
    if labels is None:
        raise InvalidValueError(f"answer: must name the source of a sound, found {shown(answer)}")
    openings = tuple(plain(template.split("{}")[0]) for template in SOUND_SOURCE_TEMPLATES)
    if answer.rstrip().endswith(".") and not plain(answer).startswith(openings):
        known = " ".join(f'"{template.format("…")}"' for template in SOUND_SOURCE_TEMPLATES)
        raise InvalidValueError(f"answer: must be a label or one of the sentences {known}, found {shown(answer)}")
    return labels
