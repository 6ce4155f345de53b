"""The log at the admin API: filters, both directions, and exports that can be gone on with."""

from __future__ import annotations

import csv
import gzip
import io
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
import zstandard

from tests.fakes.house import House
from tests.fakes.provider import FakeProvider
from tokenhub_core.http import exporting
from tokenhub_core.http import log as pages
from tokenhub_core.store import faults
from tokenhub_core.store.rows import COLUMNS


@pytest_asyncio.fixture
async def logged(it: House, fake: FakeProvider) -> House:
    """Three calls: one that was served, one with a name like a formula, one that failed."""
    await it.provider(fake, "p", "gpt-4o")
    await it.chat()
    await it.chat('=HYPERLINK("http://x","y")')
    fake.script("gpt-4o", ["500"] * 20)
    await it.chat(headers={"user-agent": "robot/1.0"})
    return it


async def exported(it: House, query: str = "") -> bytes:
    told = await it.admin("GET", f"/logs/export{query}")
    assert told.status == 200, told.body
    return told.body


async def test_the_log_is_filtered_by_what_its_rows_say(logged: House) -> None:
    """Program, status, the text of errors, time; the newest first."""
    rows = (await logged.done("GET", "/logs"))["logs"]
    seqs = [row["seq"] for row in rows]
    for query, wanted in (
        ("program=robot/1.0", seqs[:1]),
        ("status=200", seqs[2:]),
        ("status=5xx", seqs[:1]),
        ("status=404", seqs[1:2]),
        ("error=not_FOUND", seqs[1:2]),
        ("error=robot", []),
        (f"since={rows[1]['at']}", seqs[:2]),
        (f"until={rows[1]['at']}", seqs[2:]),
        ("mode=normal&outcome=ok", seqs[2:]),
        ("tag=none", []),
        ("directive=honoured", []),
        ("host=api.openai.com", []),
    ):
        found = (await logged.done("GET", f"/logs?{query}"))["logs"]
        assert [row["seq"] for row in found] == wanted, query


@pytest.mark.parametrize(
    "query",
    ["status=600", "status=4x", "status=-1", "since=x", "after=-1", "before=2&after=1", "outcome=fine"],
)
async def test_a_filter_that_is_none_is_refused_by_its_name(it: House, query: str) -> None:
    """400, and which one it was; of an export too, before anything is sent."""
    wrong = query.rpartition("&")[2].partition("=")[0]
    assert (await it.admin("GET", f"/logs?{query}")).fault["param"] == wrong
    if "before" not in query:
        assert (await it.admin("GET", f"/logs/export?{query}")).fault["param"] == wrong


async def test_what_is_newer_is_read_from_where_one_was(logged: House) -> None:
    """`newer` of one page is `after` of the next one, also where the filters chose nothing."""
    first = await logged.done("GET", "/logs?limit=1")
    none = await logged.done("GET", f"/logs?after={first['newer']}&program=nobody")
    assert (none["logs"], none["newer"]) == ([], first["newer"])
    await logged.chat("other")
    more = await logged.done("GET", f"/logs?after={none['newer']}")
    assert [row["requested_model"] for row in more["logs"]] == ["other"]
    again = await logged.done("GET", f"/logs?before={more['next']}&limit=1")
    assert again["logs"] == first["logs"]


async def test_an_export_is_every_record_as_the_api_shows_it(logged: House) -> None:
    """Oldest first, a line each; the audit log says that it left, and what was asked for."""
    rows = (await logged.done("GET", "/logs"))["logs"]
    lines = [orjson.loads(line) for line in (await exported(logged)).splitlines()]
    assert lines == rows[::-1]
    failed = await exported(logged, "?outcome=error&status=5xx")
    assert [orjson.loads(line) for line in failed.splitlines()] == rows[:1]
    (entry, _) = (await logged.done("GET", "/audit?action=log.export"))["entries"]
    assert entry["after"] == {"outcome": "error", "status": "5xx"}


async def test_a_spreadsheet_calculates_nothing_that_a_stranger_wrote(logged: House) -> None:
    """What begins like a formula is text, and every column has its name."""
    told = await logged.admin("GET", "/logs/export?format=csv")
    assert told.header("content-type") == "text/csv"
    assert 'filename="tokenhub-log.csv"' in told.header("content-disposition")
    rows = list(csv.DictReader(io.StringIO(told.body.decode(), newline="")))
    assert list(rows[0]) == ["seq", *(name for name in COLUMNS if name != "decision")]
    assert rows[1]["requested_model"] == '\'=HYPERLINK("http://x","y")'
    assert (rows[0]["stream"], rows[0]["alias"], orjson.loads(rows[0]["losses"])) == ("false", "", [])


@pytest.mark.parametrize("value", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1"])
def test_a_cell_that_begins_like_a_formula_is_text(value: str) -> None:
    """By every first character that a spreadsheet calculates from."""
    assert exporting.cell(value) == f"'{value}"
    assert (exporting.cell(-1), exporting.cell(None), exporting.cell([])) == (-1, None, "[]")


async def test_an_export_is_packed_on_its_way(logged: House) -> None:
    """As gzip and zstd know it."""
    plain = await exported(logged)
    assert gzip.decompress(await exported(logged, "?compress=gzip")) == plain
    packed = await exported(logged, "?compress=zstd")
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == plain


async def test_an_export_that_was_cut_short_goes_on_where_it_was(
    logged: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the last record that arrived, and no further than the first try would have come."""
    monkeypatch.setattr(pages, "_PIECE", 1)
    told = await logged.admin("GET", "/logs/export?format=csv")
    whole = told.body.splitlines(keepends=True)
    last = int(told.header(pages.LAST))
    assert (told.header(pages.FIRST), last) == ("1", 3)
    await logged.chat("later")
    rest = await exported(logged, f"?format=csv&after=1&through={last}")
    assert b"".join(whole[:2]) + rest == told.body
    assert b"later" in await exported(logged, "?format=csv&after=1")


async def test_an_export_holds_one_piece_at_a_time(logged: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the log is: no question asks for more."""
    monkeypatch.setattr(pages, "_PIECE", 1)
    asked: list[int] = []
    real = logged.app.requests.__class__.page

    def page(self: Any, **more: Any) -> Any:
        asked.append(more["limit"])
        return real(self, **more)

    monkeypatch.setattr(logged.app.requests.__class__, "page", page)
    assert len((await exported(logged)).splitlines()) == 3
    assert asked == [1, 1, 1, 1]


async def test_an_export_whose_store_fails_is_no_whole_one(
    logged: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is cut: nobody takes a part for the whole."""
    monkeypatch.setattr(pages, "_PIECE", 1)
    real = pages.LogPages._piece

    def piece(self: Any, wanted: Any, at: int, *more: Any) -> Any:
        if at:
            raise faults.unavailable("gone")
        return real(self, wanted, at, *more)

    monkeypatch.setattr(pages.LogPages, "_piece", piece)
    url = f"{logged.url}/admin/v1/logs/export"
    with pytest.raises(aiohttp.ClientError):
        async with logged.session.get(url, headers=logged.bearer) as response:
            await response.read()
