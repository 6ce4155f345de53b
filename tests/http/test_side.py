"""Who is let in at the side server, and that every error wears the shape of its path."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from unittest import mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from google import genai
from google.genai.types import HttpOptions
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.engine import Bench, chat, message
from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tests.fakes.register import bare_register
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.http.consumer import Consumer, Door
from tokenhub_core.http.sessions import Sessions
from tokenhub_core.http.side import OPEN, Probes, SideServer, local_host
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import Fleet

ANTHROPIC = {"anthropic-version": "2023-06-01"}


def routes(it: House) -> set[tuple[str, str]]:
    """Return method and path of everything that is served."""
    found = set()
    for route in it.app.side.router.routes():
        assert route.resource is not None
        found.add((route.method, route.resource.canonical))
    return found


async def test_everything_but_the_open_routes_needs_the_admin_token(it: House) -> None:
    """Every registered route is asked without a token: it answers 401, or it is on the list of open ones."""
    assert len(routes(it)) > 30
    for method, path in sorted(routes(it)):
        if path in OPEN:
            continue
        told = await it.ask(method, path.replace("{id}", "x"))
        assert told.status == 401, (method, path, told)
        if method != "HEAD":
            assert told.fault["code"] == "admin_token"


async def test_what_is_open_exists_and_lets_everybody_in(it: House) -> None:
    """No entry of the list is a dead letter: each names a route, and that route asks for no token."""
    assert {path for _, path in routes(it)} >= OPEN
    for method, path in sorted(routes(it)):
        if path in OPEN:
            told = await it.ask(method, path.replace("{id}", "x").replace("{name}", "app.js"))
            assert told.status != 401, (method, path, told)


@pytest.mark.parametrize(
    "path",
    [
        "/admin/v1/info?token={}",
        "/admin/v1/info?access_token={}",
        "/admin/v1/info?authorization=Bearer%20{}",
        "/admin/v1/info?tokenhub_session={}",
        "/admin/v1/events?replay=true&Ticket={}",
        "/admin/v1/logs?q=thadmin_{}",
        "/login?ticket={}",
        "/?token={}",
    ],
)
async def test_a_token_in_the_address_is_refused(it: House, path: str) -> None:
    """Addresses end up in logs and histories: there it opens nothing, and whoever puts it there is told."""
    for headers in ({}, it.bearer):
        told = await it.ask("GET", path.format(it.token), headers=headers)
        assert (told.status, told.fault["code"]) == (400, "token_in_query")
        assert it.token not in told.body.decode()


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer {}x",
        "Bearer x{}",
        "{}",
        "Basic {}",
        "bearer,{}",
        "Bearer {} {}",
        "Bearer \u00e9",
    ],
)
async def test_only_the_whole_token_behind_bearer_is_the_token(it: House, header: str) -> None:
    """Anything near it is refused; the word `bearer` itself is not case-sensitive."""
    wrong = {"authorization": header.format(it.token, it.token)}
    assert (await it.ask("GET", "/admin/v1/info", headers=wrong)).status == 401
    right = {"authorization": f"bEaReR  {it.token} "}
    assert (await it.ask("GET", "/admin/v1/info", headers=right)).status == 200


async def test_half_a_token_is_refused_and_so_are_bytes_that_are_no_text(it: House) -> None:
    """A prefix of the token does not do, and an Authorization that is not UTF-8 is a 401 like any other."""
    half = {"authorization": f"Bearer {it.token[:-1]}"}
    assert (await it.ask("GET", "/admin/v1/info", headers=half)).status == 401
    head = b"GET /admin/v1/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Authorization: Bearer \xff\xfe\r\n\r\n"
    assert (await it.raw(head)).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("localhost", True),
        ("localhost:8090", True),
        ("LOCALHOST:8090", True),
        ("tokenhub.localhost:8090", True),
        ("127.0.0.1:8090", True),
        ("[::1]:8090", True),
        ("192.168.1.7", True),
        ("", False),
        ("evil.example", False),
        ("evil.example:8090", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("evillocalhost", False),
        ("127.0.0.1@evil.example", False),
        ("[", False),
        ("[::1", False),
        ("2130706433", False),
    ],
)
def test_a_host_is_local_where_it_is_an_address_or_localhost(host: str, served: bool) -> None:
    """A name that was re-bound to our address still sends its own name."""
    assert local_host(host) is served


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/v1/models", "/admin/v1/info"])
async def test_a_rebound_name_is_served_nothing(it: House, path: str) -> None:
    """DNS rebinding: not even what needs no token, and not with the token either."""
    told = await it.ask("GET", path, headers={**it.bearer, "host": "evil.example:8090"})
    assert told.status == 403
    assert "evil" not in told.body.decode()


async def test_a_host_that_is_none_is_refused_in_words(it: House) -> None:
    """A broken Host is a 403 in JSON, not a failure of ours."""
    for host in ("[", "[::1", "a]b"):
        assert (await it.ask("GET", "/healthz", headers={"host": host})).fault["code"] == "bad_host"


async def test_a_health_check_without_a_host_is_answered(it: House) -> None:
    """Balancers ask over HTTP/1.0 without one; no browser does, so there is nothing to re-bind."""
    assert b" 200 " in await it.raw(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b" 401 " in await it.raw(b"GET /admin/v1/info HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost:{}", "http://[", "", "x"],
)
async def test_a_page_of_another_site_is_refused(it: House, origin: str) -> None:
    """Cross-site requests carry an Origin that is not ours: read or write, with or without a session, they end here."""
    session = await it.ask("POST", "/admin/v1/session", headers=it.bearer)
    cookie = session.header("set-cookie").partition(";")[0]
    for method, path in (
        ("GET", "/v1/models"),
        ("DELETE", "/admin/v1/providers/x"),
        ("POST", "/admin/v1/vault/lock"),
    ):
        headers = {"origin": origin.format(it.port), "cookie": cookie}
        told = await it.ask(method, path, headers=headers)
        assert told.status == 403, (method, path, told)
    own = await it.ask("GET", "/admin/v1/info", headers={"origin": it.url, "cookie": cookie})
    assert own.status == 200


async def test_a_form_of_another_site_makes_no_call(simulated: House) -> None:
    """A `text/plain` POST needs no preflight, so any page could send one: it must not spend anybody's money."""
    for path, body in (("/v1/chat/completions", chat()), ("/v1/messages", message())):
        headers = {"origin": "https://evil.example", "content-type": "text/plain"}
        told = await simulated.ask("POST", path, body, headers)
        assert told.status == 403
        assert "refused" in told.json["error"]["message"]
    logs = (await simulated.done("GET", "/logs"))["logs"]
    assert {(one["status"], one["provider_id"], one["model_id"]) for one in logs} <= {(403, "", "")}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/chat/completions", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("PROPFIND", "/v1/chat/completions", 405),
        ("POST", "/v1/audio/speech", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/models/no/such:model", 404),
        ("POST", "/v1/models", 405),
    ],
)
async def test_errors_of_the_openai_paths_are_openais(it: House, method: str, path: str, status: int) -> None:
    """An SDK can read them: message, type, param and code, and an id to ask about."""
    told = await it.ask(method, path)
    assert told.status == status
    assert set(told.json["error"]) == {"message", "type", "param", "code"}
    assert told.header("x-request-id").startswith("req_")


@pytest.mark.parametrize(
    ("method", "path", "status", "headers"),
    [
        ("GET", "/v1/messages", 405, {}),
        ("POST", "/v1/messages/batches", 404, ANTHROPIC),
        ("GET", "/v1/models/none", 404, ANTHROPIC),
    ],
)
async def test_errors_of_the_anthropic_paths_are_anthropics(
    it: House, method: str, path: str, status: int, headers: dict[str, str]
) -> None:
    """By the path, and where two dialects share one, by the version that the client names."""
    told = await it.ask(method, path, headers=headers)
    assert told.status == status
    assert told.json["type"] == "error"
    assert set(told.json["error"]) == {"type", "message"}


async def test_another_method_is_told_which_ones_there_are(it: House) -> None:
    """A 405 has to name them (RFC 9110, 15.5.6), in whatever shape it is told."""
    for path in ("/v1/chat/completions", "/api/chat", "/v1beta/models/m:generateContent"):
        assert "POST" in (await it.ask("PUT", path)).header("allow"), path
    assert (await it.ask("PUT", "/admin/v1/info", headers=it.bearer)).header("allow") == "GET,HEAD"


async def test_a_bad_host_on_a_consumer_path_is_told_in_its_dialect(it: House) -> None:
    """The check comes before the route, its words do not."""
    bad = {"host": "evil.example"}
    for version in ("v1", "v1beta"):
        google = await it.ask("POST", f"/{version}/models/m:generateContent", b"{}", bad)
        assert google.json["error"]["status"] == "PERMISSION_DENIED"
    assert (await it.ask("POST", "/v1/messages", b"{}", bad)).json["type"] == "error"
    assert (await it.ask("POST", "/v1/chat/completions", b"{}", bad)).json["error"]["param"] is None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/healthz", 405),
        ("GET", "/admin/v1/nothing", 404),
        ("PUT", "/admin/v1/info", 405),
        ("OPTIONS", "/admin/v1/info", 405),
        ("GET", "/admin", 404),
    ],
)
async def test_other_errors_are_json_too(it: House, method: str, path: str, status: int) -> None:
    """With the token: what is missing is 404, what has another verb 405; both say so in JSON."""
    told = await it.ask(method, path, headers=it.bearer)
    assert (told.status, set(told.fault)) == (status, {"message", "type", "code"})


async def test_under_admin_even_what_is_missing_is_nobodys_business(it: House) -> None:
    """Without the token there is no telling a missing path from a present one."""
    for path in ("/admin", "/admin/v1/nothing", "/admin/v1/info"):
        assert (await it.ask("PUT", path)).status == 401


def bench_side(*more: web.RouteDef) -> web.Application:
    """Return a side server on an engine in memory, with routes of our own that need the token `t`."""
    bench = Bench()
    door = Door(bench.engine, DIALECTS, bench.clock, lambda: bytes(10), 1 << 20)

    async def down() -> bool:
        return False

    side = SideServer(
        consumer=Consumer(door),
        sessions=Sessions(bare_register("t", bench.clock)),
        metrics=Metrics(),
        fleet=Fleet,
        probes=Probes(store=down, draining=lambda: False),
        origin=True,
    )
    return side.application(more)


async def test_a_failure_of_ours_is_json_and_tells_nothing_of_the_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client gets a 500 it can parse, the log gets the traceback."""

    async def fails(request: web.Request) -> web.Response:
        raise RuntimeError("the inside")

    async with TestClient(TestServer(bench_side(web.get("/admin/fails", fails)))) as client:
        with caplog.at_level(logging.ERROR):
            response = await client.get("/admin/fails", headers={"authorization": "Bearer t"})
            told = await response.json()
    assert (response.status, told["error"]["code"]) == (500, "internal")
    assert "inside" not in told["error"]["message"]
    assert "the inside" in caplog.text


async def test_a_failure_behind_the_head_cuts_the_connection() -> None:
    """An answer that has begun is never followed by a second head; the client sees that it was cut."""

    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise RuntimeError

    server = TestServer(bench_side(web.get("/admin/breaks", breaks)))
    async with TestClient(server) as client:
        response = await client.get("/admin/breaks", headers={"authorization": "Bearer t"})
        with pytest.raises(aiohttp.ClientPayloadError, match="payload is not completed"):
            await response.read()


async def test_readiness_needs_the_store() -> None:
    """A store that cannot be read is a 503 that names it; the process is alive all the same."""
    async with TestClient(TestServer(bench_side())) as client:
        response = await client.get("/readyz")
        told = await response.json()
        assert (response.status, told["checks"]["store"]) == (503, False)
        assert (await client.get("/healthz")).status == 200


async def test_readiness_needs_somebody_who_could_answer(tmp_path: Path, fake: FakeProvider) -> None:
    """Without a model the origin must be allowed; with one it may be off."""
    async with house(tmp_path / "a") as it:
        told = await it.ask("GET", "/readyz")
        assert (told.status, told.json["checks"]["models"]) == (503, False)
        await it.provider(fake, "p", "gpt-4o")
        told = await it.ask("GET", "/readyz")
        assert (told.status, told.json["providers"], told.json["models"]) == (200, 1, 1)
    async with house(tmp_path / "b", settings={"ORIGIN": "true"}) as it:
        assert (await it.ask("GET", "/readyz")).status == 200


async def test_a_server_that_leaves_is_alive_and_not_ready(simulated: House) -> None:
    """Balancers stop sending, and nobody restarts what is ending in good order."""
    assert (await simulated.ask("GET", "/readyz")).status == 200
    simulated.app.drain()
    told = await simulated.ask("GET", "/readyz")
    assert (told.status, told.json["checks"]["serving"]) == (503, False)
    assert (await simulated.ask("GET", "/healthz")).json == {"status": "ok"}


async def test_the_metrics_are_prometheus_text(it: House) -> None:
    """They parse, with the content type that scrapers expect, and HEAD works as for every GET."""
    told = await it.ask("GET", "/metrics")
    families = {family.name for family in text_string_to_metric_families(told.body.decode())}
    assert {"tokenhub_requests", "tokenhub_build_info", "process_cpu_seconds"} <= families
    assert told.header("content-type").startswith("text/plain; version=")
    assert (await it.ask("HEAD", "/metrics")).status == 200


@pytest.mark.parametrize(
    ("access", "near", "far"), [("local", 200, 401), ("token", 401, 401), ("open", 200, 200)]
)
async def test_who_may_read_the_metrics_is_the_operators_choice(
    tmp_path: Path, access: str, near: int, far: int
) -> None:
    """Programs on this machine, nobody, or everybody; a viewer's token is good wherever one is needed."""
    async with house(tmp_path, settings={"METRICS_ACCESS": access}) as it:
        made = await it.done("POST", "/tokens", {"name": "scraper", "role": "viewer"})
        viewer = {"authorization": f"Bearer {made['token']}"}
        assert (await it.ask("GET", "/metrics")).status == near
        assert (await it.ask("GET", "/metrics", headers=viewer)).status == 200
        with mock.patch("tokenhub_core.http.side.loopback", return_value=False):
            assert (await it.ask("GET", "/metrics")).status == far
            assert (await it.ask("GET", "/metrics", headers=viewer)).status == 200


async def test_models_are_listed_in_either_dialect(it: House, fake: FakeProvider) -> None:
    """Enabled ones, by id, each once however many providers serve it; ids with slashes can be asked for."""
    await it.provider(fake, "a", "z", "meta-llama/Llama-3.1:free")
    await it.provider(fake, "b", "z", "off", "alone")
    await it.done("PATCH", "/models/off", {"enabled": False})
    openai = (await it.ask("GET", "/v1/models")).json
    assert openai["object"] == "list"
    assert [model["id"] for model in openai["data"]] == ["alone", "meta-llama/Llama-3.1:free", "z"]
    assert {model["object"] for model in openai["data"]} == {"model"}
    anthropic = (await it.ask("GET", "/v1/models", headers=ANTHROPIC)).json
    assert (anthropic["first_id"], anthropic["last_id"], anthropic["has_more"]) == ("alone", "z", False)
    assert {model["type"] for model in anthropic["data"]} == {"model"}
    for path in ("/v1/models/meta-llama/Llama-3.1:free", "/v1/models/meta-llama%2FLlama-3.1%3Afree"):
        assert (await it.ask("GET", path)).json["owned_by"] == "a"
    assert (await it.ask("GET", "/v1/models/z", headers=ANTHROPIC)).json["display_name"] == "z"
    assert (await it.ask("GET", "/v1/models/off")).status == 404
    await it.done("PATCH", "/providers/b", {"enabled": False})
    assert len((await it.ask("GET", "/v1/models")).json["data"]) == 2


async def test_an_alias_is_listed_and_says_that_it_is_one(it: House, fake: FakeProvider) -> None:
    """After the models, where it can serve: not what is off, what stands for nothing, or for calls without a name."""
    await it.provider(fake, "p", "a", "b", "m")
    await it.done("PATCH", "/models/a", {"max_context_tokens": 9000, "max_output_tokens": 700})
    await it.done("PATCH", "/models/b", {"max_context_tokens": 8000})
    both = [{"model_id": "a", "weight": 1}, {"model_id": "b", "weight": 1}]
    await it.done("POST", "/aliases", {"name": "fast", "variants": both})
    await it.done("POST", "/aliases", {"name": "off", "variants": both, "enabled": False})
    await it.done("POST", "/aliases", {"name": "*", "variants": both})
    only = [{"model_id": "m", "weight": 1}, {"model_id": "a", "weight": 0}]
    await it.done("POST", "/aliases", {"name": "gone", "variants": only})
    pool = {"name": "pool", "strategy": "pool", "variants": [{"model_id": "[ab]", "weight": 1}]}
    await it.done("POST", "/aliases", pool)
    await it.done("PATCH", "/models/m", {"enabled": False})
    openai = (await it.ask("GET", "/v1/models")).json["data"]
    owned = [(one["id"], one["owned_by"], one["context_length"]) for one in openai]
    assert owned == [("a", "p", 9000), ("b", "p", 8000), ("fast", "alias", 8000), ("pool", "alias", 8000)]
    anthropic = (await it.ask("GET", "/v1/models/fast", headers=ANTHROPIC)).json
    assert (anthropic["id"], anthropic["display_name"]) == ("fast", "fast (alias)")
    gemini = (await it.ask("GET", "/v1beta/models/pool")).json
    assert (gemini["name"], gemini["displayName"]) == ("models/pool", "pool (alias)")
    assert (gemini["inputTokenLimit"], gemini["outputTokenLimit"]) == (8000, 700)
    for path in ("/v1/models/gone", "/v1/models/off", "/v1/models/*"):
        assert (await it.ask("GET", path)).status == 404


def google_models(url: str) -> list[tuple[str | None, list[str] | None]]:
    """Return what Google's own SDK lists."""
    with genai.Client(api_key="x", http_options=HttpOptions(base_url=url)) as client:
        return [(one.name, one.supported_actions) for one in client.models.list()]


async def test_models_are_listed_to_google_and_ollama_clients(it: House, fake: FakeProvider) -> None:
    """The same names in every dialect; Google's SDK reads them, and a missing one is an error of the dialect."""
    await it.provider(fake, "p", "meta/llama:free", "z")
    listed = (await it.ask("GET", "/v1beta/models")).json["models"]
    assert [one["name"] for one in listed] == ["models/meta/llama:free", "models/z"]
    assert await asyncio.to_thread(google_models, it.url) == [
        (one["name"], ["generateContent", "streamGenerateContent"]) for one in listed
    ]
    assert (await it.ask("GET", "/v1alpha/models/meta/llama:free")).json == listed[0]
    assert (await it.ask("GET", "/v1beta/models/none")).json["error"]["status"] == "NOT_FOUND"
    tags = (await it.ask("GET", "/api/tags")).json["models"]
    assert [(one["name"], one["model"], len(one["digest"])) for one in tags] == [
        ("meta/llama:free", "meta/llama:free", 64),
        ("z", "z", 64),
    ]
    refused = await it.ask("POST", "/api/tags")
    assert (refused.status, list(refused.json)) == (405, ["error"])


async def test_a_list_without_models_is_a_list(it: House) -> None:
    """Empty is `[]` in every dialect, never null."""
    assert (await it.ask("GET", "/v1/models")).json == {"object": "list", "data": []}
    empty = {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert (await it.ask("GET", "/v1/models", headers=ANTHROPIC)).json == empty
    for path in ("/v1beta/models", "/api/tags"):
        assert (await it.ask("GET", path)).json == {"models": []}
