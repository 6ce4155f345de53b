from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.gemini import GEMINI
from tokenhub_core.errors import Blame, Kind, TokenHubError
from tokenhub_core.routing.affinity import Thread
from tokenhub_core.types import Json, Need, Request, TextSlot

HELLO: Json = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
STREAM = "/v1beta/models/gemini-3-pro:streamGenerateContent"


def opened(body: Json, path: str = "/v1beta/models/gemini-3-pro:generateContent") -> Request:
    return GEMINI.open(orjson.dumps(body), path)


# --- what the path says ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        ("/v1beta/models/gemini-3-pro:generateContent", "gemini-3-pro", False),
        ("/v1/models/gemini-3-pro:streamGenerateContent?alt=sse", "gemini-3-pro", True),
        ("/v1alpha/models/gemini-3-pro:streamGenerateContent", "gemini-3-pro", True),
        ("/v1beta/tunedModels/my-own:generateContent", "tunedModels/my-own", False),
        ("/v1beta/models/org%2Fmodel%3A8b%3AgenerateContent?key=x", "org/model:8b", False),
        ("/v1beta/models/org/models/m:generateContent", "org/models/m", False),
        ("/v1/projects/p/locations/l/publishers/google/models/m:generateContent", "m", False),
        ("models/m:generateContent", "m", False),
        ("/v1beta/models/m:countTokens", "", False),
        ("", "", False),
    ],
)
def test_the_path_names_the_model_and_the_wish_for_a_stream(path: str, model: str, stream: bool) -> None:
    """The body says neither."""
    features = opened(HELLO, path).features
    assert (features.model, features.stream) == (model, stream)


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("gemini-3-pro", True, "/models/gemini-3-pro:streamGenerateContent?alt=sse"),
        ("gemini-3-pro", False, "/models/gemini-3-pro:generateContent"),
        ("models/x", False, "/models/x:generateContent"),
        ("tunedModels/x", False, "/tunedModels/x:generateContent"),
        ("org/model:8b", False, "/models/org/model:8b:generateContent"),
        ("a?b#c d", False, "/models/a%3Fb%23c%20d:generateContent"),
        ("../../v1/files", False, "/models/..%2F..%2Fv1%2Ffiles:generateContent"),
        ("a//b", False, "/models/a%2F%2Fb:generateContent"),
    ],
)
def test_the_model_stands_in_the_operation(model: str, stream: bool, path: str) -> None:
    """No name can lead out of its place in the path."""
    assert GEMINI.operation(model=model, stream=stream) == path


@pytest.mark.parametrize(
    ("asked", "query"),
    [
        (STREAM, ""),
        (STREAM + "?alt=sse", "?alt=sse"),
        (STREAM + "?key=AIza&alt=sse&$prettyPrint=false", "?alt=sse&$prettyPrint=false"),
        (STREAM + "?access_token=x", ""),
        (STREAM + "?%6Bey=x&KEY=y&oauth_token=z&alt=json", "?alt=json"),
    ],
)
def test_the_callers_query_is_kept_but_no_credential_in_it(asked: str, query: str) -> None:
    """A stream stays in the framing that the caller reads; a key travels in a header."""
    path = GEMINI.operation(model="other", stream=True, request=opened(HELLO, asked))
    assert path == "/models/other:streamGenerateContent" + query


def test_a_stream_that_the_caller_did_not_ask_for_is_one_of_events() -> None:
    """Only the caller's own framing may be an array."""
    assert GEMINI.operation(model="m", stream=True, request=opened(HELLO)).endswith("?alt=sse")


def test_the_framing_of_a_stream_decides_its_type_and_its_keep_alive() -> None:
    """A comment would break an array; a line end does not."""
    events, array = opened(HELLO, STREAM + "?alt=sse"), opened(HELLO, STREAM)
    assert GEMINI.stream_type(events) == "text/event-stream"
    assert GEMINI.keep_alive(events).startswith(b":")
    assert GEMINI.stream_type(array).startswith("application/json")
    assert GEMINI.keep_alive(array) == b"\n"
    assert not GEMINI.hides("", b"{}", request=array)
    assert GEMINI.parser("text/plain") is None


# --- features ----------------------------------------------------------------------------------------------


def test_routing_sees_what_the_body_asks_for() -> None:
    """Needs, sizes and the cap, in either spelling of the names."""
    body: Json = {
        "system_instruction": {"parts": {"text": "äh"}},
        "contents": [
            {
                "role": "user",
                "parts": [{"inline_data": {"mime_type": "image/png", "data": "AA=="}}, {"text": "abc"}],
            },
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]},
            {"parts": [{"functionResponse": {"name": "f", "response": {"b": 2}}}]},
            {
                "parts": [
                    {"fileData": {"fileUri": "https://x/y.pdf"}},
                    {"inlineData": {"mimeType": "audio/wav", "data": ""}},
                ]
            },
        ],
        "generation_config": {"max_output_tokens": "17", "response_schema": {"type": "OBJECT"}},
    }
    features = opened(body).features
    assert features.needs == {Need.VISION, Need.FILES, Need.AUDIO, Need.TOOLS, Need.JSON_SCHEMA}
    assert (features.media, features.turns, features.max_output_tokens) == (3, 4, 17)
    assert features.text_bytes == len("äh".encode()) + 3 + len('{"a":1}') + len('{"b":2}')


def test_a_cap_of_nothing_is_no_cap() -> None:
    """Protobuf's zero says that nothing was said."""
    assert opened(HELLO | {"generationConfig": {"maxOutputTokens": 0}}).features.max_output_tokens is None
    assert opened(HELLO).features.max_output_tokens is None


def part(**fields: Any) -> Json:
    return {"contents": [{"role": "user", "parts": [fields]}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": "Hello"}, "contents[0]"),
        ({"contents": [7]}, "contents[0]"),
        ({"contents": [{"role": "robot", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"role": ["user"], "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": "x"}]}, "contents[0].parts"),
        ({"contents": [{"parts": ["x"]}]}, "contents[0].parts[0]"),
        (part(text=7), "contents[0].parts[0].text"),
        (part(functionCall=7), "contents[0].parts[0].functionCall"),
        (part(functionCall={}), "contents[0].parts[0].functionCall.name"),
        (part(functionCall={"name": "f", "args": "x"}), "contents[0].parts[0].functionCall.args"),
        (part(functionResponse={"response": {}}), "contents[0].parts[0].functionResponse.name"),
        (
            part(functionResponse={"name": "f", "response": []}),
            "contents[0].parts[0].functionResponse.response",
        ),
        (
            part(functionResponse={"name": "f", "parts": [7]}),
            "contents[0].parts[0].functionResponse.parts[0]",
        ),
        (part(inlineData={"mimeType": "image/png"}), "contents[0].parts[0].inlineData.data"),
        (part(inline_data={"data": ""}), "contents[0].parts[0].inlineData.mimeType"),
        (part(fileData={}), "contents[0].parts[0].fileData.fileUri"),
        (HELLO | {"systemInstruction": "Be brief"}, "systemInstruction"),
        (HELLO | {"tools": [7]}, "tools[0]"),
        (HELLO | {"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
        (HELLO | {"generationConfig": 7}, "generationConfig"),
        (HELLO | {"generationConfig": {"maxOutputTokens": -1}}, "generationConfig.maxOutputTokens"),
        (HELLO | {"generationConfig": {"maxOutputTokens": True}}, "generationConfig.maxOutputTokens"),
        (HELLO | {"generationConfig": {"maxOutputTokens": "many"}}, "generationConfig.maxOutputTokens"),
    ],
)
def test_a_malformed_body_is_refused_with_its_place(body: Json, param: str) -> None:
    """The caller is told which field is wrong, before anything is sent."""
    with pytest.raises(TokenHubError) as caught:
        opened(body)
    fault = caught.value.fault
    assert (fault.kind, fault.blame, fault.param) == (Kind.INVALID, Blame.CLIENT, param)


# --- texts -------------------------------------------------------------------------------------------------


def test_a_signature_that_is_no_text_marks_no_conversation() -> None:
    """Whoever sends one gets the provider's word on it, and no error of ours."""
    part = {"text": "Hello", "thoughtSignature": {"a": 1}}
    odd, plain = ({"contents": [{"role": "user", "parts": [one]}]} for one in (part, {"text": "Hello"}))
    threads = [Thread(GEMINI.traces(opened(body).data), b"salt") for body in (odd, plain)]
    assert threads[0].whole() == threads[1].whole()


def test_only_peoples_own_words_are_slots() -> None:
    """Not thoughts, not what functions returned; a lone object has no number in its path."""
    body: Json = {
        "system_instruction": {"parts": {"text": "sys"}},
        "contents": [
            {"role": "user", "parts": [{"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": ""}}]},
            {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "b"}]},
            {"parts": {"text": "c"}},
            {"parts": [{"functionResponse": {"name": "f", "response": {"output": "@@x"}}}]},
        ],
    }
    assert list(GEMINI.text_slots(body)) == [
        TextSlot("system", ("system_instruction", "parts", "text"), "sys"),
        TextSlot("user", ("contents", 0, "parts", 0, "text"), "a"),
        TextSlot("assistant", ("contents", 1, "parts", 1, "text"), "b"),
        TextSlot("user", ("contents", 2, "parts", "text"), "c"),
    ]
    # Nobody is called that, so it is nobody that may direct.
    odd = {"contents": [{"role": {"type": None}, "parts": [{"text": "x"}]}]}
    assert [slot.role for slot in GEMINI.text_slots(odd)] == ["tool"]
    lone = {"contents": {"parts": [{"text": "x"}]}}
    assert [slot.path for slot in GEMINI.text_slots(lone)] == [("contents", "parts", 0, "text")]


def replaced(body: Json, text: str) -> Json:
    before = orjson.dumps(body)
    changed = GEMINI.replace_texts(body, [(slot.path, text) for slot in GEMINI.text_slots(body)])
    assert orjson.dumps(body) == before
    return changed


def test_texts_are_replaced_in_a_copy() -> None:
    """What the caller sent stays as it was."""
    body: Json = {
        "systemInstruction": {"parts": [{"text": "sys"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "a", "partMetadata": {"x": 1}}]},
            {"parts": {"text": "b"}},
        ],
    }
    assert replaced(body, "new") == {
        "systemInstruction": {"parts": [{"text": "new"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "new", "partMetadata": {"x": 1}}]},
            {"parts": [{"text": "new"}]},
        ],
    }
    assert replaced({"contents": {"parts": {"text": "b"}}}, "") == {
        "contents": {"parts": [{"text": "(empty)"}]}
    }


def test_what_became_empty_goes_away() -> None:
    """A part, a content, the system instruction; but never the whole conversation."""
    picture = {"inlineData": {"mimeType": "image/png", "data": ""}}
    body: Json = {
        "systemInstruction": {"parts": [{"text": "sys"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "a"}]},
            {"role": "user", "parts": [{"text": "b"}, picture]},
        ],
    }
    assert replaced(body, " ") == {"contents": [{"role": "user", "parts": [picture]}]}
    assert replaced(HELLO, "") == {"contents": [{"role": "user", "parts": [{"text": "(empty)"}]}]}


def test_an_emptied_content_stays_where_the_model_would_get_the_first_or_last_word() -> None:
    """Otherwise the model would be asked to continue its own words."""
    call = {"functionCall": {"name": "f", "args": {}}}
    body: Json = {
        "contents": [
            {"role": "user", "parts": [{"text": "a"}]},
            {"role": "model", "parts": [call]},
            {"role": "user", "parts": [{"text": "b"}]},
        ]
    }
    contents = replaced(body, "")["contents"]
    assert [content["parts"] for content in contents] == [
        [{"text": "(empty)"}],
        [call],
        [{"text": "(empty)"}],
    ]


@pytest.mark.parametrize(
    "path", [("tools", 0), ("contents", 0, "parts", 0, "name"), ("contents", "x", "parts", 0, "text")]
)
def test_a_path_that_no_slot_has_is_a_mistake(path: tuple[str | int, ...]) -> None:
    """Nothing else in a body can be replaced."""
    with pytest.raises(ValueError, match="no text can stand"):
        GEMINI.replace_texts(HELLO, [(path, "x")])


# --- patch -------------------------------------------------------------------------------------------------


def test_a_body_that_needs_no_change_is_the_same_object() -> None:
    """The model is in the path."""
    request = opened(HELLO)
    assert GEMINI.patch(request, model="other", max_output_tokens=None) is request.body
    capped = opened(HELLO | {"generationConfig": {"maxOutputTokens": 9}})
    assert GEMINI.patch(capped, model="other", max_output_tokens=9) is capped.body


def test_a_cap_changes_the_config_and_no_other_byte() -> None:
    """It goes where the caller's own stands, in the caller's spelling."""
    body = b'{ "generation_config" : {"top_k":1,"max_output_tokens": 5}, "contents": [{"parts":[{"text":"\\u00e4"}]}] }'
    patched = GEMINI.patch(GEMINI.open(body, STREAM), model="m", max_output_tokens=3)
    assert patched == body.replace(b'"max_output_tokens": 5', b'"max_output_tokens":3')
    added = GEMINI.patch(opened(HELLO), model="m", max_output_tokens=3)
    assert orjson.loads(added) == HELLO | {"generationConfig": {"maxOutputTokens": 3}}


def test_a_model_in_the_body_follows() -> None:
    """Some clients name it twice."""
    request = opened(HELLO | {"model": "models/a"})
    assert orjson.loads(GEMINI.patch(request, model="b", max_output_tokens=None))["model"] == "models/b"
    assert GEMINI.patch(request, model="a", max_output_tokens=None) is request.body
