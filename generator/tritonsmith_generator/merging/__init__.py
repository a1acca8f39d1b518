"""Repositories that were built for several GPUs become one."""
