"""A browser without a window: the machine's own Chromium, driven through Playwright.

Responsible for: finding Chromium, starting it so that it asks nobody but the page, ending it.
Not responsible for: what is looked at (tests, ``bench/page.py``).
"""

import contextlib
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright

from penstock_node.testbed.peers import program

START_TIMEOUT_MS = 30_000
_FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-sandbox",  # It refuses to be root's otherwise, and sees our own page only.
)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium with a profile that is empty; each `new_context` of it is a new one.

    No event loop can be run in this thread until it ends.

    Raises:
        PeerAbsent: It is not installed.
    """
    path = program("chromium", fix="apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=_FLAGS, timeout=START_TIMEOUT_MS
        )
        try:
            yield browser
        finally:
            browser.close()
