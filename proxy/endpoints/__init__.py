"""Starlette in and out: bytes to calls, answers to bytes. What is decided is decided elsewhere."""
