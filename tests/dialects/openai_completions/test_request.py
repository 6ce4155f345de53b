from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.openai_completions import OPENAI_COMPLETIONS
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.types import Call, Dialect, Json, Request, Role, Text, TextSlot, Turn


def opened(**fields: Any) -> Request:
    return OPENAI_COMPLETIONS.open(orjson.dumps({"model": "m", "prompt": "Hi"} | fields))


def parsed(**fields: Any) -> Call:
    return OPENAI_COMPLETIONS.parse(opened(**fields))


@pytest.mark.parametrize(
    ("prompt", "size", "turns"),
    [
        ("Grüße", 7, 1),
        (["ab", "c"], 3, 2),
        ([1, 2, 3], 12, 1),
        ([[1, 2], [3]], 12, 2),
        (None, 0, 1),
        ([], 0, 0),
    ],
)
def test_a_prompt_is_measured_in_every_form(prompt: Any, size: int, turns: int) -> None:
    """A token that is only a number stands for four bytes."""
    features = opened(prompt=prompt).features
    assert (features.text_bytes, features.turns) == (size, turns)
    assert opened(prompt=prompt, suffix="end").features.text_bytes == size + 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [1, "a", None]}, "prompt[0]"),
        ({"prompt": [[1, "a"]]}, "prompt[0][1]"),
        ({"model": 1}, "model"),
        ({"stream": 1}, "stream"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"suffix": []}, "suffix"),
    ],
)
def test_a_wrong_field_is_named(fields: Json, param: str) -> None:
    """With its place."""
    with pytest.raises(TokenHubError) as caught:
        opened(**fields)
    assert (caught.value.fault.kind, caught.value.fault.param) == (Kind.INVALID, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1]]}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"echo": True, "logprobs": 1}, "echo"),
    ],
)
def test_what_only_a_completion_can_do_is_refused_by_name(fields: Json, param: str) -> None:
    """It is valid, and its bytes can be passed to a provider of the dialect; there is no canonical call."""
    request = opened(**fields)
    assert OPENAI_COMPLETIONS.patch(request, model="m", max_output_tokens=None) is request.body
    with pytest.raises(TokenHubError) as caught:
        OPENAI_COMPLETIONS.parse(request)
    assert (caught.value.fault.kind, caught.value.fault.blame) == (Kind.INVALID, Blame.CLIENT)
    assert caught.value.fault.param == param


def test_a_prompt_is_one_turn_of_the_user() -> None:
    """One text in an array is one text; what says nothing is no rest."""
    call = parsed(prompt=["Hi"], suffix="", best_of=1, logit_bias={}, echo=True)
    assert (call.turns, dict(call.rest)) == ((Turn(Role.USER, (Text("Hi"),)),), {})


def test_settings_have_their_canonical_place() -> None:
    """Where their value can be read; any other value is kept as it came."""
    call = parsed(logprobs=0, n=2, seed=3, temperature=0, stop="x", user="u", best_of=4)
    assert (call.logprobs, call.n, call.seed, call.temperature) == (0, 2, 3, 0)
    assert (call.stop, call.user, dict(call.rest)) == (("x",), "u", {"best_of": 4})
    odd: Json = {
        "logprobs": True,
        "n": "2",
        "temperature": "hot",
        "stop": [1],
        "user": 5,
        "stream_options": 1,
    }
    assert dict(parsed(**odd).rest) == odd


def test_the_wish_for_usage_is_read_and_the_patch_adds_it() -> None:
    """A caller who did not ask does not see the chunk that only we asked for."""
    asked = opened(stream=True, stream_options={"include_usage": True})
    assert OPENAI_COMPLETIONS.parse(asked).include_usage
    assert OPENAI_COMPLETIONS.patch(asked, model="m", max_output_tokens=None) is asked.body
    quiet = opened(stream=True)
    patched = orjson.loads(OPENAI_COMPLETIONS.patch(quiet, model="n", max_output_tokens=5))
    assert patched == quiet.data | {"model": "n", "max_tokens": 5, "stream_options": {"include_usage": True}}
    usage = b'{"choices":[],"usage":{"prompt_tokens":1}}'
    assert OPENAI_COMPLETIONS.hides("", usage, request=quiet)
    assert not OPENAI_COMPLETIONS.hides("", usage, request=asked)
    assert not OPENAI_COMPLETIONS.hides("", b'{"choices":[{"text":"a"}]}', request=quiet)


def test_directives_may_stand_in_a_prompt_that_is_a_text() -> None:
    """Each prompt stays in its place, even an empty one: each has an answer of its own."""
    data = opened(prompt=["a", "b"]).data
    slots = list(OPENAI_COMPLETIONS.text_slots(data))
    assert slots == [TextSlot("user", ("prompt", 0), "a"), TextSlot("user", ("prompt", 1), "b")]
    replaced = OPENAI_COMPLETIONS.replace_texts(data, [(("prompt", 1), ""), (("prompt", 0), "c")])
    assert (replaced["prompt"], data["prompt"]) == (["c", ""], ["a", "b"])
    lone = opened().data
    assert list(OPENAI_COMPLETIONS.text_slots(lone)) == [TextSlot("user", ("prompt",), "Hi")]
    assert OPENAI_COMPLETIONS.replace_texts(lone, [(("prompt",), "Ho")])["prompt"] == "Ho"
    assert OPENAI_COMPLETIONS.replace_texts(lone, []) is lone
    assert list(OPENAI_COMPLETIONS.text_slots(opened(prompt=[1, 2]).data)) == []


def test_the_rest_of_the_dialect_is_that_of_a_chat() -> None:
    """Path, framing and errors."""
    request = opened()
    assert (request.dialect, OPENAI_COMPLETIONS.name) == (Dialect.OPENAI_COMPLETIONS,) * 2
    assert OPENAI_COMPLETIONS.operation(model="m", stream=True) == "/completions"
    assert OPENAI_COMPLETIONS.stream_type(request) == "text/event-stream"
    assert OPENAI_COMPLETIONS.keep_alive(request).startswith(b":")
    assert OPENAI_COMPLETIONS.parser("text/event-stream") is not None
    fault = Fault(Kind.NOT_FOUND, Blame.CLIENT, "no such model")
    reply = OPENAI_COMPLETIONS.error(fault, request_id="r")
    assert (reply.status, orjson.loads(reply.body)["error"]["message"]) == (404, "no such model")
    assert b"no such model" in OPENAI_COMPLETIONS.stream_error(fault, request_id="r")
