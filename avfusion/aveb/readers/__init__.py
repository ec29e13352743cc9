"""Readers of what the benchmark's authors and its data sets publish."""

from avfusion.aveb.readers.native import write_records
from avfusion.aveb.readers.reading import read_records

__all__ = ["read_records", "write_records"]
