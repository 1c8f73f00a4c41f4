"""Sizes that are known only when an engine runs, as terms over the sizes of a node's inputs.

A term is written in postfix, which two lines of C++ read as well as two of Python: `0.0 197 * 1 +` is 197 B + 1 where
input 0 has the shape (B, N, C).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from edgetok.errors import InputError

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {"+": operator.add, "*": operator.mul}
Size = int | str  # a number, or a term


def size(tensor: int, axis: int) -> str:
    """The length of one axis of one input."""
    return f"{tensor}.{axis}"


def line(over: str, slope: int, offset: int) -> Size:
    """slope x over + offset, as short as it can be written."""
    if slope == 0:
        return offset
    grown = over if slope == 1 else f"{over} {slope} *"
    return f"{grown} {offset} +" if offset else grown


def evaluate(text: str, sizes: Sequence[Sequence[Any]], constant: Callable[[int], Any] = int) -> Any:
    """The value of a term.

    Args:
        text: the term in postfix.
        sizes: the shape of each input: integers, or anything that adds and multiplies as they do.
        constant: turns a number of the term into what the sizes are.

    Raises:
        InputError: the text is no term over these inputs.
    """
    stack: list[Any] = []
    try:
        for word in text.split():
            if word in OPERATIONS:
                right, left = stack.pop(), stack.pop()
                stack.append(OPERATIONS[word](left, right))
            elif "." in word:
                tensor, axis = word.split(".")
                stack.append(sizes[int(tensor)][int(axis)])
            else:
                stack.append(constant(int(word)))
        (value,) = stack
    except (IndexError, ValueError):
        shapes = [len(shape) for shape in sizes]
        told = f"postfix of whole numbers, INPUT.AXIS and {' '.join(OPERATIONS)}"
        raise InputError(f"{text!r} is no size over inputs of ranks {shapes}: expected {told}") from None
    return value
