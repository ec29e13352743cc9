"""A model that watches and listens while it is asked."""

from avfusion.models.live.memory import KeepEveryNth, KeepNewest, Memory
from avfusion.models.live.session import LiveSession, Watched
from avfusion.models.live.state import KeptWindows

__all__ = ["KeepEveryNth", "KeepNewest", "KeptWindows", "LiveSession", "Memory", "Watched"]
