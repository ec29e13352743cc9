"""Worker processes that read media: how many, and what they need for a safe start."""

import gc
import os

WORKERS = min(4, os.cpu_count() or 1)

# A forked worker gets what its parent has left of decoders, without their threads. Were it to collect that garbage, it
# would wait for those threads forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=gc.freeze)
