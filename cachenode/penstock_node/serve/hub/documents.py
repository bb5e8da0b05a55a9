"""The hub's documents: what a repository is, and what is in it, as JSON.

Responsible for: the fields that `huggingface_hub` reads, by the names of the public API.
Not responsible for: what is told (`trees`).
"""

from datetime import UTC, datetime
from typing import Any

from penstock_node.serve.hub.trees import Directory, File, Tree

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def model_info(repo: str, tree: Tree, *, with_blobs: bool) -> dict[str, Any]:
    """Return what a model is: its commit and its files, with ``with_blobs`` their sizes too."""
    modified = _moment(tree.modified or EPOCH)
    return {
        "_id": tree.commit[:24],
        "id": repo,
        "modelId": repo,
        "author": repo.partition("/")[0],
        "sha": tree.commit,
        "lastModified": modified,
        "createdAt": modified,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [_sibling(file, with_blobs=with_blobs) for file in tree.files.values()],
    }


def _sibling(file: File, *, with_blobs: bool) -> dict[str, Any]:
    if not with_blobs:
        return {"rfilename": file.path}
    told: dict[str, Any] = {
        "rfilename": file.path,
        "size": file.info.size,
        "blobId": file.blob_id,
    }
    if file.sha256:
        told["lfs"] = {
            "sha256": file.sha256,
            "size": file.info.size,
            "pointerSize": _pointer_size(file),
        }
    return told


def tree_entry(entry: File | Directory) -> dict[str, Any]:
    """Return one line of a tree."""
    if isinstance(entry, Directory):
        return {"type": "directory", "oid": entry.tree_id, "size": 0, "path": entry.path}
    told: dict[str, Any] = {
        "type": "file",
        "oid": entry.blob_id,
        "size": entry.info.size,
        "path": entry.path,
    }
    if entry.sha256:
        told["lfs"] = {
            "oid": entry.sha256,
            "size": entry.info.size,
            "pointerSize": _pointer_size(entry),
        }
    return told


def _pointer_size(file: File) -> int:
    """Return the length of the text that git keeps in the place of the file."""
    lines = (
        "version https://git-lfs.github.com/spec/v1",
        f"oid sha256:{file.sha256}",
        f"size {file.info.size}",
    )
    return sum(len(line) + 1 for line in lines)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
