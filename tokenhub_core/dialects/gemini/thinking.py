"""How much to think, in the words of the model that is to do it.

There are two: a level (`thinkingLevel`) and a budget of tokens (`thinkingBudget`); a request with both is
refused. Gemini 2.5 knows budgets only. All later models have levels, and take a budget for compatibility. So an
effort becomes a level, or for Gemini 2.5 the budget that Google's own OpenAI-compatible endpoint takes for that
word (https://ai.google.dev/gemini-api/docs/openai, "Thinking"); a budget stays a budget, within what 2.5 takes.
Not every model can leave thinking off: Gemini 2.5 Pro and the models after it think as little as they can.
"""

from __future__ import annotations

import re
from typing import Final

from tokenhub_core.types import Json, Thinking

_BUDGETS_ONLY: Final = re.compile(r"gemini-(2|robotics-er-1)\.5\b")
_THOUGHTLESS: Final = re.compile(
    r"gemini-(1|2\.0)\b|gemini-2\.5-[a-z-]*(image|tts)|gemma-?[123]|learnlm|gemini-pro\b"
)
"""The older models, their cousins, and those of Gemini 2.5 that draw or speak."""
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_LEVELS: Final = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
_MOST: Final = frozenset({"xhigh", "max"})
"""Words for more than `high`, which not every model has."""
_LARGEST: Final = {True: 32768, False: 24576}
"""The largest budget of Gemini 2.5, by whether it is Pro."""
_LEAST: Final = 128
"""The least that Gemini 2.5 Pro can think, and that any of the family is asked for here, but its smallest."""
_LEAST_OF_LITE: Final = 512


def thinking_config(wanted: Thinking, model: str, losses: list[str], *, own: bool) -> Json:
    """Return the members of `thinkingConfig`; a call of this dialect (`own`) gets what it said.

    Where others say that there is to be thinking, they show it unless told otherwise. Google does not.
    """
    config: Json = {}
    if wanted.show is not None:
        config["includeThoughts"] = wanted.show
    elif wanted.enabled and not own:
        config["includeThoughts"] = True
    if own:
        if wanted.budget_tokens is not None:
            config["thinkingBudget"] = wanted.budget_tokens
        if wanted.effort:
            config["thinkingLevel"] = wanted.effort.upper()
        return config
    if _THOUGHTLESS.search(model):
        if wanted.enabled or wanted.budget_tokens or wanted.effort not in {"", "none"}:
            losses.append("thinking")
        return {}
    if wanted.enabled is False or wanted.effort == "none" or wanted.budget_tokens == 0:
        return config | _off(model, losses)
    if wanted.budget_tokens is not None and (wanted.budget_tokens > 0 or not wanted.effort):
        return config | _budget(wanted.budget_tokens, model, losses)
    return config | _effort(wanted.effort, model, losses)


def _off(model: str, losses: list[str]) -> Json:
    if _BUDGETS_ONLY.search(model) and "pro" not in model:
        return {"thinkingBudget": 0}
    losses.append("thinking.disabled")
    if _BUDGETS_ONLY.search(model):
        return {"thinkingBudget": _LEAST}
    return {"thinkingLevel": _least(model)}


def _least(model: str) -> str:
    return "MINIMAL" if "flash" in model else "LOW"


def _budget(tokens: int, model: str, losses: list[str]) -> Json:
    if _BUDGETS_ONLY.search(model) and tokens > 0:
        least = _LEAST_OF_LITE if "lite" in model else _LEAST
        fitting = min(max(tokens, least), _LARGEST["pro" in model])
        if fitting != tokens:
            losses.append("thinking.budget_tokens")
        return {"thinkingBudget": fitting}
    return {"thinkingBudget": tokens}


def _effort(word: str, model: str, losses: list[str]) -> Json:
    if not word:
        return {}
    if word in _MOST:
        losses.append("reasoning_effort")
        word = "high"
    if word not in _LEVELS:
        losses.append("reasoning_effort")
        return {}
    if _BUDGETS_ONLY.search(model):
        return {"thinkingBudget": _BUDGETS[word]}
    return {"thinkingLevel": _least(model) if word == "minimal" else _LEVELS[word]}
