"""The simulated vendors over real HTTP, as the official SDKs find them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import orjson
import pytest
from anthropic.types import Message, ToolUseBlock
from openai.types.responses import ResponseFunctionToolCall, ResponseReasoningItem

from tests.fakes.vendors import Vendors

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
BOTH_TOOLS = "Use get_weather and get_time for the city of Paris"
FLAT = [
    {"type": "function", "name": name, "parameters": CITY, "strict": True}
    for name in ("get_weather", "get_time")
]
THEIRS: Any = [{"name": name, "input_schema": CITY} for name in ("get_weather", "get_time")]
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    async with Vendors() as running:
        yield running


@pytest.fixture
async def gpt(vendors: Vendors) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{vendors.url}/v1", api_key="sk-x", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(vendors: Vendors) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=vendors.url, api_key="sk-x", max_retries=0) as client:
        yield client


# --- OpenAI Responses ---------------------------------------------------------------------------------------


async def test_a_response_is_one_to_the_sdk(gpt: openai.AsyncOpenAI, vendors: Vendors) -> None:
    """Whole, with text, usage and what it repeats of the request."""
    made = await gpt.responses.create(
        model="gpt-4o", input="Say hello", metadata={"a": "b"}, service_tier="flex", max_output_tokens=400
    )
    assert 'You asked: "Say hello".' in made.output_text
    assert (made.status, made.service_tier, made.metadata) == ("completed", "flex", {"a": "b"})
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    assert (vendors.count("/v1/responses"), vendors.last.json["model"]) == (1, "gpt-4o")


async def test_a_streamed_response_accumulates_to_the_whole_one(gpt: openai.AsyncOpenAI) -> None:
    """The SDK's own accumulator makes the same output of the events; the numbers rise by one."""
    settings: Any = {
        "model": "gpt-5",
        "input": BOTH_TOOLS,
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    }
    offers: tuple[Any, ...] = ({"tools": FLAT}, {})
    for more in offers:
        async with gpt.responses.stream(**settings, **more) as stream:
            numbers = [event.sequence_number async for event in stream]
            final = await stream.get_final_response()
        assert numbers == [*range(len(numbers))]
        kinds = [item.type for item in final.output]
        assert kinds == ["reasoning", *(["function_call"] * 2 if more else ["message"])]
        whole = await gpt.responses.create(**settings, **more)
        assert [item.type for item in whole.output] == kinds
        assert whole.output_text == final.output_text


async def test_reasoning_comes_back_sealed_and_is_known_again(gpt: openai.AsyncOpenAI) -> None:
    """The loop of an agent: calls, results, text; a foreign seal is refused."""
    settings: Any = {
        "model": "gpt-5",
        "tools": FLAT,
        "reasoning": {"effort": "high", "summary": "detailed"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
    }
    asked: list[Any] = [{"role": "user", "content": BOTH_TOOLS}]
    first = await gpt.responses.create(input=asked, **settings)
    thought = first.output[0]
    assert isinstance(thought, ResponseReasoningItem)
    assert "The question is" in thought.summary[0].text
    calls = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    assert [call.name for call in calls] == ["get_weather", "get_time"]
    assert [orjson.loads(call.arguments) for call in calls] == [{"city": "Paris"}] * 2
    results = [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"{call.name} says 18"}
        for call in calls
    ]
    history = [*asked, *(item.model_dump(exclude_none=True) for item in first.output), *results]
    second = await gpt.responses.create(input=history, **settings)
    assert 'The tool get_weather answered: "get_weather says 18".' in second.output_text
    assert 'The tool get_time answered: "get_time says 18".' in second.output_text
    history[1] = {**history[1], "encrypted_content": "gAAAAforeign"}
    with pytest.raises(openai.BadRequestError) as refused:
        await gpt.responses.create(input=history, **settings)
    assert refused.value.code == "invalid_encrypted_content"


async def test_a_response_shows_refusals_cuts_and_log_probabilities(gpt: openai.AsyncOpenAI) -> None:
    """Each in its own place."""
    refused = await gpt.responses.create(model="gpt-4o", input="please refuse this")
    assert refused.output[0].type == "message"
    assert refused.output[0].content[0].type == "refusal"
    filtered = await gpt.responses.create(model="gpt-4o", input="please filter this")
    assert (filtered.status, filtered.incomplete_details and filtered.incomplete_details.reason) == (
        "incomplete",
        "content_filter",
    )
    cut = await gpt.responses.create(model="gpt-4o", input="Hi", max_output_tokens=16)
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    told = await gpt.responses.create(
        model="gpt-4o", input="echo: one two", include=["message.output_text.logprobs"], top_logprobs=2
    )
    assert told.output[0].type == "message"
    part = told.output[0].content[0]
    assert part.type == "output_text"
    assert [token.token for token in part.logprobs or ()] == ["one ", "two"]
    assert [len(token.top_logprobs) for token in part.logprobs or ()] == [2, 2]


async def test_a_refusal_and_a_custom_tool_stream_as_events(gpt: openai.AsyncOpenAI) -> None:
    """Event kinds that text alone does not show."""
    asked: Any = {"model": "gpt-4o", "stream": True}
    kinds = {event.type async for event in await gpt.responses.create(input="please refuse", **asked)}
    assert {"response.refusal.delta", "response.refusal.done", "response.completed"} <= kinds
    tools: Any = [{"type": "custom", "name": "patch"}]
    stream = await gpt.responses.create(input="use patch on Paris", tools=tools, **asked)
    assert "response.custom_tool_call_input.done" in {event.type async for event in stream}


async def test_structured_responses_parse(gpt: openai.AsyncOpenAI) -> None:
    """An instance of the schema is the text."""
    form: Any = {"format": {"type": "json_schema", "name": "w", "schema": CITY, "strict": True}}
    made = await gpt.responses.create(model="gpt-4o", input="the weather in Paris", text=form)
    assert orjson.loads(made.output_text) == {"city": "Paris"}


# --- the other operations of OpenAI -------------------------------------------------------------------------


async def test_chat_has_choices_log_probabilities_and_media(gpt: openai.AsyncOpenAI) -> None:
    """What the two first dialects did not play before."""
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    sound = {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "wav"}}
    content: Any = [{"type": "text", "text": "What is this?"}, picture, sound, picture]
    made = await gpt.chat.completions.create(
        model="gpt-4o", n=2, logprobs=True, top_logprobs=3, messages=[{"role": "user", "content": content}]
    )
    first, second = (choice.message.content or "" for choice in made.choices)
    assert "It came with 2 images (image/png, image/png) and 1 audio (audio/wav)." in first
    assert first != second
    assert made.choices[0].logprobs is not None
    tokens = made.choices[0].logprobs.content or []
    assert "".join(token.token for token in tokens) == first
    assert {len(token.top_logprobs) for token in tokens} == {3}
    refused = await gpt.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "please refuse"}]
    )
    assert (refused.choices[0].message.content, bool(refused.choices[0].message.refusal)) == (None, True)
    filtered = await gpt.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "please filter"}]
    )
    assert filtered.choices[0].finish_reason == "content_filter"


async def test_several_choices_stream_side_by_side(gpt: openai.AsyncOpenAI) -> None:
    """Each by its index; together what the whole answer says."""
    asked: Any = {"model": "gpt-4o", "n": 3, "messages": [{"role": "user", "content": "Hi"}]}
    texts = ["", "", ""]
    async for chunk in await gpt.chat.completions.create(stream=True, **asked):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    whole = await gpt.chat.completions.create(**asked)
    assert [choice.message.content for choice in whole.choices] == texts


async def test_the_callers_seed_decides_the_words(gpt: openai.AsyncOpenAI) -> None:
    """The same seed, the same words; another seed, other words."""

    async def said(seed: int) -> str | None:
        made = await gpt.chat.completions.create(
            model="gpt-4o", seed=seed, messages=[{"role": "user", "content": "Hi"}]
        )
        return made.choices[0].message.content

    assert await said(1) == await said(1)
    assert len({await said(seed) for seed in range(5)}) > 1


async def test_a_repeated_prefix_is_read_from_the_cache(
    gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    """OpenAI by itself in steps of 128 tokens; Anthropic where it was asked, and it counts what it wrote."""
    long = "Remember this well. " * 300
    for expected in (0, 1408):
        made = await gpt.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "system", "content": long}, {"role": "user", "content": f"Hi {expected}"}],
        )
        assert made.usage is not None
        assert made.usage.prompt_tokens_details is not None
        assert made.usage.prompt_tokens_details.cached_tokens == expected
    system: Any = [{"type": "text", "text": long, "cache_control": {"type": "ephemeral"}}]
    seen = []
    for text in ("one", "two"):
        told = await claude.messages.create(
            model="claude-sonnet-4-6",
            max_tokens=300,
            system=system,
            messages=[{"role": "user", "content": text}],
        )
        seen.append((told.usage.cache_creation_input_tokens, told.usage.cache_read_input_tokens))
        assert told.usage.input_tokens < 20
    written, read = seen[0][0], seen[1][1]
    assert seen == [(written, 0), (0, read)]
    assert written == read
    assert (written or 0) > 1400


async def test_legacy_completions_are_some_to_the_sdk(gpt: openai.AsyncOpenAI) -> None:
    """Whole and streamed, with the prompt repeated, and log probabilities with offsets."""
    asked: Any = {"model": "gpt-4o", "prompt": "echo: a b c", "logprobs": 2, "echo": True}
    made = await gpt.completions.create(**asked)
    assert made.choices[0].text == "echo: a b ca b c"
    logprobs = made.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.text_offset == [0, 6, 8, 10, 13, 15]
    assert [len(top) for top in logprobs.top_logprobs or ()] == [2] * 6
    text, usage = "", None
    async for chunk in await gpt.completions.create(
        stream=True, stream_options={"include_usage": True}, **asked
    ):
        text += "".join(choice.text for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == made.choices[0].text
    assert usage == made.usage
    short = await gpt.completions.create(model="gpt-4o", prompt="Hi")
    assert (short.choices[0].finish_reason, short.usage and short.usage.completion_tokens) == ("length", 16)


async def test_embeddings_are_unit_vectors_of_their_input(gpt: openai.AsyncOpenAI) -> None:
    """The same for the same text in both encodings; fewer dimensions are scaled again."""
    asked: Any = {"model": "text-embedding-3-small", "input": ["one", "two", "one"]}
    plain = await gpt.embeddings.create(encoding_format="float", **asked)
    packed = await gpt.embeddings.create(**asked)  # the SDK asks for base64 and unpacks it
    one, two, again = (item.embedding for item in plain.data)
    assert one == again != two
    assert len(one) == 1536
    assert [list(item.embedding) for item in packed.data] == [one, two, again]
    assert sum(value * value for value in one) == pytest.approx(1.0)
    short = await gpt.embeddings.create(
        model="text-embedding-3-small", input="one", dimensions=8, encoding_format="float"
    )
    assert len(short.data[0].embedding) == 8
    assert sum(value * value for value in short.data[0].embedding) == pytest.approx(1.0)
    assert plain.usage.prompt_tokens == 3


# --- Anthropic ----------------------------------------------------------------------------------------------


async def think(claude: anthropic.AsyncAnthropic, messages: list[Any], **more: Any) -> Message:
    """Ask a model that thinks, by way of a stream that the SDK accumulates."""
    async with claude.messages.stream(
        model="claude-sonnet-4-6",
        max_tokens=2000,
        thinking=THINKING,
        tools=THEIRS,
        messages=messages,
        **more,
    ) as stream:
        return await stream.get_final_message()


async def test_thinking_is_signed_and_known_again(claude: anthropic.AsyncAnthropic) -> None:
    """The loop of an agent; a changed signature, a changed thought and a lost thought are refused."""
    asked: list[Any] = [{"role": "user", "content": BOTH_TOOLS}]
    first = await think(claude, asked)
    assert [block.type for block in first.content] == ["thinking", "tool_use", "tool_use"]
    results = [
        {
            "type": "tool_result",
            "tool_use_id": block.id,
            "content": [
                {"type": "text", "text": "18"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
                },
            ],
            "is_error": block.name == "get_time",
        }
        for block in first.content
        if isinstance(block, ToolUseBlock)
    ]
    content: list[Any] = [block.model_dump(exclude_none=True) for block in first.content]

    def history(content: list[Any]) -> list[Any]:
        return [*asked, {"role": "assistant", "content": content}, {"role": "user", "content": results}]

    second = await think(claude, history(content))
    text = "".join(block.text for block in second.content if block.type == "text")
    assert 'The tool get_weather answered: "18" with 1 image (image/png).' in text
    assert 'The tool get_time failed: "18"' in text
    for broken, words in (
        ([{**content[0], "signature": "c2lnbmF0dXJl"}, *content[1:]], "Invalid `signature`"),
        ([{**content[0], "thinking": "Something else"}, *content[1:]], "Invalid `signature`"),
        (content[1:], "Expected `thinking` or `redacted_thinking`"),
    ):
        with pytest.raises(anthropic.BadRequestError, match=words):
            await think(claude, history(broken))


async def test_redacted_thinking_goes_round(claude: anthropic.AsyncAnthropic) -> None:
    """Made on demand, accepted back, refused when it is another's."""
    first = await think(claude, [{"role": "user", "content": "please redact"}])
    assert [block.type for block in first.content] == ["redacted_thinking", "text"]
    content: list[Any] = [block.model_dump(exclude_none=True) for block in first.content]
    turns: list[Any] = [
        {"role": "user", "content": "please redact"},
        {"role": "assistant", "content": content},
        {"role": "user", "content": "Go on"},
    ]
    assert (await think(claude, turns)).stop_reason == "end_turn"
    content[0]["data"] = base64.b64encode(b"x" * 48).decode()
    with pytest.raises(anthropic.BadRequestError, match="Invalid `data` in `redacted_thinking`"):
        await think(claude, turns)


async def test_thinking_that_is_not_shown_keeps_its_signature(claude: anthropic.AsyncAnthropic) -> None:
    """`display: omitted` leaves the text out; the block can still go back."""
    hidden: Any = {"type": "adaptive", "display": "omitted"}
    asked: Any = {"model": "claude-sonnet-4-6", "max_tokens": 2000, "thinking": hidden}
    first = await claude.messages.create(messages=[{"role": "user", "content": "Hi"}], **asked)
    block = first.content[0]
    assert block.type == "thinking"
    assert (block.thinking, bool(block.signature)) == ("", True)
    turns: list[Any] = [
        {"role": "user", "content": "Hi"},
        first.to_param(),
        {"role": "user", "content": "So?"},
    ]
    assert (await claude.messages.create(messages=turns, **asked)).stop_reason == "end_turn"


async def test_a_refusal_says_why(claude: anthropic.AsyncAnthropic) -> None:
    """By its stop reason and details; the content filter is an error."""

    async def ask(text: str) -> Message:
        return await claude.messages.create(
            model="claude-sonnet-4-6", max_tokens=100, messages=[{"role": "user", "content": text}]
        )

    refused = await ask("please refuse")
    assert (refused.stop_reason, refused.content) == ("refusal", [])
    assert refused.stop_details is not None
    assert refused.stop_details.category == "general_harms"
    with pytest.raises(anthropic.BadRequestError, match="content filtering policy"):
        await ask("please filter")


async def test_tokens_are_counted_as_they_are_charged(claude: anthropic.AsyncAnthropic) -> None:
    """`count_tokens` says what the same message then costs."""
    asked: Any = {"model": "claude-sonnet-4-6", "messages": [{"role": "user", "content": "Hi there"}]}
    counted = await claude.messages.count_tokens(tools=THEIRS, **asked)
    charged = await claude.messages.create(max_tokens=100, tools=THEIRS, **asked)
    assert counted.input_tokens == charged.usage.input_tokens


async def test_a_model_that_nobody_has_is_a_404(
    gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    """In the vendor's words."""
    with pytest.raises(openai.NotFoundError) as missing:
        await gpt.responses.create(model="gpt-0", input="Hi")
    assert missing.value.code == "model_not_found"
    with pytest.raises(anthropic.NotFoundError, match="model: claude-0"):
        await claude.messages.create(
            model="claude-0", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        )


async def test_faults_are_scripted_by_model(gpt: openai.AsyncOpenAI, vendors: Vendors) -> None:
    """One after the other, then the last for ever; a broken stream is an error to the SDK."""
    vendors.script("gpt-4o", "429:7", "disconnect", "content-error:500", "ok")
    with pytest.raises(openai.RateLimitError) as limited:
        await gpt.responses.create(model="gpt-4o", input="Hi")
    assert limited.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.APIConnectionError):
        await gpt.responses.create(model="gpt-4o", input="Hi")
    stream = await gpt.responses.create(model="gpt-4o", input="Hi", stream=True)
    kinds = [event.type async for event in stream]
    assert "response.output_text.delta" in kinds
    assert (kinds[-1], "response.completed" in kinds) == ("error", False)
    assert (await gpt.responses.create(model="gpt-4o", input="Hi")).status == "completed"
    assert list(vendors.statuses) == [429, 0, 200, 200]
