"""The commands of ``python -m avfusion.aveb``."""
