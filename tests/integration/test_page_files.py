"""The web page's files as a node sends them: types, what browsers may keep, what they may load."""

import contextlib
import http.client
import re
from collections.abc import Iterator, Mapping
from email.message import Message

import pytest

from penstock_node.serve.web_page import FOLDER
from penstock_node.testbed.page_documents import PageDocuments
from penstock_node.testbed.page_site import PageSite

DEADLINE_S = 20.0
LINES_MAX = 400
COLUMNS_MAX = 100
MODULES = sorted(FOLDER.glob("*.js"))
_IMPORT = re.compile(r'from "\./([a-z_]+\.js)";')


@pytest.fixture(scope="module")
def site() -> Iterator[PageSite]:
    with PageSite(PageDocuments(1)) as serving:
        yield serving


def get(
    site: PageSite, path: str, headers: Mapping[str, str] | None = None
) -> tuple[int, Message, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=DEADLINE_S)
    with contextlib.closing(connection):
        connection.request("GET", f"/{path}", headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("", "text/html; charset=utf-8"),
        ("page/page.css", "text/css; charset=utf-8"),
        ("page/main.js", "text/javascript; charset=utf-8"),
        ("page/icon.svg", "image/svg+xml"),
    ],
)
def test_each_file_has_its_type_and_loads_nothing_from_elsewhere(
    path: str, media_type: str, site: PageSite
) -> None:
    status, headers, body = get(site, path)

    assert (status, headers["Content-Type"]) == (200, media_type)
    assert body
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_file_is_sent_again_only_when_it_has_changed(site: PageSite) -> None:
    _, headers, body = get(site, "page/page.css")
    etag = headers["ETag"]

    assert headers["Cache-Control"] == "no-cache"
    assert body
    assert get(site, "page/page.css", {"If-None-Match": etag})[0::2] == (304, b"")
    assert get(site, "page/page.css", {"If-None-Match": f'"other", W/{etag}'})[0] == 304
    assert get(site, "page/page.css", {"If-None-Match": '"other"'})[0] == 200
    assert get(site, "page/main.js")[1]["ETag"] != etag


@pytest.mark.parametrize("path", ["page/none.js", "page/..%2fadmin.py", "page/", "page/a/b.js"])
def test_there_is_nothing_else(path: str, site: PageSite) -> None:
    assert get(site, path)[0] == 404


def test_a_closed_node_says_how_to_open_it() -> None:
    with PageSite(PageDocuments(1), closed="set admin_open = true\n") as site:
        for path in ("", "page/main.js"):
            status, headers, body = get(site, path)

            assert (status, body) == (403, b"set admin_open = true\n")
            assert headers["Content-Type"].startswith("text/plain")


def test_every_module_is_fetched_at_once_and_none_is_named_that_is_not_there() -> None:
    index = (FOLDER / "index.html").read_text()
    named = set(re.findall(r'(?:href|src)="page/([^"]+)"', index))
    imported = {name for path in MODULES for name in _IMPORT.findall(path.read_text())}

    assert len(MODULES) >= 10
    assert named == {path.name for path in FOLDER.iterdir()} - {"index.html"}
    assert imported <= named


def test_a_module_says_what_it_is_for_and_fits_on_a_few_screens() -> None:
    for path in MODULES:
        lines = path.read_text().splitlines()
        assert lines[0].startswith("// "), path.name
        assert len(lines) <= LINES_MAX, path.name
        assert [line for line in lines if len(line) > COLUMNS_MAX] == [], path.name


def test_nothing_is_written_as_markup() -> None:
    for path in MODULES:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", path.read_text()
        )


def test_no_style_and_no_script_stands_in_the_document() -> None:
    index = (FOLDER / "index.html").read_text()

    assert not re.search(r"<style| style=|<script>| on[a-z]+=|https?:", index)
