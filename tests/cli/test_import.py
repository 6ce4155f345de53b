"""`tokenhub import`: what the configurations of other gateways come to, setting by setting, and against a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Running, Shell
from tokenhub_core.cli.importing import import_
from tokenhub_core.cli.rivals import Fate, Import, credentials, litellm, variables
from tokenhub_core.types import Json

ENVIRON = {"VLLM_URL": "http://gpu:8000/v1"}


def steps(found: Import, path: str) -> list[Json]:
    return [step.body for step in found.steps if step.path == path]


def fates(found: Import) -> dict[str, tuple[str, str]]:
    return {note.what: (note.fate.value, note.words) for note in found.notes}


def entry(name: str, model: str, **more: Any) -> Json:
    return {"model_name": name, "litellm_params": {"model": model, **more}}


@pytest.mark.parametrize(
    ("given", "provider", "model"),
    [
        (entry("gpt-4o", "openai/gpt-4o"), {"id": "openai"}, {"id": "gpt-4o", "provider_id": "openai"}),
        (entry("gpt-4o", "gpt-4o"), {"id": "openai"}, {"id": "gpt-4o", "provider_id": "openai"}),
        (entry("c", "claude-x"), {"id": "anthropic"}, {"id": "claude-x", "provider_id": "anthropic"}),
        (
            entry("c", "anthropic/claude-x", api_key="os.environ/CLAUDE_KEY"),
            {"id": "anthropic", "cred_store": "env:CLAUDE_KEY"},
            {"id": "claude-x", "provider_id": "anthropic"},
        ),
        (
            entry("g", "groq/llama", api_key="gsk-1"),
            {"id": "groq", "api_key": "gsk-1"},
            {"id": "llama", "provider_id": "groq"},
        ),
        (
            entry("l", "hosted_vllm/org/llama", api_base="os.environ/VLLM_URL"),
            {"id": "hosted-vllm", "type": "vllm", "base_url": "http://gpu:8000/v1"},
            {"id": "org/llama", "provider_id": "hosted-vllm"},
        ),
        (
            entry("o", "openai/x", api_base="https://mine.example/v1"),
            {"id": "openai", "type": "openai", "base_url": "https://mine.example/v1"},
            {"id": "x", "provider_id": "openai"},
        ),
        (
            entry("p", "openai/x", input_cost_per_token=0.0000025, output_cost_per_token=1e-05),
            {"id": "openai"},
            {"id": "x", "provider_id": "openai", "input_per_1k": 0.0025, "output_per_1k": 0.01},
        ),
        (
            {
                **entry("s", "openai/x"),
                "model_info": {"max_input_tokens": 9, "max_output_tokens": 5, "mode": "chat"},
            },
            {"id": "openai"},
            {"id": "x", "provider_id": "openai", "max_context_tokens": 9, "max_output_tokens": 5},
        ),
    ],
)
def test_a_deployment_is_a_provider_and_a_model(given: Json, provider: Json, model: Json) -> None:
    """By the prefix of its model, its address and its key; prices are per thousand tokens."""
    found = litellm({"model_list": [given]}, ENVIRON)
    assert steps(found, "/providers") == [provider]
    assert steps(found, "/models") == [model]
    assert found.notes[0].fate is Fate.CARRIED


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (entry("*", "openai/*"), "wildcards"),
        (entry("x", "vertex_ai/gemini"), "there is no provider 'vertex_ai' here"),
        (entry("x", "azure/dep"), "azure needs an api_base"),
        (entry("x", "hosted_vllm/m"), "hosted_vllm needs an api_base"),
        (entry("x", "hosted_vllm/m", api_base="os.environ/NOWHERE"), "NOWHERE, which is not set here"),
        ({"model_name": "x"}, "wildcards name no model"),
    ],
)
def test_what_cannot_be_carried_is_told(given: Json, words: str) -> None:
    """With its place and the reason; the others are carried all the same."""
    found = litellm({"model_list": [given, entry("gpt-4o", "openai/gpt-4o")]}, ENVIRON)
    first = found.notes[0]
    assert (first.fate, words in first.words) == (Fate.LEFT, True), first
    assert first.what.startswith("model_list[0]")
    assert len(steps(found, "/models")) == 1


def test_a_name_with_several_deployments_is_an_alias() -> None:
    """With their weights; two accounts of one vendor are two providers, the same model at both one variant."""
    found = litellm(
        {
            "model_list": [
                entry("fast", "openai/gpt-4o-mini", weight=3, api_key="os.environ/A"),
                entry("fast", "groq/llama", weight=1),
                entry("gpt-4o", "openai/gpt-4o", api_key="os.environ/A"),
                entry("gpt-4o", "openai/gpt-4o", api_key="os.environ/B", rpm=7),
            ],
            "router_settings": {"model_group_alias": {"quick": "fast", "lost": "nowhere"}},
        },
        {},
    )
    assert [one["id"] for one in steps(found, "/providers")] == ["openai", "groq", "openai-2"]
    second = steps(found, "/providers")[2]
    assert second == {
        "id": "openai-2",
        "type": "openai",
        "base_url": "https://api.openai.com/v1",
        "cred_store": "env:B",
    }
    assert len(steps(found, "/models")) == 4
    fast = [{"model_id": "gpt-4o-mini", "weight": 3}, {"model_id": "llama", "weight": 1}]
    assert steps(found, "/aliases") == [
        {"name": "fast", "variants": fast},
        {"name": "quick", "variants": fast},
    ]
    assert fates(found)["router_settings.model_group_alias.lost"] == ("left", "there is no model 'nowhere'")
    assert fates(found)["model_list[3] gpt-4o: rpm"][0] == "left"


@pytest.mark.parametrize(
    ("settings", "budget", "fate"),
    [
        ({"max_budget": 10}, {"limit": 10_000_000, "period": "total"}, "carried"),
        ({"max_budget": 0.5, "budget_duration": "1d"}, {"limit": 500_000, "period": "day"}, "carried"),
        ({"max_budget": 100, "budget_duration": "30d"}, {"limit": 100_000_000, "period": "month"}, "changed"),
        ({"max_budget": "much"}, None, "left"),
    ],
)
def test_the_budget_is_everybodys(settings: Json, budget: Json | None, fate: str) -> None:
    """In micro-dollars; a span that the calendar does not know is said to mean something else."""
    found = litellm({"litellm_settings": settings}, {})
    assert steps(found, "/budgets") == ([{"owner": "all", "unit": "usd", **budget}] if budget else [])
    assert fates(found)["litellm_settings.max_budget"][0] == fate


def test_every_other_setting_is_told() -> None:
    """What is left has what to do instead, or that there is no such thing; none is passed over in silence."""
    found = litellm(
        {
            "litellm_settings": {"drop_params": True, "cache": True, "new_thing": 1},
            "general_settings": {"master_key": "sk-secret"},
            "environment_variables": {"A": "b"},
            "guardrails": [],
        },
        {},
    )
    told = fates(found)
    assert {fate for fate, _ in told.values()} == {"left"}
    assert "x-tokenhub-loss" in told["litellm_settings.drop_params"][1]
    assert "apikey create" in told["general_settings.master_key"][1]
    assert told["litellm_settings.new_thing"][1] == told["guardrails"][1] == "there is no such setting here"
    assert "environment_variables" in told
    assert "sk-secret" not in str(found)


def test_the_originals_variables_are_read() -> None:
    """Defaults of routing are carried, those that mean the same are named, the rest is told."""
    found = variables(
        "# comment\nexport TOKENHUB_DEFAULT_MODE=cheap\nTOKENHUB_DEFAULT_MAX_BUDGET_USD='0.05'\n"
        "TOKENHUB_DEFAULT_MAX_LATENCY_MS=soon\nTOKENHUB_DB_DSN=file:x\nTOKENHUB_VAULT_PASSWORD=geheim\nOTHER=1\n"
    )
    assert steps(found, "/routing-config") == [{"default_mode": "cheap", "default_max_budget_usd": 0.05}]
    told = fates(found)
    assert told["TOKENHUB_DEFAULT_MAX_LATENCY_MS"] == ("left", "soon is no number")
    assert told["TOKENHUB_DB_DSN"][0] == "changed"
    assert "vault init" in told["TOKENHUB_VAULT_PASSWORD"][1]
    assert told["OTHER"] == ("left", "there is no such setting here")
    assert "geheim" not in str(found)
    assert variables("TOKENHUB_DEFAULT_MODE=thompson").steps == ()
    with pytest.raises(ValueError, match="line 1"):
        variables("nonsense")


def test_the_originals_credentials_are_read() -> None:
    """Providers and models with what they have; what loads models by itself is told."""
    found = credentials(
        {
            "providers": [
                {"id": "p", "base_url": "https://p.example", "api_key": "k", "autoload_models": True}
            ],
            "models": [
                {"id": "m", "provider_id": "p", "weight": 0, "input_per_1k": 0.1, "tool_name_map": {"a": "b"}}
            ],
            "extra": 1,
        }
    )
    assert steps(found, "/providers") == [{"id": "p", "base_url": "https://p.example", "api_key": "k"}]
    assert steps(found, "/models") == [{"id": "m", "provider_id": "p", "weight": 0, "input_per_1k": 0.1}]
    assert [note.what for note in found.notes if note.fate is Fate.LEFT] == [
        "provider p: autoload_models",
        "model m: tool_name_map",
        "extra",
    ]
    assert found.steps[0].shown()["api_key"] == "…"


# --- against a server ----------------------------------------------------------------------------------------

CONFIG = """
model_list:
  - model_name: fast
    litellm_params: {model: groq/llama-x, api_key: os.environ/GROQ_KEY, input_cost_per_token: 1.0e-06,
                     output_cost_per_token: 2.0e-06}
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_KEY}
litellm_settings: {max_budget: 25, budget_duration: 1d, callbacks: [x]}
"""


def test_a_configuration_is_brought_over(served: Running, tmp_path: Path) -> None:
    """A dry run changes nothing; then the server has all of it; again gives the same; a bad file is one line."""
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    run = Shell(import_, served.it.data / "data")
    told = run.json("litellm", str(file), "--dry-run")
    assert told["dry_run"]
    assert [step["path"] for step in told["steps"]] == [
        *("/providers", "/providers", "/models", "/models", "/aliases", "/budgets"),
    ]
    assert served.admin("GET", "/providers")["items"] == []

    text = run("litellm", str(file))
    assert "registered: 2 providers, 2 models, 1 aliases, 1 budgets" in text
    stores = {one["id"]: one["cred_store"] for one in served.admin("GET", "/providers")["items"]}
    assert stores == {"groq": "env:GROQ_KEY", "openai": "env:OPENAI_KEY"}
    models = {one["id"]: one for one in served.admin("GET", "/models")["items"]}
    assert models["llama-x"]["input_per_1k"] == 0.001
    assert served.admin("GET", "/aliases/fast")["variants"][0]["model_id"] == "llama-x"
    assert served.admin("GET", "/budgets")["items"][0]["limit"] == 25_000_000

    file.write_text("model_list: {")
    assert str(file) in run.refusal("litellm", str(file))
    file.write_text("- a")
    assert "expected an object" in run.refusal("litellm", str(file))
    file.write_text("model_list: 7")
    assert "expected a list of models" in run.refusal("litellm", str(file))
    assert "No such file" in run.refusal("original", str(tmp_path / "gone"))
