"""The audio-visual evaluation benchmark: its tasks, and readers of their published data."""

from avfusion.aveb.readers import read_records, write_records
from avfusion.aveb.records import BadRecord, Record, RecordError, Records, shuffled
from avfusion.aveb.requests import Answerer, Request, make_request
from avfusion.aveb.spoken import espeak, make_spoken_questions
from avfusion.aveb.tasks import TASKS, Task, get_task

__all__ = [
    "TASKS",
    "Answerer",
    "BadRecord",
    "Record",
    "RecordError",
    "Records",
    "Request",
    "Task",
    "espeak",
    "get_task",
    "make_request",
    "make_spoken_questions",
    "read_records",
    "shuffled",
    "write_records",
]
