"""Large scenarios, each with what it prints."""

from collections.abc import Callable

SCENARIOS: dict[str, Callable[[], str]] = {}
"""By name: runs it at full size and returns its table."""
