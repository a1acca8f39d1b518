"""Where plans are built: this environment's TensorRT, in a process of its own."""
