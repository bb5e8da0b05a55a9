"""Which shards a dataset has. Paths of this machine stand for urls: both are found alike."""

import pickle
from pathlib import Path

import pytest

from penstock.data.shard_list import ShardList, Urls, find_shards
from penstock.errors import InvalidRequest, ObjectChanged, ObjectNotFound
from penstock_node.testbed.shards import write_tar


def found(urls: Urls, *, kind: str | None = None) -> ShardList:
    return find_shards(urls, address=None, kind=kind, fields=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train/b.tar", "train/a.tar", "train/deep/c.tar", "val/a.tar", "odd/x.parquet"):
        write_tar(tmp_path / name, [("a.x", b"1")])
    (tmp_path / "train/readme.txt").write_text("no shard")
    return tmp_path


def names(shards: ShardList, folder: Path) -> list[str]:
    return [str(Path(url).relative_to(folder)) for url in shards.urls]


def test_all_shards_below_a_prefix_are_found_in_the_order_of_their_names(folder: Path) -> None:
    shards = found(folder / "train")

    assert names(shards, folder) == ["train/a.tar", "train/b.tar", "train/deep/c.tar"]
    assert shards.format == "tar"


def test_a_list_keeps_its_order_and_may_have_prefixes(folder: Path) -> None:
    shards = found([folder / "val", folder / "train/b.tar", str(folder / "train/a.tar")])

    assert names(shards, folder) == ["val/a.tar", "train/b.tar", "train/a.tar"]


def test_one_format_of_several_can_be_chosen(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"several formats, as .*x.parquet.*choose one with"):
        found(folder)

    assert len(found(folder, kind="tar")) == 4
    assert names(found(folder, kind="parquet"), folder) == ["odd/x.parquet"]


def test_a_format_that_there_is_not_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="kind='zip': want one of parquet, safetensors, tar"):
        found(folder, kind="zip")


def test_no_shards_are_an_error_that_tells_what_is_there_instead(folder: Path) -> None:
    with pytest.raises(ObjectNotFound, match=r"no shards in .*train: .*\.parquet.*4 others"):
        found(folder / "train", kind="parquet")
    with pytest.raises(ObjectNotFound, match="nothing lies below; a prefix is whole folders"):
        found(folder / "none")
    with pytest.raises(ObjectNotFound, match="an empty list of urls"):
        found([])


def test_paths_and_urls_are_not_mixed(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="make a dataset of each"):
        found([folder / "train/a.tar", "penstock://data/b.tar"])


def test_a_folder_named_like_a_shard_is_refused_with_how_to_write_it(folder: Path) -> None:
    write_tar(folder / "all.tar/a.tar", [("a.x", b"1")])

    with pytest.raises(InvalidRequest, match=r"all.tar is a folder: write .*all.tar/ for"):
        found(folder / "all.tar").open(0)
    assert names(found(f"{folder}/all.tar/"), folder) == ["all.tar/a.tar"]


def test_a_list_pickles_as_its_urls(folder: Path) -> None:
    shards = found(folder / "train")

    again = pickle.loads(pickle.dumps(shards))  # noqa: S301 - our own

    assert again.urls == shards.urls
    assert again.digest() == shards.digest()
    assert len(pickle.dumps(shards)) < 1000


def test_lists_of_other_shards_have_other_digests(folder: Path) -> None:
    one, other = folder / "train/a.tar", folder / "train/b.tar"

    lists = ([one], [other], [one, other], [other, one])
    assert len({found(each).digest() for each in lists}) == len(lists)


def test_a_shard_that_was_overwritten_since_it_was_listed_has_changed(folder: Path) -> None:
    shards = found(folder / "train")
    write_tar(folder / "train/a.tar", [("a.x", b"2" * 30_000)])

    with pytest.raises(ObjectChanged, match=r"shard .*train/a.tar was overwritten since.*anew"):
        shards.open(0)
    shards.open(1)[0].close()


def test_a_shard_that_is_gone_is_not_found(folder: Path) -> None:
    shards = found(folder / "train/a.tar")
    (folder / "train/a.tar").unlink()

    with pytest.raises(ObjectNotFound, match=r"there is no file .*a\.tar"):
        shards.open(0)
