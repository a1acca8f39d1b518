"""The model repository on disk: its lock, its changes, and publishing them at once."""
