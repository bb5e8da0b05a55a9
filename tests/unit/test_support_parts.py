"""Putting together what a process tells: what fails, hangs or is too long costs itself alone."""

import threading
from collections.abc import Iterator

import pytest

from penstock.errors import Overloaded
from penstock_node.support import parts as module
from penstock_node.support.parts import GATHERS_MAX, PART_CHARACTERS_MAX, Gathering
from penstock_node.support.stacks import task_stacks, thread_stacks


def fails() -> str:
    raise OSError("no such disk")


@pytest.fixture
def hangs() -> Iterator[threading.Event]:
    """What a part waits for that hangs; it goes on when the test ends."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_part_that_fails_says_why_and_the_others_are_told() -> None:
    gathering = Gathering(
        here={"a": lambda: "one", "b": fails}, elsewhere={"c": fails, "d": lambda: "two"}
    )

    told = {part.name: (part.text, part.trouble) for part in await gathering.gather()}

    assert told == {
        "a": ("one", ""),
        "b": ("", "OSError: no such disk"),
        "c": ("", "OSError: no such disk"),
        "d": ("two", ""),
    }


async def test_a_part_that_hangs_is_named_and_those_before_it_are_told(
    hangs: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHER_TIMEOUT_S", 0.1)
    gathering = Gathering(
        here={},
        elsewhere={"a": lambda: "one", "b": lambda: str(hangs.wait()), "c": lambda: "three"},
    )

    told = {part.name: (part.text, part.trouble[:10]) for part in await gathering.gather()}

    assert told == {"a": ("one", ""), "b": ("", "not within"), "c": ("", "not within")}


async def test_no_more_threads_hang_than_there_may_be(
    hangs: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHER_TIMEOUT_S", 0.01)
    gathering = Gathering(here={}, elsewhere={"a": lambda: str(hangs.wait())})
    for _ in range(GATHERS_MAX):
        await gathering.gather()

    with pytest.raises(Overloaded, match="come back later"):
        await gathering.gather()


async def test_gatherings_that_got_no_thread_take_no_place_from_later_ones() -> None:
    gathering = Gathering(here={}, elsewhere={"a": lambda: "one"})
    usual_bytes = threading.stack_size(1 << 46)  # More than any process may have.
    try:
        for _ in range(GATHERS_MAX):
            with pytest.raises(Overloaded, match="no more threads"):
                await gathering.gather()
    finally:
        threading.stack_size(usual_bytes)

    (part,) = await gathering.gather()

    assert part.text == "one"


async def test_a_part_that_is_too_long_is_cut_and_says_so() -> None:
    gathering = Gathering(here={"a": lambda: "x" * (PART_CHARACTERS_MAX + 1)}, elsewhere={})

    (part,) = await gathering.gather()

    assert (len(part.text), part.is_cut) == (PART_CHARACTERS_MAX, True)


async def test_what_is_no_text_is_told_as_far_as_it_is() -> None:
    gathering = Gathering(here={"a": lambda: "path \udcff"}, elsewhere={})

    (part,) = await gathering.gather()

    assert part.text == "path ?"


async def test_stacks_name_functions_and_never_what_is_in_variables() -> None:
    password = "hunter2" + str(len("x"))

    told = thread_stacks() + task_stacks()

    assert "test_stacks_name_functions_and_never" in told
    assert "thread MainThread" in told
    assert password not in told
    assert "password" not in told
