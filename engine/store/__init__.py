"""Shared memory for large values."""
