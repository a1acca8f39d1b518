"""Passes to 8 and 4 bits: INT8, FP8, INT4."""
