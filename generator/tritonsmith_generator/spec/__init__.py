"""`models.yaml`: what a user may write, and reading it."""
