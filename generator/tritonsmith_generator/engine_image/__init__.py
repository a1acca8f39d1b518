"""Plans built inside the very image that will serve them, with the image's own TensorRT."""
