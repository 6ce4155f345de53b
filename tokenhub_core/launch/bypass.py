"""Which hosts a program may reach without us: the list that goes into `NO_PROXY`.

The variable has no standard. The list written here is read the same way by every client that was tried:
names mean themselves and what stands below them, and nothing in it makes a client fall over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def bypass(
    own: Iterable[str], *, llm_hosts: Sequence[str], include_localhost: bool = False
) -> tuple[str, ...]:
    """Return the entries of a clean `NO_PROXY`.

    `own` are the values that the user already has (comma-separated lists). Loopback is added, or, with
    `include_localhost`, left out. The user's entries stay, in their order, except:

    * `*`, which would switch us off;
    * LLM hosts, their parent domains, and what stands below a host pattern;
    * IPv6 networks, which make httpx 0.28 raise while a client is built. Brackets are taken off for the
      same reason. IPv4 networks stay: no client minds them, and Go and curl honour them.
    """
    kept: dict[str, None] = {} if include_localhost else dict.fromkeys(LOOPBACK)
    for entry in (part for value in own for part in value.replace(",", " ").split()):
        clean = _clean(entry)
        name = _name(clean)
        if not name or any(_covers(name, host) for host in llm_hosts):
            continue
        if include_localhost and _is_loopback(name):
            continue
        kept.setdefault(clean)
    return tuple(kept)


def _clean(entry: str) -> str:
    """Return the entry in a form that every client reads, or an empty string."""
    if entry.startswith("[") and entry.endswith("]"):
        entry = entry[1:-1]
    # What is left in brackets is an address with a port, which cannot be said without them.
    if set("[]") & set(entry) or ("/" in entry and ":" in entry):
        return ""
    return entry


def _name(entry: str) -> str:
    """Return the bare host of an entry: no leading dot or star, no port, lower case."""
    if entry.count(":") == 1:
        entry = entry.partition(":")[0]
    return entry.lower().lstrip("*").strip(".")


def _is_loopback(name: str) -> bool:
    return name in LOOPBACK or name.endswith(".localhost") or name.startswith("127.")


def _covers(name: str, host: str) -> bool:
    """Say whether an entry would exempt a host of the pattern `host`.

    Compared label by label from the right. A pattern's leading `*` (or dot) stands for one or more labels,
    a `*` inside it for part of one.
    """
    labels = name.split(".")
    pattern = host.lower().partition(":")[0].split(".")
    if pattern[0] == "":
        pattern[0] = "*"
    if not all(
        fnmatchcase(mine, theirs) for mine, theirs in zip(reversed(labels), reversed(pattern), strict=False)
    ):
        return False
    return len(labels) <= len(pattern) or pattern[0] == "*"


def exempts(value: str, host: str) -> bool:
    """Tell whether a `NO_PROXY` of the user's own takes a host, or a pattern of hosts, away from the proxy."""
    entries = value.replace(",", " ").split()
    names = [_name(_clean(entry)) for entry in entries]
    return "*" in entries or any(name and _covers(name, host) for name in names)
