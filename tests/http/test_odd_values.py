"""What is trouble elsewhere, in every place where a body has something: refused in words, or taken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.running import Running, running

MODEL = '{"id":"m","provider_id":"p",'
CALL = '{"model":"gpt-4o","max_tokens":9,'
BODIES = {
    "POST /admin/v1/providers": ('{"id":§,"base_url":"https://a"}', '{"id":"q","base_url":§}'),
    "PATCH /admin/v1/providers/p": ('{"api_key":§}', '{"endpoints":[§]}'),
    "POST /admin/v1/providers/p/credentials": ('{"name":§,"api_key":"k"}', '{"name":"n","cred_store":§}'),
    "POST /admin/v1/models": (
        *('{"id":§,"provider_id":"p"}', '{"id":"m","provider_id":§}'),
        *(MODEL + '"weight":§}', MODEL + '"input_per_1k":§,"output_per_1k":1}', MODEL + '"upstream":§}'),
    ),
    "PATCH /admin/v1/models/m": ('{"quirks":[§]}', '{"max_context_tokens":§}', '{"price_tiers":[{"above_tokens":§}]}'),
    "POST /admin/v1/aliases": ('{"name":§,"variants":[{"model_id":"m"}]}', '{"name":"a","variants":[{"model_id":§}]}'),
    "PUT /admin/v1/modes": ('{"mode":"shadow","host":§}', '{"mode":"shadow","user":§}', '{"mode":"shadow","alias":§}'),
    "PUT /admin/v1/routing-config": ('{"default_max_budget_usd":§}', '{"default_max_latency_ms":§}'),
    "POST /admin/v1/routing/simulate": ('{"model_hint":§}', '{"provider":§}', '{"token_count":§}', '{"seed":§}'),
    "POST /admin/v1/rehearse": ('{"host":§}', '{"since":§}', '{"clip":§}', '{"policy":{"model":§}}'),
    "PUT /admin/v1/vault/secrets/s": ('{"value":§}', "§"),
    "POST /admin/v1/apikeys": (
        *('{"name":§}', '{"name":"k","scopes":§}', '{"name":"k","models":[§]}', '{"name":"k","expires_at":§}'),
        *('{"name":"k","expires_in":§}', '{"name":"k","limits":{"concurrency":§}}'),
        *('{"name":"k","trust":{"roles":[§]}}', '{"name":"k","tags":[§]}'),
    ),
    "POST /admin/v1/budgets": (
        *('{"owner":§,"limit":1}', '{"owner":"key:k","limit":§}'),
        *('{"owner":"key:k","limit":1,"zone":§}', '{"owner":"key:k","limit":1,"thresholds":[§]}'),
    ),
    "POST /admin/v1/login": ('{"user":§,"password":"p"}', '{"ticket":§}'),
    "POST /admin/v1/users": ('{"name":§,"role":"viewer","password":"p"}', '{"name":"u","role":"viewer","password":§}'),
    "POST /admin/v1/tokens": ('{"name":§,"role":"viewer"}', '{"name":"t","role":"viewer","expires_in_secs":§}'),
    "POST /v1/chat/completions": (CALL + '"messages":[{"role":"user","content":§}]}', '{"model":§,"messages":[]}', "§"),
    "POST /v1/responses": (CALL + '"input":§}', '{"model":§,"input":"x"}'),
    "POST /v1/embeddings": ('{"model":"text-embedding-3-small","input":§}',),
    "POST /v1/messages": (CALL + '"messages":[{"role":"user","content":§}]}', '{"max_tokens":§,"messages":[]}'),
    "POST /v1beta/models/gpt-4o:generateContent": ('{"contents":[{"parts":[{"text":§}]}]}', '{"contents":§}'),
    "POST /api/chat": ('{"model":§}', '{"model":"gpt-4o","stream":false,"messages":[{"role":"user","content":§}]}'),
}  # fmt: skip
"""Operation → bodies, each with one place that is filled."""
VALUES = (
    *(b'"\\ud800"', b'"a\\u0000b"', b'"\xff"', b'"\xed\xa0\x80"', b'"' + b"x" * 100_000 + b'"'),
    *(b"1e400", b"1" + b"0" * 400, b"18446744073709551616", b"-1", b"NaN"),
    *(b"[" * 100_000, b"null", b"{}", b"[]", b'""'),
)


PLACES = (
    *(
        f"GET /admin/v1/{what}"
        for what in (
            "logs/§",
            "logs/§/body",
            "decisions/§",
            "apikeys/§",
            "directives/secrets/§",
            "aliases/§/report",
            "vault/secrets/§",
        )
    ),
    *(
        f"DELETE /admin/v1/{what}/§"
        for what in ("providers", "models", "aliases", "vault/secrets", "apikeys", "budgets", "users")
    ),
    *(
        f"GET /admin/v1/{what}=§"
        for what in ("logs?q", "logs?model", "logs?key", "budgets?owner", "audit?actor", "shadow/report?user")
    ),
    "GET /admin/v1/apikeys?before=1.§",
    *("DELETE /admin/v1/modes?host=§", "GET /v1/models/§", "GET /assets/§"),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Simulated providers, one that is stored, and an open vault."""
    password = {"VAULT_PASSWORD": "correct horse battery"}
    with running(tmp_path_factory.mktemp("odd"), simulate=True, settings=password) as it:
        it.admin("POST", "/providers", {"id": "p", "base_url": "https://api.example"})
        it.admin("POST", "/models", {"id": "m", "provider_id": "p"})
        yield it


@pytest.mark.parametrize("name", BODIES)
def test_no_value_breaks_a_handler(served: Running, name: str) -> None:
    """Lone surrogates, NULs, bytes that are no text, numbers that are too large or none, depth: never a 5xx."""
    it = served.it
    method, path = name.split(" ")
    for body in BODIES[name]:
        for value in VALUES:
            sent = body.encode().replace("§".encode(), value)
            told = served.do(it.ask(method, path, sent, it.bearer))
            assert told.status < 500, (body, value[:40], told)


@pytest.mark.parametrize(
    "piece", ["%00", "a%00b", "%ff", "%ed%a0%80", "%0a", "%2f", "a%2Fb", "%25", "%e2%80%a8", "x" * 3000]
)
def test_no_name_in_an_address_breaks_a_handler(served: Running, piece: str) -> None:
    """In paths and queries alike."""
    it = served.it
    for place in PLACES:
        method, path = place.split(" ")
        told = served.do(it.ask(method, path.replace("§", piece), None, it.bearer))
        assert told.status < 500, (method, path, told)
