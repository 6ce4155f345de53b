"""The manual at /docs: what is served is what docs/ says, to anybody, and in a browser it can be searched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.manual import DOCS, OUT, BrokenPageError, Builder, Page, Writer, contents, parse, slug
from tests.fakes.browser import NEEDED, browser
from tests.fakes.house import House, house
from tests.http.test_ui_access import AXE, faults

_PAGES = [page for group in contents() for page in group.pages]


def test_the_built_manual_is_made_of_the_documents() -> None:
    """Whoever changes docs/ or web/manual runs `scripts/web manual`: byte for byte what is built anew."""
    built = {str(path.relative_to(OUT)): path.read_bytes() for path in OUT.rglob("*.*")}
    made = Builder().files()
    assert sorted(built) == sorted(made)
    assert [name for name, data in made.items() if built[name] != data] == []


def test_every_document_stands_in_the_menu_once() -> None:
    """A page that nobody can find is not built: `contents` would refuse."""
    listed = sorted(page.path for page in _PAGES)
    assert listed == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
    assert len({page.url for page in _PAGES}) == len(listed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x](nowhere.md)", "no page"),
        ("[x](budgets.md#no-such)", "no such heading"),
        ("![x](pictures/none.png)", "not there"),
    ],
)
def test_a_link_that_leads_nowhere_is_no_page(text: str, said: str) -> None:
    """A page, a heading, a picture: the build stops and names what is missing."""
    pages = {page.path: page for page in _PAGES}
    broken = Page("x.md", "x", parse(f"# X\n\n{text}\n"), pages["budgets.md"].headings[:1])
    with pytest.raises(BrokenPageError, match=said):
        Writer(broken, pages, {}).body()


def test_words_of_a_document_are_text() -> None:
    """Markup in Markdown is shown letter for letter; comments are left out."""
    tokens = parse("# X\n\n<!-- made -->\n\n<img src=x onerror=alert(1)>\n\n    <script>\n")
    page = Page("x.md", "x", tokens, _PAGES[0].headings[:1])
    body = Writer(page, {}, {}).body()
    assert "<img" not in body
    assert "<script" not in body
    assert "made" not in body


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Who calls", "who-calls"),
        ("tokenhub top", "tokenhub-top"),
        ("What's `that`?", "whats-that"),
        ("A & B", "a--b"),
    ],
)
def test_headings_are_named_as_forges_name_them(words: str, name: str) -> None:
    """The same link leads to the same place here and where the repository is read."""
    assert slug(words) == name


async def test_every_page_is_served_to_anybody_under_a_strict_policy(it: House) -> None:
    """No sign-in; its own files and no other; nothing inline; every file that it names is there, for good."""
    seen: set[str] = set()
    for page in _PAGES:
        told = await it.ask("GET", page.url)
        assert (told.status, told.header("content-type")) == (200, "text/html; charset=utf-8"), page.path
        policy = told.header("content-security-policy")
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        text = told.body.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|<[^>]*\son\w+=|<[^>]*\sstyle=|javascript:", text)
        seen |= set(re.findall(r'(?:href|src|data-index)="(/docs/[^"#]*)', text))
    for path in sorted(seen):
        told = await it.ask("GET", path)
        assert told.status == 200, path
        assert ("immutable" in told.header("cache-control")) == path.startswith("/docs/files/")


@pytest.mark.parametrize(
    "path", ["/docs/nope", "/docs/files/nope.js", "/docs/files/..%2findex.html", "/docs/%2e%2e"]
)
async def test_nothing_else_is_opened(it: House, path: str) -> None:
    """Other names are a 404 in JSON; none leads out of the folder."""
    told = await it.ask("GET", path)
    assert (told.status, told.fault["type"]) == (404, "not_found")


@NEEDED
async def test_a_reader_searches_by_keys_and_chooses_colours(tmp_path: Path) -> None:
    """A slash, a few letters, Enter: the heading; the colours that were chosen hold on the next page."""
    async with house(tmp_path) as it, browser(tmp_path) as page:
        await page.send(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}]
        )
        await page.open(f"{it.url}/docs")
        await page.until("document.readyState === 'complete'")
        await page.value("dispatchEvent(new KeyboardEvent('keydown', {key: '/'}))")
        field = "document.querySelector('#search input')"
        assert await page.value(f"document.activeElement === {field}")
        await page.value(f"{field}.value = 'doctor'; {field}.dispatchEvent(new Event('input'))")
        assert await page.until("document.querySelector('#found [aria-selected=true]')?.firstChild.data")
        await page.value(f"{field}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter'}}))")
        assert await page.until("location.pathname === '/docs/cli' && location.hash") == "#tokenhub-doctor"
        await page.until("document.readyState === 'complete'")
        await page.value("document.getElementById('turn').click()")
        await page.open(f"{it.url}/docs/budgets")
        await page.until("document.title.startsWith('Budgets')")
        assert await page.value("document.documentElement.dataset.theme") == "dark"
        assert page.complaints == []


@NEEDED
@pytest.mark.parametrize("colours", ["light", "dark"])
async def test_the_manual_is_there_for_everybody(tmp_path: Path, colours: str) -> None:
    """axe finds nothing to mend, on a page with tables, one with commands, and the first one; wide and narrow."""
    async with house(tmp_path) as it, browser(tmp_path) as page:
        scheme = {"name": "prefers-color-scheme", "value": colours}
        await page.send("Emulation.setEmulatedMedia", features=[scheme])
        for name, title, width in (
            ("", "The manual", 1280),
            ("/operating", "Operating", 390),
            ("/connect", "Connect", 1280),
        ):
            await page.send(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=800,
                deviceScaleFactor=1,
                mobile=False,
            )
            await page.open(f"{it.url}/docs{name}")
            await page.until(f"document.title.startsWith('{title}') && document.readyState === 'complete'")
            assert await page.value("document.documentElement.scrollWidth <= innerWidth"), name
            await page.value(AXE)
            assert await faults(page) == [], name
