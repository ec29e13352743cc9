"""Weights released by others, as avfusion's components."""

from avfusion.interop.release import connector_from_release, connector_to_release

__all__ = ["connector_from_release", "connector_to_release"]
