"""What the two most used official SDKs make of streams that were translated between them, and of the next turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import orjson
import pytest

from tests.dialects import pairs
from tokenhub_core.dialects.registry import dialect
from tokenhub_core.types import Dialect, Failed, Finished, Json

OPENAI, ANTHROPIC = Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES

type Case = tuple[Dialect, Dialect, Path]


def ends(provider: Dialect, path: Path) -> bool:
    """Tell whether a stream comes to its end: only then is there an answer to compare with."""
    deltas = pairs.read(provider, [path.read_bytes()])
    return isinstance(deltas[-1], Finished) and not any(isinstance(delta, Failed) for delta in deltas)


WHOLE = [
    pytest.param((client, provider, path), id=f"{client}-to-{provider}-{path.stem}")
    for client, provider in ((OPENAI, ANTHROPIC), (ANTHROPIC, OPENAI))
    for path in pairs.inputs(provider, "streams")
    if ends(provider, path)
]


def to_openai(raw: bytes) -> Json:
    """Return what OpenAI's own SDK makes of a stream: text, calls, reason, tokens."""
    with (
        openai.DefaultHttpxClient(transport=httpx2.MockTransport(serving(raw))) as http,
        openai.OpenAI(api_key="x", base_url="http://x", max_retries=0, http_client=http) as client,
    ):
        stream = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        text, calls, reason, usage = "", dict[int, list[str]](), None, None
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in (each for each in chunk.choices if not each.index):
                said = choice.delta.audio.transcript if choice.delta.audio else ""
                text += choice.delta.content or choice.delta.refusal or said or ""
                reason = choice.finish_reason or reason
                for call in choice.delta.tool_calls or ():
                    if call.function is None:
                        # A tool of OpenAI's own kind: no function, so it is named in the losses.
                        continue
                    found = calls.setdefault(call.index, ["", "", ""])
                    for place, piece in enumerate((call.id, call.function.name, call.function.arguments)):
                        found[place] += piece or ""
    return {
        "text": text,
        "calls": [[id_, name, orjson.loads(given)] for id_, name, given in calls.values()],
        "reason": reason,
        "tokens": (usage.prompt_tokens, usage.completion_tokens) if usage else None,
    }


def to_anthropic(raw: bytes) -> Json:
    """Return what Anthropic's own SDK makes of a stream: text, calls, reason, tokens."""
    with (
        anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(serving(raw))) as http,
        anthropic.Anthropic(api_key="x", base_url="http://x", max_retries=0, http_client=http) as client,
        client.messages.stream(
            model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}]
        ) as stream,
    ):
        message = stream.get_final_message()
    usage = message.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return {
        "text": "".join(block.text for block in message.content if block.type == "text"),
        "calls": [
            [block.id, block.name, block.input] for block in message.content if block.type == "tool_use"
        ],
        "reason": message.stop_reason,
        "tokens": (usage.input_tokens + cached, usage.output_tokens),
    }


def serving(raw: bytes) -> Any:
    headers = {"content-type": "text/event-stream"}
    return lambda _: httpx2.Response(200, headers=headers, content=raw)


REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


@pytest.mark.parametrize("case", WHOLE)
def test_both_official_sdks_read_the_same_answer(case: Case) -> None:
    """What one SDK makes of the provider's bytes is what the other makes of ours."""
    client, provider, path = case
    raw = path.read_bytes()
    written, _ = pairs.streamed(client, provider, raw)
    ours, theirs = (
        (to_openai(written), to_anthropic(raw))
        if client is OPENAI
        else (to_openai(raw), to_anthropic(written))
    )
    assert ours["text"] == theirs["text"]
    assert ours["calls"] == theirs["calls"]
    if ours["tokens"]:
        assert ours["tokens"] == theirs["tokens"]
    # OpenAI ends refusals and named calls with "stop"; Anthropic's words for them say more.
    assert ours["reason"] == REASONS[theirs["reason"]] or (ours["reason"] == "stop" and client is ANTHROPIC)


# --- the next turn -----------------------------------------------------------------------------------------


def shown_and_returned(client: Dialect, provider: Dialect, answer: Json) -> Json:
    """Return what the provider is given of its own answer, which the client was shown and sends back."""
    whole = (
        dialect(client)
        .render_answer(dialect(provider).parse_answer(answer), request=pairs.asked(client))
        .data
    )
    message = (
        whole["choices"][0]["message"]
        if client is OPENAI
        else {"role": "assistant", "content": whole["content"]}
    )
    user = {"role": "user", "content": "x"}
    body = {"model": "m", "max_tokens": 9, "messages": [user, message, user]}
    call = dialect(client).parse(dialect(client).open(orjson.dumps(body)))
    rendered = dialect(provider).render(call, model="gemini-x", max_output_tokens=None)
    assert rendered.losses == ()
    return next(each for each in rendered.data["messages"] if each["role"] == "assistant")


def test_an_anthropic_thought_comes_back_through_a_client_of_the_other_dialect() -> None:
    """Block by block, with the signature that Anthropic made."""
    content = [
        {"type": "thinking", "thinking": "One.", "signature": "c2ln"},
        {"type": "thinking", "thinking": "", "signature": "b21pdHRlZA=="},
        {"type": "redacted_thinking", "data": "eHg="},
        {"type": "text", "text": "Done."},
    ]
    answer = {"type": "message", "content": content, "stop_reason": "end_turn"}
    assert shown_and_returned(OPENAI, ANTHROPIC, answer)["content"] == content


def test_sealed_thoughts_and_calls_come_back_through_an_anthropic_client() -> None:
    """As the chat provider said them."""
    message = {
        "role": "assistant",
        "content": "Done.",
        "reasoning_details": [
            {"type": "reasoning.text", "text": "One.", "signature": "c2ln", "index": 0},
            {"type": "reasoning.encrypted", "data": "eHg=", "id": "r", "index": 1},
        ],
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "f", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "Z2Vt"}},
            }
        ],
    }
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    assert shown_and_returned(ANTHROPIC, OPENAI, answer) == message
