"""Which client talks with which provider about what: the matrix as data, and the page that shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.e2e import packages
from tests.e2e.coding import CODING_AGENTS, MODELS

FEATURES: Final = (
    "whole",
    "stream",
    "tool",
    "tool, streamed",
    "parallel tools",
    "parallel tools, streamed",
    "image",
    "structured output",
    "thinking",
    "unknown model",
)


@dataclass(frozen=True, slots=True)
class Client:
    """An official SDK with one of its APIs. `program` is in `tests/clients`, by its suffix Python or Node."""

    name: str
    program: str
    dialect: str
    module: str = ""
    """The Python module without which the program cannot run."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """A provider by the dialect that it is spoken to in: its registered type, a model that thinks, and its path."""

    dialect: str
    type: str
    model: str
    path: str
    """A pattern of the paths that it is asked at."""
    native: Mapping[str, str] = field(default_factory=dict)
    """Patterns of the paths for clients of dialects that it speaks besides."""

    def asked_at(self, client: Client, path: str) -> bool:
        """Tell whether `path` is where this provider is to be asked on behalf of `client`."""
        pattern = self.native.get(client.dialect, self.path)
        return re.fullmatch(pattern, path.partition("?")[0]) is not None


PYTHON_OPENAI_CHAT: Final = Client("Python `openai`, chat", "openai_chat.py", "openai_chat", "openai")
PYTHON_OPENAI_RESPONSES: Final = Client(
    "Python `openai`, Responses", "openai_responses.py", "openai_responses", "openai"
)
PYTHON_ANTHROPIC: Final = Client(
    "Python `anthropic`", "anthropic_messages.py", "anthropic_messages", "anthropic"
)
PYTHON_GOOGLE: Final = Client("Python `google-genai`", "google_genai.py", "gemini", "google.genai")
NODE_OPENAI_CHAT: Final = Client("Node `openai`, chat", "openai_chat.mjs", "openai_chat")
NODE_OPENAI_RESPONSES: Final = Client("Node `openai`, Responses", "openai_responses.mjs", "openai_responses")
NODE_ANTHROPIC: Final = Client("Node `@anthropic-ai/sdk`", "anthropic_messages.mjs", "anthropic_messages")

OPENAI: Final = Speaker(
    "openai_chat",
    "openai",
    "gpt-5.4-nano",
    "/v1/chat/completions",
    native={"openai_responses": "/v1/responses"},
)
ANTHROPIC: Final = Speaker("anthropic_messages", "anthropic", "claude-haiku-4-5", "/v1/messages")
GEMINI: Final = Speaker(
    "gemini",
    "gemini",
    "gemini-3-flash-preview",
    "/v1beta/models/gemini-3-flash-preview:(generateContent|streamGenerateContent)",
)
OLLAMA: Final = Speaker("openai_chat (Ollama)", "ollama", "qwen3", "/v1/chat/completions")
OLLAMA_OWN: Final = Speaker("ollama_chat", "simulator", "qwen3-vl:30b", "")
"""Nobody registers Ollama to be spoken to in its own dialect; the simulated one has no other."""

CLIENTS: Final = (
    *(PYTHON_OPENAI_CHAT, PYTHON_OPENAI_RESPONSES, PYTHON_ANTHROPIC, PYTHON_GOOGLE),
    *(NODE_OPENAI_CHAT, NODE_OPENAI_RESPONSES, NODE_ANTHROPIC),
)
"""Every client that is run."""
SPEAKERS: Final = (OPENAI, ANTHROPIC, GEMINI, OLLAMA)
"""Every provider that each client is run against, on a socket."""
ROWS: Final = tuple((client, speaker) for client in CLIENTS for speaker in (*SPEAKERS, OLLAMA_OWN))
"""Every conversation that is held."""
CALLS: Final = 14
"""So many calls reach a provider in one: two where results or thoughts are handed back, none for the last feature."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a feature; `detail` says what was missing, or went wrong."""

    ok: bool
    detail: str

    @property
    def cell(self) -> str:
        if not self.ok:
            return "**no**"
        return self.detail or "yes"


type Findings = dict[tuple[str, str], dict[str, Finding]]
"""By client and provider dialect, then by feature."""

_HEAD: Final = """\
# Clients

Made by `UPDATE_DOCS=1 scripts/test tests/e2e/test_sdk_matrix.py`.

## Official SDKs

Each official SDK holds the same scripted conversation through the proxy, unmodified, against a simulated provider of
each dialect, which is as strict as the vendor. "yes": the SDK's own typed parser took everything, and the
conversation went on as it should. "without thinking": the provider's dialect, or this model in it, shows no thoughts.
"not shown": the client's API has no place for thoughts; the effort is asked for all the same.

"""

_AGENTS: Final = """
## Coding agents

Each agent is told to run a program with its own tool and to say what it printed, in both lanes of `tokenhub serve`, in
a network where nothing else can be reached: `scripts/test agents`, which installs 900 MB of npm packages once. "yes":
the tool really ran, the answer repeats its output, every call of the agent was served, and no name was looked up.

"""


def page(findings: Findings) -> str:
    """Return the page of documentation that shows the findings, in the order of the matrix."""
    conversations = [
        (
            client.name,
            speaker.dialect,
            *(findings[client.name, speaker.dialect][name].cell for name in FEATURES),
        )
        for client, speaker in ROWS
    ]
    sessions = [
        (f"`{agent.package}` {packages.version(packages.AGENTS, agent.package)}", *("yes" for _ in MODELS))
        for agent in CODING_AGENTS
    ]
    return (
        _HEAD
        + _table(("client", "provider", *FEATURES), conversations)
        + _AGENTS
        + _table(("agent", *MODELS), sessions)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
