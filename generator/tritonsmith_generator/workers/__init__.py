"""Processes of our own that run one task, and may crash without harm."""
