"""TensorRT: the one room that imports it. Building, running and reading plans."""
