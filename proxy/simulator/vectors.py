"""Vectors: each a function of the model, the input and how many numbers are wanted, and of nothing else."""

import hashlib
import math
import struct


def vector(model: str, most: int, text: str, dimensions: int) -> tuple[float, ...]:
    """So many numbers that a float32 holds exactly, of length 1. `text`: the input as JSON; `most`: of this model.

    Fewer are the first of more, made longer, as at OpenAI.
    """
    drawn = hashlib.shake_256(f"{model}\0{text}".encode()).digest(4 * most)
    whole = struct.unpack(f"<{most}i", drawn)[:dimensions]
    length = math.hypot(*whole)
    layout = f"<{dimensions}f"
    numbers: tuple[float, ...] = struct.unpack(layout, struct.pack(layout, *(each / length for each in whole)))
    return numbers
