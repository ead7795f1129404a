"""The page in a real browser: what is shown, by mouse and by keys, of hostile records too."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import logengine
from tests.daemon import Daemon
from tests.reading.streams import line, seal, write_stream
from tests.web import chromium
from tests.web.served import Served

pytestmark = pytest.mark.skipif(
    chromium.find() is None, reason="there is no Chromium: python -m tests.web.chromium fetches one"
)
LEVELS = ("debug", "info", "warning", "error")
COUNT = 3000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium.browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of 3,000 records of `app`, a few of `web`, and a hole."""
    data = tmp_path_factory.mktemp("page") / "data"
    lines = [record(n) for n in range(1, COUNT + 1)]
    write_stream(data, "app", *[lines[start : start + 500] for start in range(0, COUNT, 500)])
    write_stream(data, "web", [record(n) for n in range(1, 4)])
    with Served(data) as served:
        yield served.url


def record(number: int) -> bytes:
    level = "error" if number % 1000 == 500 else LEVELS[number % 3]
    fields = {"level": level, "event": f"event {number}", "user": "ann" if number % 2 else "bob"}
    return line(number, number * 59 // COUNT, f",{json.dumps(fields)[1:-1]}")


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    yield from opened(browser, url)


def opened(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """The page, once it shows records. No script may fail, nor break the page's policy."""
    context = browser.new_context(**options)
    page = context.new_page()
    mistakes: list[str] = []
    page.on("pageerror", lambda error: mistakes.append(str(error)))
    page.on("dialog", lambda dialog: mistakes.append("a dialog"))
    page.on("console", lambda message: note(mistakes, message))
    page.goto(url)
    page.wait_for_selector(".row")
    yield page
    context.close()
    assert mistakes == []


def note(mistakes: list[str], message: Any) -> None:
    if message.type == "error" and "status of 4" not in message.text:
        mistakes.append(message.text)


def shown(page: Any) -> list[str]:
    """The messages of the rows that are visible."""
    return page.evaluate(  # type: ignore[no-any-return]
        """() => {
            const box = document.querySelector("#log").getBoundingClientRect();
            return [...document.querySelectorAll(".row")].filter((row) => {
                const own = row.getBoundingClientRect();
                return own.bottom > box.top + 1 && own.top < box.bottom - 1;
            }).map((row) => row.querySelector(".message")?.textContent || "");
        }"""
    )


def until(page: Any, condition: str) -> None:
    """Waits for a JavaScript expression; as a function, which needs no `eval`."""
    page.wait_for_function(f"() => {condition}")


def wait_shown(page: Any, message: str) -> None:
    messages = "[...document.querySelectorAll('.message')].map((each) => each.textContent)"
    until(page, f"{messages}.includes({json.dumps(message)})")


def wait_chosen(page: Any, message: str) -> None:
    text = "document.querySelector('[aria-selected=true] .message')?.textContent"
    until(page, f"{text} === {json.dumps(message)}")


def chosen(page: Any) -> str:
    return str(page.locator("[aria-selected=true] .message").inner_text())


def test_the_newest_records_are_shown_first(page: Any) -> None:
    assert shown(page)[-1] == f"event {COUNT}"
    assert "token" not in page.url
    assert page.evaluate("document.cookie") == ""


def test_the_keys_g_show_the_first_and_the_newest(page: Any) -> None:
    page.keyboard.press("g")
    wait_shown(page, "event 1")
    until(page, "document.querySelector('#log').scrollTop < 5")
    assert "event 1" in shown(page)
    page.keyboard.press("Shift+G")
    wait_shown(page, f"event {COUNT}")
    until(page, "document.querySelector('#live').textContent === 'Live'")


def test_a_key_that_is_pressed_while_the_page_loads_acts_on_what_it_will_show(page: Any) -> None:
    held = """() => {
        const real = window.fetch;
        const goesOn = new Promise((go) => { window.goOn = go; });
        window.fetch = async (...asked) => { await goesOn; return real(...asked); };
    }"""
    page.evaluate(held)
    page.keyboard.press("g")
    page.keyboard.press("Enter")
    assert page.locator("#record").is_hidden()
    page.evaluate("() => window.goOn()")
    page.wait_for_selector("#record:not([hidden])")
    assert chosen(page) == "event 1"


def test_keys_select_open_and_close_a_record(page: Any) -> None:
    page.keyboard.press("j")
    assert chosen(page) == f"event {COUNT}"
    for _ in range(3):
        page.keyboard.press("k")
    assert chosen(page) == f"event {COUNT - 3}"
    page.keyboard.press("Enter")
    page.wait_for_selector("#record:not([hidden])")
    assert page.locator("#record-name").inner_text() == f"app:{COUNT - 3}"
    page.keyboard.press("Escape")
    assert page.locator("#record").is_hidden()


def test_a_filter_by_keys_and_its_mistake_in_its_place(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("level >= error")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.row').length === 3")
    assert shown(page) == ["event 500", "event 1500", "event 2500"]
    assert "where=level" in page.url
    page.keyboard.press("/")
    page.keyboard.press("Control+A")
    page.keyboard.type("level => error")
    page.keyboard.press("Enter")
    page.wait_for_selector("#mistake:not([hidden])")
    assert "^^" in page.locator("#mistake").inner_text()


def test_the_next_error_and_what_is_around_it(page: Any) -> None:
    page.keyboard.press("Shift+E")
    wait_chosen(page, "event 2500")
    page.keyboard.press("Shift+E")
    wait_chosen(page, "event 1500")
    assert "event 1499" in shown(page)
    assert "event 1501" in shown(page)


def test_context_is_the_same_place_without_the_filter(page: Any, url: str) -> None:
    page.goto(f"{base(url)}/?where=n%3D1700")
    wait_shown(page, "event 1700")
    page.locator(".row").first.click()
    page.keyboard.press("c")
    wait_shown(page, "event 1701")
    wait_shown(page, "event 1699")
    assert chosen(page) == "event 1700"
    page.go_back()
    until(page, "document.querySelectorAll('.row').length === 1")


def test_a_link_shows_its_record_in_its_place(page: Any, url: str) -> None:
    page.goto(f"{base(url)}/?at=app:1234")
    page.wait_for_selector("[aria-selected=true]")
    assert chosen(page) == "event 1234"
    visible = shown(page)
    assert {"event 1230", "event 1234", "event 1240"} <= set(visible)


def test_a_link_to_a_record_that_is_not_there_says_so(page: Any, url: str) -> None:
    page.goto(f"{base(url)}?at=app:99999")
    until(page, "document.querySelector('#status').textContent.includes('no record app:99999')")


def test_a_page_that_cannot_follow_is_not_called_live(page: Any, url: str) -> None:
    until(page, "document.querySelector('#live').textContent === 'Live'")
    page.goto(f"{base(url)}?where=level+%3E%3E+3")
    until(page, "document.querySelector('#mistake').textContent.includes('>> is not')")
    assert page.locator("#live").text_content() == "Not live"
    page.locator("#where").fill("")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#live').textContent === 'Live'")


def test_scrolling_up_reaches_the_first_record_with_few_rows_in_the_document(page: Any) -> None:
    page.evaluate(
        """() => new Promise((done) => {
            const log = document.querySelector("#log");
            const step = () => {
                const first = document.querySelector(".row .message")?.textContent;
                if (first === "event 1" && log.scrollTop === 0) return done();
                log.scrollTop = Math.max(0, log.scrollTop - 2000);
                setTimeout(step, 5);
            };
            step();
        })"""
    )
    assert page.locator(".row").count() <= 800
    assert shown(page)[0] == "event 1"
    numbers = page.evaluate(
        """() => [...document.querySelectorAll(".row")].map((row) => row.id)
            .filter((id) => id.startsWith("row-app-")).map((id) => Number(id.slice(8)))"""
    )
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_rail_leads_anywhere(page: Any) -> None:
    box = page.locator("#rail").bounding_box()
    page.mouse.click(box["x"] + 5, box["y"] + box["height"] / 2)
    page.wait_for_function(
        """() => {
            const text = document.querySelector(".row .message")?.textContent || "";
            return Number(text.slice(6)) > 100 && Number(text.slice(6)) < 2500;
        }"""
    )


def test_a_range_of_the_histogram_is_chosen_by_dragging(page: Any) -> None:
    until(page, "document.querySelector('#bars-note').textContent.includes('3,003')")
    box = page.locator("#bars").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 20)
    page.mouse.up()
    until(page, "location.search.includes('since=')")
    page.wait_for_selector(".row")
    assert page.locator("#since").input_value().startswith("2026-11-23T20:00:")
    page.keyboard.press("Escape")
    until(page, "!location.search.includes('since=')")


def test_bars_that_were_counted_by_headers_get_their_levels(browser: Any, tmp_path: Path) -> None:
    write_stream(tmp_path, "app", [record(n) for n in range(1, COUNT + 1)])
    seal(tmp_path, "app", 4000)
    with Served(tmp_path) as served:
        for page in opened(browser, served.url):
            until(page, "histogram.isLast && histogram.counts.size && !histogram.totals")
            assert "3,000 records ·" in page.locator("#bars-note").text_content()
            page.locator("#bars").hover()
            tip = page.locator("#bars-tip").text_content()
            assert re.search(r"(debug|info) +[0-9]", tip)
            assert "…" not in tip


def test_a_value_narrows_the_filter(page: Any) -> None:
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.locator("#record-fields button[title='only user == \"bob\"']").click()
    until(page, "location.search.includes('where=user')")
    page.wait_for_selector(".row")
    assert all(int(each.split()[1]) % 2 == 0 for each in shown(page) if each)


def test_space_pauses_and_goes_on(browser: Any, daemon: Daemon) -> None:
    with logengine.Client("app", socket=daemon.socket) as client:
        client.send({"event": "first"})
        client.flush()
        with Served(daemon.data) as served:
            for page in opened(browser, served.url):
                client.send({"event": "second"})
                wait_shown(page, "second")
                page.keyboard.press(" ")
                client.send({"event": "third"})
                until(page, "!document.querySelector('#newer').hidden")
                assert shown(page) == ["first", "second"]
                page.keyboard.press(" ")
                wait_shown(page, "third")


def test_what_was_left_out_while_live_is_said_and_can_be_read(page: Any, url: str) -> None:
    event = {"rows": [], "dropped": 1234, "dropped_from": {"app": 2345}}
    body = f"data: {json.dumps(event)}\n\n"
    page.route(
        "**/api/live*", lambda route: route.fulfill(content_type="text/event-stream", body=body)
    )
    page.goto(base(url))
    page.wait_for_selector(".gap")
    assert "1,234 records came faster" in page.locator(".gap").first.inner_text()
    page.locator(".gap button").first.click()
    wait_shown(page, "event 2345")
    assert "event 2345" in shown(page)
    until(page, "document.querySelector('#live').textContent === 'Paused'")


def test_lines_are_wrapped_on_request(page: Any) -> None:
    page.keyboard.press("w")
    until(page, "document.querySelector('#log.wrapped')")
    assert shown(page)
    page.keyboard.press("w")
    until(page, "!document.querySelector('#log.wrapped')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_system_is(browser: Any, url: str, scheme: str) -> None:
    for page in opened(browser, url, color_scheme=scheme):
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        darkest = max(int(each) for each in colour[4:-1].split(","))
        assert (darkest < 64) == (scheme == "dark")


def test_everything_fits_a_small_screen(browser: Any, url: str) -> None:
    for page in opened(browser, url, viewport={"width": 360, "height": 640}, has_touch=True):
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert len(shown(page)) > 5
        for name in ("#where", "#live", "#streams", "#help-open"):
            box = page.locator(name).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
        page.locator(".row").last.click()
        page.keyboard.press("Enter")
        page.wait_for_selector("#record:not([hidden])")
        assert page.locator("#record").bounding_box()["width"] == 360


def test_every_control_has_a_name_and_the_log_is_not_read_aloud(page: Any) -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button:not([hidden])")]
            .filter((each) => !each.ariaLabel && !each.textContent.trim() && !each.closest("label"))
            .map((each) => each.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("#log").get_attribute("aria-live") == "off"


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<svg onload=alert(1)><style>*{display:none}</style>",
    "javascript:alert(1)",
    "\x1b[31mred\x1b]0;title\x07\x1b[2J",
    "user\u202etxt.exe\u2066\u200f",
    "\u2028\u2029\x00\x7f\x85",
    "&lt;script&gt;{{7*7}}${7*7}",
    "\u0301" * 500,
    "\ud800",
    "a\n" * 3000,
    "W" * 10_000,
)


@pytest.fixture(scope="module")
def hostile_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of 1,000 hostile records; every 250th has 1 MiB."""
    data = tmp_path_factory.mktemp("hostile") / "data"
    lines = []
    for n in range(1, 1001):
        text = HOSTILE[n % len(HOSTILE)] if n % 250 else "<b>" * 349_000
        fields = {
            "event": text,
            text[:200]: text,
            "_x": {text[:60]: [text[:99]]},
            "level": text[:9],
        }
        lines.append(line(n, n * 59 // 1000, f",{json.dumps(fields)[1:-1]}"))
    write_stream(data, "app", lines)
    with Served(data) as served:
        yield served.url


def test_a_thousand_hostile_records_are_text(browser: Any, hostile_url: str) -> None:
    for page in opened(browser, hostile_url):
        page.keyboard.press("g")
        seen: set[int] = set()
        page.wait_for_selector("#row-app-1")
        while len(seen) < 1000:
            seen |= set(
                page.evaluate(
                    """() => {
                        const log = document.querySelector("#log");
                        log.scrollTop = log.scrollHeight;
                        const rows = [...document.querySelectorAll(".row")];
                        return rows.map((row) => Number(row.id.slice(8)));
                    }"""
                )
            )
            page.wait_for_timeout(10)
        strange = page.evaluate(
            """() => [...document.querySelectorAll("#log *")].map((each) => each.tagName)
                .filter((name) => !["DIV", "SPAN"].includes(name))"""
        )
        assert strange == []
        text = page.locator("#log").inner_text()
        assert "<img src=x onerror=alert(1)>" in text
        assert not set(text) & set("\x1b\x07\u202e\u2066\u200f\u2028\x00\x7f")
        heights = page.evaluate(
            """() => Math.max(...[...document.querySelectorAll(".row")]
                .map((row) => row.offsetHeight))"""
        )
        assert heights < 40
        page.locator("#row-app-750").scroll_into_view_if_needed()
        page.locator("#row-app-750").click()
        page.keyboard.press("Enter")
        page.wait_for_selector("#record:not([hidden])")
        assert page.locator("#record b").count() == 0


def base(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
