"""The results page in headless Chromium, at the width of a phone and of a desk, in light and dark (`make test-page`).

Nothing is waited for by time alone: the page is static, and every event is handled before the next command runs.
"""

from __future__ import annotations

import shutil

import pytest
from helpers.chromium import Browser, executable

from repro.results.page import build, decodings
from repro.results.store import RAW
from repro.results.tables import claims

pytestmark = pytest.mark.page
POINT = ".point[aria-pressed='true']"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    build.write(folder)
    return folder / "index.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if executable() is None:
        pytest.fail("Chromium is not installed; apt-get install chromium")
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(params=[(390, False), (1440, False), (390, True), (1440, True)], ids=str)
def page(request, browser, index):
    """The page at one width and colour scheme; afterwards nothing was reported and nothing was asked for."""
    width, dark = request.param
    found = browser.page(index, width, dark=dark)
    yield found
    browser.drain(0.2)
    assert not found.events("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    asked = {event["request"]["url"] for event in found.events("Network.requestWillBeSent")}
    folder = index.parent.resolve().as_uri() + "/"
    assert asked == {folder + path.name for path in index.parent.iterdir()}
    assert not found.events("Network.webSocketCreated")
    found.call("Page.close")


def text(page, selector):
    return page.run(f"document.querySelector({selector!r}).innerText")


def focused(page):
    return page.run("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")


def test_nothing_is_wider_than_the_page_and_no_label_is_cut(page):
    for tab in page.run("DATA.plots.map((plot) => plot.id)"):
        page.run(f"document.getElementById('tab-{tab}').click()")
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        cut = page.run(
            "[...document.querySelectorAll('button, h1, h2, h3, dt, dd, .chip')].filter((each) =>"
            " each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== 'inline')"
            ".map((each) => each.innerText)"
        )
        assert not cut
        outside = page.run(
            "(() => {const box = document.querySelector('#plot svg').getBoundingClientRect();"
            " return [...document.querySelectorAll('#plot text')].filter((each) => {"
            " const own = each.getBoundingClientRect(); return own.left < box.left - 1 || own.right > box.right + 1})"
            ".map((each) => each.textContent)})()"
        )
        assert not outside


@pytest.mark.parametrize("width", [320, 768])
def test_the_page_fits_other_widths(browser, index, width):
    """WCAG 2.2, 1.4.10: no scrolling in two directions at 320 pixels, which is also 400 % zoom at 1,280."""
    page = browser.page(index, width)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    page.call("Page.close")


def test_names_in_the_plot_cover_no_marker_and_no_other_name(page):
    boxes = page.run(
        "[...document.querySelectorAll('.names text, .marker')].filter((each) => each.closest('#plot'))"
        ".map((each) => {const b = each.getBoundingClientRect();"
        " return [each.tagName === 'text', b.left, b.top, b.right, b.bottom]})"
    )
    names = [box for box in boxes if box[0]]
    assert bool(names) == (page.run("innerWidth") > 900)
    for one in names:
        for other in boxes:
            if one is not other:
                apart = (
                    one[3] <= other[1]
                    or other[3] <= one[1]
                    or one[4] <= other[2] + 3
                    or other[4] <= one[2] + 3
                )
                assert apart, (one, other)


def test_light_and_dark_follow_the_system(page):
    dark = page.run("matchMedia('(prefers-color-scheme: dark)').matches")
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(17, 23, 29)" if dark else "rgb(251, 251, 250)")


def test_a_click_on_a_point_leads_to_its_items_and_a_step(page):
    before = text(page, "#point .setting")
    wanted = page.run("DATA.plots[0].points.find((point) => point.preset === 'low_confidence').id")
    page.click(f"#plot [data-point='{wanted}'] .halo")
    assert text(page, "#point .setting") != before
    assert "low_confidence, 1 token per step" in text(page, "#point .setting")
    assert "whose most likely token is most probable" in text(page, "#point")
    assert "of 500 solved" in text(page, "#point")
    page.click("#point .item:nth-child(2)")
    assert page.run("document.activeElement.id") == "step"
    assert page.run("document.querySelector('#item').value") == "1"
    shown = (
        "[...document.querySelectorAll('[data-side=\"a\"] .cell')].map((each) => each.textContent).join('')"
    )
    frames = "DATA.items[decodings.a][decodings.item].frames"
    assert page.run(shown) == page.run(f"{frames}[1].t")
    for _ in range(3):
        page.press("ArrowRight", 39)
    assert page.run("document.querySelector('#step').value") == "4"
    assert page.run("document.querySelector('#step').getAttribute('aria-valuetext')") == "4 of 16"
    assert page.run(shown) == page.run(f"{frames}[4].t")
    states = page.run(
        "[...document.querySelectorAll('[data-side=\"a\"] .cell')].map((each) => each.classList[1]).join('')"
    )
    assert states == page.run(f"{frames}[4].s") and {"n", "w", "s"} <= set(states)
    assert "KL of this step" in text(page, "[data-side='a'] .facts") and "nats" in text(
        page, "[data-side='a'] .facts"
    )
    page.press("End", 35)
    assert text(page, ".count") == "end" and "·" not in page.run(shown)


def test_play_runs_to_the_end_and_both_sides_can_be_chosen(page):
    page.run(
        "{const s = document.querySelector('#side-b');"
        " const wanted = (each) => each.value.includes('duo_nelbo') && each.value.endsWith('.1');"
        " s.value = [...s.options].find(wanted).value; s.dispatchEvent(new Event('change'))}"
    )
    assert "Duo" in text(page, "[data-side='b'] h3")
    assert "not known here" in text(page, "[data-side='b'] .facts")
    page.run("decodings.go(decodings.last() - 1, false)")
    page.click(".controls button:nth-of-type(2)")
    assert text(page, ".controls button:nth-of-type(2)") == "Pause"
    page.until("document.querySelector('.controls button:nth-of-type(2)').innerText === 'Play'")
    assert text(page, ".count") == "end"
    revised = page.run(
        "(() => {for (let i = 0; i < decodings.last(); i++) {decodings.go(i, false);"
        " if (document.querySelector(\"[data-side='b'] .cell.r\")) return i} return -1})()"
    )
    assert revised > 0, "uniform noise revises tokens"


def test_a_number_shows_its_records_whose_hashes_match(page):
    page.click("#best .number")
    assert page.run("document.querySelector('#provenance').open")
    page.until(
        "![...document.querySelectorAll('.check')].some((each) => each.innerText.startsWith('checking'))"
    )
    checks = page.run("[...document.querySelectorAll('.check')].map((each) => each.innerText)")
    assert checks == ["✓ computed again here: it matches"] * 2
    said = text(page, "#provenance")
    assert "results/raw/llada@nano.sudoku-s0.speed.sudoku.jsonl, line" in said and "0.998" in said
    page.press("Escape", 27)
    assert not page.run("document.querySelector('#provenance').open")
    assert "show its source" in focused(page), "the focus goes back to the number"


def test_a_changed_record_is_told(page):
    page.run(
        "{const sha = DATA.plots[0].points[0].y.from[0]; const stored = DATA.sources.records[sha];"
        " stored.text = stored.text.replace('\"n\":500', '\"n\":501'); showSource(DATA.plots[0].points[0].y, 'x', '')}"
    )
    page.until(
        "[...document.querySelectorAll('.check')].some((each) => each.innerText.includes('does not match'))"
    )


def test_a_claim_leads_to_the_record_of_each_seed_and_back(page):
    page.click(".claim .number")
    assert page.run("document.querySelectorAll('#provenance tbody tr').length") == 8
    page.click("#provenance tbody .number")
    assert "results/choices/" in text(page, "#provenance")
    page.click("#provenance .ways button")
    assert page.run("document.querySelectorAll('#provenance tbody tr').length") == 8
    page.click("#provenance .ways button:last-child")
    assert not page.run("document.querySelector('#provenance').open")


def test_certificates_can_be_chosen_by_noise(page):
    rows = "document.querySelectorAll('#certificate-table tbody tr').length"
    every = page.run(rows)
    page.run(
        "{const s = document.querySelector('#noise'); s.value = 'uniform'; s.dispatchEvent(new Event('change'))}"
    )
    assert 0 < page.run(rows) < every
    page.click("#certificate-table .number")
    assert "results/certificates/" in text(page, "#provenance")


def test_the_keyboard_reaches_everything(page):
    """Tab to the tabs, arrows between them; Tab on to the plot, arrows between points, Enter selects."""
    page.run("document.querySelector('[role=tab][aria-selected=true]').focus()")
    page.press("ArrowRight", 39)
    assert text(page, "[role=tab][aria-selected=true]") == "Sudoku: seconds"
    page.press("ArrowLeft", 37)
    for _ in range(8):
        page.press("Tab", 9)
        if page.run("document.activeElement.closest('.point') !== null"):
            break
    start = focused(page)
    assert "99.6 % solved with 2.49 forward passes" in start and text(page, "#readout") == start
    page.press("ArrowRight", 39)
    after = focused(page)
    assert after != start and text(page, "#readout") == after
    page.press("Enter", 13)
    assert page.run(f"document.querySelector({POINT!r}).getAttribute('aria-label')") == after == focused(page)
    assert page.run("document.querySelectorAll('#plot .point[tabindex=\"0\"]').length") == 1


def test_a_screen_reader_is_told_what_everything_is(page):
    """Every control of the accessibility tree has a name, and the tabs, points and slider have their roles."""
    page.run("document.querySelectorAll('details').forEach((each) => {each.open = true})")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "tab", "combobox", "slider", "link", "region", "tabpanel", "img", "image", "dialog"}
    found = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in roles and not node.get("ignored"):
            found.setdefault(role, []).append(node.get("name", {}).get("value", "").strip())
    assert {"button", "tab", "combobox", "slider", "link", "region", "tabpanel"} <= found.keys()
    assert not {role: names.count("") for role, names in found.items() if "" in names}
    assert page.run("document.querySelectorAll('[aria-live=polite]').length") == 2
    assert page.run("document.querySelectorAll('h1').length") == 1
    small = page.run(
        "[...document.querySelectorAll('button, select, input, summary')].filter((each) => each.offsetHeight"
        " && each.offsetHeight < 24).map((each) => each.outerHTML.slice(0, 80))"
    )
    assert not small, "WCAG 2.2, 2.5.8: targets of at least 24 pixels"


@pytest.mark.parametrize("width", [390, 1440])
def test_a_page_of_own_records_shows_what_there_is(browser, tmp_path, monkeypatch, width):
    """One file of records, no certificates, decodings or claims: the other sections are left out, without an error."""
    own = tmp_path / "raw"
    own.mkdir()
    shutil.copy(RAW / "llada@nano.sudoku-s1.speed.sudoku.jsonl", own)
    monkeypatch.setattr(decodings, "FOLDER", tmp_path / "nowhere")
    monkeypatch.setattr(claims, "LOCK", tmp_path / "nowhere.json")
    build.write(tmp_path / "page", own, tmp_path / "nowhere")
    page = browser.page(tmp_path / "page" / "index.html", width)
    shown = page.run(
        "[...document.querySelectorAll('main > section')].filter((each) => !each.hidden).map((each) => each.id)"
    )
    assert shown == ["frontier"]
    assert page.run("[...document.querySelectorAll('nav a')].filter((each) => each.offsetHeight).length") == 1
    assert "No decodings were recorded" in text(page, "#point") and "of 500 solved" in text(page, "#point")
    browser.drain(0.2)
    assert not page.events("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    page.call("Page.close")


def test_lines_can_be_hidden_and_the_table_holds_every_point(page):
    marks = "document.querySelectorAll('#plot .point').length"
    every = page.run(marks)
    assert every == page.run("document.querySelectorAll('#plot-table tbody tr').length")
    page.click("#legend .toggle")
    assert page.run(marks) < every
    assert page.run("document.querySelector('#legend .toggle').getAttribute('aria-pressed')") == "false"
    page.click("#legend .toggle")
    assert page.run(marks) == every
