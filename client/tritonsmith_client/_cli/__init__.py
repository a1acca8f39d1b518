"""The command `tritonsmith`: parse, call, print."""
