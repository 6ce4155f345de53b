"""Bad input that comes by another way than a call's body: B34 to B39 and B42.

There are no exports of ours in CSV (B37): what leaves is JSON, whose reader decides what a formula is; a scene holds
that to be so. That no name runs as a script in the browser (B36) is tests/http/test_ui_browser.py; what is shown here
is how names leave us.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path
from typing import Final

import orjson
import pytest
from aiohttp import web

from tests.bad_inputs.scenes import DOORS, MODEL, Bad, bad_house, plain, said
from tests.http.test_passthrough import on_port
from tests.trust.planting import DIRECTIVE, PLANTED, USER
from tokenhub_core.http.operations import document
from tokenhub_core.types import Dialect

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: Final = Dialect.OPENAI_CHAT

PATHS: Final = [
    *(
        "/assets/../../pyproject.toml",
        "/assets/..%2f..%2fpyproject.toml",
        "/assets/%2e%2e/%2e%2e/pyproject.toml",
    ),
    *("/assets/....//....//pyproject.toml", "/assets/..%5c..%5cpyproject.toml", "/assets//etc/passwd"),
    *("/assets/%00", "/assets/app.js%00.css", "/assets/..;/admin/v1/info", "/%2e%2e/%2e%2e/etc/passwd"),
    *(
        "/assets/%252e%252e%252fpyproject.toml",
        "/assets/\u002e\u002e%c0%af",
        "/..",
        "/assets/.",
        "/docs/../etc/passwd",
    ),
]


@pytest.mark.parametrize("path", PATHS)
async def test_b34_a_path_leads_to_no_file_but_the_pages_own(bad: Bad, path: str) -> None:
    """Whatever its dots are written as; sent as it stands, since a client would tidy it."""
    async with bad.harmless():
        for method in ("GET", "HEAD"):
            told = await bad.raw(f"{method} {path} HTTP/1.1", b"Connection: close\r\n\r\n")
            assert told.split(b" ", 2)[1] in {b"400", b"401", b"404"}, told[:200]
            assert b"root:" not in told
            assert b"[project]" not in told


SQL: Final = [
    "' OR '1'='1",
    "1; DROP TABLE api_keys;--",
    '" UNION SELECT * FROM secrets --',
    "%' ESCAPE '",
    "\\'",
    "*/x/*",
]
IDS: Final = [
    *(
        "apikeys/{}",
        "budgets/{}",
        "users/{}",
        "tokens/{}",
        "providers/{}",
        "models/{}",
        "aliases/{}",
        "logs/{}",
    ),
    *("decisions/{}", "logs?q={}", "logs?model={}", "audit?actor={}", "audit?action={}", "budgets?owner={}"),
]


@pytest.mark.parametrize("text", SQL)
async def test_b35_an_identifier_is_a_text_and_no_statement(bad: Bad, text: str) -> None:
    """Nothing is found by it, nothing is gone, and what is not found is said so."""
    before = await bad.it.done("GET", "/apikeys")
    name = "".join(f"%{byte:02x}" for byte in text.encode())
    async with bad.harmless():
        for path in IDS:
            told = await bad.it.admin("GET", "/" + path.format(name))
            if "?" in path:
                assert told.status in {200, 400}
                found = told.json
                lists = [value for value in found.values() if isinstance(value, list)]
                assert told.status == 400 or not any(lists), (path, found)
            else:
                assert told.status in {400, 404, 405}, (path, told)
    after = await bad.it.done("GET", "/apikeys")
    assert [one["id"] for one in after["items"]] == [one["id"] for one in before["items"]]


MARKUP: Final = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "';alert(1)//",
    "{{7*7}}${7*7}",
    "\u2028</script>",
]


@pytest.mark.parametrize("name", MARKUP)
async def test_b36_markup_in_a_name_leaves_as_the_text_that_it_is(bad: Bad, name: str) -> None:
    """As JSON, with a type that no browser guesses about; in every name that callers and admins give."""
    async with bad.harmless():
        made = await bad.it.admin("POST", "/apikeys", {"name": name})
        assert made.status in {201, 400}
        for told in (
            made,
            await bad.it.admin("POST", "/models", {"id": name, "provider_id": "p"}),
            await bad.it.admin("POST", "/aliases", {"name": name, "variants": [{"model_id": MODEL}]}),
            await bad.it.admin("GET", "/apikeys"),
            await bad.send(CHAT, plain(CHAT, model=f"no {name}")),
            await bad.it.admin("GET", "/audit"),
        ):
            assert told.status < 500
            assert told.header("content-type").startswith("application/json")
        for told in (made, await bad.it.admin("GET", "/apikeys"), await bad.it.admin("GET", "/audit")):
            assert told.header("x-content-type-options") == "nosniff"


FORMULAS: Final = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "=cmd|' /C calc'!A0"]


@pytest.mark.parametrize("name", FORMULAS)
async def test_b37_what_is_exported_is_no_table_of_formulas(bad: Bad, name: str) -> None:
    """A name like a formula comes back as the JSON text it was, or was never taken; in a table it is text."""
    async with bad.harmless():
        made = await bad.it.admin("POST", "/apikeys", {"name": name})
        if made.status == 201:
            assert made.json["name"] == name.strip()
        else:
            assert made.status == 400
    kinds = {
        kind
        for methods in document()["paths"].values()
        for one in methods.values()
        for answer in one["responses"].values()
        for kind in answer.get("content", {})
    }
    assert [kind for kind in kinds if "csv" in kind or "excel" in kind or "spreadsheet" in kind] == [
        "text/csv"
    ]
    await bad.it.chat(name, bad.shown)
    table = (await bad.it.admin("GET", "/logs/export?format=csv")).body.decode()
    cells = [cell for row in csv.reader(io.StringIO(table)) for cell in row]
    assert any(name.strip() in cell for cell in cells)
    assert not [cell for cell in cells if cell[:1] in {"=", "+", "-", "@", "\t", "\r"}]


@pytest.mark.parametrize(
    "key", ["x" * 1_000_000, "x" * 5_000, "", " ", "a\tb"], ids=lambda key: repr(key[:9])
)
async def test_b38_an_idempotency_key_that_is_none_is_refused(bad: Bad, key: str) -> None:
    """Before anything is done under it."""
    async with bad.harmless():
        for door in DOORS:
            head = b"Idempotency-Key: " + key.encode() + b"\r\nConnection: close\r\n"
            body = orjson.dumps(plain(door))
            rest = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
            told = await bad.raw("", rest, path=DOORS[door])
            # What is too large is not read to its end, and a reset may overtake the answer.
            assert told == b"" or told.split(b" ", 2)[1] in {b"400", b"431"}, told[:300]


AFTER: Final = [
    "-1",
    "1e9",
    "NaN",
    "99999999999999999999",
    "soon",
    "",
    "1;2",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "\u00bd",
    "0x10",
]


@pytest.mark.parametrize("after", AFTER)
async def test_b39_a_provider_that_says_no_sense_about_when_to_come_again_is_left_for_a_moment(
    bad: Bad, after: str
) -> None:
    """Another model answers, or the caller hears 429 or 503 with a time that is one; nobody waits for ever."""

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.json_response({"error": {"message": "slow"}}, status=429, headers={"retry-after": after})

    async with on_port(answer) as port:
        body = {
            "id": "odd",
            "base_url": f"http://127.0.0.1:{port}",
            "cred_store": "memory",
            "api_key": "sk-odd",
        }
        await bad.it.done("POST", "/providers", body)
        await bad.it.done("POST", "/models", {"id": "odd", "provider_id": "odd"})
        async with asyncio.timeout(60):
            told = await bad.send(CHAT, plain(CHAT, model="odd"), {"idempotency-key": f"after {after}"})
        assert told.status in {200, 429, 503}, told
        shown = told.header("retry-after")
        assert shown == "" or 0 <= int(shown) <= 86_400
        async with bad.harmless():
            pass
        await bad.it.done("DELETE", "/models/odd")
        await bad.it.done("DELETE", "/providers/odd")


@pytest.mark.parametrize("dialect", PLANTED)
async def test_b42_no_planted_directive_changes_a_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dialect: Dialect
) -> None:
    """Forty of them, where every role has leave: each call is made under the usual policy."""
    vectors = json.loads(Path(__file__).parents[1].joinpath("trust", "directives.json").read_text())
    async with bad_house(tmp_path, {"DIRECTIVE_ROLES": "user,system,developer"}) as bad:
        bad.log = caplog
        for vector in vectors:
            data = PLANTED[dialect](vector.get("place", USER), vector.get("text", DIRECTIVE))
            if dialect is not Dialect.GEMINI:
                data["model"] = MODEL
            heard = len(bad.fake.requests)
            told = await bad.send(dialect, data, {"idempotency-key": vector["name"]})
            # What its provider takes for no document or picture is the provider's to refuse, once it has it.
            assert told.status == 200 or len(bad.fake.requests) > heard, (vector, told.body)
            assert told.header("x-tokenhub-directive") in {"", "ignored"}
            decision = await bad.it.done("GET", f"/decisions/{told.header('x-request-id')}")
            assert "planted" not in str(decision.get("policy", {}))
        bad.no_failure()


async def test_b39_errors_of_a_provider_wear_the_callers_dialect(bad: Bad) -> None:
    """What it says is shown as a message, in whichever dialect was asked."""
    bad.fake.script(MODEL, ["400", "400", "400", "400", "400", "ok"])
    for door in DOORS:
        told = await bad.send(door, plain(door), {"idempotency-key": f"{door}"})
        assert told.status == 400
        assert said(door, told)
    async with bad.harmless():
        pass
