"""Sizes that are known only when an engine runs, as terms over the sizes of a node's inputs.

A term is written in postfix, which two lines of C++ read as well as two of Python: `0.1 15 + 16 /` is (N + 15) // 16
where input 0 has the shape (B, N, C). The operations are those that TensorRT's expressions have for sizes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgetok.errors import InputError

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}


@dataclass(frozen=True)
class Term:
    """A size that is not known yet. Arithmetic with whole numbers gives terms; a comparison is refused.

    Attributes:
        text: the term in postfix.
    """

    text: str

    @classmethod
    def size(cls, tensor: int, axis: int) -> Term:
        """The length of one axis of one input."""
        return cls(f"{tensor}.{axis}")

    def __add__(self, other: Size) -> Term:
        return Term(f"{self} {other} +")

    def __radd__(self, other: int) -> Term:
        return Term(f"{other} {self} +")

    def __sub__(self, other: Size) -> Term:
        return Term(f"{self} {other} -")

    def __rsub__(self, other: int) -> Term:
        return Term(f"{other} {self} -")

    def __mul__(self, other: Size) -> Term:
        return Term(f"{self} {other} *")

    def __rmul__(self, other: int) -> Term:
        return Term(f"{other} {self} *")

    def __floordiv__(self, other: Size) -> Term:
        return Term(f"{self} {other} /")

    def __index__(self) -> int:
        raise InputError(f"the size {self.text!r} is not known before the engine runs: export it with a fixed size")

    def __str__(self) -> str:
        return self.text


Size = int | Term


def evaluate(text: str, sizes: Sequence[Sequence[Any]], constant: Callable[[int], Any] = int) -> Any:
    """The value of a term.

    Args:
        text: the term in postfix.
        sizes: the shape of each input: integers, or anything that adds, subtracts, multiplies and divides as they do.
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
    except (IndexError, ValueError, ZeroDivisionError):
        shapes = [len(shape) for shape in sizes]
        told = f"postfix of whole numbers, INPUT.AXIS and {' '.join(OPERATIONS)}"
        raise InputError(f"{text!r} is no size over inputs of ranks {shapes}: expected {told}") from None
    return value
