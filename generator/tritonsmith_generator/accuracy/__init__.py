"""How far answers are from the reference, and whether that is near enough."""
