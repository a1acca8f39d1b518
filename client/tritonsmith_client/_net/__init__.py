"""Addresses, deadlines, headers, and how a connection is to be made."""
