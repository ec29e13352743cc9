"""The processes of a run, as ``accelerate launch`` or ``torchrun`` starts them."""

import os
from typing import Any

import torch


class Processes:
    """This process among those of its run; the only one where nothing launched several."""

    def __init__(self) -> None:
        self._state: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            try:
                from accelerate import PartialState
            except ImportError as error:
                raise ImportError("several processes need accelerate: pip install avfusion[aveb]") from error
            # without an accelerator it must be told so, or each process would take itself for the only one
            self._state = PartialState(cpu=not torch.accelerator.is_available())
        self.rank: int = 0 if self._state is None else self._state.process_index
        self.count: int = 1 if self._state is None else self._state.num_processes

    @property
    def first(self) -> bool:
        """Whether it is the one that writes what all share."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all have come here."""
        if self._state is not None:
            self._state.wait_for_everyone()
