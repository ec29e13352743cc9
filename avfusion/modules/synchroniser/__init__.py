"""The frame synchroniser, and what its stream is made of."""
