"""OpenAI's `/v1/embeddings`: unit vectors that follow from a hash of the input alone."""

from __future__ import annotations

import base64
import math
import struct
from array import array
from collections.abc import Sequence
from hashlib import shake_128
from typing import Any, Final

import orjson

from tokenhub_core.providers.simulation import openai
from tokenhub_core.providers.simulation.asking import RejectedError, Told, demand, names, tokens
from tokenhub_core.types import Json

_FIELDS: Final = names("model input dimensions encoding_format user")
_SIZES: Final = {"text-embedding-3-large": 3072}
_SIZE: Final = 1536
_FIXED: Final = "text-embedding-ada-002"
_MOST: Final = 2048


def read(data: Json, _: str) -> Told:
    """Answer a request; raises `RejectedError` with the vendor's words where it would refuse it."""
    openai.known_fields(data, _FIELDS)
    inputs = _inputs(data.get("input"))
    model = data["model"]
    size, wanted = _SIZES.get(model, _SIZE), data.get("dimensions")
    if wanted is not None:
        demand(model != _FIXED, "This model does not support specifying dimensions.", "dimensions")
        fits = isinstance(wanted, int) and not isinstance(wanted, bool) and 0 < wanted <= size
        message = f"Invalid value for 'dimensions' = {wanted}. Must be less than or equal to {size}."
        demand(fits, message, "dimensions", "invalid_value")
        size = wanted
    form = data.get("encoding_format", "float")
    message = f"Invalid value: '{form}'. Supported values are: 'float' and 'base64'."
    demand(form in ("float", "base64"), message, "encoding_format", "invalid_value")
    vectors = [vector(model, text, size) for text in inputs]
    items = [
        {"object": "embedding", "index": index, "embedding": _encoded(values, form)}
        for index, values in enumerate(vectors)
    ]
    count = sum(map(tokens, inputs))
    usage = {"prompt_tokens": count, "total_tokens": count}
    return Told(model, orjson.dumps({"object": "list", "data": items, "model": model, "usage": usage}))


def vector(model: str, text: str, size: int) -> array[float]:
    """Return `size` single-precision numbers whose squares add up to one.

    A shorter vector is the beginning of a longer one, scaled, as the vendor's are.
    """
    raw = shake_128(f"{model}/{text}".encode(errors="replace")).digest(4 * size)
    numbers = [number / 2**31 for number in struct.unpack(f"<{size}i", raw)]
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return array("f", [number / length for number in numbers])


def _encoded(values: array[float], form: str) -> Any:
    if form == "float":
        return values.tolist()
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _inputs(given: object) -> Sequence[str]:
    """Return the texts; tokens stand for the text of their numbers."""
    message = "Missing required parameter: 'input'."
    demand(given is not None, message, "input", "missing_required_parameter")
    many = given if isinstance(given, list) else [given]
    if many and all(isinstance(item, int) for item in many):
        many = [many]
    if not many or len(many) > _MOST:
        raise RejectedError("'$.input' is invalid. Please check the API reference.", param="input")
    found = []
    for item in many:
        text = " ".join(map(str, item)) if isinstance(item, list) else item
        demand(
            isinstance(text, str) and text, "'$.input' is invalid. Please check the API reference.", "input"
        )
        found.append(str(text))
    return found
