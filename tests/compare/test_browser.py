"""The page in headless Chromium: what a reader does with mouse, keys and a phone."""

import base64

import pytest

from qaudio.cli import main
from tests.support.browser import chromium
from tests.support.comparison import HOSTILE, LABELS, made

pytestmark = pytest.mark.browser
WIDTHS = (1280, 1000, 390, 320)


@pytest.fixture(scope="module")
def driver():
    """A browser that may not reach anything but this machine's files."""
    with chromium("--force-prefers-reduced-motion") as driver:
        yield driver


class Page:
    """A report in the browser."""

    def __init__(self, driver, path):
        self.driver, self.path = driver, path

    def open(self, width=1280, scheme="light"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get(self.path.as_uri())

    def js(self, code, *arguments):
        return self.driver.execute_script(f"return {code}", *arguments)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def names(self, group=1):
        """Names of the entries that are shown of a group, from the top."""
        return self.js(
            "[...document.querySelectorAll(arguments[0])].filter(row => row.offsetParent)"
            ".map(row => row.cells[0].dataset.value)",
            f"#group{group} .entries tbody tr",
        )

    def keys(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def choose(self, selector, value):
        from selenium.webdriver.support.select import Select

        Select(self.one(selector)).select_by_value(str(value))

    def wide(self):
        """Beginnings of the elements that reach beyond the window's right edge."""
        return self.js(
            "[...document.querySelectorAll('body *')].filter(e => e.offsetParent"
            " && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)"
            ".map(e => e.outerHTML.slice(0, 60))"
        )

    def screenshot(self):
        """PNG of the whole page."""
        size = self.js("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        shot = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
        )
        return base64.b64decode(shot["data"])


@pytest.fixture
def report(driver, tmp_path, capsys):
    """Make a report of folders and open it; fails at the end on anything in the console."""

    def make(folders, *arguments):
        path = tmp_path / "report.html"
        assert main(["compare", *map(str, folders), "--html", str(path), *arguments]) == 0
        page = Page(driver, path)
        page.open()
        return page

    driver.get_log("browser")
    yield make
    assert driver.get_log("browser") == []
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.fixture
def page(report, zoo):
    return report(zoo, "--peers")


def head(page, title, group=1):
    return next(
        button
        for button in page.all(f"#group{group} .entries thead button")
        if button.text.startswith(title)
    )


def sort_of(page, title, group=1):
    return head(page, title, group).find_element("xpath", "..").get_attribute("aria-sort")


def test_rows_sort_by_click(page, comparison):
    members = comparison.groups[1].members
    assert page.names() == [m.name for m in members]
    assert sort_of(page, "accuracy") == "descending"
    head(page, "parameters").click()
    by_params = [m.name for m in sorted(members, key=lambda m: m.params)]
    assert page.names() == by_params
    assert (sort_of(page, "parameters"), sort_of(page, "accuracy")) == ("ascending", None)
    head(page, "parameters").click()
    assert page.names() == by_params[::-1]
    assert sort_of(page, "parameters") == "descending"
    head(page, "accuracy").click()
    assert page.names() == [m.name for m in members]
    for _ in range(2):  # not measured: last, in either order
        head(page, "latency").click()
        assert page.names()[-1] == "tiny.made"
    head(page, "entry").click()
    assert page.names() == sorted(m.name for m in members)
    assert "sorted by entry, ascending" in page.one("#status").text
    assert page.names(0) == ["other.made"]


def test_rows_are_filtered_by_text_and_benchmark(report, zoo, write_entry):
    from selenium.webdriver.common.keys import Keys

    elsewhere = write_entry("far.else", made(9), benchmark="else", license="mit")
    page = report([*zoo, elsewhere])
    assert page.one("#status").text == "6 of 6 entries shown"
    search = page.one("#filter")
    search.send_keys("PRUNED big")
    assert set(page.names(2)) == {"small.made", "tiny.made"}
    assert page.names(0) == page.names(1) == []
    assert page.one("#status").text == "2 of 6 entries shown"
    points = page.all("#group2 .point")
    assert len(points) == 2
    search.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE, "mit")
    assert page.names(0) == ["far.else"]
    search.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE)
    page.choose("#benchmark", "else")
    assert (page.names(0), page.names(1), page.names(2)) == (["far.else"], [], [])
    page.choose("#benchmark", "")
    assert page.one("#status").text == "6 of 6 entries shown"


def test_two_entries_are_compared(page, comparison):
    group = comparison.groups[1]
    a, b = group.members[0], group.members[3]
    selects = "#group1 .pair label:nth-of-type({}) select"
    page.choose(selects.format(1), 3)
    page.choose(selects.format(2), 0)
    found = group.difference(b, a)
    low, high = (f"{100 * bound:+.1f}" for bound in found.interval95)
    verdict = page.one("#group1 .verdict").text
    assert f"{100 * found.mean:+.1f} ({low} to {high}) points" in verdict
    assert "48 clips" in verdict
    assert found.interval95[1] < 0 and "the second is better" in verdict
    costs, classes = page.all("#group1 .outcome table")
    assert f"{b.params / a.params:.2g}×" in costs.text
    rows = [
        row.text.split("\n")[0].split() for row in classes.find_elements("css selector", "tbody tr")
    ]
    assert [row[0] for row in rows] == LABELS
    for row, one, other in zip(rows, b.by_class, a.by_class, strict=True):
        assert row[1] == "12"
        assert float(row[2]) == pytest.approx(100 * one, abs=0.051)
        assert float(row[4]) == pytest.approx(100 * other, abs=0.051)
        assert float(row[6]) == pytest.approx(100 * (one - other), abs=0.051)
    classes.find_elements("css selector", "thead button")[4].click()
    shown = [float(cell.get_attribute("data-value"))
             for cell in classes.find_elements("css selector", "tbody td:last-child")]  # fmt: skip
    assert shown == sorted(shown)
    page.choose(selects.format(1), 0)
    assert "two different entries" in page.one("#group1 .verdict").text


def test_everything_works_by_keyboard(page, comparison):
    from selenium.webdriver.common.keys import Keys

    def focused():
        return page.driver.switch_to.active_element

    page.keys(Keys.TAB)
    assert focused().text == "Skip to the tables"
    page.keys(Keys.TAB)
    assert focused().get_attribute("id") == "filter"
    page.keys("tiny")
    assert page.names() == ["tiny.made"]
    page.keys(*[Keys.BACKSPACE] * 4)
    page.keys(Keys.TAB, Keys.TAB)
    assert focused().text.startswith("entry")
    outline = page.js("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keys(Keys.ENTER)
    assert sort_of(page, "entry", 0) == "ascending"
    page.keys(Keys.SPACE)
    assert sort_of(page, "entry", 0) == "descending"

    page.js("document.querySelector('#group1 .chart select').focus()")
    page.keys(Keys.TAB)
    members = sorted(comparison.groups[1].members, key=lambda m: m.params)
    details = page.one("#group1 .details")
    for member in members:  # by arrow, in order of cost
        assert focused().get_attribute("aria-label").startswith(member.name)
        assert details.text.startswith(member.name)
        assert f"{100 * member.mean:.1f} %" in details.text
        page.keys(Keys.ARROW_RIGHT)
    page.keys(Keys.HOME)
    assert focused().get_attribute("aria-label").startswith(members[0].name)
    page.keys(Keys.TAB)
    assert focused().tag_name == "select"  # one stop for the whole chart


def test_the_chart_shows_every_entry_of_its_table_and_details_on_hover(page, comparison):
    from selenium.webdriver.common.action_chains import ActionChains

    group = comparison.groups[1]
    assert len(page.all("#group1 .point")) == len(group.members)
    assert len(page.all("#group0 .point")) == 1
    point = next(p for p in page.all("#group1 .point")
                 if p.get_attribute("aria-label").startswith("plain.made"))  # fmt: skip
    ActionChains(page.driver).move_to_element(point).perform()
    assert page.one("#group1 .details").text.startswith("plain.made: accuracy ")
    assert "900 k" in page.one("#group1 .details").text
    assert [r.get_attribute("data-member") for r in page.all("#group1 tr.marked")] == [
        str([m.name for m in group.members].index("plain.made"))
    ]
    for key, title in (("macs", "MACs"), ("bytes", "weights"), ("latency", "latency, ms")):
        page.choose("#group1 .chart select", key)
        svg = page.one("#group1 .chart .canvas svg")
        assert f"{title} (log scale)" in svg.text
        having = [m for m in group.members if getattr(m, key) is not None]
        assert len(page.all("#group1 .point")) == len(having)
        assert page.all("#group1 .canvas .front")
    boxes = page.js(
        "[...document.querySelectorAll('#group1 .canvas text')].map(t => t.getBoundingClientRect())"
        ".map(b => [b.left, b.right, b.top, b.bottom])"
    )
    assert not [
        (a, b) for n, a in enumerate(boxes) for b in boxes[:n]
        if a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
    ]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_its_window(page, width, scheme):
    page.open(width, scheme)
    assert page.wide() == []
    assert page.js("document.documentElement.scrollWidth") <= width
    assert page.screenshot().startswith(b"\x89PNG")
    ground = page.js("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("width", [1280, 390])
def test_every_mark_of_a_crowded_chart_is_labelled(report, write_entry, width):
    """By its name, or by a number that the list below explains."""
    names = [f"quite_a_long_name_{n:02}.made" for n in range(24)]
    entries = [
        write_entry(name, made(n % 3, 2.0), params=100_000 + 500 * n, macs=10**6 + n)
        for n, name in enumerate(names)
    ]
    page = report([*entries, write_entry("last.made", made(1))])
    page.open(width)
    marks = page.all("#group0 .point")
    labels = [label.text for label in page.all("#group0 .canvas text.name")]
    assert len(labels) == len(marks) == 25
    numbers = [label for label in labels if label.isdecimal()]
    assert numbers
    listed = [item.text for item in page.all("#group0 .numbers li")]
    assert sorted(map(int, numbers)) == list(range(1, len(listed) + 1))
    plain = [label for label in labels if not label.isdecimal()]
    assert sorted([*plain, *listed]) == sorted([*names, "last.made"])
    assert page.wide() == []
    page.choose("#group0 .chart select", "latency")  # the list is that of what is drawn
    assert len(page.all("#group0 .canvas text.name")) == len(page.all("#group0 .point"))


@pytest.mark.parametrize("width", [390, 320])
def test_units_stay_on_the_line_of_their_number(page, width):
    page.open(width)
    page.js("document.querySelector('#group1 .point').focus()")
    apart = page.js("""(() => {
      const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      const top = (node, at) => {
        const range = document.createRange();
        range.setStart(node, at);
        range.setEnd(node, at + 1);
        const box = range.getClientRects()[0];
        return box && box.bottom;
      };
      let seen = 0;
      for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        if (!node.parentElement.checkVisibility() || node.parentElement.closest("svg, header"))
          continue;
        for (const match of node.data.matchAll(/\\d\\s(%|ms|[kMG]\\b|±)|±\\s\\d/g)) {
          seen += 1;
          const [one, two] = [top(node, match.index), top(node, match.index + 2)];
          if (Math.abs(one - two) > 3) found.push(node.data);
        }
      }
      return [seen, found];
    })()""")
    assert apart[0] > 20
    assert apart[1] == []


def test_tables_stay_tables_for_screen_readers_on_a_phone(page):
    page.open(390)
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [node["role"]["value"] for node in tree if "role" in node and not node.get("ignored")]
    assert roles.count("table") >= 4
    assert roles.count("rowheader") >= 5
    assert roles.count("columnheader") >= 18
    named = [node for node in tree if node.get("role", {}).get("value") == "table"]
    assert any("two folds" in node["name"]["value"] for node in named)


def test_hostile_texts_do_nothing(report, hostile):
    page = report(hostile)
    page.choose("#group0 .pair label:nth-of-type(1) select", 1)
    page.choose("#group0 .pair label:nth-of-type(2) select", 0)
    page.js("document.querySelector('#group0 .point').focus()")
    assert page.js("window.hacked") is None
    assert page.all("img") == []
    assert len(page.all("script")) == 2
    assert any(HOSTILE in cell.text.replace("\n", "") for cell in page.all("#group0 tbody th"))
    assert HOSTILE in page.one("#group0 .outcome table:last-of-type tbody th").text
    page.open(390)
    assert page.wide() == []


def test_tables_can_be_read_without_javascript(page):
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.open()
        assert "big.made" in page.one("#group1 .entries").text
        assert not page.one("#group1 .chart").is_displayed()
        assert "need JavaScript" in page.one("noscript").text
    finally:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        page.open()
