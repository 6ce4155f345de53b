"""What may be missing from a translation without a word, field by field, and why.

Names are dotted paths without places. An entry holds for every dialect on the other side, or for those that it
names. Everything else comes out, or is named in the losses: `test_pairs_nothing_vanishes.py` sees to it, and also that
no entry stands here for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tokenhub_core.types import Dialect

_CHAT, _RESPONSES = Dialect.OPENAI_CHAT, Dialect.OPENAI_RESPONSES
_COMPLETIONS, _ANTHROPIC, _GEMINI = Dialect.OPENAI_COMPLETIONS, Dialect.ANTHROPIC_MESSAGES, Dialect.GEMINI
_OLLAMA: Final = (Dialect.OLLAMA_CHAT, Dialect.OLLAMA_GENERATE)


@dataclass(frozen=True, slots=True)
class Omission:
    """Fields that may be missing: a pattern of their names, the reason, and where (everywhere, if nowhere)."""

    names: str
    why: str
    where: tuple[Dialect, ...] = ()


_MODEL: Final = Omission(r"^model$", "routing chooses it")
_STREAM: Final = Omission(r"^stream$", "the operation's path says it", (_GEMINI,))
_SCHEMA_NAME: Final = Omission(
    r"^(response_format\.json_schema|text\.format)\.name$",
    "a schema has no name there, and none changes what fits it",
    (_ANTHROPIC, _GEMINI, *_OLLAMA),
)
_SCHEMA_BINDS: Final = Omission(
    r"^(response_format\.json_schema|text\.format)\.strict$",
    "a schema always binds there",
    (_ANTHROPIC, _GEMINI, *_OLLAMA),
)
_STREAMING: Final = Omission(
    r"^stream_options\.", "how a stream is padded, and that it tells its usage, which all do"
)

REQUESTS: Final[dict[Dialect, tuple[Omission, ...]]] = {
    Dialect.OPENAI_CHAT: (
        _MODEL,
        _STREAM,
        _STREAMING,
        _SCHEMA_NAME,
        _SCHEMA_BINDS,
        Omission(r"^max_tokens$", "the older name of `max_completion_tokens`, which is there too"),
        Omission(r"^messages\.tool_calls\.type$", "what a tool call is anyway"),
        Omission(r"^messages\.tool_calls\.function\.arguments$", "no arguments, in another way of saying it"),
        Omission(r"^store$", "nothing of a foreign call is ever stored", (_RESPONSES,)),
    ),
    Dialect.ANTHROPIC_MESSAGES: (
        _MODEL,
        _STREAM,
        Omission(r"^thinking\.display$", "thoughts that nobody asks for are not shown there", (_RESPONSES,)),
    ),
    Dialect.OPENAI_RESPONSES: (
        _MODEL,
        _STREAM,
        _STREAMING,
        _SCHEMA_NAME,
        _SCHEMA_BINDS,
        Omission(r"^input\.type$", "what an item with a role is anyway"),
        Omission(r"^input\.(id|status)$", "names and states of items; a call and its result go by `call_id`"),
        Omission(r"^input\.(summary|content)\.type$", "thoughts are told as one text there", _OLLAMA),
        Omission(
            r"^input\.content\.logprobs\.",
            "how sure a model once was of what it said tells no model anything",
        ),
        Omission(
            r"^include$",
            "seals are given unasked elsewhere; log probabilities are asked for by `top_logprobs` too",
        ),
        Omission(r"^store$", "where the answer is kept, not what it is"),
        Omission(
            r"^reasoning\.(generate_)?summary$",
            "two names for one wish, and the kind of summary is OpenAI's own",
        ),
    ),
    Dialect.OPENAI_COMPLETIONS: (
        _MODEL,
        _STREAM,
        _STREAMING,
        Omission(r"^echo$", "the prompt is put before the answer by whoever writes that"),
    ),
    Dialect.GEMINI: (
        Omission(r"^(contents|systemInstruction)\.role$", "who speaks is told by the place, or is the usual"),
        Omission(
            r"^tools\..*\.propertyOrdering$",
            "the order of the properties says it; the last follows by itself",
        ),
        Omission(r"^tools\..*\.format$", "`enum` is Google's word for a string with an `enum` beside it"),
        Omission(r"^store$", "nothing of a foreign call is ever stored", (_RESPONSES,)),
        Omission(
            r"^contents\.parts\.thought$",
            "of an empty thought: its signature is named",
            (Dialect.OLLAMA_CHAT,),
        ),
    ),
    Dialect.OLLAMA_CHAT: (
        _MODEL,
        _STREAM,
        Omission(r"^(tools|messages\.tool_calls)\.type$", "what a tool and a call of one are anyway"),
        Omission(r"^messages\.tool_calls\.function\.index$", "the order of the calls says it"),
        Omission(r"^messages\.tool_name$", "a result goes by the id of its call"),
        Omission(r"^options\.num_predict$", "a negative cap is none"),
        Omission(r"^options\.(num_gpu|num_thread|use_mmap)$", "how a server runs the model"),
        Omission(r"^keep_alive$", "how long a server keeps the model"),
    ),
    Dialect.OLLAMA_GENERATE: (
        _MODEL,
        _STREAM,
        Omission(r"^keep_alive$", "how long a server keeps the model"),
    ),
}
"""By the client's dialect; `where` are providers'."""

_ROLE: Final = Omission(r"(^|\.)role$", "whose turn an answer is")
_PLACE: Final = Omission(r"^(choices|candidates)\.index$", "the first answer is the first")
_OBJECT: Final = Omission(r"^object$", "what an answer is called")
_BYTES: Final = Omission(r"logprobs\b.*\.bytes$", "the token says it")
_TOTAL: Final = Omission(r"(total_tokens|totalTokenCount)$", "the sum of the others")
_TIME: Final = Omission(
    r"^(created|created_at|createTime)$",
    "an answer does not say when it was made there",
    (_ANTHROPIC, _GEMINI),
)
_ID: Final = Omission(r"^(id|responseId)$", "an answer has no name there", _OLLAMA)
_COUNTS: Final = Omission(
    r"(cached_tokens|cache_write_tokens|reasoning_tokens|thinking_tokens|cachedContentTokenCount)$",
    "parts of a count that is told as a whole there; the record has them",
    (_GEMINI, *_OLLAMA),
)
_REASON: Final = Omission(
    r"(finish_reason|finishReason|done_reason)$",
    "that a tool is called, or all is said, is seen from the answer; other reasons have words or are named",
)

ANSWERS: Final[dict[Dialect, tuple[Omission, ...]]] = {
    Dialect.OPENAI_CHAT: (
        *(_OBJECT, _TIME, _ID, _PLACE, _ROLE, _BYTES, _TOTAL, _COUNTS, _REASON),
        Omission(
            r"\.reasoning_details\.(format|index)$", "how OpenRouter sorts its items; the order is kept"
        ),
        Omission(r"\.tool_calls\.type$", "what a tool call is anyway"),
        Omission(r"\.function\.arguments$", "no arguments, in another way of saying it"),
        Omission(
            r"\.audio\.(id|expires_at)$", "how OpenAI finds the sound again, which is given whole", (_GEMINI,)
        ),
    ),
    Dialect.ANTHROPIC_MESSAGES: (_ROLE, _ID, _COUNTS),
    Dialect.OPENAI_RESPONSES: (
        *(_OBJECT, _TIME, _ID, _ROLE, _BYTES, _TOTAL, _COUNTS),
        Omission(
            r"^(status|completed_at|background|store|previous_response_id)$", "how the answer came about"
        ),
        Omission(
            r"^(instructions|parallel_tool_calls|reasoning|temperature|text|tool_choice|tools|top_logprobs|top_p"
            r"|truncation|metadata)\b",
            "the caller's own request, repeated",
        ),
        Omission(r"^output\.(id|status)$", "names and states of items"),
        Omission(r"^output\.(summary|content)\.type$", "both are thoughts elsewhere"),
        Omission(r"^output\.arguments$", "no arguments, in another way of saying it"),
        Omission(r"^output\.output_format$", "an image says itself what it is", _OLLAMA),
    ),
    Dialect.OPENAI_COMPLETIONS: (
        *(_OBJECT, _TIME, _ID, _PLACE, _TOTAL, _COUNTS),
        Omission(
            r"^choices\.logprobs\.text_offset$", "where a token begins is seen from the tokens before it"
        ),
    ),
    Dialect.GEMINI: (
        *(_TIME, _ID, _PLACE, _ROLE, _TOTAL, _COUNTS, _REASON),
        Omission(r"^candidates\.finishMessage$", "the finish reason in words"),
        Omission(r"^candidates\.(tokenCount|avgLogprobs)$", "sums and averages of what is told"),
        Omission(r"\.(tokenId|logProbabilitySum)$", "numbers of Google's own vocabulary, and a sum"),
        Omission(
            r"(^|\.)safetyRatings\.", "ratings of an answer that was let through; a block is a stop reason"
        ),
        Omission(r"^usageMetadata\.\w+Details\.", "counts by kind of medium, whose sums are told"),
        Omission(r"^(usageMetadata\.trafficType|modelStatus\.modelStage)$", "how Google serves the model"),
    ),
    Dialect.OLLAMA_CHAT: (
        *(_TIME, _ROLE, _BYTES, _REASON),
        Omission(r"^done$", "a whole answer is done"),
        Omission(r"^remote_(model|host)$", "where a server has its model"),
        Omission(r"^message\.tool_calls\.function\.index$", "the order of the calls says it"),
        Omission(r"_duration$", "how long it took"),
    ),
    Dialect.OLLAMA_GENERATE: (
        *(_TIME, _BYTES),
        Omission(r"^done$", "a whole answer is done"),
        Omission(r"^context$", "the conversation in tokens of this model: no other can go on from it"),
        Omission(r"_duration$", "how long it took"),
    ),
}
"""By the provider's dialect; `where` are clients'."""
