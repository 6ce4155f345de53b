"""Whether what was answered is what the OpenAPI document says.

`House.ask` shows every answer to `check`: so every test that asks the application holds the document to it. The
schemas of what is ours are closed first: clients must live with a field that they do not know, the document must know
them all. What calls to models say is their vendors' affair.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import jsonschema_rs
import orjson

from tokenhub_core.http.operations import document
from tokenhub_core.types import Json

_REFERENCE: Final = re.compile(r"#/components/(\w+)/([\w.-]+)")
_GAP: Final = re.compile(r"{(\w+)}")
_NO_SUCH: Final = frozenset({404, 405})
"""What a path or method is answered with that is not served."""


@dataclass(frozen=True)
class Said:
    """An answer."""

    status: int
    media: str
    body: bytes


class Contract:
    """The document, ready to be held to."""

    def __init__(self, described: Json) -> None:
        vendors = [one for one in _operations(described) if "calls" in one["tags"]]
        self._described = _closed(described, _reached(vendors, described["components"]))
        self._paths = sorted(
            (
                (_pattern(path, one), method, path, one)
                for path, methods in self._described["paths"].items()
                for method, one in methods.items()
            ),
            key=lambda found: len(_GAP.sub("", found[2])),
            reverse=True,
        )
        self._validators: dict[str, Any] = {}

    def operation(self, method: str, path: str) -> Json | None:
        """Return the operation that a request is for, the one whose path says most of it."""
        wanted = "get" if method == "HEAD" else method.lower()
        found: list[Json] = [
            one for pattern, verb, _, one in self._paths if verb == wanted and pattern.fullmatch(path)
        ]
        return found[0] if found else None

    def serves(self, method: str, path: str) -> bool:
        """Tell whether the path that says most of this one has the method itself."""
        fitting = [(verb, declared) for pattern, verb, declared, _ in self._paths if pattern.fullmatch(path)]
        return any(verb == method.lower() and declared == fitting[0][1] for verb, declared in fitting)

    def breaches(self, method: str, path: str, sent: bytes | None, said: Said) -> Iterator[str]:
        """Yield what is not as the document says."""
        one = self.operation(method, path)
        if one is None:
            if said.status not in _NO_SUCH | {401, 403}:
                yield f"{said.status} from what is not declared"
            return
        if said.status == 405 and not self.serves(method, path):
            return
        told = _by_status(one["responses"], said.status)
        if told is None:
            yield f"status {said.status} is not declared"
            return
        content = self._resolved(told).get("content", {})
        if method != "HEAD" and content:
            yield from self._body(content, said)
        elif said.body and method != "HEAD":
            yield f"a body with status {said.status}"
        if said.status < 300 and sent and (taken := one.get("requestBody")):
            for media, schema in taken["content"].items():
                if media == "application/json":
                    yield from (f"the request: {why}" for why in self._errors(schema["schema"], sent))

    def _body(self, content: Mapping[str, Json], said: Said) -> Iterator[str]:
        if said.media not in content:
            yield f"{said.media} is not declared for status {said.status}"
        elif said.media == "application/json":
            yield from self._errors(content[said.media]["schema"], said.body)

    def _errors(self, schema: Json, body: bytes) -> Iterator[str]:
        key = orjson.dumps(schema).decode()
        if key not in self._validators:
            whole = {**schema, "components": self._described["components"]}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole)
        for error in self._validators[key].iter_errors(orjson.loads(body)):
            yield f"{'/'.join(map(str, error.instance_path))}: {error.message}"

    def _resolved(self, told: Json) -> Json:
        if "$ref" not in told:
            return told
        found: Json = self._described["components"]["responses"][told["$ref"].rpartition("/")[2]]
        return found


@cache
def contract() -> Contract:
    """Return the document of this source."""
    return Contract(document())


def check(method: str, path: str, sent: bytes | None, said: Said) -> None:
    """Fail where an answer is not what the document says."""
    found = list(contract().breaches(method, path.partition("?")[0], sent, said))
    assert found == [], (method, path, found, said)


def _operations(described: Json) -> list[Json]:
    return [one for methods in described["paths"].values() for one in methods.values()]


def _reached(told: Any, components: Json) -> set[str]:
    """Return the names of the schemas that something refers to, directly or not."""
    found: set[str] = set()
    waiting = [orjson.dumps(told).decode()]
    while waiting:
        for kind, name in _REFERENCE.findall(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(orjson.dumps(components[kind][name]).decode())
    return found


def _closed(described: Json, but: Collection[str]) -> Json:
    """Return the document with no members of objects beside those that are named, in all schemas but some."""
    components = described["components"]
    schemas = {
        name: schema
        if name in but or "properties" not in schema
        else {"additionalProperties": False, **schema}
        for name, schema in components["schemas"].items()
    }
    return {**described, "components": {**components, "schemas": schemas}}


def _by_status(responses: Json, status: int) -> Json | None:
    found: Json | None = responses.get(str(status)) or responses.get(f"{status // 100}XX")
    return found


def _pattern(path: str, one: Json) -> re.Pattern[str]:
    """Return what matches a path: a gap takes slashes too, unless its values are listed."""
    values = {each["name"]: each["schema"].get("enum") for each in one.get("parameters", ())}
    pieces = _GAP.split(path)
    for at, piece in enumerate(pieces):
        listed = values.get(piece) if at % 2 else None
        pieces[at] = "|".join(listed).join("()") if listed else ".+" if at % 2 else re.escape(piece)
    return re.compile("".join(pieces))
