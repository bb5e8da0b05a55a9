"""Measure the web page of the admin port in a real browser: to draw it, and to keep it fresh.

    python bench/page.py [--quick] [--json FILE]

Chromium without a window and without a graphics processor, the page's real files, and documents of
a cluster of 1,000 nodes in which all figures are others each time. Drawing is timed from the
beginning of the navigation, with nothing cached, until the browser has painted the whole page. A
refresh is what the page's main thread spends on a processor from one question to the next: taking
in the answer, writing, style, layout and painting; every fifth has the charts' too. Sorted by
state no row moves, sorted by what is read nearly all do.
``--quick`` shows 50 nodes: it shows that the benchmark runs.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from playwright.sync_api import Browser, CDPSession, Page, ViewportSize

from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.browser import chromium
from penstock_node.testbed.page_documents import OddNode, PageDocuments
from penstock_node.testbed.page_site import PageSite
from penstock_node.testbed.peers import PeerAbsent
from penstock_node.testbed.processes import wait_until

DRAW_TARGET_S = 1.0
REFRESH_TARGET_MS = 100.0
DRAW, REFRESH = "navigation to painted", "refresh, processor of the main thread"
TICKS = 8
"""Documents that are there before anything is measured."""
REFRESH_DEADLINE_S = 20.0
ORDERS = ("State", "Read")
WINDOW: ViewportSize = {"width": 1280, "height": 800}
DRAWN = """new Promise((done) => {
  new PerformanceObserver((marks) => done(marks.getEntriesByName("drawn")[0].startTime))
    .observe({ type: "mark", buffered: true });
})"""
"""The page marks when the browser has painted its first picture."""
PARTS = {"style": "RecalcStyleDuration", "layout": "LayoutDuration"}


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    nodes: int
    draws: int
    refreshes: int


FULL = Size(nodes=1_000, draws=10, refreshes=15)
QUICK = Size(nodes=50, draws=1, refreshes=2)


def documents(size: Size) -> PageDocuments:
    """Return a cluster in which something is wrong in a few places."""
    odd = {3: OddNode(state="away"), 7: OddNode(state="draining", waiting_bytes=10**12)}
    odd |= {11: OddNode(held=1.5), 23: OddNode(held=0.4), 31: OddNode(weight=50)}
    return PageDocuments(size.nodes, odd=odd, warmups=3)


def draw_s(browser: Browser, site: PageSite) -> float:
    """Return how long a browser that knows nothing of the page takes to paint it."""
    with browser.new_context(viewport=WINDOW) as context:
        page = context.new_page()
        page.goto(site.url)
        return float(page.evaluate(DRAWN)) / 1e3


def thread_times(session: CDPSession) -> dict[str, float]:
    """Return the seconds of processor that the page's main thread has had, by their kind."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return {each["name"]: each["value"] for each in metrics}


def refreshes(page: Page, site: PageSite, count: int) -> list[dict[str, float]]:
    """Return what each refresh of an open page takes, in milliseconds, by the kind of work."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    times: list[dict[str, float]] = []
    for _ in rounds(count + 1, "refreshes"):
        asked = site.asked["overview"]
        wait_until(
            lambda asked=asked: site.asked["overview"] > asked,  # type: ignore[misc]
            deadline_s=REFRESH_DEADLINE_S,
            what="the page has asked again",
        )
        times.append(thread_times(session))
    return [
        {name: 1e3 * (after[name] - before[name]) for name in after}
        for before, after in itertools.pairwise(times)
    ]


def measures_of(times: list[dict[str, float]], order: str) -> Iterator[Measure]:
    """Yield the figures of refreshes in one order of the table."""
    group = f"sorted by {order}"
    whole = [each["TaskDuration"] for each in times]
    yield Measure.of(REFRESH, whole, "ms", bound="≤", target=REFRESH_TARGET_MS, group=group)
    for part, metric in PARTS.items():
        yield Measure.of(f"of it {part}", [each[metric] for each in times], "ms", group=group)


def absent_measures(why: str) -> list[Measure]:
    """Return the figures of a machine without the browser."""
    return [
        Measure(DRAW, None, "s", bound="≤", target=DRAW_TARGET_S, note=why),
        Measure(REFRESH, None, "ms", bound="≤", target=REFRESH_TARGET_MS, note=why),
    ]


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Measure, where there is a browser."""
    size = QUICK if is_quick else FULL
    try:
        with chromium() as browser:
            return measure_in(browser, size)
    except PeerAbsent as absent:
        return {"nodes": size.nodes}, absent_measures(str(absent))


def measure_in(browser: Browser, size: Size) -> tuple[Inputs, list[Measure]]:
    """Draw the page a few times, then leave one open."""
    with PageSite(documents(size), ticks=TICKS) as site:
        site.prepare()
        draws = [draw_s(browser, site) for _ in rounds(size.draws, "draws")]
        measures = [Measure.of(DRAW, draws, "s", bound="≤", target=DRAW_TARGET_S)]
        with browser.new_context(viewport=WINDOW) as context:
            page = context.new_page()
            page.goto(site.url)
            page.evaluate(DRAWN)
            for order in ORDERS:
                page.get_by_role("button", name=order).click()
                measures += measures_of(refreshes(page, site, size.refreshes), order)
            elements = page.evaluate("document.querySelectorAll('*').length")
    inputs = {"nodes": size.nodes, "elements": elements, "chromium": browser.version}
    return inputs, measures


if __name__ == "__main__":
    run_benchmark("The web page of a large cluster", measure)
