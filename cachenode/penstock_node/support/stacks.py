"""Where threads and tasks are: names and lines of code, never what is in variables."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from types import FrameType

FRAMES_MAX = 40
"""Of one stack, the innermost."""
STACKS_MAX = 1_000
"""Threads, and tasks, that are told."""


def thread_stacks() -> str:
    """Return where each thread is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sorted(sys._current_frames().items())  # noqa: SLF001 - the only way to them
    told = (
        _told(f"thread {names.get(ident, 'of a library')}", _outward(frame))
        for ident, frame in frames[:STACKS_MAX]
    )
    return "\n".join([f"{len(frames)} threads", "", *told])


def task_stacks() -> str:
    """Return where each task of the running event loop waits."""
    tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
    told = (
        _told(f"task {task.get_name()}", reversed(task.get_stack(limit=FRAMES_MAX)))
        for task in tasks[:STACKS_MAX]
    )
    return "\n".join([f"{len(tasks)} tasks", "", *told])


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _told(title: str, frames: Iterator[FrameType]) -> str:
    lines = [title]
    for frame, _ in zip(frames, range(FRAMES_MAX), strict=False):
        code = frame.f_code
        lines.append(f"    {code.co_qualname}, {code.co_filename}:{frame.f_lineno}")
    return "\n".join([*lines, ""])
