"""Revisions, commits and directories of a repository, by value."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from penstock.object_info import ObjectInfo, OpenedObject
from penstock.objects import ObjectId
from penstock_node.serve.hub.documents import model_info, tree_entry
from penstock_node.serve.hub.trees import (
    Directory,
    File,
    Repository,
    Tree,
    file_of,
    page_behind,
)

T0 = datetime(2026, 11, 26, 12, tzinfo=UTC)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOP = "penstock://models/org/name/"


def info(path: str, version: str = '"1"', size: int = 3) -> ObjectInfo:
    return ObjectInfo(TOP + path, version, size, T0)


def repository(*infos: ObjectInfo, pinned: str = "") -> Repository:
    files = [file_of(each.url[len(TOP) :], each, is_of_hub=bool(pinned)) for each in infos]
    return Repository(files, pinned=pinned)


def tree(found: Repository, revision: str) -> Tree:
    known = found.tree(revision)
    assert known is not None
    return known


def test_main_is_the_directory_itself() -> None:
    found = repository(info("config.json"), info("onnx/model.onnx"))

    assert list(tree(found, "main").files) == ["config.json", "onnx/model.onnx"]


def test_a_revision_is_the_directory_of_its_name() -> None:
    found = repository(info("main/a"), info("v1/a"), info("v1/b"), info("refs/pr/1/c"))

    assert list(tree(found, "main").files) == ["a"]
    assert list(tree(found, "v1").files) == ["a", "b"]
    assert list(tree(found, "refs/pr/1").files) == ["c"]
    assert found.tree("v2") is None
    assert found.revisions == ["main", "refs", "v1"]


def test_what_has_no_file_has_no_revision() -> None:
    assert repository().tree("main") is None
    assert repository().revisions == []


def test_a_commit_is_a_revision_too() -> None:
    found = repository(info("main/a"), info("v1/a"), info("refs/pr/1/a"))

    for name in ("main", "v1", "refs/pr/1"):
        at_name = tree(found, name)
        assert tree(found, at_name.commit).files == at_name.files
    assert found.tree(COMMIT) is None


def test_a_directory_called_like_a_commit_is_that_commit() -> None:
    found = repository(info(f"{COMMIT}/a"))

    assert tree(found, COMMIT).commit == COMMIT
    assert list(tree(found, COMMIT).files) == ["a"]


def test_a_commit_has_40_digits_and_does_not_hang_on_the_order() -> None:
    infos = [info(f"{n}/{n}", f'"{n}"') for n in range(50)]
    shuffled = list(infos)
    random.Random(7).shuffle(shuffled)

    commits = {tree(repository(*each), "main").commit for each in (infos, shuffled)}

    (commit,) = commits
    assert len(commit) == 40
    assert set(commit) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "other",
    [
        [info("a", '"2"'), info("b")],
        [info("a", size=4), info("b")],
        [info("a")],
        [info("a"), info("c")],
        [info("a", ""), info("b")],
    ],
)
def test_any_change_makes_another_commit(other: Sequence[ObjectInfo]) -> None:
    before = tree(repository(info("a"), info("b")), "main").commit

    assert tree(repository(*other), "main").commit != before


def test_a_time_tells_versions_apart_where_the_origin_tells_nothing_else() -> None:
    early, late = info("a", ""), replace(info("a", ""), modified=T0 + timedelta(seconds=1))

    assert tree(repository(early), "main").commit != tree(repository(late), "main").commit


def test_files_of_one_version_are_not_taken_for_each_other() -> None:
    """Unpacked from one archive, two files may have the same size and time."""
    found = repository(info("v1/model", "mtime:5-3"), info("v2/model", "mtime:5-3"))

    blobs = {tree(found, revision).files["model"].blob_id for revision in ("v1", "v2")}

    assert len(blobs) == 2


def test_what_a_hub_calls_the_bytes_is_kept() -> None:
    sha256, git_id = "a" * 64, "b" * 40
    found = repository(info("model", f'"{sha256}"'), info("config", f'"{git_id}"'), pinned="v1")

    files = tree(found, "v1").files

    assert (files["model"].blob_id, files["model"].sha256) == (sha256, sha256)
    assert (files["config"].blob_id, files["config"].sha256) == (git_id, "")


def test_a_pinned_repository_is_main_too_and_nothing_else() -> None:
    found = repository(info("onnx/a"), pinned="v1")
    at_commit = repository(info("onnx/a"), pinned=COMMIT)

    assert tree(found, "main") is not None
    assert tree(found, "v1").commit == tree(found, "main").commit
    assert found.tree("onnx") is None
    assert tree(at_commit, "main").commit == COMMIT


def test_a_directory_shows_what_lies_in_it() -> None:
    at_main = tree(repository(info("a"), info("d/b"), info("d/e/c"), info("df")), "main")

    def paths(path: str, *, is_recursive: bool) -> list[str]:
        return [entry.path for entry in at_main.entries(path, is_recursive=is_recursive)]

    assert paths("", is_recursive=False) == ["a", "d", "df"]
    assert paths("", is_recursive=True) == ["a", "d", "d/b", "d/e", "d/e/c", "df"]
    assert paths("d", is_recursive=False) == ["d/b", "d/e"]
    assert paths("d/e", is_recursive=True) == ["d/e/c"]
    assert paths("a", is_recursive=False) == []
    assert paths("nothing", is_recursive=True) == []
    assert isinstance(at_main.entry("d/e"), Directory)
    assert isinstance(at_main.entry("d/b"), File)
    assert at_main.entry("d/") is None
    assert at_main.entry("") is None


def test_pages_of_any_size_make_up_the_whole() -> None:
    entries = tree(repository(*(info(f"{n:03}") for n in range(25))), "main").entries(
        "", is_recursive=True
    )
    for limit in (1, 7, 24, 25, 26):
        told: list[str] = []
        cursor, pages = "", 0
        while pages == 0 or cursor:
            page, cursor = page_behind(entries, cursor, limit)
            told += [entry.path for entry in page]
            pages += 1
        assert told == [entry.path for entry in entries]
        assert pages == -(-25 // limit)


def opened(version: str, *, size: int = 3, modified: datetime | None = T0) -> OpenedObject:
    identity = ObjectId("key", version, size, 65536)
    return OpenedObject(TOP + "a", "models", identity, modified, "ticket", 0.0, 10.0)


def test_only_the_listed_version_is_the_commits() -> None:
    told = file_of("a", info("a", '"1"'), is_of_hub=False)
    untold = file_of("a", info("a", ""), is_of_hub=False)

    assert told.is_still(opened('"1"'))
    assert not told.is_still(opened('"2"'))
    assert untold.is_still(opened('W/"9"', modified=T0 + timedelta(milliseconds=300)))
    assert not untold.is_still(opened('W/"9"', modified=T0 + timedelta(seconds=2)))
    assert not untold.is_still(opened('W/"9"', size=4))


def test_documents_have_the_fields_of_the_public_api() -> None:
    sha256 = "a" * 64
    at_main = tree(repository(info("d/model", f'"{sha256}"', 2049), pinned="v1"), "v1")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 2049\n"

    told = model_info("org/name", at_main, with_blobs=True)
    directory, file = (tree_entry(entry) for entry in at_main.entries("", is_recursive=True))

    assert (told["id"], told["sha"], told["private"]) == ("org/name", at_main.commit, False)
    assert told["lastModified"] == "2026-11-26T12:00:00.000Z"
    assert told["siblings"] == [
        {
            "rfilename": "d/model",
            "size": 2049,
            "blobId": sha256,
            "lfs": {"sha256": sha256, "size": 2049, "pointerSize": len(pointer)},
        }
    ]
    assert model_info("org/name", at_main, with_blobs=False)["siblings"] == [
        {"rfilename": "d/model"}
    ]
    assert (directory["type"], directory["path"], len(directory["oid"])) == ("directory", "d", 40)
    assert file == {
        "type": "file",
        "oid": sha256,
        "size": 2049,
        "path": "d/model",
        "lfs": {"oid": sha256, "size": 2049, "pointerSize": len(pointer)},
    }
