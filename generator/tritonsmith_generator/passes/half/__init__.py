"""Passes to 16-bit floats: FP16 and BF16."""
