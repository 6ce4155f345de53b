"""What is taken out of text before it is kept: credentials by their shape, and what says who a person is. Pure.

Every pattern takes time in proportion to the text, also where somebody writes the text to make it slow: each begins at
the start of a run of its own characters, gives nothing back that it has read, or reads no further than a fixed length.
What has no shape of its own (a password of somebody's choice, a name, an address) is not found.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import StrEnum
from typing import Final

import msgspec


class Sort(StrEnum):
    """What can be taken out. A mask is the sort in brackets."""

    PRIVATE_KEY = "private-key"
    JWT = "jwt"
    KEY = "key"
    """Keys of providers and clouds, and ours, by their beginnings."""
    EMAIL = "email"
    CARD = "card"
    PHONE = "phone"
    """Only on request: too many numbers look like one."""


SECRETS: Final = frozenset({Sort.PRIVATE_KEY, Sort.JWT, Sort.KEY})
USUAL: Final = SECRETS | {Sort.EMAIL, Sort.CARD}

_FIELDS: Final = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"})
"""Header fields that hold a caller's credential."""

ECHO: Final = 16
"""Characters of a request that count as an echo of it."""
_STEP: Final = 8
_LOOKED_AT: Final = 1 << 20
"""Bytes of a body that are searched for an echo: half of them at its beginning, half at its end."""
_ELLIPSIS: Final = "[…]"


class _Rule(msgspec.Struct, frozen=True):
    """A shape; `meant` tells of what has it whether it is one."""

    sort: Sort
    pattern: re.Pattern[str]
    meant: Callable[[str], bool]


def _always(found: str) -> bool:
    return True


def _mixed(found: str) -> bool:
    """Tell whether the text has a digit: words that are joined by hyphens have none."""
    return any(char.isdigit() for char in found)


def _luhn(found: str) -> bool:
    """Tell whether the digits are a card's: their check digit is right (ISO/IEC 7812-1, annex B)."""
    digits = [int(char) for char in found if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return any(digits) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _at_start(chars: str, first: str) -> str:
    r"""Return `first`, a pattern of a fixed length, where a run of these characters begins with it.

    Nothing of the run stands before it, and no `\` but in `\n`, `\r` or `\t`: JSON is redacted as it is written, where
    a line may end right before a key. What is looked for stands first, so that it is looked for at the speed of C.
    """
    return rf"{first}(?:(?<![{chars}\\]{first})|(?<=\\[nrt]{first}))"


_WORD: Final = r"A-Za-z0-9_\-"
_BEGINNINGS: Final = (
    "tokenhub_", "sk-", "sk_", "rk_", "pk_", "AIza", "gsk_", "xai-", "hf_", "r8_", "pplx-", "nvapi-", "fw_", "csk-",
    "tgp_", "dapi", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "AKIA", "ASIA", "ABSK", "ya29.",
    "xox", "npm_", "pypi-",
)  # fmt: skip
_RULES: Final = (
    _Rule(
        Sort.JWT,
        re.compile(_at_start(_WORD, "eyJ") + rf"[{_WORD}]++\.eyJ[{_WORD}]++\.[{_WORD}]*+"),
        _always,
    ),
    _Rule(
        Sort.KEY,
        re.compile(
            rf"(?:{'|'.join(_at_start(_WORD, re.escape(one)) for one in _BEGINNINGS)})[{_WORD}]{{16,}}+"
        ),
        _mixed,
    ),
    _Rule(
        Sort.CARD,
        re.compile(
            r"[0-9](?<![0-9]{2})(?:[0-9]{3}([ \-])[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}|[0-9]{3}([ \-])[0-9]{6}\2[0-9]{5}"
            r"|[0-9]{12,18})(?![0-9])"
        ),
        _luhn,
    ),
    _Rule(
        Sort.PHONE,
        re.compile(r"(?<![\w.])(?:\+[0-9]{1,3}[ .\-]?)?\(?[0-9]{2,4}\)?(?:[ .\-][0-9]{2,4}){2,4}(?!\w)"),
        _mixed,
    ),
)
_LOCAL: Final = frozenset(f"{string.ascii_letters}{string.digits}._%+-")
_LONGEST_LOCAL: Final = 64
_DOMAIN: Final = re.compile(r"@(?:[A-Za-z0-9\-]{1,63}\.){1,8}[A-Za-z]{2,24}")
_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_TAIL: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}-----")


def redacted(text: str, sorts: Collection[Sort] = USUAL) -> str:
    """Return the text with a mask in the place of everything of these sorts. Again changes nothing."""
    if Sort.PRIVATE_KEY in sorts:
        text = _without_keys(text)
    if Sort.EMAIL in sorts:
        text = _without_addresses(text)
    for rule in _RULES:
        if rule.sort in sorts:
            text = _masked(rule, text)
    return text


def without(text: str, secrets: Iterable[str]) -> str:
    """Return the text with a mask in the place of each of these; those of less than six characters are words."""
    for secret in secrets:
        if len(secret) >= 6:
            text = text.replace(secret, f"[{Sort.KEY}]")
    return text


def credentials(headers: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the credentials in a request's headers, names in lower case, without their schemes."""
    return (value.rpartition(" ")[2] for name, value in headers if name in _FIELDS)


def without_echo(text: str, body: bytes) -> str:
    """Return a short text without the words in which it repeats a piece of `body`.

    Found is every repetition of 24 characters, and many of 16; words are replaced whole.
    """
    if not body or len(text) < ECHO:
        return text
    half = _LOOKED_AT // 2
    looked_at = body if len(body) <= _LOOKED_AT else body[:half] + b"\0" + body[-half:]
    hit = bytearray(len(text))
    at = 0
    while at <= len(text) - ECHO:
        first, last = _repeated(text, at, looked_at)
        hit[first:last] = b"\1" * (last - first)
        at = max(last, at + _STEP)
    if not any(hit):
        return text
    kept: list[str] = []
    for word in re.finditer(r"\S+", text):
        if not any(hit[word.start() : word.end()]):
            kept.append(word.group())
        elif not kept or kept[-1] != _ELLIPSIS:
            kept.append(_ELLIPSIS)
    return " ".join(kept)


def _repeated(text: str, at: int, body: bytes) -> tuple[int, int]:
    """Return where the repetition begins and ends of which the piece at `at` is a part; nowhere if it is of none."""
    first, last = at, at + ECHO

    def stands() -> bool:
        return text[first:last].encode("utf-8", "replace") in body

    if not stands():
        return at, at
    while first > 0 and stands():
        first -= 1
    first += not stands()
    while last < len(text) and stands():
        last += 1
    last -= not stands()
    return first, last


def _masked(rule: _Rule, text: str) -> str:
    mask = f"[{rule.sort}]"
    return rule.pattern.sub(lambda found: mask if rule.meant(found.group()) else found.group(), text)


def _without_addresses(text: str) -> str:
    """Mask addresses: of each @ and what follows as a domain, with the letters before it."""
    pieces: list[str] = []
    at = 0
    for found in _DOMAIN.finditer(text):
        first = found.start()
        least = max(at, first - _LONGEST_LOCAL)
        while first > least and text[first - 1] in _LOCAL:
            first -= 1
        if first > 0 and text[first - 1] == "\\" and text[first] in "nrt":
            first += 1  # the end of an escape of JSON
        if first < found.start():
            pieces += (text[at:first], f"[{Sort.EMAIL}]")
            at = found.end()
    return "".join((*pieces, text[at:]))


def _without_keys(text: str) -> str:
    """Mask blocks of private keys; one without an end goes on to the end of the text."""
    pieces: list[str] = []
    at = 0
    while (begin := _PEM.search(text, at)) is not None:
        end = _PEM_TAIL.search(text, begin.end())
        pieces += (text[at : begin.start()], f"[{Sort.PRIVATE_KEY}]")
        at = end.end() if end is not None else len(text)
    return "".join((*pieces, text[at:]))
