"""The page's server: who may ask, what it answers, and how much it takes upon itself."""

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import CookieJar, web
from aiohttp.test_utils import TestClient, TestServer

import logengine
from logengine.format.block import Block
from logengine.format.segment import segment_name
from logengine.web import answers, app
from logengine.web.access import Access
from logengine.web.answers import Answer, Answers, Cancelled
from logengine.web.app import Page
from logengine.web.filtering import FilterProcesses
from logengine.web.level_counts import LevelCounts
from logengine.web.query import Query, parse_query
from tests.daemon import PATIENCE_S, Daemon
from tests.reading.streams import at, damage, line, seal, write_stream

TOKEN = "s3cret-token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
PAGE = Path(app.__file__).parent / "page"
PROTECTING = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Connect = Callable[[Path], Any]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """A client of the page of a data directory."""
    clients: list[Any] = []

    async def connect(data: Path, access: Access | None = None) -> Any:
        access = access or Access(TOKEN, "logengine-0")
        server = TestServer(Page(Answers(data), access).application())
        clients.append(TestClient(server, cookie_jar=CookieJar(unsafe=True)))
        await clients[-1].start_server()
        return clients[-1]

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Records of two streams, mixed in time."""
    data = tmp_path / "data"
    levels = ("info", "warning", "error")
    lines = [line(n, n, f',"level":"{levels[n % 3]}"') for n in range(1, 13)]
    write_stream(data, "app", lines[:4], lines[4:8], lines[8:])
    write_stream(data, "web", [line(n, 2 * n) for n in range(1, 8)])
    return data


@pytest.fixture
async def page(connect: Connect, data: Path) -> Any:
    return await connect(data)


async def ask(page: Any, path: str, status: int = 200) -> Any:
    response = await page.get(path, headers=HEADERS)
    text = await response.text()
    assert response.status == status, text
    return json.loads(text)


def seqs(answer: Any) -> list[tuple[str, int]]:
    return [(row["stream"], row["seq"]) for row in answer["rows"] if "seq" in row]


ADDRESSES = ("/", "/page.js", "/page.css", "/api/streams", "/api/records", "/api/live")


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("cookie", [None, "", "wrong", TOKEN[:-1]])
async def test_nobody_gets_anything_without_the_token(
    page: Any, path: str, cookie: str | None
) -> None:
    headers = {} if cookie is None else {"Cookie": f"logengine-0={cookie}"}
    response = await page.get(path, headers=headers)
    assert response.status == 403
    assert "app" not in await response.text()


async def test_the_token_goes_from_the_address_into_a_cookie(page: Any) -> None:
    response = await page.get(f"/?token={TOKEN}&where=n%3D1", allow_redirects=False)
    assert response.status == 303
    assert response.headers["Location"] == "/?where=n%3D1"
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert (await page.get("/api/streams")).status == 200


async def test_a_wrong_token_gives_no_cookie(page: Any) -> None:
    response = await page.get("/?token=wrong", allow_redirects=False)
    assert response.status == 403
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
async def test_another_name_is_refused_even_with_the_token(page: Any, host: str) -> None:
    response = await page.get("/api/records", headers={**HEADERS, "Host": host})
    assert response.status in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:1", "[::1]", "[::1]:80"])
async def test_names_of_this_machine_are_let_in(page: Any, host: str) -> None:
    response = await page.get("/api/streams", headers={**HEADERS, "Host": host})
    assert response.status == 200


@pytest.mark.parametrize(
    "header",
    [
        *({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site")),
        *({"Origin": origin} for origin in ("http://evil.example", "http://localhost:1", "null")),
    ],
)
async def test_other_pages_are_refused(page: Any, header: dict[str, str]) -> None:
    headers = {"Host": "localhost:8514", "Cookie": f"logengine-0={TOKEN}"}
    assert (await page.get("/api/records", headers=headers | header)).status == 403
    headers["Origin"] = "http://localhost:8514"
    assert (await page.get("/api/records", headers=headers)).status == 200


@pytest.mark.parametrize("path", [*ADDRESSES[:5], "/nothing", "/api/records?where=%3D%3D"])
async def test_every_answer_protects_the_page(page: Any, path: str) -> None:
    for headers in (HEADERS, {}):
        response = await page.get(path, headers=headers)
        assert PROTECTING.items() <= dict(response.headers).items()
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_the_page_has_no_inline_script_and_nothing_from_elsewhere() -> None:
    html = (PAGE / "index.html").read_text()
    script = (PAGE / "page.js").read_text()
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", html) == []
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script) == []
    )
    for name in ("index.html", "page.js", "page.css"):
        assert re.findall(r"https?://|@import|url\(", (PAGE / name).read_text()) == []


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
async def test_nothing_can_be_changed(page: Any, method: str) -> None:
    response = await getattr(page, method)("/api/records", headers=HEADERS)
    assert response.status == 405


async def test_pages_go_back_and_forward_through_all_records(page: Any, data: Path) -> None:
    every = [(each.stream, each.seq) for each in logengine.read(data=data)]
    back: list[tuple[str, int]] = []
    answer = await ask(page, "/api/records?limit=5")
    while True:
        back = seqs(answer) + back
        if answer["is_last"]:
            break
        answer = await ask(page, f"/api/records?limit=5&from={answer['begin']}")
    assert back == every
    answer = await ask(page, f"/api/records?limit=500&direction=after&from={answer['begin']}")
    assert seqs(answer) == every


async def test_a_cursor_is_a_place(page: Any) -> None:
    answer = await ask(page, "/api/records?at=app:7&direction=after&limit=1")
    assert seqs(answer) == [("app", 7)]


async def test_the_filter_is_that_of_the_command_line(page: Any) -> None:
    answer = await ask(page, "/api/records?where=level%20%3E%3D%20error&stream=app")
    assert seqs(answer) == [("app", seq) for seq in (2, 5, 8, 11)]
    answer = await ask(page, "/api/records?text=%22N%22:12")
    assert seqs(answer) == [("app", 12)]


async def test_a_mistake_in_an_expression_is_shown_in_its_place(page: Any) -> None:
    answer = await ask(page, "/api/records?where=level%20%3D%3E%20warning", 400)
    assert "=> is not an operator" in answer["error"]
    assert answer["expression"].splitlines()[1].strip() == "^^"


@pytest.mark.parametrize(
    "query",
    [
        *("nothing=1", "limit=x", "limit=" + "9" * 400, "direction=up", "since=never", "from=x"),
        *("at=app", "time=x", "every=nan", "every=0", "from=" + "a:1," * 300, "at=app:1&time=0"),
        *(
            "limit=1&limit=2",
            "stream=../etc",
            "where=(((",
            "since=9999-99-99",
            "from=a:" + "9" * 30,
        ),
    ],
)
async def test_what_is_not_understood_is_refused(page: Any, query: str) -> None:
    for path in ("records", "histogram", "live"):
        assert (await ask(page, f"/api/{path}?{query}", 400))["error"]


async def test_a_stream_that_does_not_exist_is_named(page: Any) -> None:
    assert "'none'" in (await ask(page, "/api/records?stream=none", 404))["error"]


async def test_gaps_and_damage_are_rows(page: Any, data: Path) -> None:
    (data / "app" / segment_name(5)).unlink()
    damage(data, "web", 1)
    rows = (await ask(page, "/api/records"))["rows"]
    gaps = {(row["stream"], row["gap"], row["first"], row["last"]) for row in rows if "gap" in row}
    assert gaps == {("app", "missing", 5, 8), ("web", "damaged", 1, 7)}


async def test_a_record_is_shown_whole_with_conditions_to_choose_by(page: Any) -> None:
    record = (await ask(page, "/api/record?at=app:3"))["record"]
    assert ["n", "3", "n == 3"] in record["fields"]
    assert ["level", "info", 'level == "info"'] in record["fields"]
    assert json.loads(record["line"])["n"] == 3
    assert "no record app:99" in (await ask(page, "/api/record?at=app:99", 404))["error"]


async def test_the_histogram_counts_by_time_and_level(page: Any) -> None:
    answer = await ask(page, "/api/histogram?every=10&stream=app")
    counts = {(start, level): count for start, level, count in answer["counts"]}
    assert answer["is_last"]
    assert sum(counts.values()) == 12
    assert counts[at(0), 5] == 3  # errors 2, 5 and 8
    answer = await ask(page, f"/api/histogram?every=10&since={at(4)}&until={at(7)}")
    assert sum(count for _, _, count in answer["counts"]) == 3 + 2


@pytest.fixture
async def sealed_page(connect: Connect, data: Path) -> Any:
    seal(data, "app", 120)
    return await connect(data)


async def test_a_first_histogram_counts_what_is_in_one_bar_without_reading_it(
    sealed_page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    add = LevelCounts.add

    def counted(counts: LevelCounts, block: Block) -> None:
        read.append(block.first)
        add(counts, block)

    monkeypatch.setattr(LevelCounts, "add", counted)
    first = await ask(sealed_page, "/api/histogram?every=10&stream=app&levels=later")
    assert first["is_last"]
    assert sum(count for start, _, count in first["counts"] if start == at(0)) == 9
    assert any(level == -2 for _, level, _ in first["counts"])
    assert len(read) == 1  # the frame that is in two bars
    whole = await ask(sealed_page, "/api/histogram?every=10&stream=app")
    assert len(read) > 1
    assert {(start, level): count for start, level, count in whole["counts"]} == {
        (at(0), 2): 3,
        (at(0), 4): 3,
        (at(0), 5): 3,
        (at(10), 2): 1,
        (at(10), 4): 1,
        (at(10), 5): 1,
    }
    del read[:]
    for more in ("", "&levels=later"):  # by now all levels are known
        assert await ask(sealed_page, f"/api/histogram?every=10&stream=app{more}") == whole
    assert not read


@pytest.mark.parametrize("every", [1, 2, 5, 10, 60])
@pytest.mark.parametrize("times", ["", f"&since={at(3)}&until={at(10)}"])
async def test_what_is_remembered_of_levels_is_what_is_read(
    connect: Connect, data: Path, every: int, times: str
) -> None:
    query = f"/api/histogram?stream=app&every={every}{times}"
    plain = await ask(await connect(data), query)
    seal(data, "app", 120)
    page = await connect(data)
    totals = Counter[str]()
    for start, _, count in (await ask(page, f"{query}&levels=later"))["counts"]:
        totals[start] += count
    for _ in range(2):
        found = await ask(page, query)
        assert found["counts"] == plain["counts"]
        for start, _, count in found["counts"]:
            totals[start] -= count
        assert not any(totals.values())
        totals.clear()
        for start, _, count in found["counts"]:
            totals[start] += count


async def test_a_long_search_answers_in_time_and_says_where_to_go_on(
    page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_PAGE_S_MAX", 0)
    monkeypatch.setattr(answers, "_HISTOGRAM_S_MAX", 0)
    found, counted = [], 0
    place, is_last = "", False
    while not is_last:
        answer = await ask(page, f"/api/records?where=n%3D%3D1{place}")
        found += seqs(answer)
        place, is_last = f"&from={answer['begin']}", answer["is_last"]
    assert sorted(found) == [("app", 1), ("web", 1)]
    place, is_last = "", False
    while not is_last:
        answer = await ask(page, f"/api/histogram?every=10{place}")
        counted += sum(count for _, _, count in answer["counts"])
        place, is_last = f"&from={answer['from']}", answer["is_last"]
    assert counted == 12 + 7


def test_reading_ends_when_nobody_waits_for_it(data: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()
    now = logengine.local_zone.local_now()
    query = parse_query([("where", "n == 99"), ("limit", "5")], now)
    with pytest.raises(Cancelled):
        Answers(data).records(query, cancelled)


async def test_reading_ends_when_its_client_leaves(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    began, ended = asyncio.Event(), threading.Event()

    def read_long(_self: Answers, _query: Query, cancelled: threading.Event) -> Answer:
        loop.call_soon_threadsafe(began.set)
        if cancelled.wait(PATIENCE_S):
            ended.set()
        return {}

    monkeypatch.setattr(Answers, "records", read_long)
    runner = Page(Answers(data), Access(TOKEN, "logengine-0")).runner()
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(
            b"GET /api/records HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n"
            % TOKEN.encode()
        )
        await began.wait()
        writer.close()
        await writer.wait_closed()
        assert await asyncio.to_thread(ended.wait, PATIENCE_S)
    finally:
        await runner.cleanup()


async def test_requests_that_would_wait_too_long_are_refused(
    page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "WAITING_MAX", 0)
    await ask(page, "/api/records", 503)


async def test_new_records_arrive_by_themselves(connect: Connect, daemon: Daemon) -> None:
    with logengine.Client("app", socket=daemon.socket) as client:
        client.send({"n": 1})
        client.flush()
        page = await connect(daemon.data)
        end = (await ask(page, "/api/records"))["end"]
        async with page.get(f"/api/live?from={end}&where=n%3E5", headers=HEADERS) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            client.send({"n": 2})
            client.send({"n": 7, "event": "<b>new</b>"})
            rows = await next_rows(response)
            assert [(row["seq"], row["message"]) for row in rows] == [(3, "<b>new</b>")]
            with logengine.Client("other", socket=daemon.socket) as other:
                other.send({"n": 8})
                other.flush()
            assert [row["stream"] for row in await next_rows(response)] == ["other"]


async def next_rows(response: Any) -> Any:
    while True:
        text = await response.content.readline()
        assert text, "the events ended"
        if text.startswith(b"data: "):
            return json.loads(text[6:])["rows"]


async def test_only_so_many_pages_are_live(
    connect: Connect, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "LIVE_PAGES_MAX", 1)
    page = await connect(data)
    async with page.get("/api/live", headers=HEADERS) as response:
        assert response.status == 200
        await ask(page, "/api/live", 503)


async def test_only_so_many_pages_become_live_at_once(
    connect: Connect, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "LIVE_PAGES_MAX", 2)
    page = await connect(data)
    responses = await asyncio.gather(*[page.get("/api/live", headers=HEADERS) for _ in range(6)])
    assert sorted(response.status for response in responses) == [200, 200, 503, 503, 503, 503]
    for response in responses:
        response.close()


async def test_bytes_that_are_not_http_are_not_logged(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Page(Answers(data), Access(TOKEN, "logengine-0")).runner()
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        for junk in (b"\x16\x03\x01\x02\r\n\r\n", b"GET /%s HTTP/1.1\r\n" % (b"a" * 70_000)):
            reader, writer = await asyncio.open_connection(*runner.addresses[0])
            writer.write(junk)
            assert b" 400 " in await reader.readline()
            writer.close()
    finally:
        await runner.cleanup()
    assert caplog.text == ""


def hostile(number: int) -> bytes:
    """A stored line that would like to be more than text."""
    texts = (
        "<img src=x onerror=alert(1)>",
        "</script><script>alert(1)</script>",
        "\x1b[31mred\x1b]0;title\x07",
        "user\u202etxt.exe\u2066",
        "\u2028\u2029\x00\x7f",
        "&lt;&#60;{{7*7}}${7*7}",
        "x" * 1_048_000,
        "\ud800",
    )
    text = texts[number % len(texts)]
    fields = {"event": text, text[:100]: text, "level": text[:50], "_nested": {text[:60]: [text]}}
    return line(number, number % 60, f",{json.dumps(fields)[1:-1]}")


async def test_hostile_records_are_plain_text(connect: Connect, tmp_path: Path) -> None:
    write_stream(tmp_path / "data", "app", [hostile(n) for n in range(1, 17)])
    page = await connect(tmp_path / "data")
    place, found = "", 0
    while found < 16:
        response = await page.get(f"/api/records?{place}", headers=HEADERS)
        body = await response.text()
        assert (
            re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", body) is None
        )
        answer = json.loads(body)
        found += len(answer["rows"])
        assert len(body) < 8_000_000
        place = f"from={answer['begin']}"
    for seq in range(1, 9):
        record = (await ask(page, f"/api/record?at=app:{seq}"))["record"]
        text = json.dumps(record, ensure_ascii=False)
        assert re.search("[\x1b\x07\u202e\u2066\u2028]", text) is None


# Of ninety letters, this would try every way to part them.
EXPONENTIAL = urlencode({"stream": "slow", "where": "m ~ '^(a+)+$'"})


@pytest.fixture
async def slow_page(connect: Connect, data: Path) -> Any:
    """The page of a directory with a record for which an expression takes forever."""
    write_stream(data, "slow", [line(1, 1, f',"m":"{"a" * 90}!"')])
    return await connect(data)


async def test_an_expression_that_takes_forever_is_refused_and_holds_up_nobody(
    slow_page: Any,
) -> None:
    asking = asyncio.create_task(ask(slow_page, f"/api/records?{EXPONENTIAL}", 400))
    others = urlencode({"stream": "app", "where": "level ~ '^err'"})
    assert len(seqs(await ask(slow_page, f"/api/records?{others}"))) == 4
    assert not asking.done()
    assert "exponential time" in (await asking)["error"]
    again = urlencode({"stream": "slow", "where": "m ~ '!$'"})
    assert seqs(await ask(slow_page, f"/api/records?{again}")) == [("slow", 1)]


async def test_a_live_page_is_told_of_an_expression_that_takes_forever(slow_page: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        path = f"/api/live?{EXPONENTIAL}&from=slow:1"
        response = await slow_page.get(path, headers=HEADERS)
        assert "exponential time" in await response.text()


@pytest.mark.parametrize("where", ["level ~ '^err'", "not n !~ '^1'", "level ~ x or n == 2"])
async def test_regular_expressions_choose_as_on_the_command_line(
    page: Any, data: Path, where: str
) -> None:
    found = seqs(await ask(page, f"/api/records?{urlencode({'where': where, 'text': 'N'})}"))
    assert found == [(each.stream, each.seq) for each in logengine.read(where=where, data=data)]


async def test_processes_that_filter_end_with_the_page() -> None:
    processes = FilterProcesses()
    chosen = processes.filter(["m ~ '!$'"], None)
    assert list(chosen.ranges(b'{"m":"a!"}\n{"m":"b"}\n')) == [(0, 11)]
    (process,) = processes._idle
    processes.close()
    assert process.returncode is not None
