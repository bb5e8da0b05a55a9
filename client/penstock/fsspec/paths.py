"""Paths as fsspec has them, ``volume/path``, and urls."""

from penstock.volumes import URL_SCHEME

_START = f"{URL_SCHEME}://"


def to_url(path: str) -> str:
    """Return the url of a path without protocol; that of all volumes if it is empty."""
    return _START + path


def to_path(url: str) -> str:
    """Return the path of a ``penstock://`` url, without a slash at its end."""
    return url.removeprefix(_START).rstrip("/")


def parents(path: str, *, below: str) -> list[str]:
    """Return the directories that ``path`` lies in, the outermost first, down from ``below``."""
    at = path.find("/", len(below) + 1 if below else 0)
    found = []
    while at >= 0:
        found.append(path[:at])
        at = path.find("/", at + 1)
    return found
