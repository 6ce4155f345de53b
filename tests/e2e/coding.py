"""The coding agents of npm, and how each is told to do one thing without anybody at the keyboard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.e2e.serving import PLACEHOLDERS

COMMAND: Final = "Proof"
"""A program on the agent's PATH: a simulated model fills texts with the last name in the question, so this it runs."""
SAYS: Final = "The proof is 4711"
LEFT: Final = "left-by-proof"
"""The file that shows that it really ran, in the directory that the agent works in."""


@dataclass(frozen=True, slots=True)
class CodingAgent:
    """`words` start it, `{modules}`, `{model}` and `{ask}` filled in; `files` are put into its empty home.

    `package` is where it is on npm. `tool` is its own name for the tool that runs commands. `speaks` is the kind of
    provider whose dialect is its own.
    """

    name: str
    package: str
    words: tuple[str, ...]
    tool: str
    speaks: str
    environ: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)

    def command(self, modules: Path, model: str) -> list[str]:
        """Return the command that asks for one tool call."""
        ask = f"Use the {self.tool} tool to run {COMMAND}"
        return [word.format(modules=modules, model=model, ask=ask) for word in self.words]


_KEY: Final = PLACEHOLDERS["OPENAI_API_KEY"]

# No install script has run, so nothing has put the program of this platform into its place; this one finds it there.
CLAUDE_CODE: Final = CodingAgent(
    name="claude-code",
    package="@anthropic-ai/claude-code",
    words=(
        *("node", "{modules}/@anthropic-ai/claude-code/cli-wrapper.cjs"),
        *("-p", "{ask}", "--model", "{model}", "--output-format", "json"),
        *("--tools", "Bash", "--allowedTools", "Bash", "--setting-sources", "", "--strict-mcp-config"),
    ),
    tool="Bash",
    speaks="anthropic",
    environ={
        "ANTHROPIC_API_KEY": PLACEHOLDERS["ANTHROPIC_API_KEY"],
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
    },
)
_CODEX_ELSEWHERE: Final = (
    "api_key_cyber_access_programs",
    "api_key_model_discovery",
    "apps",
    "auth_elicitation",
    "cli_daybreak",
    "in_app_updates",
    "plugin_sharing",
    "plugins",
    "remote_plugin",
    "skill_mcp_dependency_install",
)
"""What makes Codex ask other hosts than the one of its model."""

CODEX: Final = CodingAgent(
    name="codex",
    package="@openai/codex",
    words=(
        *("node", "{modules}/@openai/codex/bin/codex.js", "exec", "--json", "--skip-git-repo-check"),
        *("--dangerously-bypass-approvals-and-sandbox", "-m", "{model}", "{ask}"),
    ),
    tool="exec_command",
    speaks="openai",
    environ={"CODEX_API_KEY": _KEY},
    files={
        ".codex/config.toml": "\n".join(
            [
                *("check_for_update_on_startup = false", "[analytics]", "enabled = false", "[features]"),
                *(f"{feature} = false" for feature in _CODEX_ELSEWHERE),
            ]
        ),
    },
)
GEMINI_CLI: Final = CodingAgent(
    name="gemini-cli",
    package="@google/gemini-cli",
    words=(
        *("node", "{modules}/@google/gemini-cli/bundle/gemini.js", "-p", "{ask}", "-m", "{model}"),
        *("--output-format", "json", "--approval-mode", "yolo"),
    ),
    tool="run_shell_command",
    speaks="gemini",
    environ={"GEMINI_API_KEY": _KEY, "GEMINI_CLI_TRUST_WORKSPACE": "true"},
    files={
        ".gemini/settings.json": json.dumps(
            {
                "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
                "privacy": {"usageStatisticsEnabled": False},
                "general": {"enableAutoUpdate": False},
                "telemetry": {"enabled": False},
            }
        )
    },
)

CODING_AGENTS: Final = (CLAUDE_CODE, CODEX, GEMINI_CLI)
"""Every agent that is run."""
MODELS: Final[Mapping[str, str]] = {
    "anthropic": "claude-haiku-4-5",
    "openai": "gpt-5.4-nano",
    "gemini": "gemini-3-flash-preview",
}
"""By the kind of provider that each agent is answered by, what it is told to use there."""
