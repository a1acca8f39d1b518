"""What both clients decide, without I/O: flows, retries, batching, checks of arguments."""
