"""Passes that keep every value: tidy, simplify, raise the opset, prune 2:4."""
