"""Multi-head attention, and the ways in which it is computed with fewer operations."""
