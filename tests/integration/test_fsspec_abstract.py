"""fsspec's own tests for file systems that are read: copying to local files."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests

from penstock_node.testbed.cluster import LocalCluster, NodeSpec


class Origin:
    """A node over a directory; a test's files lie in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "origin"
        self.root.mkdir()
        self.cluster = LocalCluster(
            directory,
            [NodeSpec("node", config={"allow_file_roots": [str(self.root)]})],
            etcd=None,
            settings={"open_ttl_s": 0, "list_ttl_s": 0, "not_found_ttl_s": 0},
            volumes={"data": {"url": f"file://{self.root}/"}},
        )


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    made = Origin(tmp_path_factory.mktemp("abstract"))
    with made.cluster:
        yield made


class OverOrigin(AbstractFixtures):  # type: ignore[misc]  # fsspec has no types.
    """What the tests read is written to the origin: nobody writes through this file system."""

    @pytest.fixture
    def fs(self, origin: Origin) -> Any:
        return fsspec.filesystem("penstock", address=origin.cluster["node"].address)

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_path(self, request: pytest.FixtureRequest) -> str:
        return f"data/{hashlib.md5(request.node.name.encode()).hexdigest()}"  # noqa: S324

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False

    @pytest.fixture
    def written(self, origin: Origin, fs_path: str) -> Callable[[Callable[..., str]], str]:
        def write(scenario: Callable[..., str]) -> str:
            place = origin.root / fs_path.removeprefix("data/")
            scenario(LocalFileSystem(auto_mkdir=True), os.path.join, str(place))
            return f"{fs_path}/source"

        return write

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, written: Callable[..., str]) -> str:
        return written(self._bulk_operations_scenario_0)

    @pytest.fixture
    def fs_glob_edge_cases_files(self, written: Callable[..., str]) -> str:
        return written(self._glob_edge_cases_files)

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, written: Callable[..., str]) -> str:
        return written(self._dir_and_file_with_same_name_prefix)

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, written: Callable[..., str]) -> str:
        return written(self._10_files_with_hashed_names)


class TestGet(OverOrigin, AbstractGetTests):  # type: ignore[misc]
    def test_get_directory_recursive(
        self,
        fs: Any,
        fs_join: Callable[..., str],
        fs_path: str,
        origin: Origin,
        local_fs: LocalFileSystem,
        local_join: Callable[..., str],
        local_path: Any,
    ) -> None:
        """fsspec's own writes through the file system that it tests."""
        place = origin.root / fs_path.removeprefix("data/") / "src"
        place.mkdir(parents=True)
        (place / "file").touch()
        target = local_join(local_path, "target")

        fs.get(fs_join(fs_path, "src"), target, recursive=True)
        assert sorted(local_fs.find(target)) == [local_join(target, "file")]

        # Into one that is there; and what is below, into that.
        fs.get(fs_join(fs_path, "src"), target, recursive=True)
        assert sorted(local_fs.find(target)) == [
            local_join(target, "file"),
            local_join(target, "src", "file"),
        ]
        fs.get(fs_join(fs_path, "src") + "/", target, recursive=True)
        assert sorted(local_fs.find(target)) == [
            local_join(target, "file"),
            local_join(target, "src", "file"),
        ]
