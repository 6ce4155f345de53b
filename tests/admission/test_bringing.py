"""Who serves a call whose caller has no credential for the host it was meant for: the rest of the way to a provider."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from tests.fakes.engine import Bench, chat
from tests.fakes.keys import ANN
from tests.fakes.transport import ScriptedTransport, completion, json
from tokenhub_core.admission.foreign import Foreign, Use
from tokenhub_core.ports import Secret
from tokenhub_core.preparing import Rules
from tokenhub_core.routing import decision
from tokenhub_core.routing.recompute import recompute
from tokenhub_core.types import Caller, Dialect, Headers, Model, Origin, Provider, ProviderType

HOST = "api.openai.com"
MEANT = Origin("https", HOST, 443)
REGISTERED = Provider(
    "openai", ProviderType.OPENAI, (f"https://{HOST}/v1",), Dialect.OPENAI_CHAT, cred_store="vault"
)
OTHER = Provider(
    "else", ProviderType.OPENAI, ("https://x.example/v1",), Dialect.OPENAI_CHAT, cred_store="vault"
)
OWN: Headers = (("authorization", "Bearer sk-own"),)


class Locker:
    """Every provider has a key."""

    def available(self, provider_id: str, cred_store: str, name: str = "default") -> bool:
        return cred_store != "caller"

    def credential(self, provider_id: str, cred_store: str, name: str = "default") -> Secret | None:
        return Secret(f"sk-{provider_id}") if cred_store != "caller" else None


def bench(
    *models: Model, rule: Use = Use.REPLACE, providers: tuple[Provider, ...] = (REGISTERED, OTHER)
) -> Bench:
    rules = Rules(foreign=Foreign({HOST: rule}))
    return Bench(
        models=models,
        providers=providers,
        rules=rules,
        transport=ScriptedTransport(json(completion())),
        secrets=Locker(),
    )


@pytest.mark.parametrize("models", [(), (Model("gpt-4o", "openai"),), (Model("gpt-4o", "else"),)])
async def test_the_registered_provider_serves_in_place_of_what_was_dropped(models: tuple[Model, ...]) -> None:
    """With the key of its own and nothing of the caller's, also a model that nobody registered there."""
    it = bench(*models)
    reply, _ = await it.ask(chat(), origin=MEANT)
    assert reply.status == 200
    transport = it.executor.means.transport
    assert isinstance(transport, ScriptedTransport)
    (sent,) = transport.sent
    there = "else" if [one.provider_id for one in models] == ["else"] else "openai"
    assert ("authorization", f"Bearer sk-{there}") in sent.headers
    assert it.recorder.one.provider == there
    plan = it.recorder.one.plan
    assert plan is not None
    again = recompute(decision.shown(plan))
    assert [one.model.id for one in again.candidates] == [one.model.id for one in plan.candidates]
    assert again.reason == plan.reason


async def test_without_a_registered_provider_the_call_is_refused() -> None:
    """The host is no candidate: nobody has a credential for it."""
    it = bench(providers=(OTHER, replace(REGISTERED, enabled=False)))
    reply, _ = await it.ask(chat(), headers=OWN, origin=MEANT)
    assert reply.status == 404


@pytest.mark.parametrize(("headers", "served"), [(OWN, True), ((), False)])
async def test_the_host_is_asked_with_the_callers_own_key_or_not_at_all(
    headers: Headers, served: bool
) -> None:
    """A key of ours is none for it, and was taken out at the door; who is anonymous is sent on as before."""
    it = bench(rule=Use.USE)
    caller = Caller(peer="127.0.0.1", key=ANN)
    snapshot = structs.replace(it.snapshot(chat(), headers=headers, origin=MEANT), caller=caller)
    reply = await it.engine.exchange(snapshot)
    assert (reply.status == 200) is served
    anonymous = await it.engine.exchange(it.snapshot(chat(), origin=MEANT))
    assert anonymous.status == 200
