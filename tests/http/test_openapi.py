"""The OpenAPI document: that it has every route, and that the server keeps to it whatever it is sent.

scripts/test tests/http/test_openapi.py         # a few requests for each operation, the same in each run
scripts/test search tests/http/test_openapi.py  # many that no run has had
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson
import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests import Session
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi import checks

from tests.cli.running import Running, running
from tests.fakes.contract import Said, contract
from tests.fakes.house import House
from tests.patience import PATIENCE
from tokenhub_core.http.operations import AREAS, document
from tokenhub_core.http.side import OPEN

OPERATIONS: Final = [one for area in AREAS for one in area.operations]

ENDLESS: Final = ("GET", "/admin/v1/events")
"""A stream without an end is not driven by generated requests; test_admin_events.py reads it."""
DRIVEN: Final = sorted({(one.method, one.path) for one in OPERATIONS} - {ENDLESS})
EXAMPLES: Final = 6 if settings().derandomize else 40
"""For each operation; `search` has its chance to find more."""
CHECKS: Final[list[CheckFunction]] = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
ODD: Final = (
    *("p", "gpt-4o", "a/b", "default", "s", "*"),
    *("\x00", "a\x00b", "\u2028", "%2f", "💥", "x" * 300, str(1 << 70)),
)
"""Names: some that are there, and some that are trouble elsewhere."""


def routes(app: web.Application) -> set[tuple[str, str]]:
    """Return method and path of everything that is served; HEAD goes with its GET."""
    found = set()
    for route in app.router.routes():
        assert route.resource is not None
        if route.method != "HEAD":
            found.add((route.method, route.resource.canonical))
    return found


# --- what the document has ----------------------------------------------------------------------------------


async def test_every_route_is_declared_and_every_declaration_is_served(it: House) -> None:
    """A route without an `Operation` fails here, and so does an `Operation` without a route."""
    assert routes(it.app.side) == {one.served for one in OPERATIONS}


def test_an_operation_is_declared_once_and_has_a_name_of_its_own() -> None:
    """Generated clients call it by that name."""
    assert len({(one.method, one.path) for one in OPERATIONS}) == len(OPERATIONS)
    assert len({one.id for one in OPERATIONS}) == len(OPERATIONS)
    assert all(re.fullmatch(r"\w+", one.id) for one in OPERATIONS)


def test_the_document_keeps_to_the_standard() -> None:
    """It is valid OpenAPI 3.1, all that it refers to is there, and no schema is there for nothing."""
    told = document()
    schemathesis.openapi.from_dict(document()).validate()
    assert orjson.loads(orjson.dumps(told)) == told
    text = orjson.dumps(told).decode()
    named = {(kind, name) for kind, found in told["components"].items() for name in found}
    referred = set(re.findall(r'"#/components/(\w+)/([^"]+)"', text))
    assert referred == {one for one in named if one[0] != "securitySchemes"}


def test_what_needs_the_token_says_so() -> None:
    """What the side server lets everybody do needs nothing; the rest has a 401, and the ways to be let in."""
    told = document()
    for one in OPERATIONS:
        found = told["paths"][one.path][one.method.lower()]
        open_ = one.served[1] in OPEN
        assert (found["security"] == []) is open_, one.path
        assert open_ or "401" in found["responses"], one.path


async def test_everybody_may_read_it(it: House) -> None:
    """It says what the source says, and nothing of what is configured."""
    told = await it.ask("GET", "/openapi.json")
    assert (told.status, told.json) == (200, document())


# --- what the document is held to ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/healthz", Said(418, "application/json", b"{}")),
        ("GET", "/healthz", Said(200, "text/html", b'{"status":"ok"}')),
        ("GET", "/healthz", Said(200, "application/json", b'{"status":"fine"}')),
        ("GET", "/healthz", Said(200, "application/json", b"{}")),
        ("GET", "/healthz", Said(200, "application/json", b'{"status":"ok","more":1}')),
        ("GET", "/", Said(304, "text/html", b"x")),
        ("PUT", "/healthz", Said(200, "application/json", b'{"status":"ok"}')),
        ("GET", "/admin/v1/apikeys/x", Said(405, "application/json", b"{}")),
        ("GET", "/admin/v1/logs/x/y", Said(404, "application/json", b'{"error":{"message":""}}')),
        ("POST", "/v1/models/m:generateContent", Said(400, "application/json", b'{"error":""}')),
        ("POST", "/v1/messages", Said(200, "application/json", b'{"type":"message"}')),
    ],
)
def test_an_answer_that_is_not_declared_is_seen(method: str, path: str, said: Said) -> None:
    """A status, a type, a value, a member that is missing and one too many, a body, a method, another shape."""
    assert [*contract().breaches(method, path, None, said)]


def test_a_method_that_a_path_does_not_have_may_be_refused() -> None:
    """Also where what is before it could be an id with a slash, and where a stream has no HEAD."""
    refused = Said(405, "application/json", b"{}")
    for method, path in (("GET", "/admin/v1/apikeys/x/rotate"), ("HEAD", "/admin/v1/events")):
        assert [*contract().breaches(method, path, None, refused)] == []


def test_a_request_that_was_taken_and_is_not_declared_is_seen() -> None:
    """The document must not forbid what the server does; what else calls say is their vendors' affair."""
    done = Said(200, "application/json", b'{"name":"a"}')
    path = "/admin/v1/vault/secrets/a"
    assert [*contract().breaches("PUT", path, b'{"value":"v"}', done)] == []
    assert [*contract().breaches("PUT", path, b'{"value":1}', done)]
    whole = Said(200, "application/json", b'{"choices":[],"model":"m","object":"o","more":1}')
    chat = b'{"messages":[{"role":"user","content":"x","name":"n"}],"odd":1}'
    assert [*contract().breaches("POST", "/v1/chat/completions", chat, whole)] == []


def test_a_path_is_the_operation_that_says_most_of_it() -> None:
    """Ids may hold slashes, and what follows them is no part of them where a path says so."""
    for path, name in (
        ("/v1/models/a/b", "get_v1_models_id"),
        ("/v1beta/models/a", "get_version_models_id"),
        ("/admin/v1/aliases/a/b/report", "get_aliases_name_report"),
        ("/admin/v1/aliases/a/b", "get_aliases_name"),
        ("/admin/v1/providers/p/credentials", "get_providers_id_credentials"),
    ):
        assert (contract().operation("GET", path) or {}).get("operationId") == name
    named = contract().operation("PATCH", "/admin/v1/providers/p/credentials/s") or {}
    assert named.get("operationId") == "patch_providers_id_credentials_name"
    assert contract().operation("GET", "/admin/v1/models/a") is None


# --- whatever is sent ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> Any:
    """The document as schemathesis reads it."""
    return schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that may be broken, with simulated providers, an open vault and something of everything."""
    given = {"VAULT_PASSWORD": "correct horse battery", "ADMIN_REQUESTS_PER_MINUTE": "none"}
    with running(tmp_path_factory.mktemp("served"), simulate=True, settings=given) as it:
        provider = {"id": "p", "base_url": "https://api.example", "cred_store": "memory", "api_key": "sk"}
        it.admin("POST", "/providers", provider)
        it.admin("POST", "/providers/p/credentials", {"name": "s", "api_key": "k", "cred_store": "memory"})
        prices = {"input_per_1k": 1, "output_per_1k": 1}
        it.admin("POST", "/models", {"id": "a/b", "provider_id": "p", **prices})
        it.admin("POST", "/aliases", {"name": "s", "variants": [{"model_id": "gpt-4o"}]})
        it.admin("PUT", "/vault/secrets/s", {"value": "v"})
        it.call()
        yield it


@pytest.fixture(scope="module")
def names(served: Running) -> list[str]:
    """What is put into paths: `ODD`, and the ids of one thing of each kind that gets its id from us."""
    made = {
        "/apikeys": {"name": "k"},
        "/budgets": {"owner": "all", "limit": 1_000_000},
        "/users": {"name": "ada", "role": "viewer", "password": "correct horse battery"},
        "/tokens": {"name": "t", "role": "viewer"},
    }
    return [*ODD, *(served.admin("POST", path, body)["id"] for path, body in made.items())]


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        session.trust_env = False
        yield session


@pytest.mark.parametrize(("method", "path"), DRIVEN)
@settings(max_examples=EXAMPLES, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_whatever_is_sent_the_answer_is_a_declared_one(
    method: str,
    path: str,
    data: st.DataObject,
    schema: Any,
    served: Running,
    names: list[str],
    session: Session,
) -> None:
    """No failure of ours, no status, type, field or body beside the declared: for valid requests and bent ones."""
    mode = data.draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
    case = data.draw(schema[path][method].as_strategy(generation_mode=mode))
    for place in case.path_parameters or {}:
        if place == "version":
            # Beside the listed ones there is no such path.
            case.path_parameters[place] = "v1beta"
        elif data.draw(st.booleans()):
            case.path_parameters[place] = data.draw(st.sampled_from(names))
    response = case.call(base_url=served.it.url, session=session, headers=served.it.bearer, timeout=PATIENCE)
    case.validate_response(response, checks=CHECKS)
    if response.status_code >= 500:
        # What the operation before may have asked for.
        assert (response.status_code, response.json()["error"]["code"]) == (503, "vault_locked")
