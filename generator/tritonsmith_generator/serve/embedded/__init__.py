"""The tritonserver of the nvidia-pytriton wheel, in an environment of its own."""
