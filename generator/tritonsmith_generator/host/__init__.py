"""This machine: its GPUs, memory, folders, locks, files and packages."""
