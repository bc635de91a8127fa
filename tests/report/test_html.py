"""The page, in a real browser."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from deltafine.document.report import Picture, Report
from deltafine.report import render
from deltafine.report.compare import compare
from deltafine.report.formats import html
from deltafine.report.gate import Gate, check
from tests.report.builders import LAYERS, controls, estimate, make_report, timing
from tests.report.test_compare import cheaper

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
)
HOSTILE = [
    "<script>document.title='owned'</script>",
    "<img src=https://example.invalid/x.png onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "{{ 7 * 7 }}",
    "a&amp;b",
    "\x1b[31m" + "long_name/" * 30,
]


def hostile_report() -> Report:
    report = make_report(layer_names=HOSTILE, title=HOSTILE[0], warnings=[HOSTILE[1]])
    report.settings["</style><script>alert(2)</script>"] = {"<b>": "</details>"}
    report.data.problems[0].video = HOSTILE[2]
    report.sites[0].name = HOSTILE[0]
    return report


class Tags(HTMLParser):
    """Collects every tag and every address in the page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in {"src", "href", "action", "data", "srcset"}]


def test_names_add_no_element_to_the_page() -> None:
    hostile, ordinary = Tags(), Tags()
    hostile.feed(render(hostile_report(), "html"))
    report = make_report(layer_names=[f"layer{i}" for i in range(6)], warnings=["one"])
    report.settings["key"] = {"b": "c"}
    ordinary.feed(render(report, "html"))
    assert hostile.tags == ordinary.tags


def test_the_page_addresses_nothing_outside_itself() -> None:
    tags = Tags()
    tags.feed(render(hostile_report(), "html"))
    assert all(address.startswith(("data:", "#")) for address in tags.addresses)


class Anchors(Tags):
    """Collects what may be linked to as well."""

    def __init__(self) -> None:
        super().__init__()
        self.there: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        self.there |= {value or "" for key, value in attrs if key == "id"}


@pytest.mark.parametrize("report", [make_report(), make_report(controls=controls(), timings=[timing()])])
def test_every_link_leads_to_something_on_the_page(report: Report) -> None:
    page = Anchors()
    page.feed(render(report, "html"))
    links = {address[1:] for address in page.addresses if address.startswith("#")}
    assert links <= page.there
    assert {"curve", "figures", "meaning-operations-mac_density"} <= links


def test_the_headline_comes_before_everything_else() -> None:
    page = render(make_report(), "html")
    assert "<title>road_small_cnn: 9.1x fewer MACs</title>" in page
    assert page.index("accuracy 75.1%, -0.4 points [-1.2, +0.5] against the original") < page.index("<nav")


def test_a_page_of_a_large_model_stays_small() -> None:
    report = make_report()
    for measurement in report.models.values():
        for figures in (measurement.streams, measurement.clips):
            figures.layers = figures.layers * 10
            figures.deltas = figures.deltas * 10
    assert len(render(report, "html").encode()) < 500_000


def test_a_bar_is_seen_unless_its_value_is_zero() -> None:
    assert html.bar_width(1e-6) == "0.5"
    assert html.bar_width(0) == "0"
    assert html.bar_width(3) == "100.0"
    assert html.bar_width(float("nan")) == "0"


@pytest.mark.parametrize("models", [("original",), ("original", "calibrated")])
def test_a_report_of_fewer_models_has_a_page(models: tuple[str, ...]) -> None:
    page = render(make_report(models=models, history=[], front=[]), "html")
    assert "<svg" not in page
    assert "refined" not in page.split("</style>")[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("no chromium and chromedriver on this machine")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
        driver.get("about:blank")  # away from the browser's own start page, which loads a good deal
        try:
            yield driver
        finally:
            driver.quit()


def opened(browser: Any, report: Report, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(report, "html"), "utf-8")
    browser.get_log("performance")
    browser.get(file.as_uri())
    unfold(browser)


def unfold(browser: Any) -> None:
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")


def width(browser: Any, pixels: int) -> None:
    metrics = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": pixels < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.mark.parametrize("report", [make_report(), hostile_report()], ids=["ordinary", "hostile"])
def test_the_browser_has_no_complaint_and_asks_for_nothing(browser: Any, report: Report, tmp_path: Path) -> None:
    opened(browser, report, tmp_path)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("data:", "chrome:"))] == [(tmp_path / "report.html").as_uri()]


def test_names_with_html_are_shown_as_text(browser: Any, tmp_path: Path) -> None:
    opened(browser, hostile_report(), tmp_path)
    assert browser.title.startswith(HOSTILE[0])
    assert browser.find_element("css selector", "h1").text == HOSTILE[0]
    shown = [row.text for row in browser.find_elements("css selector", "#layer-table tbody th")]
    assert shown[:5] == HOSTILE[:5]
    assert browser.find_elements("css selector", "img") == []


def test_a_saving_that_came_from_not_updating_is_not_shown_as_a_success(browser: Any, tmp_path: Path) -> None:
    colours = []
    for accuracy in (0.751, 0.4):
        report = make_report()
        report.models["refined"].streams.frame_accuracy = estimate(accuracy)
        opened(browser, report, tmp_path)
        colours.append(browser.find_element("css selector", ".tile.main b").value_of_css_property("color"))
    assert colours[0] != colours[1]


def test_every_plot_is_drawn_where_it_can_be_seen(browser: Any, tmp_path: Path) -> None:
    width(browser, 1200)
    opened(browser, make_report(), tmp_path)
    drawings = browser.find_elements("css selector", "figure svg")
    assert len(drawings) == 4
    for drawing in drawings:
        assert drawing.size["width"] > 200
        assert len(drawing.find_elements("css selector", "circle")) >= 6
    bars = browser.find_elements("css selector", "#layer-table td:nth-child(4) i")
    assert len(bars) == 3 * len(LAYERS)
    assert bars[0].size["width"] > bars[1].size["width"] > bars[2].size["width"] > 0


def column(browser: Any, table: str, index: int) -> list[str]:
    return [cell.text for cell in browser.find_elements("css selector", f"#{table} tbody tr > :nth-child({index})")]


def test_a_gate_and_a_baseline_are_shown_in_colour_and_their_tables_sort(browser: Any, tmp_path: Path) -> None:
    width(browser, 1200)
    report = make_report()
    comparison = compare(report, cheaper(), "old <b>run</b>")
    checks = check(report, Gate({"max-regression": 0.02, "min-sparsity": 0.5}), [comparison])
    (tmp_path / "page.html").write_text(render(report, "html", comparisons=[comparison], checks=checks), "utf-8")
    browser.get((tmp_path / "page.html").as_uri())
    unfold(browser)
    assert browser.get_log("browser") == []
    assert browser.find_element("css selector", ".comparison h2").text == "Against old <b>run</b>"
    assert len(browser.find_elements("css selector", "#gate-table .worse")) == 1
    button = browser.find_elements("css selector", ".comparison .sortable thead button")[3]
    button.click()
    first = browser.find_element("css selector", ".comparison .sortable tbody th")
    assert first.text == "stem"


def test_pictures_are_drawn_from_the_page_itself(browser: Any, tmp_path: Path) -> None:
    from matplotlib import image

    image.imsave(tmp_path / "a.png", [[0.0, 1.0], [1.0, 0.0]])
    report = make_report(pictures=[Picture(file="a.png", video="<i>v</i>.mp4", caption="events of conv1")])
    (tmp_path / "page.html").write_text(
        render(report, "html", pictures={"a.png": (tmp_path / "a.png").read_bytes()}), "utf-8"
    )
    browser.get((tmp_path / "page.html").as_uri())
    picture = browser.find_element("css selector", "#pictures img")
    assert picture.get_property("naturalWidth") == 2
    assert browser.get_log("browser") == []


def test_tables_sort_by_number_and_by_name_both_ways(browser: Any, tmp_path: Path) -> None:
    width(browser, 1200)
    opened(browser, make_report(), tmp_path)
    buttons = browser.find_elements("css selector", "#layer-table thead button")
    by_macs = [row[0] for row in sorted(LAYERS, key=lambda row: -row[2])]
    buttons[2].click()
    assert column(browser, "layer-table", 1) == by_macs
    assert browser.find_elements("css selector", "#layer-table th[aria-sort=descending]")
    buttons[2].click()
    assert column(browser, "layer-table", 1) == by_macs[::-1]
    buttons[0].click()
    assert column(browser, "layer-table", 1) == sorted(by_macs)


def test_sorting_leaves_missing_figures_at_the_end(browser: Any, tmp_path: Path) -> None:
    report = make_report()
    del report.models["refined"].streams.layers[0]
    opened(browser, report, tmp_path)
    button = browser.find_elements("css selector", "#layer-table thead button")[6]
    for _ in range(2):
        button.click()
        assert column(browser, "layer-table", 7)[-1] == "-"


@pytest.mark.parametrize("pixels", [1200, 375, 320])
def test_the_page_never_scrolls_sideways(browser: Any, tmp_path: Path, pixels: int) -> None:
    width(browser, pixels)
    opened(browser, hostile_report(), tmp_path)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= pixels


def test_dark_and_light_have_different_colours_with_enough_contrast(browser: Any, tmp_path: Path) -> None:
    backgrounds = set()
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        opened(browser, make_report(), tmp_path)
        style = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        ink, page = (luminance(value) for value in browser.execute_script(style))
        assert (max(ink, page) + 0.05) / (min(ink, page) + 0.05) > 7
        backgrounds.add(page)
    assert len(backgrounds) == 2


def luminance(colour: str) -> float:
    """Relative luminance of rgb(r, g, b), WCAG 2."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_print_shows_the_settings_too(browser: Any, tmp_path: Path) -> None:
    opened(browser, make_report(), tmp_path)
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.find_element("css selector", "details table").is_displayed()


def test_the_page_shows_the_headline_and_one_plot_and_folds_the_rest_until_a_link_opens_it(
    browser: Any, tmp_path: Path
) -> None:
    width(browser, 1400)
    (tmp_path / "page.html").write_text(render(make_report(controls=controls()), "html"), "utf-8")
    browser.get((tmp_path / "page.html").as_uri())
    assert "75.1%" in browser.find_element("css selector", ".tile.main").text
    assert "multiply-accumulate" in browser.find_element("css selector", ".tile.main").text
    shown = [one for one in browser.find_elements("css selector", "figure svg") if one.is_displayed()]
    assert len(shown) == 1
    names = [one.text for one in shown[0].find_elements("css selector", ".name")]
    assert names == ["original", "calibrated", "refined", "never updating"]
    assert not browser.find_element("id", "layer-table").is_displayed()
    browser.find_element("css selector", "nav a[href='#layers']").click()
    assert browser.find_element("id", "layer-table").is_displayed()
    browser.find_element("css selector", "#figures-streams a[href='#meaning-operations-mac_density']").click()
    meaning = browser.find_element("css selector", "#meaning-operations-mac_density + dd")
    assert meaning.is_displayed()
    assert meaning.text


def test_a_touch_near_a_point_says_what_it_is_and_another_one_elsewhere_hides_it(browser: Any, tmp_path: Path) -> None:
    width(browser, 390)
    opened(browser, make_report(controls=controls()), tmp_path)
    tip = browser.find_element("id", "tip")
    assert not tip.is_displayed()
    script = (
        "const c = document.querySelector('circle.refined.big'), b = c.getBoundingClientRect();"
        "c.ownerSVGElement.dispatchEvent(new MouseEvent('click',"
        " {bubbles: true, clientX: b.x + b.width / 2 - 3, clientY: b.y}))"
    )
    browser.execute_script(script)
    assert tip.text.startswith("refined: accuracy 75.1%, MACs 11.0%")
    browser.execute_script("document.querySelector('h1').click()")
    assert not tip.is_displayed()


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def test_the_tab_key_reaches_all_that_can_be_used_in_the_order_of_the_page_and_shows_where_it_is(
    browser: Any, tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    width(browser, 1400)
    opened(browser, make_report(controls=controls()), tmp_path)
    usable = browser.execute_script(
        "window.usable = [...document.querySelectorAll('a[href], button, summary, svg.plot:has(title), [title]')]"
        ".filter((one) => one.checkVisibility()); return usable.length"
    )
    assert usable > 40
    for place in range(usable):
        press(browser, Keys.TAB)
        at, outline = browser.execute_script(
            "const one = document.activeElement; return [usable.indexOf(one), getComputedStyle(one).outline]"
        )
        assert at == place
        assert "solid 2px" in outline


def test_enter_and_the_space_bar_open_and_close_what_is_folded(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    (tmp_path / "page.html").write_text(render(make_report(controls=controls()), "html"), "utf-8")
    browser.get((tmp_path / "page.html").as_uri())
    fold = browser.find_element("css selector", "details:not([open])")
    browser.execute_script("arguments[0].querySelector('summary').focus()", fold)
    for key in (Keys.ENTER, Keys.SPACE):
        press(browser, key)
        assert fold.get_attribute("open")
        press(browser, key)
        assert not fold.get_attribute("open")


def test_with_the_keyboard_notes_are_shown_on_focus_and_points_are_reached_by_arrows(
    browser: Any, tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    width(browser, 1400)
    opened(browser, make_report(controls=controls()), tmp_path)
    tip = browser.find_element("id", "tip")
    notes = browser.execute_script(
        "return [...document.querySelector('svg.plot').querySelectorAll('title')].map((one) => one.textContent)"
    )
    assert len(notes) > 10
    while not browser.execute_script("return document.activeElement.matches('svg.plot')"):
        press(browser, Keys.TAB)
    for note in (notes[0], notes[1], notes[2]):
        assert tip.text == " ".join(note.split())
        assert len(browser.find_elements("css selector", ".plot .at")) == 1
        press(browser, Keys.ARROW_RIGHT)
    press(browser, Keys.END)
    assert tip.text == " ".join(notes[-1].split())
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert tip.text == " ".join(notes[-2].split())
    press(browser, Keys.ESCAPE)
    assert not tip.is_displayed()
    press(browser, Keys.HOME)
    assert tip.text == " ".join(notes[0].split())
    press(browser, Keys.TAB)
    assert browser.find_elements("css selector", ".plot .at") == []
    link = browser.find_element("css selector", "#figures-streams a[title]")
    while browser.execute_script("return document.activeElement !== arguments[0]", link):
        press(browser, Keys.TAB)
    assert tip.text == link.get_attribute("title")


def test_a_tap_opens_a_note_and_another_one_closes_it(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    width(browser, 390)
    opened(browser, make_report(controls=controls()), tmp_path)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        tip = browser.find_element("id", "tip")
        point = browser.find_element("css selector", "circle.refined.big")
        elsewhere = browser.find_element("css selector", "h1")

        def tap(element: Any) -> None:
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            box = browser.execute_script("const b = arguments[0].getBoundingClientRect(); return [b.x, b.y]", element)
            at = [{"x": box[0] + 4, "y": box[1] + 4}]
            browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": at})
            browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        for closing in (elsewhere, point):
            tap(point)
            WebDriverWait(browser, 5).until(lambda _: tip.is_displayed())
            assert tip.text.startswith("refined: accuracy 75.1%")
            tap(closing)
            WebDriverWait(browser, 5).until(lambda _: not tip.is_displayed())
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
