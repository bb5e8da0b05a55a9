"""The large scenarios at full size, each with the table that it prints.

At the size of a test they run in `test_scenarios`.
"""

from collections.abc import Callable

from tests.simulation import cold_start, hot_object, maintenance


def _hot() -> str:
    runs = [
        hot_object.run(nodes=20, clients=1_000, chunks=chunks, reads=reads)
        for chunks, reads in ((1, 10), (16, 1))
    ]
    return "\n".join([hot_object.HEAD, *map(str, runs)])


def _cold_start() -> str:
    real = hot_object.run(nodes=20, clients=100, chunks=128, reads=1)
    return "\n".join([str(cold_start.run(cold_start.FULL)), "", hot_object.HEAD, str(real)])


def _maintenance() -> str:
    return str(maintenance.run(maintenance.FULL))


SCENARIOS: dict[str, Callable[[], str]] = {
    "hot": _hot,
    "cold-start": _cold_start,
    "maintenance": _maintenance,
}
"""By name: runs it and returns its table."""
