"""The log of a node or a catalog: one format for all lines, whoever writes them.

Responsible for: lines for people or JSON for machines, on standard error; times in UTC; whose line
it is; masking what libraries may tell; leaving out what repeats; the same for lines of Python's own
`logging`, which libraries use; in which trace it was.
Not responsible for: what is said.
"""

import contextlib
import functools
import logging
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from penstock import tracing
from penstock.masking import mask
from penstock_node.access.audit import EVENT as AUDIT
from penstock_node.config_values import LogFormat, LogLevel
from penstock_node.log_limits import WINDOW_S, RepeatLimit
from penstock_node.log_lines import LogLines

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_TROUBLES = frozenset({"warning", "error", "critical", "exception"})

Event = structlog.types.EventDict


def configure_logs(
    *, level: LogLevel = "info", log_format: LogFormat = "auto", lines: LogLines | None = None
) -> LogLines:
    """Set up this process's log, and return what keeps its newest lines.

    Args:
        level: What is less is not said. Other packages' lines begin at warnings whatever it is:
            theirs of less show what is signed, and with what.
        log_format: ``auto`` is ``console`` where standard error is a terminal, else ``json``.
        lines: Keeps the lines.
    """
    lines = lines or LogLines()
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    structlog.configure(
        processors=[
            _traced,
            structlog.processors.add_log_level,
            functools.partial(_said_by, lines),
            functools.partial(_limited, RepeatLimit()),
            structlog.processors.format_exc_info,
            _masked,
            *_rendering(lines, as_json=as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_Writer,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Passing()], level=logging.WARNING, force=True)
    logging.getLogger("penstock").setLevel(_LEVELS[level])
    logging.captureWarnings(True)
    threading.excepthook = _thread_ended
    return lines


class _Writer:
    """Where a line goes when it is made."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write a line, in one piece: many threads do. One that cannot be written is left out.

        It is kept all the same; whoever has said it must not fail by a full disk or an ended pipe.
        """
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed.
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = exception = log = msg


class _Passing(logging.Handler):
    """Has lines of Python's own logging go the way of all others."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on."""
        log = structlog.get_logger(record.name)
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    """Say that a thread has ended by an error that nobody has caught."""
    if args.exc_type is not SystemExit:
        name = args.thread.name if args.thread else ""
        log = structlog.get_logger("penstock.threads")
        log.error("a thread ended by an error", thread=name, exc_info=args.exc_value)


def _traced(_writer: Any, _method: str, event: Event) -> Event:
    """Say in which trace it was, where that is wanted."""
    trace_id = tracing.trace_id()
    if trace_id:
        event.setdefault("trace_id", trace_id)
    return event


def _said_by(lines: LogLines, writer: Any, _method: str, event: Event) -> Event:
    """Say when, whose line it is, and which part's; what the line itself says comes first."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
    event["timestamp"] = f"{now}Z"
    event.setdefault("logger", getattr(writer, "name", ""))
    for name, value in lines.who.items():
        event.setdefault(name, value)
    return event


def _limited(limit: RepeatLimit, _writer: Any, _method: str, event: Event) -> Event:
    """Leave out what was said too often; the next line of its kind tells how much that was.

    Nothing of the record of what operators did, which looks to that itself.
    """
    if event["level"] == "debug" or event.get("event") == AUDIT:
        return event
    verdict = limit.judge(event["logger"], event["level"], str(event.get("event")))
    if not verdict.is_said:
        raise structlog.DropEvent
    if verdict.left_out:
        event["left_out"] = verdict.left_out
    if verdict.is_last:
        event["and_then"] = f"more lines like this are left out for {WINDOW_S:.0f} s"
    return event


def _masked(_writer: Any, _method: str, event: Event) -> Event:
    return {name: _masked_value(value) for name, value in event.items()}


def _masked_value(value: Any) -> Any:
    match value:
        case str():
            return mask(value)
        case list() | tuple():
            return [_masked_value(each) for each in value]
        case None | bool() | int() | float():
            return value
        case _:
            return mask(repr(value))


def _rendering(lines: LogLines, *, as_json: bool) -> list[Callable[..., Any]]:
    to_json = structlog.processors.JSONRenderer()

    def kept(writer: Any, method: str, event: Event) -> str:
        line = str(to_json(writer, method, dict(event)))
        lines.add(line, is_trouble=event["level"] in _TROUBLES)
        return line

    if as_json:
        return [kept]
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )

    def shown(writer: Any, method: str, event: Event) -> str:
        kept(writer, method, event)
        return console(writer, method, event)

    return [shown]
