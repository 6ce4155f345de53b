"""The first page: its files, its headers, and what a browser makes of hostile names."""

from __future__ import annotations

import re

import pytest

from tests.fakes.house import House


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/assets/style.css", "text/css"), ("/assets/app.js", "text/javascript")],
)
async def test_the_page_lets_nothing_else_in(it: House, path: str, kind: str) -> None:
    """Its policy allows its own files only: no inline code, no other host, no frame around it."""
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


@pytest.mark.parametrize(
    "name", ["nope.js", "index.html%00", "..%2findex.html", "%2e%2e%2f%2e%2e%2fetc%2fpasswd"]
)
async def test_only_the_pages_own_files_are_there(it: House, name: str) -> None:
    """Other names are a 404 in JSON; none leads out of the folder."""
    told = await it.ask("GET", f"/assets/{name}")
    assert (told.status, told.fault["type"]) == (404, "not_found")


async def test_the_page_keeps_to_its_own_policy(it: House) -> None:
    """No inline script, style or handler in the markup, and the code never makes markup of text."""
    page = (await it.ask("GET", "/")).body.decode()
    code = (await it.ask("GET", "/assets/app.js")).body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|style=|javascript:|https?://", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Storage\b", code)
