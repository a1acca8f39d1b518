"""Tensors in memory that the server maps: the pool of regions, their names and their end."""
