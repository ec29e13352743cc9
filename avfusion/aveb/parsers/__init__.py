"""From what a model said to what it decided. Pure functions; what cannot be read is ``None``, never a guess."""

from avfusion.aveb.parsers._reasoning import strip_reasoning
from avfusion.aveb.parsers.choice import parse_choice
from avfusion.aveb.parsers.label import SOUND_SOURCE_TEMPLATES, parse_label
from avfusion.aveb.parsers.number import parse_number
from avfusion.aveb.parsers.yes_no import parse_yes_no

PARSER_VERSION = 3
"""Raised whenever an answer may be read otherwise than before; a report names it beside its figures."""

__all__ = [
    "PARSER_VERSION",
    "SOUND_SOURCE_TEMPLATES",
    "parse_choice",
    "parse_label",
    "parse_number",
    "parse_yes_no",
    "strip_reasoning",
]
