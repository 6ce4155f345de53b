"""The manual as pages: `python -m scripts.manual` makes web/dist/manual of docs/; the side server shows it at /docs.

`docs/README.md` is the first page and the order of all others: each of its second headings is a group of the menu, each
link below it a page. The pages need no script to be read; one adds the search and the choice of colours.
"""

from __future__ import annotations

import hashlib
import html
import posixpath
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import orjson
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
OUT: Final = ROOT / "web" / "dist" / "manual"
_SOURCES: Final = ROOT / "web" / "manual"
_STYLES: Final = ROOT / "web" / "src" / "style"
_FIRST: Final = "README.md"
_BASE: Final = "/docs"
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_DARK: Final = "-dark"
"""Ends the name of a picture that stands for another one in dark colours."""


class BrokenPageError(ValueError):
    """A page that cannot be built, and why."""


@dataclass(frozen=True)
class Heading:
    """A heading: its level, its words, and the name that links give."""

    level: int
    words: str
    anchor: str


@dataclass(frozen=True)
class Page:
    """A page of the manual, read."""

    path: str
    """Below docs/."""
    label: str
    """What the menu calls it."""
    tokens: Sequence[Token] = field(repr=False)
    headings: Sequence[Heading]

    @property
    def title(self) -> str:
        """The words of the first heading."""
        return self.headings[0].words

    @property
    def url(self) -> str:
        """Where the page is served."""
        return url(self.path)


@dataclass(frozen=True)
class Group:
    """A part of the menu."""

    title: str
    pages: Sequence[Page]


def url(path: str) -> str:
    """Return where a page of docs/ is served: folders do not show."""
    return _BASE if path == _FIRST else f"{_BASE}/{posixpath.basename(path).removesuffix('.md')}"


def slug(words: str) -> str:
    """Return the name of a heading as forges make it: lower case, hyphens for spaces, no other marks."""
    return re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")


def plain(inline: Token) -> str:
    """Return the words of a line without its markup."""
    return "".join(one.content for one in inline.children or () if one.type in {"text", "code_inline"})


def parse(text: str) -> list[Token]:
    """Read Markdown as the manual is written in it: CommonMark with tables, no HTML but comments."""
    # Lines keep their numbers.
    told = _COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text)
    return MarkdownIt("commonmark", {"html": False}).enable("table").parse(told)


def read(path: str, label: str) -> Page:
    """Read one page of docs/; `label` is what the menu calls it."""
    if not (DOCS / path).is_file():
        raise BrokenPageError(f"docs/{_FIRST} names {path}, which is not there")
    tokens = parse((DOCS / path).read_text())
    seen: dict[str, int] = {}
    found = []
    for opening, inline in pairwise(tokens):
        if opening.type != "heading_open":
            continue
        words = plain(inline)
        name = slug(words)
        seen[name] = seen.get(name, -1) + 1
        found.append(Heading(int(opening.tag[1]), words, f"{name}-{seen[name]}" if seen[name] else name))
    if not found or found[0].level != 1:
        raise BrokenPageError(f"docs/{path} does not begin with a title")
    return Page(path, label, tokens, found)


def contents() -> list[Group]:
    """Return the pages in the order of the menu; raises `BrokenPageError` where one is not there once."""
    first = read(_FIRST, "The manual")
    groups: list[Group] = []
    title, pages = "", [first]
    for opening, inline in pairwise(first.tokens):
        if opening.type == "heading_open" and opening.tag == "h2":
            groups.append(Group(title, pages))
            title, pages = plain(inline), []
        elif title and opening.type == "paragraph_open" and opening.level:
            pages.append(_listed(inline))
    groups.append(Group(title, pages))
    listed = [page.path for group in groups for page in group.pages]
    there = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
    if sorted(listed) != there:
        raise BrokenPageError(
            f"docs/{_FIRST} does not name each page once: {sorted({*listed} ^ {*there}) or 'twice'}"
        )
    return groups


def _listed(inline: Token) -> Page:
    """Return the page that a line of the menu begins with."""
    children = inline.children or []
    if not children or children[0].type != "link_open":
        raise BrokenPageError(f"docs/{_FIRST} has a line that begins with no page: {plain(inline)}")
    words = children[1 : next(number for number, one in enumerate(children) if one.type == "link_close")]
    return read(str(children[0].attrGet("href")), "".join(one.content for one in words))


def _raw(markup: str) -> Token:
    return Token("html_block", "", 0, content=markup)


@dataclass(frozen=True)
class Writer:
    """Writes the body of one page."""

    page: Page
    pages: Mapping[str, Page]
    """All pages, by their path below docs/."""
    pictures: Mapping[str, str]
    """The address of each picture, by its path below docs/."""

    def body(self) -> str:
        """Return the markup of all that stands below the title bar."""
        markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
        return str(markdown.renderer.render([*self._tokens()], markdown.options, {}))

    def _tokens(self) -> Iterator[Token]:
        headings = iter(self.page.headings)
        under = self.page.headings[0]
        for one in self.page.tokens:
            match one.type:
                case "heading_open":
                    under = next(headings)
                    yield one.copy(attrs={"id": under.anchor})
                case "heading_close" if under.level > 1:
                    name = html.escape(f"Link to {under.words}")
                    yield _raw(f'<a class="anchor" href="#{under.anchor}" aria-label="{name}">#</a>')
                    yield one
                case "table_open":
                    name = html.escape(f"Table: {under.words}")
                    yield _raw(f'<div class="scroll" role="region" tabindex="0" aria-label="{name}">')
                    yield one
                case "table_close":
                    yield one
                    yield _raw("</div>\n")
                case "th_open" | "td_open" if one.attrs:
                    # The policy allows no style in the markup.
                    yield one.copy(attrs={"class": "num"} if "right" in str(one.attrGet("style")) else {})
                case "code_block" | "fence":
                    yield _raw(
                        f'<pre tabindex="0"><code>{html.escape(one.content, quote=False)}</code></pre>\n'
                    )
                case "inline":
                    yield one.copy(children=[*self._inline(one.children or ())])
                case _:
                    yield one

    def _inline(self, tokens: Sequence[Token]) -> Iterator[Token]:
        leads = True
        for one in tokens:
            match one.type:
                case "link_open":
                    href = self._target(str(one.attrGet("href")))
                    leads = href is not None
                    if href is not None:
                        yield one.copy(attrs={"href": href})
                case "link_close" if not leads:
                    leads = True
                case "image":
                    yield _raw(self._image(str(one.attrGet("src")), one.content))
                case _:
                    yield one

    def _target(self, href: str) -> str | None:
        """Return where a link leads on the side server, None where it leads to a file that is not served."""
        if re.match(r"\w+:", href):
            return href
        path, mark, anchor = href.partition("#")
        aim = self._beside(path) if path else self.page.path
        if aim.startswith("../"):
            return None
        if aim not in self.pages:
            raise BrokenPageError(f"docs/{self.page.path} links to {href}, which is no page")
        if anchor and anchor not in {one.anchor for one in self.pages[aim].headings}:
            raise BrokenPageError(f"docs/{self.page.path} links to {href}, and there is no such heading")
        return f"#{anchor}" if not path else f"{self.pages[aim].url}{mark}{anchor}"

    def _beside(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(posixpath.dirname(self.page.path), path))

    def _image(self, source: str, words: str) -> str:
        aim = self._beside(source)
        if aim not in self.pictures:
            raise BrokenPageError(f"docs/{self.page.path} shows {source}, which is not there")
        stem, dot, kind = aim.rpartition(".")
        other = self.pictures.get(f"{stem}{_DARK}{dot}{kind}")
        name = html.escape(words)
        shown = f'<img src="{self.pictures[aim]}" alt="{name}" loading="lazy"'
        if other is None:
            return f"{shown} />"
        return f'{shown} class="by-day" /><img src="{other}" alt="{name}" loading="lazy" class="by-night" />'


def _hashed(name: str, data: bytes) -> str:
    stem, _, kind = name.rpartition(".")
    return f"{stem}-{hashlib.sha256(data).hexdigest()[:8]}.{kind}"


class Builder:
    """Builds everything that is served at /docs."""

    def __init__(self) -> None:
        self._groups = contents()
        self._pages = {page.path: page for group in self._groups for page in group.pages}
        self._files: dict[str, bytes] = {}
        self._pictures = {
            str(path.relative_to(DOCS)): self._keep(path.name, path.read_bytes())
            for path in sorted([*DOCS.rglob("*.png"), *DOCS.rglob("*.svg")])
        }
        styles = [_STYLES / "base.css", _STYLES / "shell.css", _SOURCES / "manual.css"]
        self._style = self._keep("manual.css", b"".join(path.read_bytes() for path in styles))
        self._script = self._keep("manual.js", (_SOURCES / "manual.js").read_bytes())
        self._index = self._keep("headings.json", self._headings())

    def files(self) -> dict[str, bytes]:
        """Return what is served: pages by the name that is asked for, and the files that they load, in `files/`."""
        template = (_SOURCES / "page.html").read_text()
        pages = {
            f"{page.url.removeprefix(_BASE).strip('/') or 'index'}.html": self._page(template, page).encode()
            for page in self._pages.values()
        }
        return {**pages, **self._files}

    def _keep(self, name: str, data: bytes) -> str:
        """Take a file in under a name with its hash; return its address."""
        path = f"files/{_hashed(name, data)}"
        self._files[path] = data
        return f"{_BASE}/{path}"

    def _headings(self) -> bytes:
        return orjson.dumps(
            [
                {
                    "url": page.url,
                    "title": page.title,
                    "headings": [[one.anchor, one.words] for one in page.headings[1:]],
                }
                for page in self._pages.values()
            ]
        )

    def _page(self, template: str, page: Page) -> str:
        parts = {
            "title": html.escape(page.title),
            "style": self._style,
            "script": self._script,
            "index": self._index,
            "menu": self._menu(page),
            "body": Writer(page, self._pages, self._pictures).body(),
            "aside": _aside(page),
        }
        return re.sub(r"{{(\w+)}}", lambda found: parts[found[1]], template)

    def _menu(self, shown: Page) -> str:
        lines = []
        for group in self._groups:
            lines += [f"<h2>{html.escape(group.title)}</h2>"] if group.title else []
            for page in group.pages:
                here = ' aria-current="page"' if page is shown else ""
                lines.append(f'<a class="item" href="{page.url}"{here}>{html.escape(page.label)}</a>')
        return "\n".join(lines)


def _aside(page: Page) -> str:
    parts = [one for one in page.headings if one.level == 2]
    if len(parts) < 2:
        return ""
    links = "\n".join(f'<a href="#{one.anchor}">{html.escape(one.words)}</a>' for one in parts)
    return f'<aside aria-label="On this page"><h2>On this page</h2>\n{links}\n</aside>'


def write(out: Path) -> int:
    """Write the manual into a folder, and take away what is not of it; return how many files there are."""
    files = Builder().files()
    (out / "files").mkdir(parents=True, exist_ok=True)
    for path in [*out.glob("*.*"), *out.glob("files/*")]:
        if str(path.relative_to(out)) not in files:
            path.unlink()
    for name, data in files.items():
        (out / name).write_bytes(data)
    return len(files)


if __name__ == "__main__":
    try:
        print(f"wrote {write(OUT)} files of the manual")
    except BrokenPageError as error:
        sys.exit(f"tokenhub: {error}")
