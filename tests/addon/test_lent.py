"""What passes to a host whose rule is `replace`, in both lanes: with the credential of its registered provider."""

from __future__ import annotations

import aiohttp
import orjson
import pytest
from aiohttp import web
from mitmproxy import http

from tests.addon.clients import ANTHROPIC, H1, KEY, OPENAI
from tests.addon.lanes import Front
from tests.addon.passed import Passing, records
from tests.fakes.keys import ANN, SECRET, Book, limited
from tests.fakes.watching import rules, watcher
from tests.test_lending import KEY as LENT
from tests.test_lending import Locker, lender
from tokenhub_core.admission.foreign import Foreign, Use
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Lane, Outcome, Scope

REPLACE = Foreign({OPENAI: Use.REPLACE, ANTHROPIC: Use.REPLACE})
PLACEHOLDER = {"Authorization": "Bearer placeholder", "OpenAI-Organization": "org-theirs"}
OURS = {"Authorization": f"Bearer {SECRET}"}


class Site:
    """A host that remembers what it was asked with, and answers with the key that it was shown."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        self.seen.append({name.lower(): value for name, value in request.headers.items()})
        shown = request.headers.get("authorization", "")
        return web.json_response({"error": f"no such key: {shown}"}, status=401, headers={"x-said": shown})


def held(running: Front) -> str:
    """Return all that the flows hold, where the lane makes some."""
    return "".join(str(flow.get_state()) for flow in running.flows if isinstance(flow, http.HTTPFlow))


@pytest.mark.parametrize("shown", [PLACEHOLDER, {"Authorization": f"Bearer {KEY}"}, {}, OURS])
async def test_what_passes_goes_with_the_providers_credential(
    passing: Passing, shown: dict[str, str]
) -> None:
    """In place of a placeholder, of the client's own key, of ours: none of them arrives; and it is told to nobody."""
    site = Site()
    async with (
        passing(site=site, book=Book(), foreign=REPLACE, watching=watcher(lender=lender())) as running,
        await H1.tls(running.proxy) as client,
    ):
        answer = await client.ask("/v1/files?limit=3", headers=shown)
        (record,) = await records(running)
        flows = held(running)
    (seen,) = site.seen
    assert seen["authorization"] == f"Bearer {LENT}"
    assert "openai-organization" not in seen
    assert not {"placeholder", KEY, SECRET} & set(str(seen).split("'"))
    mask = "*" * len(LENT)
    assert answer.status == 401
    assert orjson.loads(answer.body) == {"error": f"no such key: Bearer {mask}"}
    assert answer.headers["x-said"] == f"Bearer {mask}"
    assert (record.outcome, record.provider, record.origin_host) == (Outcome.PASSED, "openai", OPENAI)
    assert record.caller.key == (ANN if shown is OURS else None)
    assert LENT not in str(answer) + repr(record) + flows
    assert (running.lane is Lane.INSPECT) is bool(flows)


async def test_a_websocket_passes_with_the_providers_credential(passing: Passing) -> None:
    """The key among the subprotocols, as browsers show it, is taken out and not put back."""
    seen: list[dict[str, str]] = []

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        socket = web.WebSocketResponse(protocols=("realtime",))
        await socket.prepare(request)
        await socket.send_str("hello")
        await socket.close()
        return socket

    async with passing(site=site, foreign=REPLACE, watching=watcher(lender=lender())) as running:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"https://{OPENAI}/v1/realtime?model=gpt-realtime",
                proxy=f"http://{running.proxy.host}:{running.proxy.port}",
                ssl=running.proxy.trust("http/1.1"),
                protocols=("realtime", "openai-insecure-api-key.placeholder"),
            ) as socket,
        ):
            assert (await socket.receive_str(), socket.protocol) == ("hello", "realtime")
        (record,) = await records(running)
        assert LENT not in held(running)
    assert (seen[0]["authorization"], seen[0]["sec-websocket-protocol"]) == (f"Bearer {LENT}", "realtime")
    assert (record.status, record.provider) == (101, "openai")


async def test_a_refused_credential_is_lent_to_nobody_else(passing: Passing) -> None:
    """Its host's 401 parks it: the next request is told so, and the host is not asked again with the same key."""
    site = Site()
    async with passing(site=site, foreign=REPLACE, watching=watcher(lender=lender())) as running:
        async with await H1.tls(running.proxy) as client:
            assert (await client.ask("/v1/files", headers=PLACEHOLDER)).status == 401
            await records(running)
            answer = await client.ask("/v1/files", headers=PLACEHOLDER)
        assert (answer.status, len(site.seen)) == (503, 1)
        assert orjson.loads(answer.body)["error"]["code"] == "credentials_parked"


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ({"watching": watcher()}, 403, "no_credential"),
        (
            {
                "watching": watcher(
                    lender=lender(locker=Locker(fault=Fault(Kind.OVERLOADED, Blame.US, "x", cause="vault_locked")))
                )
            },
            503,
            "vault_locked",
        ),
        ({"watching": watcher(lender=lender()), "tokenhub_origin": False}, 403, "origin_off"),
        ({"key": limited(models=("gpt-4o",))}, 403, "model_not_allowed"),
        ({"key": limited(providers=(f"origin:{OPENAI}",))}, 403, "provider_not_allowed"),
        ({"key": limited(scopes=frozenset({Scope.CHAT}))}, 403, "insufficient_scope"),
        ({"key": limited(hosts=(ANTHROPIC,))}, 403, "host_not_allowed"),
        (
            {
                "watching": watcher(
                    *rules(observe=OPENAI),
                    lender=lender(),
                    admit=lambda *_: Fault(Kind.BUDGET, Blame.CLIENT, "nothing is left", cause="budget_exhausted"),
                )
            },
            402,
            "budget_exhausted",
        ),
    ],
)  # fmt: skip
async def test_nothing_is_lent_beyond_what_key_vault_and_budget_say(
    passing: Passing, how: dict[str, object], status: int, code: str
) -> None:
    """Each is a refusal of its own, before the host hears of it; a budget counts whatever the host's mode is."""
    site, given = Site(), {"watching": watcher(lender=lender()), **how}
    book = Book(**{SECRET: given.pop("key", ANN)})  # type: ignore[arg-type] # a key
    async with passing(site=site, book=book, foreign=REPLACE, **given) as running:
        async with await H1.tls(running.proxy) as client:
            answer = await client.ask("/v1/files", headers=OURS)
        assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (status, code)
        assert site.seen == []


async def test_where_nobody_is_registered_nothing_is_lent(passing: Passing) -> None:
    """The host of the rule has no provider: that is said, and neither key arrives."""
    site = Site()
    async with passing(site=site, foreign=REPLACE, watching=watcher(lender=lender())) as running:
        async with await H1.tls(running.proxy, ANTHROPIC) as client:
            answer = await client.ask("/v1/files", headers=PLACEHOLDER)
        assert (answer.status, site.seen) == (403, [])
        assert b"no provider is registered" in answer.body
