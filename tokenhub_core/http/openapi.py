"""The OpenAPI document (version 3.1), made of what is declared of each route.

An `Operation` declares one method and path: what it takes, and what it answers with at which status. Types stand for
schemas: msgspec makes the JSON schema of the very types that bodies are decoded into. What holds for every route (who
is let in, how a refusal looks) is written here once, and not at each of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from inspect import cleandoc
from types import GenericAlias
from typing import Annotated, Any, Final, get_args, get_type_hints

import msgspec
from msgspec import NODEFAULT, UNSET, Meta, UnsetType, structs

from tokenhub_core.errors import Kind
from tokenhub_core.types import Json

VERSION: Final = "3.1.0"
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
SCHEMAS: Final = "#/components/schemas/"
_RESPONSES: Final = "#/components/responses/"
_PARAMETER: Final = re.compile(r"{(\w+)}")
_BASE: Final = "/admin/v1"
_UNNAMED: Final[Mapping[int, str]] = {
    413: "Content Too Large",
    422: "Unprocessable Content",
    529: "Overloaded",
}
"""The words of statuses that no standard has, or that some Pythons have by the words of an older one."""

type Name = Annotated[str, Meta(min_length=1)]


class Told(msgspec.Struct):
    """What went wrong."""

    message: str
    type: Kind
    code: str
    """The finer label, of which there are few: a program can tell by it."""
    param: str | UnsetType = UNSET
    """The field or parameter at fault."""


class Error(msgspec.Struct):
    """A refusal of the admin API."""

    error: Told


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of several types."""

    types: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    A type is what msgspec makes a schema of, an `AnyOf`, or a JSON schema as it stands. `answers` has a type for each
    status, None for no body, or a mapping of media types where it is no JSON. What follows from the rest is not
    declared: 400 of what takes a body or a query, 413 of a body, 401 and 503 behind the admin token, 400 and 429 of the
    whole admin API, 403, 417 of an `Expect` that is not kept, 500.
    """

    method: str
    path: str
    summary: str
    answers: Mapping[int, Any]
    body: Any = None
    media: str = JSON
    """Of the body."""
    bare: bool = False
    """Whether the body may be left out."""
    query: type[msgspec.Struct] | None = None
    """A field is a parameter."""
    headers: type[msgspec.Struct] | None = None
    places: Mapping[str, Any] = field(default_factory=dict)
    """The types of parameters in the path that are not just any name."""
    refuses: tuple[int | str, ...] = ()
    """Further statuses of refusals; `4XX` stands for all that are not named."""
    error: Any = Error
    """How a refusal looks."""
    tells: tuple[str, ...] = ()
    """Fields of every answer's head."""
    text: str = ""
    route: str = ""
    """The path as the router has it, where that is another one."""

    @property
    def served(self) -> tuple[str, str]:
        """Return method and path as the router has them."""
        return self.method, self.route or self.path

    @property
    def id(self) -> str:
        """Return what generated clients call it."""
        words = re.findall(r"\w+", f"{self.method.lower()} {self.path.removeprefix(_BASE)}")
        return "_".join(words)

    def refusals(self, *, closed: bool) -> list[int | str]:
        """Return every status that it refuses with."""
        found = {403, 417, 500, *self.refuses}
        if self.path.startswith(_BASE):
            # A secret in the address, and an address that asks too often.
            found |= {400, 429}
        if closed:
            found |= {401, 503}
        if self.body is not None:
            found |= {400, 413}
        if self.query is not None:
            found.add(400)
        return sorted(found - set(self.answers), key=str)

    def takes(self) -> Iterator[tuple[str, str, structs.FieldInfo]]:
        """Yield each parameter of query and headers: where it stands, its name, and its field."""
        for place, type_ in (("query", self.query), ("header", self.headers)):
            for one in structs.fields(type_) if type_ else ():
                yield place, one.encode_name, one

    def types(self) -> Iterator[Any]:
        """Yield every type that it names."""
        yield from (self.body, self.error, *self.places.values())
        yield from (one.type for _, _, one in self.takes())
        for content in self.answers.values():
            yield from content.values() if _by_media(content) else (content,)


@dataclass(frozen=True, slots=True)
class Area:
    """What belongs together."""

    name: str
    text: str
    operations: tuple[Operation, ...]


def many(kind: Any) -> Any:
    """Return the type of a list of these."""
    return GenericAlias(list, (kind,))


def items(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return the type of a whole list as the admin API shows one."""
    fields = (("items", many(kind)), ("total", int))
    return msgspec.defstruct(f"{kind.__name__}List", fields, namespace={"__doc__": "All of them."})


def shown(name: str, like: type, *, without: Collection[str] = (), **more: Any) -> type[msgspec.Struct]:
    """Return the type of what is shown of a value: its fields, less some, and others.

    They are all there, but for those whose type says that they may be UNSET.
    """
    hints = {**get_type_hints(like, include_extras=True), **more}
    fields = [
        (key, hint, UNSET) if UnsetType in get_args(hint) else (key, hint)
        for key, hint in hints.items()
        if key not in without
    ]
    return msgspec.defstruct(name, fields, kw_only=True, namespace={"__doc__": like.__doc__})


def document(
    areas: Sequence[Area], *, version: str, open_: Collection[str], words: Mapping[str, str]
) -> Json:
    """Return the document. `open_` are the router's paths that need no token, `words` what fields of heads say."""
    operations = [one for area in areas for one in area.operations]
    schemas = _Schemas(type_ for one in operations for type_ in one.types())
    paths: dict[str, Json] = {}
    refusals: dict[str, Json] = {}
    for area in areas:
        for one in area.operations:
            closed = one.served[1] not in open_
            told = _Telling(schemas, refusals, words).operation(one, closed=closed)
            paths.setdefault(one.path, {})[one.method.lower()] = {"tags": [area.name], **told}
    return {
        "openapi": VERSION,
        "info": {
            "title": "TokenHub",
            "version": version,
            "summary": "An LLM gateway: calls in the dialects of their clients, and what administers it.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": area.name, "description": area.text} for area in areas],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": refusals,
            "securitySchemes": {
                "adminToken": {"type": "http", "scheme": "bearer"},
                "adminSession": {"type": "apiKey", "in": "cookie", "name": "tokenhub_session"},
                "csrf": {"type": "apiKey", "in": "header", "name": "x-csrf-token"},
            },
        },
    }


class _Schemas:
    """The JSON schemas of types; those that have a name are components."""

    def __init__(self, types: Iterable[Any]) -> None:
        plain: list[Any] = []
        for type_ in types:
            plain += type_.types if isinstance(type_, AnyOf) else [type_]
        self._types = [one for one in plain if one is not None and not isinstance(one, dict)]
        found, components = msgspec.json.schema_components(self._types, ref_template=SCHEMAS + "{name}")
        self._found = list(found)
        # As JSON has it: some defaults are tuples.
        self.components: Json = msgspec.json.decode(msgspec.json.encode(components))
        for one in self.components.values():
            if "description" in one:
                # Up to Python 3.12 a docstring keeps the indentation of its code.
                one["description"] = cleandoc(one["description"])

    def of(self, type_: Any) -> Json:
        """Return the schema of a type that was given at the start."""
        if isinstance(type_, dict):
            return type_
        if isinstance(type_, AnyOf):
            return {"anyOf": [self.of(one) for one in type_.types]}
        return self._found[self._types.index(type_)]


@dataclass(frozen=True, slots=True)
class _Telling:
    """Tells of one operation; what refusals share goes to the components."""

    schemas: _Schemas
    shared: dict[str, Json]
    words: Mapping[str, str]

    def operation(self, one: Operation, *, closed: bool) -> Json:
        told: Json = {"operationId": one.id, "summary": one.summary}
        if one.text:
            told["description"] = one.text
        if parameters := [*self._places(one), *self._parameters(one)]:
            told["parameters"] = parameters
        if one.body is not None:
            told["requestBody"] = {"required": not one.bare, "content": self._content({one.media: one.body})}
        told["responses"] = {
            **{str(status): self._answer(status, content, one) for status, content in one.answers.items()},
            **{str(status): self._refusal(status, one) for status in one.refusals(closed=closed)},
        }
        told["security"] = _ways(one) if closed else []
        return told

    def _places(self, one: Operation) -> Iterator[Json]:
        for name in _PARAMETER.findall(one.path):
            schema = (
                self.schemas.of(one.places[name])
                if name in one.places
                else {"type": "string", "minLength": 1}
            )
            yield {"name": name, "in": "path", "required": True, "schema": schema}

    def _parameters(self, one: Operation) -> Iterator[Json]:
        for place, name, each in one.takes():
            schema = dict(self.schemas.of(each.type))
            if each.default not in (NODEFAULT, UNSET, None, ""):
                schema["default"] = msgspec.to_builtins(each.default)
            yield {"name": name, "in": place, "required": each.required, "schema": schema}

    def _answer(self, status: int, content: Any, one: Operation) -> Json:
        told: Json = {"description": _words(status)}
        if one.tells:
            told["headers"] = {name: self._head(name) for name in one.tells}
        if content is None:
            return told
        return {**told, "content": self._content(content if _by_media(content) else {JSON: content})}

    def _refusal(self, status: int | str, one: Operation) -> Json:
        schema = self.schemas.of(one.error)
        name = f"{_label(schema)}{status}"
        told = {"description": _words(status), "content": {JSON: {"schema": schema}}}
        if one.tells:
            told["headers"] = {name: self._head(name) for name in one.tells}
        if self.shared.setdefault(name, told) != told:
            return told
        return {"$ref": _RESPONSES + name}

    def _head(self, name: str) -> Json:
        return {"schema": {"type": "string"}, "description": self.words[name]}

    def _content(self, by_media: Mapping[str, Any]) -> Json:
        return {media: {"schema": self.schemas.of(type_)} for media, type_ in by_media.items()}


def _ways(one: Operation) -> list[Json]:
    """Return what lets somebody in: a token, or a session, which shows with every write that it is meant."""
    meant: Json = {} if one.method == "GET" else {"csrf": []}
    return [{"adminToken": []}, {"adminSession": [], **meant}]


def _by_media(content: Any) -> bool:
    return isinstance(content, Mapping) and all("/" in name for name in content)


def _label(schema: Json) -> str:
    refs = [one["$ref"] for one in schema.get("anyOf", [schema])]
    return "Or".join(ref.removeprefix(SCHEMAS) for ref in refs)


def _words(status: int | str) -> str:
    if isinstance(status, str):
        return "A refusal of the provider" if status == "4XX" else "A failure of the provider"
    return _UNNAMED.get(status) or HTTPStatus(status).phrase
