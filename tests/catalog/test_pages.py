"""The catalog in a real browser: by keyboard, on a narrow screen, in the dark; and what it never does."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.testing.servers import RedisServer
from tests.catalog.browser import Browser, browser_in, browser_missing
from tests.catalog.site import CARD, Site, running_site

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

PAGES = (
    "/",
    "/?q=amount",
    "/view/card_activity",
    "/service/card_check",
    "/source/payments",
    "/lineage?of=payments.amount",
)

TOO_PALE = """
const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const box = e.tagName === "g" && e.querySelector("rect");
    const color = parse(box ? getComputedStyle(box).fill : getComputedStyle(e).backgroundColor);
    if (color.length && (color.length < 4 || color[3] === 1)) return color;
  }
  return [255, 255, 255];
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const text = walker.currentNode.textContent.trim();
  if (!text || !element.checkVisibility() || element.closest("title, option")) continue;
  const style = getComputedStyle(element);
  const [one, other] = [light(parse(element.closest("svg") ? style.fill : style.color)), light(ground(element))];
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (contrast < 4.5) found.push(`${element.className} ${text}: ${contrast.toFixed(2)}`);
}
return found;
"""
"""Texts with less contrast than WCAG 2.2 wants (AA, 4.5 to 1)."""


@pytest.fixture(scope="module")
def site(_session_redis: RedisServer, registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for all cases."""
    _session_redis.flush()
    with running_site(registry, _session_redis.url, tmp_path_factory.mktemp("site") / "keys.json") as running:
        yield running


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all cases."""
    missing = browser_missing()
    if missing is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with browser_in(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """On a desk, in daylight; whatever it complains about fails the test."""
    window.resize(1280, 900)
    yield window
    assert [] == window.complaints()


def test_one_finds_a_feature_without_a_mouse(site: Site, browser: Browser) -> None:
    """A slash, some letters, an arrow, Enter: at the feature's row. The address follows what is typed."""
    browser.open(site.address)
    browser.press("/", "email las")
    browser.until("document.querySelectorAll('.entry').length === 1")
    assert browser.run("return location.search") == "?q=email+las"
    browser.press("ArrowDown", "Enter")
    browser.until("location.pathname === '/view/card_activity' && document.querySelector('tr:target')")
    row = browser.run("return document.querySelector('tr:target').innerText")

    assert "newest email in the payments of a card_id" in row.replace("\n", " ")
    browser.run("history.back()")
    browser.until("location.search === '?q=email+las' && document.getElementById('search').value === 'email las'")


def test_filters_narrow_and_are_taken_back(site: Site, browser: Browser) -> None:
    """Each says how many there are; a click on a chosen one opens the rest again."""
    browser.open(f"{site.address}/?q=activity")
    all_there = browser.run("return document.querySelectorAll('.entry').length")
    browser.click(".filters a[href*='merchant-growth']")
    browser.until("document.querySelector('.chip')")
    wanted = int(browser.run("return document.querySelector('.filters a.chosen .count').textContent"))
    assert wanted == browser.run("return document.querySelectorAll('.entry').length") < all_there
    browser.press("/", "count_1d")
    browser.run("document.getElementById('search').value = 'count_1d'; search.dispatchEvent(new Event('input'))")
    browser.until("document.querySelectorAll('.entry').length === 1 && document.querySelector('.chip')")
    browser.click(".filters a.chosen")
    browser.until("!document.querySelector('.chip') && document.querySelectorAll('.entry').length === 2")


def test_a_view_says_what_it_means_and_how_it_is(site: Site, browser: Browser) -> None:
    """Sentences, generations, expectations, ways to ask by arrow keys, and the SQL of a feature."""
    browser.open(f"{site.address}/view/card_activity")
    text = browser.run("return document.querySelector('main').innerText")
    assert "sum of amount in the payments of a card_id over 1 day, exact to 15 min at the old end" in text
    assert "declines_1h / " in text
    assert "serving" in browser.run("return document.querySelector('#now').innerText")
    assert "card_activity@1" in text
    assert "amount >= 0" in text
    assert "500 answers, 0.0% missing, mean 11, median " in text
    assert "Promised: servable within 30.0 s for 99 % of the events; no stream says that it counts." in text
    browser.run("document.querySelector('[role=tab]').focus()")
    browser.press("ArrowRight", "ArrowRight")
    assert "grpcurl" in browser.run("return document.querySelector('[role=tabpanel]:not([hidden])').innerText")
    browser.click("#large_1d summary")
    sql = browser.run("return document.querySelector('#large_1d pre').innerText")
    assert "AS is_large" in sql
    assert "WHERE event_time_ms >= " in sql
    # What a look at the store found is renewed without a reload, and sizes come when they have been measured.
    browser.run("fetch('/view/card_activity/now').then((a) => a.text()).then((t) => { window.now = t })")
    browser.until("window.now && /KiB|\\\\d B/.test(window.now)")


def test_values_are_shown_to_whoever_may_read_them(site: Site, browser: Browser) -> None:
    """By the server's own decision, with the token that is typed, which stays out of the page and its address."""

    def ask(token: str, button: str = "button:not(.second)") -> str:
        browser.run(
            "document.getElementById('answer').replaceChildren();"
            "document.querySelector('[name=\"key.card_id\"]').value = arguments[0];"
            "document.querySelector('[name=\"key.amount\"]').value = '9000';"
            "document.querySelector('[name=token]').value = arguments[1];"
            "document.querySelector('select').value = 'declines_1h';",
            CARD,
            token,
        )
        browser.click(f".try {button}")
        return str(browser.until("document.getElementById('answer').innerText"))

    browser.open(f"{site.address}/service/card_check")
    assert "fraud-model\t7\t1,234" in browser.run("return document.getElementById('callers').innerText")
    drift = browser.run("return document.getElementById('drift').innerText")
    assert "Not as its model knows it: looked at " in drift
    assert "card_activity:declines_1h\t1h\tPSI" in drift
    assert "may be read by\nrole risk" in browser.run("return document.querySelector('.facts').innerText")
    assert "the request does not say who asks" in ask("")
    assert '"risk-model" may not DESCRIBE feature service "card_check"' in ask(site.crm)
    assert len(browser.complaints()) == 2  # the browser notes an answer of 401 and of 403
    values = ask(site.risk)
    assert "count_1h\t4\tpresent\tcard_activity" in values
    assert "declines_1h\t2\tpresent" in values
    assert "amount_to_mean\t12\tpresent\tpayment_habits" in values
    explained = ask(site.risk, "button.second")
    assert "declines_1h = 2" in explained
    assert "event\t" in explained
    page = browser.run("return document.documentElement.outerHTML + location.href")
    assert site.risk not in page


def test_a_lineage_is_walked_by_keyboard(site: Site, browser: Browser) -> None:
    """Boxes of the drawing are links with names, and the same stands below as text with reasons."""
    browser.open(f"{site.address}/lineage?of=payments.amount_in_euro")
    text = browser.run("return document.querySelector('main').innerText")
    assert "computes it: amount_in_euro > 500" in text
    assert "merchant_activity:amount_in_euro_max_7d_offset_1d" in text
    browser.run("document.querySelector('svg a[href=\"/service/merchant_watch\"]').focus()")
    browser.press("Enter")
    browser.until("location.pathname === '/service/merchant_watch'")


def test_what_authors_write_is_text(site: Site, browser: Browser) -> None:
    """Whoever can register a description cannot run a script where others look."""
    browser.open(f"{site.address}/service/card_check")

    assert "<script>alert(1)</script>" in browser.run("return document.querySelector('.lead').innerText")
    assert 1 == browser.run("return document.scripts.length")


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_every_page_can_be_read(site: Site, browser: Browser, width: int, scheme: str) -> None:
    """On a telephone nothing is wider than the screen, in the dark nothing is too pale, and all has names."""
    browser.resize(width, 740, scheme=scheme)
    for page in PAGES:
        browser.open(site.address + page)
        assert browser.run("return document.documentElement.scrollWidth") <= width, page
        assert [] == browser.run(TOO_PALE), page
        nameless = "a, button, input:not([type=hidden]), select"
        assert [] == browser.run(
            "return [...document.querySelectorAll(arguments[0])].filter((one) => one.checkVisibility() &&"
            " !(one.textContent.trim() || one.ariaLabel || one.labels?.length)).map((one) => one.outerHTML)",
            nameless,
        ), page
    assert ["h1"] == browser.run("return [...document.querySelectorAll('h1')].map(() => 'h1')")


def test_pages_are_of_this_process_alone(site: Site) -> None:
    """No script but its own may run, no other site may frame it, name it or send it forms; nothing is changed here."""

    def status(path: str, body: bytes | None = None, **headers: str) -> int:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with urllib.request.urlopen(urllib.request.Request(site.address + path, body, names), timeout=10) as answer:
                policy = answer.headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert 200 == status("/")
    assert 400 == status("/", host="rebound.example")
    assert 403 == status("/service/card_check/lookup", b"key.card_id=c-1", sec_fetch_site="cross-site")
    assert [404, 404, 404] == [
        status(f"/{page}") for page in ("view/nothing", "lineage?of=nothing", "static/../app.py")
    ]
    assert 405 == status("/view/card_activity", b"")
