"""A caller's request: checked and measured, its prompt found and replaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tokenhub_core.dialects import wire
from tokenhub_core.recognise import deployment
from tokenhub_core.types import Dialect, Features, Json, Request, TextSlot

BYTES_PER_TOKEN: Final = 4
"""What a token of a prompt that is given as numbers stands for, in bytes of text."""


def open_request(body: bytes, path: str = "") -> Request:
    """Decode and check a request body; raises `TokenHubError` (`INVALID`) that names the fault and place.

    A prompt is a text, an array of texts, the numbers of its tokens, or an array of those; it may be absent,
    which asks for a text from its beginning.
    """
    data = wire.decode(body)
    prompt = data.get("prompt")
    size, turns = (0, 1) if prompt is None else texts_size(prompt, "prompt")
    features = Features(
        model=wire.text(data, "model") or deployment(path),
        stream=wire.flag(data, "stream"),
        max_output_tokens=wire.count(data, "max_tokens", least=0),
        text_bytes=size + len(wire.text(data, "suffix").encode()),
        turns=turns,
    )
    return Request(Dialect.OPENAI_COMPLETIONS, body, data, features, path)


def texts_size(given: object, param: str) -> tuple[int, int]:
    """Return the bytes and the number of texts, each a string or the numbers of its tokens; `param` is its path.

    Raises `TokenHubError` (`INVALID`) where it is neither.
    """
    match given:
        case str():
            return len(given.encode()), 1
        case list():
            pass
        case _:
            raise wire.wrong(param, "a string or an array", given)
    if given and all(type(token) is int for token in given):
        return BYTES_PER_TOKEN * len(given), 1
    sizes = [_size(text, wire.join(param, place)) for place, text in enumerate(given)]
    return sum(sizes), len(sizes)


def _size(text: Any, param: str) -> int:
    if isinstance(text, str):
        return len(text.encode())
    if not isinstance(text, list):
        raise wire.wrong(param, "a string or an array of token numbers", text)
    for place, token in enumerate(text):
        if type(token) is not int:
            raise wire.wrong(wire.join(param, place), "a token number", token)
    return BYTES_PER_TOKEN * len(text)


def text_slots(data: Json) -> Iterator[TextSlot]:
    """Yield every prompt that is a text, as the user's."""
    prompt = data.get("prompt")
    if isinstance(prompt, str):
        yield TextSlot("user", ("prompt",), prompt)
    elif isinstance(prompt, list):
        for place, text in enumerate(prompt):
            if isinstance(text, str):
                yield TextSlot("user", ("prompt", place), text)


def replace_texts(data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
    """Return a copy of `data` with these prompts in place. An empty one stays: each has an answer of its own."""
    prompt = data.get("prompt")
    for path, text in texts:
        match path:
            case ("prompt", int(place)):
                assert isinstance(prompt, list)
                prompt = [*prompt[:place], text, *prompt[place + 1 :]]
            case _:
                prompt = text
    return data if prompt is data.get("prompt") else {**data, "prompt": prompt}
