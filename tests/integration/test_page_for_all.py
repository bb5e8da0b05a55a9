"""The web page for everybody: by keyboard alone, read out, in the dark, on a phone."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from penstock import units
from penstock.cli.output import percent
from penstock_node.testbed.browser import chromium
from penstock_node.testbed.page_documents import OddNode, PageDocuments
from penstock_node.testbed.page_site import PageSite
from tests.integration.page_rig import TROUBLED, VIEWS, Pages, opened_pages, row, table

TAB_STOPS_MAX = 200
CONTRAST_TEXT, CONTRAST_LARGE, CONTRAST_DRAWN = 4.5, 3.0, 3.0
"""What WCAG 2.2 asks for at level AA."""
LARGE_PX = 24.0

FOCUSED = """() => {
  const at = document.activeElement;
  if (at === document.body) return null;
  const style = getComputedStyle(at);
  const { width, height } = at.getBoundingClientRect();
  return {
    name: at.id || at.getAttribute("aria-label") || at.textContent.trim(),
    isSeen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    isThere: width > 1 && height > 1,
  };
}"""

CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [r, g, b] = rgb(color).slice(0, 3).map((byte) => {
      const part = byte / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at);
      if (rgb(backgroundColor)[3] === 255) return backgroundColor;
    }
    return "white";
  };
  const isSeen = (element) => element.checkVisibility() && !element.closest(".unseen");
  const texts = [...document.querySelectorAll("body *")]
    .filter((e) => isSeen(e) && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => {
      const { color, fill, fontSize } = getComputedStyle(e);
      const ink = e instanceof SVGElement ? fill : color;
      return { text: e.textContent.trim(), px: parseFloat(fontSize), ratio: ratio(ink, ground(e)) };
    });
  const drawn = [...document.querySelectorAll(".swatch, .split span, .sector, .chunk")]
    .filter((e) => e.checkVisibility() && !e.matches(".other, .missing"))
    .map((e) => {
      const { backgroundColor, fill } = getComputedStyle(e);
      const ink = e instanceof SVGElement ? fill : backgroundColor;
      const text = e.className.baseVal ?? e.className;
      return { text, ratio: ratio(ink, ground(e.parentElement)) };
    });
  return { texts, drawn };
}"""

NAMELESS = """() => {
  const nameOf = (e) =>
    e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent;
  return [...document.querySelectorAll("a, button, input, [role=slider], [role=progressbar]")]
    .filter((e) => e.checkVisibility() && nameOf(e).trim() === "")
    .map((e) => e.outerHTML);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def site() -> Iterator[PageSite]:
    with PageSite(TROUBLED) as serving:
        yield serving


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    with opened_pages(browser) as opened:
        yield opened


def drawn(page: Page) -> Page:
    """Return the page once its view shows what it was told, charts and chunks too."""
    expect(page.locator("main path:not([d='']):visible").first).to_be_visible()
    expect(page.locator("#age")).to_have_text("live")
    return page


def tab_stops(page: Page) -> list[dict[str, Any]]:
    """Press Tab from the page's beginning to its end, and return what got the focus."""
    stops: list[dict[str, Any]] = []
    while len(stops) < TAB_STOPS_MAX:
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop is None or (stops and stop["name"] == stops[0]["name"]):
            return stops
        stops.append(stop)
    raise AssertionError(f"no end after {TAB_STOPS_MAX}: {stops[-3:]}")


def test_the_tab_key_reaches_everything_visibly_and_is_held_nowhere(
    site: PageSite, pages: Pages
) -> None:
    page = drawn(pages.open(site))

    stops = tab_stops(page)

    names = [stop["name"] for stop in stops]
    assert names[:2] == ["skip", "Penstock prod"]
    for wanted in ("pause", "ring-picture", "node-filter", "Weight", "gpu-00", "gpu-11"):
        assert wanted in names
    assert [stop for stop in stops if not (stop["isSeen"] and stop["isThere"])] == []


def test_a_models_view_is_reached_by_tab_too(site: PageSite, pages: Pages) -> None:
    page = drawn(pages.open(site, VIEWS[1]))

    stops = tab_stops(page)

    assert sum(stop["name"].startswith("Chunks of") for stop in stops) == 3
    assert "gpu-11" in [stop["name"] for stop in stops]
    assert [stop for stop in stops if not (stop["isSeen"] and stop["isThere"])] == []


def test_the_tab_key_goes_through_rows_that_are_not_there_yet(pages: Pages) -> None:
    with PageSite(PageDocuments(300)) as many:
        page = drawn(pages.open(many))
        row(page, "gpu-000").get_by_role("link").focus()

        for _ in range(80):
            page.keyboard.press("Tab")
            page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

        assert page.evaluate(FOCUSED)["name"] == "gpu-080"


def test_the_skip_link_leads_past_the_header(site: PageSite, pages: Pages) -> None:
    page = drawn(pages.open(site, VIEWS[2]))

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    assert page.evaluate("document.activeElement.id") == "content"
    expect(page.get_by_role("heading", level=1)).to_have_text("gpu-00")  # The view stays.


def test_the_focus_stays_on_a_node_though_its_row_moves(pages: Pages) -> None:
    with PageSite(PageDocuments(3)) as own:
        page = drawn(pages.open(own))
        page.get_by_role("button", name="Weight").press("Enter")
        link = row(page, "gpu-2").get_by_role("link")
        link.focus()  # The heaviest: it stands first.

        # Another node has all rows sorted anew.
        own.show(PageDocuments(4, odd={2: OddNode(weight=50)}))

        expect(table(page).get_by_role("link")).to_have_text(["gpu-1", "gpu-0", "gpu-3", "gpu-2"])
        expect(link).to_be_focused()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_contrast_enough(
    scheme: str, view: str, site: PageSite, pages: Pages
) -> None:
    page = drawn(pages.open(site, view, color_scheme=scheme))

    found = page.evaluate(CONTRASTS)

    least = [CONTRAST_LARGE if text["px"] >= LARGE_PX else CONTRAST_TEXT for text in found["texts"]]
    pale = [
        text for text, ratio in zip(found["texts"], least, strict=True) if text["ratio"] < ratio
    ]
    assert len(found["texts"]) > 15
    assert pale == []
    assert [each for each in found["drawn"] if each["ratio"] < CONTRAST_DRAWN] == []


def test_the_page_is_as_dark_as_the_machine_wants_it(site: PageSite, pages: Pages) -> None:
    page = drawn(pages.open(site, color_scheme="light"))
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)

    page.emulate_media(color_scheme="dark")

    assert page.evaluate(ground) != light


def test_a_stale_page_has_contrast_too(pages: Pages) -> None:
    with PageSite(TROUBLED) as own:
        page = drawn(pages.open(own))
        own.stop()
        expect(page.locator("#trouble")).to_be_visible()

        found = page.evaluate(CONTRASTS)

        assert [text for text in found["texts"] if text["ratio"] < CONTRAST_LARGE] == []
        assert page.evaluate("getComputedStyle(document.querySelector('main')).opacity") == "1"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_is_not_scrolled_sideways(
    width: int, view: str, site: PageSite, pages: Pages
) -> None:
    phone = {"width": width, "height": 844}

    page = drawn(pages.open(site, view, viewport=phone, has_touch=True, is_mobile=True))

    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = """() => [...document.querySelectorAll("body *")]
      .filter((e) => e.checkVisibility() && !e.closest("svg, .unseen, .skip"))
      .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5)
      .map((e) => e.outerHTML.slice(0, 200))"""
    assert page.evaluate(outside) == []


def test_long_names_break_nothing_on_a_phone(pages: Pages) -> None:
    odd = {0: OddNode(name="a" * 63, held=1.5), 1: OddNode(name="b-" * 31, waiting_bytes=10**12)}
    with PageSite(PageDocuments(3, odd=odd, cluster="c" * 63)) as own:
        page = drawn(pages.open(own, viewport={"width": 390, "height": 844}, is_mobile=True))

        assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("view", VIEWS)
def test_everything_has_a_name_that_can_be_read_out(
    view: str, site: PageSite, pages: Pages
) -> None:
    page = drawn(pages.open(site, view))

    assert page.evaluate(NAMELESS) == []
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("main").count() == 1
    panels = page.locator("main section:visible").count()
    assert page.get_by_role("region").count() == panels
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(set(ids)) == len(ids)


def test_the_table_is_one_to_who_hears_it(site: PageSite, pages: Pages) -> None:
    page = drawn(pages.open(site, viewport={"width": 390, "height": 844}))

    heads = table(page).get_by_role("columnheader").all_inner_texts()
    cells = table(page).get_by_role("row").nth(1).get_by_role("cell").count()
    assert len(heads) == cells == 11
    assert heads[:3] == ["Node", "State", "Weight"]


def test_nothing_moves_for_who_wants_it_still(site: PageSite, pages: Pages) -> None:
    page = drawn(pages.open(site, reduced_motion="reduce"))

    moving = """[...document.querySelectorAll("*")].filter((e) => {
      const { transitionDuration, animationName } = getComputedStyle(e);
      return transitionDuration !== "0s" || animationName !== "none";
    }).map((e) => e.outerHTML.slice(0, 100))"""
    assert page.evaluate(moving) == []


def test_figures_read_as_the_command_line_prints_them(site: PageSite, pages: Pages) -> None:
    rng = random.Random(4)
    page = drawn(pages.open(site))
    sizes = [0, 1, 999, 1_000, 999_949, 999_951] + [
        rng.uniform(0, 10 ** rng.randrange(1, 18)) for _ in range(500)
    ]
    times = [rng.uniform(0, 10 ** rng.randrange(0, 6)) for _ in range(200)]
    shares = [rng.random() for _ in range(100)]

    told = page.evaluate(
        """async ([sizes, times, shares]) => {
          const { size, duration, percent } = await import("./page/units.js");
          return [sizes.map(size), times.map(duration), shares.map(percent)];
        }""",
        [sizes, times, shares],
    )

    assert told[0] == [units.format_size(size) for size in sizes]
    assert told[1] == [units.format_duration(time) for time in times]
    assert told[2] == [percent(share) for share in shares]
