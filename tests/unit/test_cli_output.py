"""What people and programs see: tables, previews, failures."""

import json
import sys

import pytest
import typer

from penstock.cli.objects import say_evicted
from penstock.cli.output import Column, say_table, verb
from penstock.cli.weights import say_done
from penstock.errors import InvalidConfiguration, ObjectNotFound
from penstock.operator_results import Evicted, Move, WeightsPreview, WeightsSet


def failing(*, as_json: bool = False) -> None:
    raise ObjectNotFound("no such object; list them with: penstock ls")


def test_a_failure_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        verb(failing)()

    out, err = capsys.readouterr()
    assert ended.value.exit_code == 1
    assert (out, err) == ("", "penstock: no such object; list them with: penstock ls\n")


def test_a_failure_is_json_too_where_json_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit):
        verb(failing)(as_json=True)

    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "error": "ObjectNotFound",
        "message": "no such object; list them with: penstock ls",
    }
    assert err.startswith("penstock: ")


def test_several_problems_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    @verb
    def check() -> None:
        raise InvalidConfiguration("tiers: there is none\nclustr: unknown key")

    with pytest.raises(typer.Exit):
        check()

    assert capsys.readouterr().err.splitlines() == [
        "penstock: tiers: there is none",
        "penstock: clustr: unknown key",
    ]


def test_our_own_bugs_are_not_hidden() -> None:
    @verb
    def broken() -> None:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError):
        broken()


def test_a_table_in_a_pipe_is_never_wrapped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long = "x" * 300

    say_table([Column("name"), Column("bytes", is_number=True)], [(long, "1"), ("[red]y", "10")])

    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{'name':300}  bytes",
        f"{long}      1",
        f"{'[red]y':300}     10",
    ]


def test_a_narrow_table_folds_names_and_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")

    say_table([Column("node"), Column("n", is_number=True)], [("gpu-" + "0123456789" * 4, "12345")])

    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 30
    assert "".join(line.split()[0] for line in lines[1:]) == "gpu-" + "0123456789" * 4
    assert "12345" in lines[1]


def test_a_preview_marks_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    moves = (Move("a", "b", 0.25, 1_000_000, 3), Move("c", "b", 0.05, 0, 0))

    say_done(WeightsPreview(7, moves, unknown=("c",), handoff_s=400.0))

    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "from  to   share  cached  chunks",
        "a     b   25.0 %  1.0 MB       3",
        "c     b    5.0 %       ?       ?",
        "",
        "30.0 % of the key space would move, 1.0 MB of it cached in 3 chunks, in 7 min at "
        "handoff_bytes_per_s; nothing was changed",
    ]
    assert err == "penstock: could not ask c: what they hold is not counted\n"


def test_a_preview_of_no_change_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    say_done(WeightsPreview(7, (), unknown=(), handoff_s=0.0))

    assert capsys.readouterr().out == "nothing would move\n"


def test_a_change_tells_the_epoch_and_the_weights(capsys: pytest.CaptureFixture[str]) -> None:
    say_done(WeightsSet(8, {"a": 200, "b": 0}))

    assert capsys.readouterr().out == "in force at epoch 8: a weighs 200, b weighs 0\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_an_eviction_that_could_not_ask_all_nodes_is_a_failure(
    capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    with pytest.raises(typer.Exit) as ended:
        say_evicted(Evicted(3, 1_000_000, unreachable=("a", "b")), as_json=as_json)

    out, err = capsys.readouterr()
    assert ended.value.exit_code == 1
    assert ('"unreachable": ["a", "b"]' if as_json else "evicted 3 chunks, 1.0 MB") in out
    assert err.startswith("penstock: could not ask a, b: they may still hold chunks")


def test_results_are_flushed_within_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    monkeypatch.setattr(sys.stdout, "flush", lambda: flushed.append(True))

    verb(lambda: None)()

    assert flushed == [True]
