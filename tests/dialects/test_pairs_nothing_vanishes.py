"""What goes in comes out or is named: every field of every full request and answer, for every pair."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import orjson
import pytest

from tests.dialects import omissions, pairs
from tests.dialects.omissions import Omission
from tests.dialects.pairs import CHATS, HOME, PAIRS
from tests.dialects.vanished import Translate, dotted, leaves, markers, named, vanished
from tokenhub_core.dialects.base import Rendered
from tokenhub_core.types import Dialect, Json

both = pytest.mark.parametrize(
    ("client", "provider"), [pytest.param(*pair, id="-to-".join(pair)) for pair in PAIRS]
)


def full(name: Dialect, kind: str) -> Json:
    data: Json = orjson.loads((HOME / "inputs" / name / kind / "full.json").read_bytes())
    return data


def request(client: Dialect, provider: Dialect) -> Translate:
    return lambda data: pairs.rendered(client, provider, orjson.dumps(data))


def answer(client: Dialect, provider: Dialect) -> Translate:
    return lambda data: pairs.answered(client, provider, orjson.dumps(data))


def patterns(table: dict[Dialect, tuple[Omission, ...]], name: Dialect, other: Dialect) -> list[str]:
    return [each.names for each in table[name] if not each.where or other in each.where]


@both
def test_nothing_of_a_request_vanishes(client: Dialect, provider: Dialect) -> None:
    """Each field stands in the provider's body, or under a name in the losses, or in the table of omissions."""
    omitted = patterns(omissions.REQUESTS, client, provider)
    assert vanished(full(client, "requests"), request(client, provider), omitted) == []


@both
def test_nothing_of_an_answer_vanishes(client: Dialect, provider: Dialect) -> None:
    """Each field stands in the client's body, or under a name in the losses, or in the table of omissions."""
    omitted = patterns(omissions.ANSWERS, provider, client)
    assert vanished(full(provider, "answers"), answer(client, provider), omitted) == []


@both
def test_what_steers_the_wire_is_no_loss(client: Dialect, provider: Dialect) -> None:
    """How a stream is padded, and that it tells its usage, changes no answer."""
    lost = pairs.rendered(client, provider, orjson.dumps(full(client, "requests"))).losses
    assert not {"stream", "stream_options"} & set(lost)


@pytest.mark.parametrize("kind", ["requests", "answers"])
@pytest.mark.parametrize("name", CHATS)
def test_no_omission_stands_for_nothing(name: Dialect, kind: str) -> None:
    """Each entry of the table is needed by at least one pair: what is carried by now leaves it."""
    tables = {"requests": omissions.REQUESTS, "answers": omissions.ANSWERS}
    gone: dict[Dialect, set[str]] = {}
    for other in CHATS:
        if other is not name:
            ways = {"requests": request(name, other), "answers": answer(other, name)}
            found = vanished(full(name, kind), ways[kind], ())
            gone[other] = {re.sub(r"\.\d+\b", "", line.partition(" = ")[0]) for line in found}
    for entry in tables[kind][name]:
        where = entry.where or tuple(gone)
        assert any(re.search(entry.names, path) for other in where for path in gone.get(other, ())), entry


@pytest.mark.parametrize("kind", ["requests", "answers"])
@pytest.mark.parametrize("name", CHATS)
def test_a_marker_marks_one_text(name: Dialect, kind: str) -> None:
    """Only ids and names, which stand for one another, and texts that the wire repeats share one."""
    data = full(name, kind)
    shared = {marker for marker, times in Counter(markers(data)).items() if times > 1}
    repeated = re.compile(
        r"(^|\.|_)(id|name|tool_name|token|text|summary|reasoning|content|allowedFunctionNames)$"
    )
    for path, value in leaves(data):
        if isinstance(value, str) and any(marker in value for marker in shared):
            assert repeated.search(dotted(path)) or dotted(path).endswith(("tokens", "response")), path


def test_the_check_sees_what_vanishes() -> None:
    """A text, a number or a word of which nothing is left; not what is renamed, packed in base64, or named."""

    def translate(data: Json) -> Rendered:
        kept: dict[str, Any] = {"said": data["text"], "list": [data["packed"]]}
        return Rendered(kept, ("user", "part:video"))

    data = {
        "text": "Hello m001x",
        "packed": "bTAwMng=",
        "note": "Psst m003x",
        "cap": 7,
        "user": "me m004x",
        "parts": [{"type": "video", "url": "m005x"}, {"type": "sound", "url": "m006x"}],
        "empty": [],
    }
    assert vanished(data, translate, ()) == [
        "note = 'Psst m003x'",
        "cap = 7",
        "parts.1.type = 'sound'",
        "parts.1.url = 'm006x'",
    ]
    assert vanished(data, translate, ("^note$", "^cap$", r"^parts\.")) == []
    assert not named(data, ("note",), ("not", "notes", "other.note"))
