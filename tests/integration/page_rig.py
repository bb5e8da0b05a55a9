"""What tests of the web page share: a cluster with troubles, and pages that must not complain."""

import contextlib
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, expect

from penstock_node.testbed.page_documents import OddNode, PageDocuments
from penstock_node.testbed.page_site import PageSite

UNKNOWN = "\N{EN DASH}"
"""In the place of what nobody knows."""
MODEL_URL = "penstock://models/flux.1-dev/"
VIEWS = ("#/", f"#/model?url={MODEL_URL}", "#/node?id=gpu-00")
REFUSED = "Failed to load resource"
"""What the browser's console says of each answer that is none."""

TROUBLED = PageDocuments(
    12,
    odd={
        1: OddNode(state="away"),
        2: OddNode(state="draining", waiting_bytes=3 * 10**12),
        4: OddNode(held=1.55),
        5: OddNode(is_idle=True),
        7: OddNode(weight=50),
    },
    warmups=2,
)

# A page asks every two seconds, and the machine may have much else to do.
expect.set_options(timeout=20_000)


class Pages:
    """Opens pages, and keeps what their scripts or their policy had to say."""

    def __init__(self, browser: Browser, contexts: contextlib.ExitStack) -> None:
        self._browser = browser
        self._contexts = contexts
        self.said: list[str] = []

    def open(self, site: PageSite, view: str = "", **options: Any) -> Page:
        """Return a page of a browser that knows nothing; options are those of `new_context`."""
        page = self.blank(**options)
        page.goto(site.url + view)
        return page

    def blank(self, **options: Any) -> Page:
        """Return a page that is nowhere yet."""
        page = self._contexts.enter_context(self._browser.new_context(**options)).new_page()
        page.on("console", self._on_console)
        page.on("pageerror", self._on_error)
        return page

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(REFUSED):
            self.said.append(message.text)

    def _on_error(self, error: Error) -> None:
        self.said.append(str(error))


@contextlib.contextmanager
def opened_pages(browser: Browser) -> Iterator[Pages]:
    """Open pages for a test, which fails if one of them complained."""
    with contextlib.ExitStack() as contexts:
        pages = Pages(browser, contexts)
        yield pages
    assert pages.said == []


def table(page: Page) -> Locator:
    """Return the table of nodes."""
    return page.get_by_role("table", name="Nodes")


def row(page: Page, node: str) -> Locator:
    """Return a node's row."""
    return table(page).get_by_role("row").filter(has=page.get_by_role("link", name=node))


def column(page: Page, name: str) -> list[str]:
    """Return the texts of a column of the rows that are there."""
    return table(page).locator(f"td.{name} > :first-child").all_inner_texts()
