"""Atomic files, locks, and tensors and configurations on disk."""

from avfusion.files.locks import locked
from avfusion.files.new_folder import new_folder
from avfusion.files.whole import disk_errors, write_whole

__all__ = ["disk_errors", "locked", "new_folder", "write_whole"]
