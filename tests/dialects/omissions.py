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
        Omission(r"^store$", "nothing of a foreign call is ever stored", (_RESPONSES,)),
    ),
    Dialect.ANTHROPIC_MESSAGES: (
        _MODEL,
        _STREAM,
        Omission(r"^tools\.type$", "what a tool with a schema is anyway"),
    ),
    Dialect.OPENAI_RESPONSES: (
        _MODEL,
        _STREAM,
        _STREAMING,
        _SCHEMA_NAME,
        _SCHEMA_BINDS,
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
        Omission(r"^background$", "false is the usual way; true is refused"),
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
            r"^(tools|generationConfig\.responseSchema)\..*\bpropertyOrdering$",
            "the order of the properties says it; the last follows by itself",
        ),
        Omission(r"^store$", "nothing of a foreign call is ever stored", (_RESPONSES,)),
        Omission(
            r"^contents\.parts\.functionResponse\.name$",
            "a result goes by the id of its call",
        ),
        Omission(
            r"^contents\.parts\.thought$",
            "of an empty thought: its signature is named",
            (Dialect.OLLAMA_CHAT,),
        ),
    ),
    Dialect.OLLAMA_CHAT: (
        _MODEL,
        _STREAM,
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
_TEXTS: Final = Omission(r"_tokens_details\.text_tokens$", "what the other kinds leave of the sum")
_TOTAL: Final = Omission(r"(total_tokens|totalTokenCount)$", "the sum of the others")
_TIME: Final = Omission(
    r"^(created|created_at|createTime)$",
    "an answer does not say when it was made there",
    (_ANTHROPIC, _GEMINI),
)
_ID: Final = Omission(r"^(id|responseId)$", "an answer has no name there", _OLLAMA)
_COUNTS: Final = Omission(
    r"(cached_tokens|cache_write_tokens|reasoning_tokens|thinking_tokens|cachedContentTokenCount|output_tokens_details)$",
    "parts of a count that is told as a whole there; the record has them",
    (_GEMINI, *_OLLAMA),
)

ANSWERS: Final[dict[Dialect, tuple[Omission, ...]]] = {
    Dialect.OPENAI_CHAT: (
        *(_OBJECT, _TIME, _ID, _PLACE, _ROLE, _BYTES, _TEXTS, _TOTAL, _COUNTS),
        Omission(
            r"\.reasoning_details\.(format|index)$", "how OpenRouter sorts its items; the order is kept"
        ),
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
            r"|truncation|metadata|access_programs|image|prompt|prompt_cache_options)\b",
            "the caller's own request, repeated",
        ),
        Omission(r"^output\.(id|status)$", "names and states of items"),
        Omission(r"^output\.(summary|content)\.type$", "both are thoughts elsewhere"),
        Omission(r"\boutput_format$", "an image says itself what it is", _OLLAMA),
        Omission(
            r"^(output|item)\.(action|background|quality|size)$", "how an image was made; the image shows it"
        ),
        Omission(r"^(output|item)\.error$", "none, where there is an image"),
    ),
    Dialect.OPENAI_COMPLETIONS: (
        *(_OBJECT, _TIME, _ID, _PLACE, _TEXTS, _TOTAL, _COUNTS),
        Omission(
            r"^choices\.logprobs\.text_offset$", "where a token begins is seen from the tokens before it"
        ),
    ),
    Dialect.GEMINI: (
        *(_TIME, _ID, _PLACE, _ROLE, _TOTAL, _COUNTS),
        Omission(
            r"^(candidates\.finishMessage|promptFeedback\.blockReasonMessage)$", "the finish reason in words"
        ),
        Omission(r"\.inlineData\.mimeType$", "an image says itself what it is", _OLLAMA),
        Omission(r"^candidates\.(tokenCount|avgLogprobs)$", "sums and averages of what is told"),
        Omission(r"\.(tokenId|logProbabilitySum)$", "numbers of Google's own vocabulary, and a sum"),
        Omission(
            r"(^|\.)safetyRatings\.", "ratings of an answer that was let through; a block is a stop reason"
        ),
        Omission(r"^usageMetadata\.\w+Details\.", "counts by kind of medium, whose sums are told"),
        Omission(r"^(usageMetadata\.trafficType$|modelStatus\.)", "how Google serves the model"),
    ),
    Dialect.OLLAMA_CHAT: (
        *(_TIME, _ROLE, _BYTES),
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

STREAMS: Final[dict[Dialect, tuple[Omission, ...]]] = {
    Dialect.OPENAI_CHAT: (
        Omission(r"\.reasoning_content$", "the same thought as in `reasoning_details`"),
        Omission(r"\.reasoning_details\.id$", "an item's name", (_RESPONSES, _GEMINI)),
        Omission(r"\.tool_calls\.index$", "which call a piece goes on with; others count in their own way"),
        Omission(r"^obfuscation$", "it hides how long a text is"),
    ),
    Dialect.ANTHROPIC_MESSAGES: (
        Omission(r"^message_start/message\.type$", "what a message is called"),
        Omission(r"^message_start/message\.id$", "an answer has no name there", _OLLAMA),
        Omission(r"^message_start/message\.usage\.output_tokens$", "a count that has grown at the end"),
        Omission(r"/index$", "which block a piece goes on with; others count in their own way"),
    ),
    Dialect.OPENAI_RESPONSES: (
        Omission(
            r"^response\.output_item\.done/item\.((summary|content)\.type|status)$",
            "both are thoughts, and over",
        ),
        Omission(r"/(sequence_number|obfuscation)$", "how a stream is counted and padded"),
        Omission(
            r"/((item_)?id|item\.id|output_index)$", "which item a piece goes on with; the order says it"
        ),
        Omission(
            r"^response\.(created|in_progress)/response\.", "how a response begins; its end says the same"
        ),
        Omission(r"^response\.output_item\.added/item\.", "how an item begins; its end says the same"),
        Omission(
            r"^response\.reasoning_summary_part\.(added|done)/part\.",
            "a part of thoughts, told by its pieces",
        ),
        Omission(r"\blogprobs\.", "told with the pieces of the text; here they are repeated"),
        Omission(r"^response\.image_generation_call\.generating/", "a sign that it goes on"),
        Omission(r"^response\.function_call_arguments\.done/name$", "told where the call begins"),
        Omission(
            r"^response\.completed/response\.(object|status|created_at|id|completed_at|background|store)$",
            "how the answer came about, or told where it begins",
        ),
        Omission(
            r"^response\.completed/response\.(instructions|parallel_tool_calls|reasoning|temperature|text|tool_choice"
            r"|tools|top_logprobs|top_p|truncation|metadata|access_programs|image|prompt|prompt_cache_options)\b",
            "the caller's own request, repeated",
        ),
        Omission(r"^response\.completed/response\.output\.", "told where each item ends"),
    ),
    Dialect.OPENAI_COMPLETIONS: (),
    Dialect.GEMINI: (
        Omission(r"^promptFeedback\.blockReason$", "nobody blocks the prompt of an answer that was given"),
    ),
    Dialect.OLLAMA_CHAT: (),
    Dialect.OLLAMA_GENERATE: (),
}
"""By the provider's dialect, beside what may be missing from whole answers; a name may begin with the event's type."""
