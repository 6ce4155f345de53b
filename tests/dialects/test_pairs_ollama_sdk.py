"""What is written for Ollama, and to its clients, is what its official Python package takes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from ollama import _types as sdk

from tests.dialects.pairs import HOME, PAIRS
from tokenhub_core.types import Dialect, Json

OLLAMA: Final = (Dialect.OLLAMA_CHAT, Dialect.OLLAMA_GENERATE)


def bodies(client: Dialect, provider: Dialect, pattern: str) -> list[Path]:
    return sorted((HOME / "pairs" / f"{client}-to-{provider}").glob(pattern))


def understood(data: Json) -> Json:
    """Return a body with its images as the package's types have them: they write texts, and do not read them."""
    found = copy.deepcopy(data)
    for box in (found, found.get("message"), *found.get("messages", ())):
        if isinstance(box, dict) and box.get("images"):
            box["images"] = [{"value": each} for each in box["images"]]
    return found


def requests() -> list[Any]:
    pairs = [(client, provider) for client, provider in PAIRS if provider in OLLAMA]
    return [
        pytest.param(provider, path, id=f"{path.parent.name}-{path.stem}")
        for client, provider in pairs
        for path in bodies(client, provider, "request-*.json")
    ]


def answers() -> list[Any]:
    pairs = [(client, provider) for client, provider in PAIRS if client in OLLAMA]
    return [
        pytest.param(client, path, id=f"{path.parent.name}-{path.stem}")
        for client, provider in pairs
        for path in (*bodies(client, provider, "answer-*.json"), *bodies(client, provider, "stream-*.ndjson"))
    ]


@pytest.mark.parametrize(("provider", "path"), requests())
def test_a_request_to_ollama_is_one_of_its_package(provider: Dialect, path: Path) -> None:
    """Its types take the body, and write the same messages and images again."""
    data: Json = orjson.loads(path.read_bytes())["data"]
    kind = sdk.ChatRequest if provider is Dialect.OLLAMA_CHAT else sdk.GenerateRequest
    again = kind.model_validate(understood(data)).model_dump(exclude_none=True)
    assert again.get("images") == data.get("images")
    same = ("role", "content", "thinking", "images", "tool_name")
    # The type of a request takes any mapping for a message.
    for given in data.get("messages", ()):
        seen = sdk.Message.model_validate(understood(given)).model_dump(exclude_none=True)
        assert {name: seen.get(name) for name in same} == {name: given.get(name) for name in same}


@pytest.mark.parametrize(("client", "path"), answers())
def test_an_answer_to_a_client_of_ollama_is_one_of_its_package(client: Dialect, path: Path) -> None:
    """Whole or line by line; a line with an error is the package's own exception."""
    kind = sdk.ChatResponse if client is Dialect.OLLAMA_CHAT else sdk.GenerateResponse
    raw = path.read_bytes()
    lines = (
        [orjson.loads(raw)["data"]]
        if path.suffix == ".json"
        else [orjson.loads(each) for each in raw.splitlines()]
    )
    for data in lines:
        if "error" not in data:
            seen = kind.model_validate(understood(data))
            assert seen.done == data["done"]
            assert seen.eval_count == data.get("eval_count")
