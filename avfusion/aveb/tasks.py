"""The tasks: prompts, data sets and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from avfusion.errors import InvalidTypeError, InvalidValueError

Answer = Literal["transcript", "caption", "short_answer", "multiple_choice", "yes_no", "label", "free_text"]
Seen = Literal["trained", "zero-shot", "unknown"]

SAVE = "https://huggingface.co/datasets/tsinghua-ee/SAVEBench"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of the benchmark.

    Attributes:
        name: name for :func:`get_task`.
        title: title in tables.
        needs: media that a record must have; ``"visual"`` is a video or an image.
        dataset: the data set.
        split: its split, if known.
        prompt: the question for records without their own; ``None`` if every record must have one.
        answer: kind of answer.
        metric: name of the metric.
        source: where to get the data.
        licence: licence of the data set, if known.
        seen: whether the published system was trained on the data set's training split.
        published: published results by system, in the metric's unit (per cent for accuracies).

    Example:
        >>> from avfusion.aveb import get_task
        >>> get_task("Video QA").dataset
        'NExT-QA'
    """

    name: str
    title: str
    needs: tuple[Literal["audio", "image", "video", "visual"], ...]
    dataset: str
    split: str | None = None
    prompt: str | None = None
    answer: Answer
    metric: str
    source: str
    licence: str | None = None
    seen: Seen = "unknown"
    published: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


_DECLARED = (
    Task(
        name="asr",
        title="Speech recognition (ASR)",
        needs=("audio",),
        dataset="LibriSpeech",
        split="test-clean",
        prompt="Transcribe the speech.",
        answer="transcript",
        metric="wer",
        source="https://www.openslr.org/12",
        licence="CC BY 4.0",
    ),
    Task(
        name="ac",
        title="Audio captioning (AC)",
        needs=("audio",),
        dataset="AudioCaps",
        split="test",
        prompt="Write a short description of this sound.",
        answer="caption",
        metric="spider",
        source="https://audiocaps.github.io",
    ),
    Task(
        name="ic",
        title="Image captioning (IC)",
        needs=("image",),
        dataset="Flickr30k",
        split="1k test",
        prompt="Write a short description about this image.",
        answer="caption",
        metric="cider",
        source="https://shannon.cs.illinois.edu/DenotationGraph",
    ),
    Task(
        name="ocr",
        title="Reading text in images (OCR)",
        needs=("image",),
        dataset="TextVQA",
        answer="short_answer",
        metric="vqa_accuracy",
        source="https://textvqa.org",
        licence="CC BY 4.0",
    ),
    Task(
        name="vqa",
        title="Questions about images (VQA)",
        needs=("image",),
        dataset="GQA",
        split="testdev_balanced",
        answer="short_answer",
        metric="exact_match",
        source="https://cs.stanford.edu/people/dorarad/gqa",
        licence="CC BY 4.0",
    ),
    Task(
        name="video_qa",
        title="Questions about videos (Video QA)",
        needs=("video",),
        dataset="NExT-QA",
        answer="multiple_choice",
        metric="multiple_choice",
        source="https://github.com/doc-doc/NExT-QA",
        published=MappingProxyType({"FAVOR": 49.3, "InstructBLIP": 21.0}),
    ),
    Task(
        name="avsr",
        title="Audio-visual speech recognition (AVSR)",
        needs=("video", "audio"),
        dataset="How2",
        split="dev5",
        prompt="Can you transcribe the speech into text, paying attention to the video?",
        answer="transcript",
        metric="wer",
        source="https://github.com/srvk/how2-dataset",
    ),
    Task(
        name="avsd",
        title="Audio-visual scene-aware dialogue (AVSD)",
        needs=("video", "audio"),
        dataset="AVSD",
        answer="free_text",
        metric="judge",
        source="https://github.com/hudaAlamri/DSTC7-Audio-Visual-Scene-Aware-Dialog-AVSD-Challenge",
    ),
    Task(
        name="isqa",
        title="Spoken questions about images (ISQA)",
        needs=("image", "audio"),
        dataset="TextVQA and GQA, spoken",
        prompt="Answer the spoken question about the image.",
        answer="short_answer",
        metric="exact_match",
        source="https://textvqa.org and https://cs.stanford.edu/people/dorarad/gqa",
        licence="CC BY 4.0",
    ),
    Task(
        name="avssd",
        title="Audio-visual sound-source detection (AVSSD)",
        needs=("visual", "audio"),
        dataset="VGGSS",
        prompt="What is the source of the sound?",
        answer="label",
        metric="label",
        source="https://www.robots.ox.ac.uk/~vgg/research/lvs",
    ),
    Task(
        name="avm",
        title="Audio-visual matching (AVM)",
        needs=("visual", "audio"),
        dataset="SpokenCOCO and VGGSS",
        prompt="Are the audio and the picture about the same thing?",
        answer="yes_no",
        metric="yes_no",
        source=SAVE,
    ),
    Task(
        name="ego4d_qa",
        title="Questions about egocentric videos (AVQA, Ego4D-QA)",
        needs=("video", "audio"),
        dataset="Ego4D",
        answer="multiple_choice",
        metric="multiple_choice",
        source=f"{SAVE} and https://ego4d-data.org",
    ),
    Task(
        name="presentation_qa",
        title="Questions about presentations (AVQA, Presentation-QA)",
        needs=("video", "audio"),
        dataset="M3AV",
        answer="multiple_choice",
        metric="multiple_choice",
        source=f"{SAVE} and https://arxiv.org/abs/2403.14168",
    ),
)

TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _DECLARED})
"""Every task by its name: the eleven of AVEB, then the two of SAVE's AVQA."""


def get_task(name: str) -> Task:
    """The task of a name; case, spaces and hyphens are ignored.

    Raises:
        InvalidValueError: no such task; the message lists them.

    Example:
        >>> from avfusion.aveb import TASKS, get_task
        >>> get_task("ASR").metric, len(TASKS)
        ('wer', 13)
    """
    if not isinstance(name, str):
        raise InvalidTypeError(f"task: must be the name of a task, found {name!r:.80}")
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    if key not in TASKS:
        raise InvalidValueError(f"task: must be one of {', '.join(TASKS)}, found {name!r:.80}")
    return TASKS[key]
