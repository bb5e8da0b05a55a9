"""The record of what writers and operators did: its lines, and a file that takes them or not."""

import contextlib
import json
import os
import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from penstock.errors import InvalidConfiguration
from penstock.v1 import catalog_pb2
from penstock_node.access.audit import NAMES_MAX, OUTCOME_CHARACTERS_MAX, Audit
from penstock_node.access.audit_file import LINES_WAITING_MAX, AuditFile
from penstock_node.access.gate import Gate
from penstock_node.log_limits import ALIKE_MAX
from penstock_node.serve.gated import Gated
from penstock_node.testbed.processes import wait_until

DEADLINE_S = 20.0


def test_the_record_is_a_line_of_json_for_each_call_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)

    for count in (1, NAMES_MAX + 5):
        audit.note(
            who="alice",
            role="operator",
            peer="ipv4:10.0.0.7:4",
            method="Operator.Evict",
            about=["penstock://models/" + "x" * 1_000] * count,
            outcome="done",
        )
    audit.close()

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["audit", "audit"]
    assert (lines[0]["who"], lines[0]["method"]) == ("alice", "Operator.Evict")
    assert len(lines[1]["about"]) == NAMES_MAX + 1
    assert max(map(len, lines[1]["about"])) == 200


def test_refusals_that_repeat_do_not_fill_a_disk_and_what_was_done_is_never_left_out(
    tmp_path: Path,
) -> None:
    audit = Audit(tmp_path / "audit.jsonl")

    for outcome in ("refused: Unauthenticated", "done"):
        for _ in range(ALIKE_MAX + 20):
            audit.note(
                who="unknown",
                role="",
                peer="p",
                method="Operator.Forget",
                about=[],
                outcome=outcome,
            )
    audit.close()

    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert Counter(line["outcome"].partition(":")[0] for line in lines) == {
        "refused": ALIKE_MAX,
        "done": ALIKE_MAX + 20,
    }


def test_a_record_that_cannot_be_written_keeps_a_process_from_starting(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"auth.audit_file: .* cannot be written"):
        Audit(tmp_path / "nowhere" / "audit.jsonl")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("https://b.s3.amazonaws.com/k?X-Amz-Credential=AKID&X-Amz-Signature=abcdef", "abcdef"),
        ("https://me:hunter2@host/" + "x" * 1_000, "hunter2"),
        # The record has its first 200 characters: what ends behind them is masked all the same.
        ("https://" + "u" * 180 + ":hunter2" + "hunter2" * 20 + "@host/x", "hunter2"),
    ],
)
def test_what_opens_doors_is_masked_in_the_record_s_file_too(
    text: str, secret: str, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)

    for outcome in ("done", f"failed: there is no {text}: " + "y" * 10_000):
        audit.note(
            who="alice", role="operator", peer="p", method="M", about=[text], outcome=outcome
        )
    audit.close()

    written = path.read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert secret not in written
    assert [line["about"][0][:8] for line in lines] == ["https://"] * 2
    assert max(len(line["outcome"]) for line in lines) == OUTCOME_CHARACTERS_MAX


def test_of_many_names_those_that_the_record_has_are_looked_at_alone() -> None:
    asked = []

    def names() -> Iterator[str]:
        for number in range(1_000_000):
            asked.append(number)
            yield str(number)

    request = SimpleNamespace(urls=names())
    Gate(None).note("Operator/Pin", request, None, who="alice", peer="p", outcome="done")

    assert len(asked) == NAMES_MAX + 1


class Call:
    """What gRPC knows of a call, as far as the gate asks."""

    def peer(self) -> str:
        return "ipv4:10.0.0.7:4"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_common_name": [b"alice"]}


async def test_a_method_of_readers_is_recorded_when_a_request_asks_for_more(tmp_path: Path) -> None:
    gate = Gate(None, audit_file=tmp_path / "audit.jsonl")

    async def look(_request: Any, _context: Any) -> None:
        pass

    called = Gated(gate).before(look, "Catalog/Look")
    await called(catalog_pb2.LookRequest(volume="lake", path="x"), Call())
    await called(catalog_pb2.LookRequest(volume="lake", path="y", source_url="s3://b/y"), Call())
    gate.close()

    (line,) = map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines())
    assert (line["who"], line["method"], line["outcome"]) == ("alice", "Catalog.Look", "done")
    assert line["about"] == ["lake", "y", "s3://b/y"]


# A file that takes no lines.


def told(logs: list[Any], event: str) -> list[Any]:
    return [entry for entry in logs if entry["event"].startswith(event)]


def until_told(logs: list[Any], event: str) -> None:
    wait_until(lambda: bool(told(logs, event)), deadline_s=DEADLINE_S, what=event)


def test_a_file_that_was_moved_away_is_begun_anew_with_the_next_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    file.write("one")
    wait_until(lambda: path.read_text() == "one\n", deadline_s=DEADLINE_S, what="the line")

    path.rename(tmp_path / "audit.jsonl.1")
    file.write("two")
    file.close()

    assert (tmp_path / "audit.jsonl.1").read_text() == "one\n"
    assert path.read_text() == "two\n"


def test_a_file_that_cannot_be_opened_for_a_while_takes_lines_again_afterwards(
    tmp_path: Path,
) -> None:
    directory, away = tmp_path / "log", tmp_path / "away"
    directory.mkdir()
    file = AuditFile(directory / "audit.jsonl")
    directory.rename(away)

    with capture_logs() as logs:
        file.write("lost")
        file.write("lost too")
        until_told(logs, "the audit file cannot be written")
        wait_until(lambda: file.is_idle, deadline_s=DEADLINE_S, what="both lines to be tried")
        away.rename(directory)
        file.write("kept")
        until_told(logs, "the audit file is written again")
        file.close()

    assert (directory / "audit.jsonl").read_text() == "kept\n"
    assert [(entry["log_level"], entry.get("lines")) for entry in logs] == [
        ("error", None),
        ("warning", 2),
    ]


def test_a_full_disk_is_told_in_the_log_once_and_the_line_it_broke_is_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    with capture_logs() as logs:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # As a disk of ten bytes.
        try:
            for _ in range(3):
                file.write("123456")
            wait_until(lambda: file.is_idle, deadline_s=DEADLINE_S, what="all to be tried")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        file.write("kept")
        file.close()

    assert path.read_text() == "123456\n123\nkept\n"
    assert [entry["log_level"] for entry in logs] == ["error", "warning"]
    assert logs[1]["lines"] == 2


def fill(pipe: Path) -> None:
    descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, bytes(4096))
    os.close(descriptor)


def test_a_disk_that_hangs_holds_up_neither_calls_nor_the_end_and_what_is_left_is_told(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.jsonl"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = AuditFile(path)
    fill(path)  # And nobody reads: a write waits for ever.

    with capture_logs() as logs:
        for _ in range(LINES_WAITING_MAX + 10):
            file.write("line")
        file.close(timeout_s=0.05)
        path.unlink()
        os.close(reader)  # The disk is back: the thread ends as well.
        file.close()

    assert told(logs, "the audit file takes no more lines")
    (left,) = told(logs, "the audit file was not written to its end")
    assert left["lines"] >= LINES_WAITING_MAX
    assert path.read_text().splitlines().count("line") >= LINES_WAITING_MAX - 1
