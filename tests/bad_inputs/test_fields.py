"""Members that are not what they should be: B16 to B21, B40 and B41, in every dialect, over a socket.

What is refused is refused before it cost anything; what only a provider can judge goes to it as it is, and what it
says of it is told. That a translation loses nothing is shown in tests/dialects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiohttp import web

from tests.bad_inputs.scenes import DOORS, MODEL, Bad, plain, said
from tests.fakes.listener import listener
from tests.fakes.transport import completion
from tests.http.test_passthrough import on_port
from tokenhub_core.types import Dialect, Json

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANTHROPIC, CHAT, GEMINI, OLLAMA, RESPONSES = (
    Dialect.ANTHROPIC_MESSAGES,
    Dialect.OPENAI_CHAT,
    Dialect.GEMINI,
    Dialect.OLLAMA_CHAT,
    Dialect.OPENAI_RESPONSES,
)
TURNS: Final = {
    ANTHROPIC: "messages",
    CHAT: "messages",
    GEMINI: "contents",
    OLLAMA: "messages",
    RESPONSES: "input",
}


def turns(door: Dialect, role: object) -> Json:
    """Return a call with one turn, of a role."""
    words = {"parts": [{"text": "Hi"}]} if door is GEMINI else {"content": "Hi"}
    return plain(door, **{TURNS[door]: [{"role": role, **words}]})


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("value", [None, 1, "x", {}, [], [None], [1], [[]], [{}], True], ids=repr)
async def test_b16_turns_of_another_type_are_refused(bad: Bad, door: Dialect, value: object) -> None:
    """A conversation is a list of objects that say something.

    OpenAI's Responses take a text as well, and Gemini a lone object, and one without a member.
    """
    if (door is RESPONSES and value == "x") or (door is GEMINI and value in ({}, [{}])):
        value = 0.5
    async with bad.harmless():
        message = await bad.refused(door, plain(door, **{TURNS[door]: value}))
        assert TURNS[door] in message


@pytest.mark.parametrize("door", [ANTHROPIC, CHAT, GEMINI, RESPONSES])
@pytest.mark.parametrize(
    "role", ["wizard", "USER", "System", " user", "user\u0000", "", 1, None, ["user"]], ids=repr
)
async def test_b17_a_role_that_there_is_not_is_refused(bad: Bad, door: Dialect, role: object) -> None:
    """Letters in another case make another word: nobody becomes the operator by spelling.

    Gemini's callers may leave the role out, which is the user's then; Ollama's models have roles of their own.
    """
    if door is GEMINI and not role:
        role = "model "
    async with bad.harmless():
        await bad.refused(door, turns(door, role))


@pytest.mark.parametrize("role", [1, None, ["user"], {}], ids=repr)
async def test_b17_a_role_that_is_no_text_is_refused_of_ollamas_callers_too(bad: Bad, role: object) -> None:
    """Whatever their models know, it is a word."""
    async with bad.harmless():
        await bad.refused(OLLAMA, turns(OLLAMA, role))


CAPS: Final = {ANTHROPIC: "max_tokens", CHAT: "max_tokens", RESPONSES: "max_output_tokens"}


@pytest.mark.parametrize("door", CAPS)
@pytest.mark.parametrize("cap", [-1, 1.5, "9", True, [], {}], ids=repr)
async def test_b18_a_cap_that_is_none_is_refused(bad: Bad, door: Dialect, cap: object) -> None:
    """Money is reserved by it, so it has to be a whole number; zero is the provider's to judge."""
    async with bad.harmless():
        assert CAPS[door] in await bad.refused(door, plain(door, **{CAPS[door]: cap}))


@pytest.mark.parametrize("door", CAPS)
@pytest.mark.parametrize("cap", [10**9, 2**53, 10**19], ids=repr)
async def test_b18_a_huge_cap_holds_no_more_than_there_is(bad: Bad, door: Dialect, cap: int) -> None:
    """What a model can say at most is reserved, and no more; after the call nothing is."""
    async with bad.harmless(calls=1):
        told = await bad.send(door, plain(door, **{CAPS[door]: cap}), {"idempotency-key": f"{door} {cap}"})
        assert told.status == 200
    (budget,) = (await bad.it.done("GET", "/budgets"))["items"]
    assert 0 <= budget["spent"] < budget["limit"] / 10


async def test_b19_answers_by_the_thousand_are_more_than_a_budget_has(bad: Bad) -> None:
    """10,000 answers would cost 10,000 times as much: that is said before any is asked for."""
    async with bad.harmless():
        await bad.refused(CHAT, plain(CHAT, n=10_000, max_tokens=1_000), 400, 402, 429)


@pytest.mark.parametrize("n", [0, -1, -(10**9), "2", 1.5], ids=repr)
async def test_b19_a_number_of_answers_that_is_none_gives_nobody_money(bad: Bad, n: object) -> None:
    """It is the provider's to judge; what is held for the call is at least what one answer costs."""
    (before,) = (await bad.it.done("GET", "/budgets"))["items"]
    async with bad.harmless(calls=1):
        told = await bad.send(CHAT, plain(CHAT, n=n), {"idempotency-key": f"n {n!r}"})
        assert told.status in {200, 400}
    (after,) = (await bad.it.done("GET", "/budgets"))["items"]
    assert after["spent"] >= before["spent"]


async def test_b19_five_thousand_tools_and_a_schema_of_many_levels_do_no_harm(bad: Bad) -> None:
    """They are the provider's to judge: passed on as they came, or refused; a schema that refers to itself as well."""
    many = [{"type": "function", "function": {"name": f"f{n}", "parameters": {}}} for n in range(5_000)]
    schema: Json = {"type": "object"}
    for _ in range(20):
        schema = {"type": "object", "properties": {"a": schema}, "anyOf": [{"$ref": "#"}] * 20}
    bomb = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    for name, tools in (("many", many), ("bomb", bomb)):
        async with bad.harmless(calls=1):
            told = await bad.send(CHAT, plain(CHAT, tools=tools), {"idempotency-key": name})
            assert told.status == 200
            assert bad.fake.requests[-1].json["tools"] == tools


async def test_b20_a_link_in_a_message_is_followed_by_nobody_here(bad: Bad) -> None:
    """An address of a picture is a text: what listens there hears nothing of us."""
    heard = 0

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += 1
        writer.close()

    async with listener(hear) as port:
        for number, url in enumerate(
            (
                f"http://127.0.0.1:{port}/a.png",
                "http://169.254.169.254/latest/meta-data",
                "file:///etc/passwd",
            )
        ):
            picture = {"type": "image_url", "image_url": {"url": url}}
            async with bad.harmless(calls=1):
                content = [{"type": "text", "text": "Hi"}, picture]
                body = plain(CHAT, messages=[{"role": "user", "content": content}])
                told = await bad.send(CHAT, body, {"idempotency-key": f"picture {number}"})
                assert told.status in {200, 400}
                assert bad.fake.requests[-1].json["messages"] == body["messages"]
    assert heard == 0


async def test_b20_a_picture_of_50_mb_is_too_large(bad: Bad) -> None:
    """By the limit that holds for every body."""
    url = "data:image/png;base64," + "A" * 50_000_000
    picture = {"type": "image_url", "image_url": {"url": url}}
    async with bad.harmless():
        await bad.refused(CHAT, plain(CHAT, messages=[{"role": "user", "content": [picture]}]), 413)


@pytest.mark.parametrize("door", DOORS)
async def test_b21_a_form_is_refused_whatever_its_type(bad: Bad, door: Dialect) -> None:
    """What is read is the body: a form is no JSON, by whichever name it comes."""
    parts = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt-4o\r\n--x--\r\n'
    for kind in ("multipart/form-data; boundary=x", "application/json", "application/x-www-form-urlencoded"):
        async with bad.harmless():
            await bad.refused(door, parts, 400, 415, headers={"content-type": kind})


USAGES: Final[dict[str, Any]] = {
    "negative": {"prompt_tokens": -5, "completion_tokens": -(10**9), "total_tokens": -1},
    "beyond any number": {"prompt_tokens": 10**18, "completion_tokens": 2**63 - 1, "total_tokens": 1},
    "no numbers": {"prompt_tokens": "9", "completion_tokens": [1], "total_tokens": None},
    "fractions": {"prompt_tokens": 1.5, "completion_tokens": 1e300, "total_tokens": 0.1},
    "more cached than there are": {
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "total_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 10**9},
    },
    "another thing": ["a"],
    "nothing": None,
}


@asynccontextmanager
async def _counting(usage: object) -> AsyncIterator[int]:
    """A provider that says it used this."""

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.json_response({**completion(), "usage": usage})

    async with on_port(answer) as port:
        yield port


@pytest.mark.parametrize("usage", USAGES.values(), ids=USAGES.keys())
async def test_b40_what_a_provider_says_it_used_is_believed_within_reason(bad: Bad, usage: object) -> None:
    """The answer reaches its caller; no budget grows by it, and none is emptied by a number that cannot be."""
    async with _counting(usage) as port:
        body = {
            "id": "odd",
            "base_url": f"http://127.0.0.1:{port}",
            "cred_store": "memory",
            "api_key": "sk-odd",
        }
        await bad.it.done("POST", "/providers", body)
        prices = {"input_per_1k": 0.002, "output_per_1k": 0.008}
        await bad.it.done("POST", "/models", {"id": "odd", "provider_id": "odd", **prices})
        before = (await bad.it.done("GET", "/budgets"))["items"][0]
        told = await bad.send(
            CHAT, plain(CHAT, model="odd", max_tokens=10), {"idempotency-key": f"odd {usage}"[:200]}
        )
        assert told.status == 200
        after = (await bad.it.done("GET", "/budgets"))["items"][0]
        assert after["reserved"] == 0
        assert 0 <= after["spent"] - before["spent"] <= 10**6, "micro-dollars, of a call of ten tokens"
        await bad.it.done("DELETE", "/models/odd")
        await bad.it.done("DELETE", "/providers/odd")
    async with bad.harmless():
        pass


NAMES: Final = {
    "64 kB": "m" * 65_536,
    "a path": "../../etc/passwd",
    "a pattern": "gpt-*",
    "Cyrillic": "gpt-4\u043e",
    "a hyphen that breaks no line": "gpt\u20114o",
    "fullwidth": "\uff47\uff50\uff54-4\uff4f",
    "a space behind": f"{MODEL} ",
    "capitals": MODEL.upper(),
    "a NUL": f"{MODEL}\x00",
    "a line": f"{MODEL}\r\nX-A: b",
    "SQL": "' OR 1=1 --",
    "a script": "<script>alert(1)</script>",
}


@pytest.mark.parametrize("door", [CHAT, ANTHROPIC, RESPONSES, OLLAMA])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
async def test_b41_a_model_that_only_looks_like_one_is_none(bad: Bad, door: Dialect, name: str) -> None:
    """404, in the caller's dialect; the header fields of the answer hold nothing of it that could end a line."""
    async with bad.harmless():
        told = await bad.send(door, plain(door, model=name))
        assert told.status == 404, told.body[:200]
        assert len(said(door, told)) < 1_000
        assert told.header("x-a") == ""
        assert sum(len(value) for _, value in told.headers) < 10_000


@pytest.mark.parametrize(
    "name", ["m" * 5_000, "..%2f..%2fetc%2fpasswd", "gpt-*", "gpt-4%D0%BE", "gpt-4o%00", "gpt-4o%0d%0aX-A:b"]
)
async def test_b41_a_model_in_an_address_is_only_a_name(bad: Bad, name: str) -> None:
    """Gemini's callers name theirs in the path: there it is taken literally, too."""
    async with bad.harmless():
        told = await bad.send(GEMINI, plain(GEMINI), path=f"/v1beta/models/{name}:generateContent")
        assert told.status in {400, 404}
        assert said(GEMINI, told)
        assert told.header("x-a") == ""
