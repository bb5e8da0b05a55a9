"""One format for all that a process says: each case is a process of its own."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

BEGIN = """
import logging, threading, warnings
import structlog
from penstock_node.log_limits import ALIKE_MAX
from penstock_node.logs import configure_logs
"""


def ended(program: str) -> "subprocess.CompletedProcess[str]":
    """Return what a program did that ended well. Its standard error is no terminal."""
    return subprocess.run(
        [sys.executable, "-c", BEGIN + program],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )


def said(program: str) -> str:
    """Return what a program writes to standard error."""
    return ended(program).stderr


def lines(program: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said(program).splitlines()]


def test_lines_of_ours_of_libraries_warnings_and_lost_threads_have_one_format() -> None:
    told = lines("""
configure_logs()
structlog.get_logger("penstock.store").warning("ours", disk="/mnt")
logging.getLogger("sqlalchemy.pool").error("a library's: %s", 7)
logging.getLogger("penstock.etcd").info("the library's")
warnings.warn("careful")
def fail():
    raise ValueError("lost")
thread = threading.Thread(target=fail, name="worker")
thread.start(); thread.join()
""")

    keys = {"event", "level", "timestamp", "logger"}
    assert all(line.keys() >= keys for line in told)
    assert [(line["logger"], line["level"]) for line in told] == [
        ("penstock.store", "warning"),
        ("sqlalchemy.pool", "error"),
        ("penstock.etcd", "info"),
        ("py.warnings", "warning"),
        ("penstock.threads", "error"),
    ]
    assert told[1]["event"] == "a library's: 7"
    assert (told[4]["thread"], "ValueError: lost" in told[4]["exception"]) == ("worker", True)


def test_times_are_in_utc_with_milliseconds() -> None:
    (line,) = lines('configure_logs(); structlog.get_logger().info("now")')

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])


def test_each_line_says_whose_it_is_and_in_which_trace() -> None:
    one, two = lines("""
configure_logs().who["node"] = "gpu-17"
from penstock import tracing
trace = tracing.Trace(parent=tracing.Traceparent("0af7", "1"))
with tracing.at(tracing.within(trace)):
    structlog.get_logger("penstock").info("ours")
    logging.getLogger("uvicorn.error").warning("another's")
""")

    assert (one["node"], one["trace_id"]) == ("gpu-17", "0af7")
    assert (two["node"], two["trace_id"]) == ("gpu-17", "0af7")


def test_a_level_holds_for_ours_and_libraries_never_say_less_than_warnings() -> None:
    program = """
structlog.get_logger("penstock").debug("ours")
logging.getLogger("penstock.etcd").debug("the library's")
logging.getLogger("botocore.auth").debug("StringToSign and what it is signed with")
logging.getLogger("botocore.auth").info("found credentials")
"""

    assert [line["event"] for line in lines('configure_logs(level="debug")' + program)] == [
        "ours",
        "the library's",
    ]
    assert lines('configure_logs(level="error")' + program) == []


def test_for_people_it_is_text_and_what_is_kept_is_json_all_the_same() -> None:
    text = said("""
lines = configure_logs(log_format="console")
structlog.get_logger("penstock").warning("a disk is out", disk="/mnt")
assert lines.newest(1)[0].startswith('{"disk": "/mnt"')
assert lines.troubles() == lines.newest(1)
""")

    assert "a disk is out" in text
    assert "disk=/mnt" in text
    assert "{" not in text


def test_what_repeats_is_left_out_and_that_is_said() -> None:
    told = lines("""
configure_logs()
for number in range(10 * ALIKE_MAX):
    structlog.get_logger("penstock").warning("it fails", number=number)
    logging.getLogger("urllib3").warning("connection lost")
structlog.get_logger("penstock").warning("another")
""")

    ours = [line for line in told if line["event"] == "it fails"]
    assert len(ours) == len([line for line in told if line["event"] == "connection lost"])
    assert len(told) == 2 * len(ours) + 1
    assert "left out for 60 s" in ours[-1]["and_then"]
    assert told[-1]["event"] == "another"


def test_passwords_in_what_others_say_are_masked_in_every_field() -> None:
    text = said("""
configure_logs()
try:
    raise OSError("cannot reach postgresql://u:hunter2@db/x")
except OSError as error:
    log = structlog.get_logger("penstock")
    log.error("failed", error=str(error), urls=["http://u:hunter2@h/"], exc_info=error)
    logging.getLogger("x").exception("password=hunter2")
    log.error("odd", value=error)
""")

    assert len(text.splitlines()) == 3
    assert "hunter2" not in text


@pytest.mark.parametrize("ending", ["sys.stderr.close()", "os.dup2(FULL, 2)", "os.dup2(PIPE, 2)"])
def test_a_log_that_cannot_be_written_fails_nobody_and_its_lines_are_kept(ending: str) -> None:
    done = ended(f"""
import json, os, sys
FULL = os.open("/dev/full", os.O_WRONLY)
reader, PIPE = os.pipe()
os.close(reader)
kept = configure_logs()
{ending}
structlog.get_logger("penstock").warning("ours")
logging.getLogger("x").error("a library's")
structlog.get_logger("penstock").error("again", exc_info=OSError("odd"))
print([json.loads(line)["event"] for line in kept.newest(9)])
sys.stdout.flush()
os._exit(0)  # Without the last flush of a stream that takes nothing.
""")

    assert (done.stdout, done.stderr) == ("""['ours', "a library's", 'again']\n""", "")
