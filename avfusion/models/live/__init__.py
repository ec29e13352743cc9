"""A model that watches and listens while it is asked."""

from avfusion.models.live.retention import KeepEveryNth, KeepNewest, RetentionPolicy
from avfusion.models.live.session import LiveSession, Watched
from avfusion.models.live.state import KeptWindows

__all__ = ["KeepEveryNth", "KeepNewest", "KeptWindows", "LiveSession", "RetentionPolicy", "Watched"]
