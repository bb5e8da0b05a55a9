"""The web page of the admin port in a real browser, over a cluster's documents from a seed."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from penstock import units
from penstock.cli.output import percent
from penstock_node.testbed.browser import chromium
from penstock_node.testbed.page_documents import OddNode, PageDocuments
from penstock_node.testbed.page_site import PageSite, Refusal
from tests.integration.page_rig import (
    MODEL_URL,
    TROUBLED,
    UNKNOWN,
    Pages,
    column,
    opened_pages,
    row,
    table,
)

NASTY = "<img src=x onerror=alert(1)>&amp;\"'"
ASKS_EVERY_MS = 2_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    with opened_pages(browser) as opened:
        yield opened


@pytest.fixture
def site() -> Iterator[PageSite]:
    with PageSite(TROUBLED) as serving:
        yield serving


def test_totals_and_every_node_are_shown(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)

    figures = page.get_by_role("region", name="In figures")
    expect(figures).to_contain_text("10 alive, 1 draining")
    expect(figures).to_contain_text("1 away")
    total = TROUBLED.overview()["total"]
    expect(figures).to_contain_text(percent(total["hit_ratio"]))
    expect(figures).to_contain_text(units.format_size(total["rates"]["origin_bytes"]) + "/s")
    names = [TROUBLED.name(number) for number in range(12)]
    assert sorted(column(page, "node")) == names
    expect(page.locator("#cluster")).to_have_text("prod")


def test_nodes_that_need_a_look_stand_first(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)

    expect(row(page, "gpu-01")).to_contain_text("away 3 min")
    assert column(page, "node")[:3] == ["gpu-01", "gpu-02", "gpu-00"]


def test_what_nobody_knows_is_a_dash(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)

    expect(row(page, "gpu-05").locator(".hit")).to_have_text(UNKNOWN)  # Nothing was read.
    expect(row(page, "gpu-01").locator(".read")).to_have_text(UNKNOWN)  # It is away.
    expect(row(page, "gpu-00").locator(".read")).not_to_have_text(UNKNOWN)


def test_a_weight_that_an_operator_set_is_marked(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)

    expect(row(page, "gpu-07").locator(".weight")).to_have_text("50*")
    expect(page.get_by_text("penstock weight auto NODE")).to_be_visible()


def test_a_name_is_text_whatever_is_in_it(pages: Pages) -> None:
    odd = {1: OddNode(name=NASTY, held=1.55)}
    with PageSite(PageDocuments(3, odd=odd, cluster=NASTY, warmups=2)) as site:
        page = pages.open(site)

        expect(row(page, NASTY)).to_be_visible()
        expect(page.locator("#cluster")).to_have_text(NASTY)
        expect(page.locator("#ring-list")).to_contain_text(NASTY)
        row(page, NASTY).get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(NASTY)
        assert page.locator("img").count() == 1  # The page's own.


def test_a_cluster_where_nothing_happens_is_told_as_such(pages: Pages) -> None:
    with PageSite(PageDocuments(1, models=0, odd={0: OddNode(held=0, is_idle=True)})) as site:
        page = pages.open(site)

        for said in (
            "Every chunk is at its owner.",
            "No warm-up runs.",
            "Nothing was read of late.",
        ):
            expect(page.get_by_text(said)).to_be_visible()
        expect(page.locator("#ring-summary")).to_have_text("Nothing is cached yet.")
        expect(page.locator("#total-hit")).to_have_text(UNKNOWN)


def test_a_refresh_writes_cells_and_leaves_rows(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)
    expect(row(page, "gpu-00")).to_be_visible()
    before = row(page, "gpu-00").locator(".read").inner_text()
    page.evaluate(
        """() => {
          window.moved = 0;
          new MutationObserver((changes) => { window.moved += changes.length; })
            .observe(document.body, { childList: true, subtree: true });
        }"""
    )

    site.show(TROUBLED.at(5))

    expect(row(page, "gpu-00").locator(".read")).not_to_have_text(before)
    assert page.evaluate("window.moved") == 0


def test_a_node_that_comes_and_one_that_goes_change_the_table(pages: Pages) -> None:
    with PageSite(PageDocuments(3)) as site:
        page = pages.open(site)
        expect(row(page, "gpu-2")).to_be_visible()

        site.show(PageDocuments(4, odd={2: OddNode(name="renamed")}))

        expect(row(page, "renamed")).to_be_visible()
        assert sorted(column(page, "node")) == ["gpu-0", "gpu-1", "gpu-3", "renamed"]


def test_a_column_is_sorted_by_its_button(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)
    header = table(page).get_by_role("columnheader", name="Weight")
    expect(row(page, "gpu-00")).to_be_visible()

    header.get_by_role("button").press("Enter")

    expect(header).to_have_attribute("aria-sort", "descending")
    weights = [int(text.rstrip("*")) for text in column(page, "weight")]
    assert weights == sorted(weights, reverse=True)
    header.get_by_role("button").press("Enter")
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert page.locator("[aria-sort]").count() == 1


def test_the_filter_leaves_nodes_that_have_every_word(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)

    page.get_by_label("Filter").fill("GPU alive 10.0.0.1")

    expect(page.locator("#node-count")).to_have_text("4 of 12 nodes")
    assert column(page, "node") == ["gpu-00", "gpu-09", "gpu-10", "gpu-11"]
    page.get_by_label("Filter").fill("")
    expect(page.locator("#node-count")).to_have_text("12 nodes")


def test_a_thousand_nodes_are_all_reached_by_scrolling(pages: Pages) -> None:
    with PageSite(PageDocuments(1_000)) as site:
        page = pages.open(site)
        expect(table(page)).to_have_attribute("aria-rowcount", "1001")
        seen = set(column(page, "node"))

        while page.evaluate("scrollY + innerHeight < document.documentElement.scrollHeight - 1"):
            page.evaluate("scrollBy(0, innerHeight)")
            page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
            seen |= set(column(page, "node"))

        assert len(seen) == 1_000
        assert page.locator("#node-rows tr").count() < 60


def test_a_row_in_focus_stays_however_far_it_is_scrolled(pages: Pages) -> None:
    with PageSite(PageDocuments(1_000)) as site:
        page = pages.open(site)
        row(page, "gpu-0003").get_by_role("link").focus()
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        expect(row(page, "gpu-0999")).to_be_visible()
        expect(row(page, "gpu-0003").get_by_role("link")).to_be_focused()

        row(page, "gpu-0999").get_by_role("link").focus()
        page.evaluate("scrollTo(0, 0)")
        expect(row(page, "gpu-0000")).to_be_attached()

        expect(row(page, "gpu-0003")).to_be_attached()
        expect(row(page, "gpu-0999").get_by_role("link")).to_be_focused()
        assert column(page, "node")[:4] == ["gpu-0000", "gpu-0001", "gpu-0002", "gpu-0003"]


def test_a_wrong_weight_is_named_beside_the_ring(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)
    ring = page.get_by_role("region", name="The ring")

    expect(ring.locator("#ring-list a").first).to_have_text("gpu-04")
    expect(ring.locator("#ring-list")).to_contain_text("times its share")
    assert ring.locator("path.sector.over").get_attribute("d")


def test_the_ring_is_read_node_by_node_with_keys(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)
    picture = page.get_by_role("slider", name="The ring")
    expect(picture).to_have_attribute("aria-valuemax", "11")  # One is draining.

    picture.press("Home")
    picture.press("ArrowRight")

    expect(picture).to_have_attribute("aria-valuetext", re.compile(r"^gpu-\d\d: weight \d+, share"))
    expect(page.locator("#ring-reading")).to_contain_text("times its share")
    picture.press("Enter")
    expect(page).to_have_url(re.compile(r"#/node\?id=gpu-\d\d$"))


def test_a_chart_is_read_by_pointer_and_by_keys(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)
    plot = page.get_by_role("slider", name="Read, by source")
    values = page.locator("#charts figure").first.locator(".legend")
    expect(values).to_contain_text(re.compile("memory .*/s"))  # The hour has come.
    expect(values).not_to_contain_text(UNKNOWN)
    page.get_by_role("button", name="Pause").click()  # Else what is shown may be of another tick.
    now = values.inner_text()

    plot.press("ArrowLeft")
    plot.press("PageDown")

    expect(plot).to_have_attribute("aria-valuetext", re.compile("5 min ago: memory .*/s, disk"))
    assert values.inner_text() != now
    plot.press("Escape")
    expect(values).to_have_text(now, use_inner_text=True)
    plot.hover(position={"x": 200, "y": 20})
    expect(page.locator("#charts figure").first.locator(".when")).to_contain_text("ago")


def test_a_models_chunks_are_shown_over_the_nodes(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)
    page.get_by_role("link", name="models/flux.1-dev/").click()

    heading = page.get_by_role("heading", level=1)
    expect(heading).to_be_focused()
    expect(page.locator("#model-summary")).to_contain_text("3 objects, 1,351 chunks: ")
    expect(page.locator("#model-summary")).to_contain_text("held by none")
    expect(page.get_by_role("slider", name="Chunks of")).to_have_count(3)
    assert all(
        path.get_attribute("d") for path in page.locator(".object:nth-child(2) path").all()[:4]
    )


def test_a_chunk_tells_who_owns_it_and_where_it_is_missing(site: PageSite, pages: Pages) -> None:
    page = pages.open(site, f"#/model?url={MODEL_URL}")
    chunks = TROUBLED.chunks(MODEL_URL)["objects"][1]["chunks"]
    index = next(n for n, (owners, holders) in enumerate(chunks) if holders == owners[:1])
    holder, lacking = (TROUBLED.name(owner) for owner in chunks[index][0])
    tiles = page.get_by_role("slider", name="Chunks of").nth(1)

    tiles.press("Home")
    for _ in range(index):
        tiles.press("ArrowRight")

    told = f"owned by {holder}, {lacking}; held by {holder}; missing at {lacking}"
    expect(tiles).to_have_attribute("aria-valuetext", re.compile(f"^chunk {index}, .*: {told}$"))


def test_a_nodes_chunks_are_shown_alone(site: PageSite, pages: Pages) -> None:
    page = pages.open(site, f"#/model?url={MODEL_URL}")
    node = page.locator("#model-nodes").get_by_role("button").first

    node.press("Enter")

    expect(node).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#model-legend")).to_contain_text("its own, missing")
    page.get_by_role("button", name="Show all nodes").click()
    expect(page.locator("#model-legend")).to_contain_text("at every owner")


def test_a_node_has_a_view_of_its_own(site: PageSite, pages: Pages) -> None:
    page = pages.open(site, "#/node?id=gpu-00")

    expect(page.locator("#node-facts")).to_contain_text("10.0.0.1")
    expect(page.locator("#node-tiers")).to_contain_text("/mnt/nvme0/penstock")
    expect(page.locator("#node-charts .legend").first).not_to_contain_text(UNKNOWN)
    page.get_by_role("link", name="All of the cluster").click()
    expect(table(page)).to_be_visible()


def test_a_node_that_is_not_there_is_told(site: PageSite, pages: Pages) -> None:
    page = pages.open(site, "#/node?id=gone")

    expect(page.get_by_text("The cluster has no node of this name.")).to_be_visible()


def test_a_silent_node_leaves_the_picture_with_its_age(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)
    expect(row(page, "gpu-00")).to_be_visible()

    site.stop()

    expect(page.get_by_text("The node does not answer.")).to_be_visible()
    expect(page.get_by_text(re.compile(r"What is shown is \d+(\.\d)? s old"))).to_be_visible()
    expect(row(page, "gpu-00")).to_be_visible()
    site.start()
    expect(page.locator("#trouble")).to_be_hidden()
    expect(page.locator("#age")).to_have_text("live")


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Refusal(403, "shown on loopback only\n"), "Set admin_open = true"),
        (Refusal(503, json.dumps({"error": "NodeUnavailable", "message": "it joins"})), "it joins"),
        (Refusal(500, "Internal Server Error"), "penstock status"),
    ],
)
def test_a_refusal_says_what_to_do(
    refusal: Refusal, said: str, site: PageSite, pages: Pages
) -> None:
    site.refusal = refusal

    page = pages.open(site)

    expect(page.locator("#trouble")).to_contain_text(said)
    expect(page.locator("#age")).to_have_text("no answer yet")


def test_a_page_nobody_looks_at_asks_nothing(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)
    expect(row(page, "gpu-00")).to_be_visible()

    # A browser without windows never hides a page: this is what a page is told of it.
    page.evaluate(
        """() => {
          window.isAway = true;
          Object.defineProperty(document, "hidden", { get: () => window.isAway });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    asked = site.asked.total()
    page.wait_for_timeout(1.3 * ASKS_EVERY_MS)

    assert site.asked.total() == asked
    with page.expect_response("**/api/overview"):
        page.evaluate("isAway = false; document.dispatchEvent(new Event('visibilitychange'))")


def test_a_paused_page_says_so_until_it_goes_on(site: PageSite, pages: Pages) -> None:
    page = pages.open(site)
    expect(page.locator("#age")).to_have_text("live")

    page.get_by_role("button", name="Pause").press("Enter")

    expect(page.locator("#age")).to_have_text("paused")
    with page.expect_response("**/api/overview"):
        page.get_by_role("button", name="Resume").press("Enter")
    expect(page.locator("#age")).to_have_text("live")
