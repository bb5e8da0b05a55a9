"""Rows of Parquet files as samples."""

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.data.parquet import BATCH_ROWS_MAX, ParquetShard
from penstock.data.sources import LocalSource
from penstock.errors import InvalidRequest, ObjectChanged

ROWS = 3 * BATCH_ROWS_MAX
GROUP_ROWS = BATCH_ROWS_MAX + 100


def opened(path: Path, fields: tuple[str, ...] | None = None) -> ParquetShard:
    return ParquetShard(LocalSource().open(str(path)), fields)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [
        {
            "id": at,
            "text": None if at % 7 == 0 else f"sample {at}",
            "image": bytes([at % 256]) * (at % 50),
            "numbers": [at / 2] * (at % 4),
        }
        for at in range(ROWS)
    ]


@pytest.fixture
def path(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=GROUP_ROWS)
    return path


def test_each_row_is_a_sample_of_pythons_values(path: Path, rows: list[dict[str, Any]]) -> None:
    found = list(opened(path).stream(0))

    assert [each.sample for each in found] == rows
    assert [each.place for each in found] == list(range(ROWS))


@pytest.mark.parametrize("start", [0, 1, GROUP_ROWS - 1, GROUP_ROWS, ROWS - 1, ROWS])
def test_a_stream_can_begin_at_any_row(path: Path, rows: list[dict[str, Any]], start: int) -> None:
    found = list(opened(path).stream(start))

    assert [each.sample for each in found] == rows[start:]
    assert [each.place for each in found] == list(range(start, ROWS))


def test_rows_are_taken_in_the_order_of_the_question(
    path: Path, rows: list[dict[str, Any]]
) -> None:
    wanted = [ROWS - 1, 0, GROUP_ROWS, GROUP_ROWS - 1, 5, 5]

    found = opened(path).take([(row, row + 1) for row in wanted])

    assert [each.sample for each in found] == [rows[row] for row in wanted]


def test_row_groups_are_what_is_best_read_together(path: Path) -> None:
    shard = opened(path)

    assert len(shard.places()) == ROWS + 1
    assert list(shard.pieces(ROWS)) == [GROUP_ROWS, GROUP_ROWS, ROWS - 2 * GROUP_ROWS]


def test_only_the_columns_that_are_named_are_read(path: Path, rows: list[dict[str, Any]]) -> None:
    shard = opened(path, ("text", "id"))

    wanted = [{"text": each["text"], "id": each["id"]} for each in rows]
    assert [each.sample for each in shard.stream(0)] == wanted
    assert shard.take([(9, 10)])[0].sample == wanted[9]


def test_a_column_that_is_not_there_is_refused_with_those_that_are(path: Path) -> None:
    with pytest.raises(InvalidRequest, match=rf"shard {path} has no column 'texts', but id, text"):
        opened(path, ("texts",))


def test_a_file_without_rows_has_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"id": pa.array([], pa.int64())}), path)

    assert list(opened(path).stream(0)) == []
    assert len(opened(path).places()) == 1


@pytest.mark.parametrize("left", [0, 3, 100, -4, -8])
def test_one_without_its_footer_is_refused_with_what_to_do(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])

    with pytest.raises(
        InvalidRequest, match=rf"shard {path} cannot be read as Parquet: .*close its writer"
    ):
        opened(path)


def test_one_that_is_damaged_within_is_refused_when_it_is_read(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4:2000] = bytes(1996)
    path.write_bytes(bytes(data))

    with pytest.raises(InvalidRequest, match=rf"shard {path} cannot be read as Parquet"):
        list(opened(path).stream(0))
    with pytest.raises(InvalidRequest, match=rf"shard {path} cannot be read as Parquet"):
        opened(path).take([(0, 1)])


def test_one_that_gets_shorter_while_it_is_read_has_changed(path: Path) -> None:
    shard = opened(path)
    with path.open("r+b") as file:
        file.truncate(4)

    with pytest.raises(ObjectChanged, match=rf"shard {path} was overwritten"):
        list(shard.stream(0))


def test_without_pyarrow_it_says_what_to_install(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(InvalidRequest, match=r"pip install 'penstock\[data\]'"):
        opened(path)
