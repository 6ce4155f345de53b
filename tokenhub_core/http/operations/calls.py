"""Calls to models, and the lists of them, in the dialects of their clients.

Of a request only what we check is declared; everything else in it is the provider's to judge. Refusals are in the
dialect's shape, a provider's too.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tokenhub_core.http.openapi import JSON, AnyOf, Area, Operation
from tokenhub_core.native import PATH, ChatAsked
from tokenhub_core.orchestration.plancall import PATH as PLAN
from tokenhub_core.orchestration.plancall import PlanBody, PlanResult
from tokenhub_core.types import Json

EVENTS: Final = "text/event-stream"
LINES: Final = "application/x-ndjson"
_STREAM: Final = {"description": "A stream; the last thing in it may be an error."}
_OWN: Final = (400, 401, 402, 404, 408, 413, 429, 502, 503, 504, 529, "4XX", "5XX")
"""What we refuse with ourselves, then whatever a provider does."""
_TELLS: Final = ("x-request-id", "x-tokenhub-decision")

type _Role = Annotated[str, Meta(min_length=1)]
type _Count = Annotated[int, Meta(ge=0)]


# --- refusals -----------------------------------------------------------------------------------------------


class OpenAITold(msgspec.Struct):
    """What went wrong, as OpenAI says it."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct):
    """A refusal in OpenAI's shape."""

    error: OpenAITold


class AnthropicTold(msgspec.Struct):
    """What went wrong, as Anthropic says it."""

    type: str
    message: str


class AnthropicError(msgspec.Struct):
    """A refusal in Anthropic's shape."""

    type: Literal["error"]
    error: AnthropicTold
    request_id: str


class GoogleTold(msgspec.Struct):
    """What went wrong, as Google says it."""

    code: int
    message: str
    status: str
    details: list[Json] | UnsetType = UNSET


class GoogleError(msgspec.Struct):
    """A refusal in Google's shape."""

    error: GoogleTold


class OllamaError(msgspec.Struct):
    """A refusal in Ollama's shape."""

    error: str


# --- requests and answers -----------------------------------------------------------------------------------


class ChatMessage(msgspec.Struct):
    """One message of a chat."""

    role: _Role
    content: str | list[Json] | None = None


class ChatRequest(msgspec.Struct):
    """A chat completion, as OpenAI's SDKs ask for one."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    tools: list[Json] | None = None


class ChatCompletion(msgspec.Struct):
    """A chat completion."""

    choices: list[Json]
    model: str
    object: str


class ChatAnswered(msgspec.Struct):
    """A chat completion with the decision around it."""

    negotiated_model: str
    estimated_cost_usd: float
    """Of all attempts."""
    routing_reason: str
    response: ChatCompletion


class AnthropicMessage(msgspec.Struct):
    """One message of a conversation."""

    role: _Role
    content: str | list[Json]


class CountRequest(msgspec.Struct):
    """What is to be counted, as Anthropic's SDKs ask for it."""

    messages: Annotated[list[AnthropicMessage], Meta(min_length=1)]
    model: str | None = None
    system: str | list[Json] | None = None
    tools: list[Json] | None = None


class MessagesRequest(CountRequest, kw_only=True):
    """A message, as Anthropic's SDKs ask for one."""

    max_tokens: _Count
    stream: bool | None = None


class Message(msgspec.Struct):
    """A message from a model."""

    type: str
    role: str
    content: list[Json]
    model: str
    usage: Json


class TokenCount(msgspec.Struct):
    """How many tokens a call would take in."""

    input_tokens: int


class ResponsesRequest(msgspec.Struct):
    """A response, as OpenAI's SDKs ask for one; without an input it goes on from what a provider holds."""

    input: str | list[Json] | None = None
    model: str | None = None
    instructions: Any = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: list[Json] | None = None


class ResponseShown(msgspec.Struct):
    """A response."""

    object: str
    output: list[Json]
    model: str


class CompletionsRequest(msgspec.Struct):
    """A completion, as OpenAI's SDKs ask for one."""

    prompt: str | list[Any] | None = None
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None


class EmbeddingsRequest(msgspec.Struct):
    """Vectors of texts, as OpenAI's SDKs ask for them: texts, or the numbers of their tokens."""

    input: Annotated[str, Meta(min_length=1)] | Annotated[list[Any], Meta(min_length=1)]
    model: str | None = None


class Embeddings(msgspec.Struct):
    """Vectors."""

    data: list[Json]


class GenerateRequest(msgspec.Struct, rename="camel"):
    """Content, as Google's SDKs ask for it. A single content may stand without its list."""

    contents: Annotated[list[Json], Meta(min_length=1)] | Json
    generation_config: Any = None
    tools: list[Json] | Json | None = None


class OllamaMessage(msgspec.Struct):
    """One message of a chat with Ollama."""

    role: str
    content: str | None = None


class OllamaChatRequest(msgspec.Struct):
    """A chat, as Ollama's programs ask for one. It is streamed unless `stream` is false."""

    model: str | None = None
    messages: list[OllamaMessage] | None = None
    stream: bool | None = None
    options: Json | None = None


class OllamaGenerateRequest(msgspec.Struct):
    """A completion, as Ollama's programs ask for one. It is streamed unless `stream` is false."""

    model: str | None = None
    prompt: str | None = None
    stream: bool | None = None
    options: Json | None = None


class OllamaAnswer(msgspec.Struct):
    """What Ollama's programs read."""

    model: str
    done: bool


class GenerateQuery(msgspec.Struct):
    """How a stream is framed."""

    alt: Annotated[str, Meta(description="`sse`: events; otherwise a JSON array that grows.")] = ""


# --- lists of models ----------------------------------------------------------------------------------------


class OpenAIModel(msgspec.Struct):
    """A name that can be asked for, as OpenAI lists it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: _Count
    max_model_len: _Count


class OpenAIModels(msgspec.Struct):
    """All names, as OpenAI lists them."""

    object: Literal["list"]
    data: list[OpenAIModel]


class AnthropicModel(msgspec.Struct):
    """A name that can be asked for, as Anthropic lists it."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str


class AnthropicModels(msgspec.Struct):
    """All names, as Anthropic lists them."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


class GoogleModel(msgspec.Struct, rename="camel"):
    """A name that can be asked for, as Google lists it."""

    name: str
    display_name: str
    supported_generation_methods: list[str]
    input_token_limit: int | UnsetType = UNSET
    output_token_limit: int | UnsetType = UNSET


class GoogleModels(msgspec.Struct):
    """All names, as Google lists them."""

    models: list[GoogleModel]


class OllamaModel(msgspec.Struct):
    """A name that can be asked for, as Ollama lists it."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Json


class OllamaModels(msgspec.Struct):
    """All names, as Ollama lists them."""

    models: list[OllamaModel]


class VersionHeaders(msgspec.Struct, rename="kebab"):
    """By what Anthropic's SDKs are known."""

    anthropic_version: str | None = None


_Spoken = AnyOf((OpenAIError, AnthropicError))
_ALPHA: Final = {"version": Literal["v1beta", "v1alpha"]}
_ANY: Final = {"version": Literal["v1", "v1beta", "v1alpha"]}


def _call(path: str, summary: str, body: Any, answer: Any, error: Any, **more: Any) -> Operation:
    return Operation(
        method="POST",
        path=path,
        summary=summary,
        body=body,
        answers={200: answer},
        error=error,
        refuses=_OWN,
        tells=_TELLS,
        **more,
    )


def _generate(path: str, summary: str, answer: Any, **more: Any) -> Operation:
    route = "/{version}/models/{call}"
    return _call(path, summary, GenerateRequest, answer, GoogleError, places=_ANY, route=route, **more)


def _list(path: str, summary: str, answer: Any, error: Any, *refuses: int, **more: Any) -> Operation:
    return Operation(
        method="GET",
        path=path,
        summary=summary,
        answers={200: answer},
        error=error,
        refuses=(401, 503, *refuses),
        **more,
    )


CALLS: Final = Area(
    "calls",
    "Calls to models in the dialects of their clients. A model that is not known is a 404, whoever else could serve.",
    (
        _call(
            "/v1/chat/completions",
            "Chat, in OpenAI's dialect",
            ChatRequest,
            {JSON: ChatCompletion, EVENTS: _STREAM},
            OpenAIError,
        ),
        _call(
            PATH,
            "Chat, in TokenHub's own way: with a policy, a schema and a shape for the answer",
            ChatAsked,
            {JSON: ChatAnswered, EVENTS: _STREAM},
            OpenAIError,
        ),
        _call(
            PLAN,
            "Have a call answered in several steps: planning, adversarial, vote or refine",
            PlanBody,
            {JSON: PlanResult, EVENTS: _STREAM},
            OpenAIError,
        ),
        _call(
            "/v1/responses",
            "Respond, in OpenAI's dialect",
            ResponsesRequest,
            {JSON: ResponseShown, EVENTS: _STREAM},
            OpenAIError,
        ),
        _call(
            "/v1/completions",
            "Complete, in OpenAI's dialect",
            CompletionsRequest,
            {JSON: ChatCompletion, EVENTS: _STREAM},
            OpenAIError,
        ),
        _call("/v1/embeddings", "Embed, in OpenAI's dialect", EmbeddingsRequest, Embeddings, OpenAIError),
        _call(
            "/v1/messages",
            "Send a message, in Anthropic's dialect",
            MessagesRequest,
            {JSON: Message, EVENTS: _STREAM},
            AnthropicError,
        ),
        _call(
            "/v1/messages/count_tokens",
            "Count tokens, in Anthropic's dialect",
            CountRequest,
            TokenCount,
            AnthropicError,
        ),
        _generate("/{version}/models/{model}:generateContent", "Generate, in Google's dialect", Json),
        _generate(
            "/{version}/models/{model}:streamGenerateContent",
            "Generate as a stream, in Google's dialect",
            {JSON: {"type": "array", "items": {"type": "object"}}, EVENTS: _STREAM},
            query=GenerateQuery,
        ),
        _call(
            "/api/chat",
            "Chat, in Ollama's dialect",
            OllamaChatRequest,
            {JSON: OllamaAnswer, LINES: _STREAM},
            OllamaError,
        ),
        _call(
            "/api/generate",
            "Complete, in Ollama's dialect",
            OllamaGenerateRequest,
            {JSON: OllamaAnswer, LINES: _STREAM},
            OllamaError,
        ),
    ),
)

NAMES: Final = Area(
    "names",
    "The names that can be asked for: enabled models, and aliases of them.",
    (
        _list(
            "/v1/models",
            "List, as OpenAI or Anthropic does",
            AnyOf((OpenAIModels, AnthropicModels)),
            _Spoken,
            headers=VersionHeaders,
        ),
        _list(
            "/v1/models/{id}",
            "Show one, as OpenAI or Anthropic does",
            AnyOf((OpenAIModel, AnthropicModel)),
            _Spoken,
            404,
            headers=VersionHeaders,
        ),
        _list("/{version}/models", "List, as Google does", GoogleModels, GoogleError, places=_ALPHA),
        _list(
            "/{version}/models/{id}",
            "Show one, as Google does",
            GoogleModel,
            GoogleError,
            404,
            places=_ALPHA,
        ),
        _list("/api/tags", "List, as Ollama does", OllamaModels, OllamaError),
    ),
)
