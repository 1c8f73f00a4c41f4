"""What configurations of heads may hold."""

from __future__ import annotations

from edgetok.errors import UsageError


def at_least(name: str, value: int, least: int = 1) -> None:
    """Raises:
    UsageError: the number is smaller.
    """
    if value < least:
        raise UsageError(f"{name}={value}: accepted are whole numbers from {least} up")


def divides(name: str, value: int, whole_name: str, whole: int) -> None:
    """Raises:
    UsageError: the first number does not divide the second.
    """
    at_least(name, value)
    if whole % value:
        raise UsageError(f"{name}={value}: accepted is what divides {whole_name}={whole}")


def within(name: str, value: int, least: int, most: int) -> None:
    """Raises:
    UsageError: the number is smaller or larger.
    """
    if not least <= value <= most:
        raise UsageError(f"{name}={value}: accepted are whole numbers from {least} to {most}")


def below(low: float, high: float) -> None:
    """Raises:
    UsageError: the first number is not below the second.
    """
    if not low < high:
        raise UsageError(f"low={low}, high={high}: low must be below high")
