"""The admin pages: their files, their headers, and that what is served was built of what lies beside it."""

from __future__ import annotations

import gzip
import re

import pytest

from scripts.pages import WEB, stamp
from tests.fakes.house import House
from tokenhub_core.telemetry.kinds import KINDS, UNTOLD

_BUILT = WEB / "dist"


def assets(kind: str) -> list[str]:
    """Return the paths of the built files of a kind."""
    return [f"/assets/{path.name}" for path in sorted((_BUILT / "assets").glob(f"*.{kind}"))]


def test_the_built_pages_are_made_of_the_sources_and_of_the_api() -> None:
    """Whoever changes web/ or the admin API runs `scripts/web`: the stamp says of what the files were built."""
    assert (_BUILT / "made-of").read_text() == stamp()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/login", "text/html"),
        ("/ui/models", "text/html"),
        (assets("css")[0], "text/css"),
        (assets("js")[0], "text/javascript"),
    ],
)
async def test_the_pages_let_nothing_else_in(it: House, path: str, kind: str) -> None:
    """Their policy allows their own files only: no inline code, no other host, no frame around them."""
    told = await it.ask("GET", path)
    assert (told.status, told.header("content-type")) == (200, f"{kind}; charset=utf-8")
    policy = told.header("content-security-policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert (told.header("x-content-type-options"), told.header("referrer-policy")) == (
        "nosniff",
        "no-referrer",
    )


async def test_an_unchanged_file_is_not_sent_again(it: House) -> None:
    """The tag is answered with 304, and another one with the file."""
    tag = (await it.ask("GET", "/")).header("etag")
    again = await it.ask("GET", "/", headers={"if-none-match": tag})
    assert (again.status, again.body) == (304, b"")
    assert (await it.ask("GET", "/", headers={"if-none-match": '"old"'})).status == 200


async def test_a_name_with_a_hash_is_kept_for_good_and_the_page_is_asked_for_again(it: House) -> None:
    """Another content has another name, so no browser shows old code with new pages."""
    assert "immutable" in (await it.ask("GET", assets("js")[0])).header("cache-control")
    assert (await it.ask("GET", "/")).header("cache-control") == "no-cache"


async def test_who_can_unpack_gets_files_packed(it: House) -> None:
    """The same bytes, a third of them on the wire; who says nothing gets them plain."""
    path = assets("js")[0]
    plain = await it.ask("GET", path, headers={"accept-encoding": "identity"})
    async with it.session.get(
        it.url + path, headers={"accept-encoding": "gzip"}, auto_decompress=False
    ) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(await packed.read()) == plain.body


@pytest.mark.parametrize(
    "name", ["nope.js", "index.html", "index.html%00", "..%2findex.html", "%2e%2e%2f%2e%2e%2fetc%2fpasswd"]
)
async def test_only_the_pages_own_files_are_there(it: House, name: str) -> None:
    """Other names are a 404 in JSON; none leads out of the folder."""
    told = await it.ask("GET", f"/assets/{name}")
    assert (told.status, told.fault["type"]) == (404, "not_found")


async def test_the_pages_keep_to_their_own_policy(it: House) -> None:
    """No inline script, style or handler in the markup, and our code never makes markup of text."""
    page = (await it.ask("GET", "/")).body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|style=|javascript:|https?://", page)
    code = "".join(path.read_text() for path in sorted((WEB / "src").rglob("*.ts*")))
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|sessionStorage", code
    )
    # Colours are the only thing that is kept in the browser.
    assert code.count("localStorage") == code.count("localStorage.setItem(NAME") + code.count(
        "localStorage.getItem(NAME"
    )


def test_the_pages_know_every_kind_of_event() -> None:
    """Webhooks can be told of each that the server tells them of; what is shown are kinds that there are."""
    code = (WEB / "src/state/events.ts").read_text()
    lists = {
        name: re.findall(r'"(\w+)"', body)
        for name, body in re.findall(r"(\w+) = (\[[^\]]+\]) as const", code)
    }
    assert set(lists["TELLING"]) == set(KINDS) - UNTOLD
    assert set(lists["OTHERS"]) <= set(KINDS)
