"""`config.pbtxt`: its message, its text, warmup and what a plan needs in it."""
