"""Normal forms of text before it is compared: Whisper's English, the VQA challenge's, GQA's, and words of captions."""

import importlib.resources
import json
import re
import unicodedata
from collections.abc import Callable
from functools import cache

_MISSING = "The word error rate needs transformers and whisper-normalizer: pip install avfusion[aveb]"

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(value) for value, word in enumerate(_NUMBERS)}}
_ARTICLES = {"a", "an", "the"}
_VQA_MARKS = ';/[]"{}()=+\\_-><@`!'  # commas and question marks are gone before
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32  # the challenge's code hands a flag, whose value this is, to the place of a count

# Contracted words of the challenge's table, but for those that no lower-cased answer reaches.
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# Each is recognised with any one of its apostrophes left out. The challenge has the last one the wrong way round.
_CONTRACTIONS = {
    word[: mark.start()] + word[mark.end() :]: word for word in _CONTRACTED.split() for mark in re.finditer("'", word)
} | {"somebody'd": "somebodyd"}

_CURLY = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": " "})
_CAPTION_TOKEN = re.compile(
    r"""
    (?:[^\W\d_]\.){2,}               # u.s.
    | \d+(?:[.,:/]\d+)+              # 5.00, 1,000, 10:30
    | o'clock
    | \w+?(?=n't\b) | n't\b          # do n't
    | '(?:s|m|d|re|ve|ll)\b          # they 'll
    | \w+(?:[-/&]\w+)*              # t-shirt, women/girls
    | \S
    """,
    re.VERBOSE,
)
_CAPTION_SPLIT = {"cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na", "lemme": "lem me"}
_CAPTION_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_CAPTION_DROPPED = set("'\"`.?!,:;-")


@cache
def whisper_english() -> Callable[[str], str]:
    """Whisper's English normaliser: transformers' code with the spelling table that ``whisper-normalizer`` carries.

    Raises:
        ImportError: either package is missing; the message says how to install them.

    Example:
        >>> from avfusion.aveb._text import whisper_english
        >>> whisper_english()("Mr. Smith's favourite colour isn't twenty-one!").split()
        ['mister', 'smith', 'is', 'favorite', 'color', 'is', 'not', '21']
    """
    try:
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        table = importlib.resources.files("whisper_normalizer") / "normalizers" / "english.json"
        spelling = json.loads(table.read_text(encoding="utf-8"))
    except (ImportError, FileNotFoundError) as error:
        raise ImportError(_MISSING) from error
    return EnglishTextNormalizer(spelling)


def vqa_answer(text: str) -> str:
    """An answer as the VQA challenge's server compares it: lower case, digits, no articles, contractions restored.

    A punctuation mark disappears where it touches a space anywhere in the answer and becomes a space elsewhere; a
    period goes unless a digit follows. Follows the rules of https://visualqa.org/evaluation.html with what its code
    and TextVQA's do beyond them: commas and question marks always go, and a genitive is a word of its own.

    Example:
        >>> from avfusion.aveb._text import vqa_answer
        >>> vqa_answer("The two-dollar bill, isnt it?"), vqa_answer("13.0%."), vqa_answer("Levi's")
        ("2 dollar bill isn't it", '13.0%', "levi 's")
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    processed = text
    for mark in _VQA_MARKS:
        loose = f"{mark} " in text or f" {mark}" in text
        processed = processed.replace(mark, "" if loose else " ")
    processed = _PERIOD.sub("", processed, count=_MOST_PERIODS)
    words = (_DIGITS.get(word, word) for word in processed.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def plain(text: str) -> str:
    """Lower case, one space between words, no punctuation at the ends of a word.

    Example:
        >>> from avfusion.aveb._text import plain
        >>> plain(" The  T-shirt's (red)!  ")
        "the t-shirt's red"
    """
    words = (_bare(word) for word in unicodedata.normalize("NFC", text.translate(_CURLY)).lower().split())
    return " ".join(word for word in words if word)


def _bare(word: str) -> str:
    start, end = 0, len(word)
    while start < end and unicodedata.category(word[start])[0] == "P":
        start += 1
    while start < end and unicodedata.category(word[end - 1])[0] == "P" and word[end - 1] != "%":
        end -= 1
    return word[start:end]


def caption_words(text: str) -> list[str]:
    """The words of a caption: lower case, clitics apart, punctuation left out.

    What the COCO caption evaluation gets from CoreNLP's Penn Treebank tokeniser, which needs Java. They agree on
    ordinary captions; they differ on what CoreNLP knows by list: abbreviations (``mr.`` keeps its period there),
    fractions, addresses, smileys and rarer contracted forms. Brackets stay, as ``-lrb-`` and the like: the evaluation
    means to drop them too, but looks for them in upper case after lower-casing.

    Example:
        >>> from avfusion.aveb._text import caption_words
        >>> caption_words("A man's dog doesn't like T-shirts, U.S. flags or $5.00 hats.")
        ['a', 'man', "'s", 'dog', 'does', "n't", 'like', 't-shirts', 'u.s.', 'flags', 'or', '$', '5.00', 'hats']
    """
    found = _CAPTION_TOKEN.findall(text.translate(_CURLY).lower())
    words = (part for token in found for part in _CAPTION_SPLIT.get(token, token).split())
    return [_CAPTION_BRACKETS.get(word, word) for word in words if word not in _CAPTION_DROPPED]
