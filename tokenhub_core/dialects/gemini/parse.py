"""A caller's request as a canonical call. Nothing raises here: what does not fit is kept as it came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from tokenhub_core.dialects import seals
from tokenhub_core.dialects.gemini.names import Kept, many, others, plain, whole
from tokenhub_core.dialects.gemini.parts import parts
from tokenhub_core.dialects.gemini.schema import json_schema
from tokenhub_core.types import (
    Call,
    Choice,
    Dialect,
    Json,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    Request,
    Role,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)

_FIELDS: Final = frozenset(
    {"model", "contents", "systemInstruction", "tools", "toolConfig", "generationConfig"}
)
_CONFIG: Final = "generationConfig."
_CHOOSING: Final = "toolConfig.functionCallingConfig"
_JSON_TYPE: Final = "application/json"
_HERE: Final = Dialect.GEMINI
_CHOICES: Final = {"AUTO": Choice.AUTO, "ANY": Choice.REQUIRED, "NONE": Choice.NONE}


def parse(request: Request) -> Call:
    """Return the canonical call of a request that `open_request` has checked."""
    data: Json = plain(request.data)
    rest: Json = others(data, _FIELDS)
    config: Json = dict(data.get("generationConfig") or {})
    config.pop("maxOutputTokens", None)
    rest |= others(config, (), _CONFIG)
    aside: Json = {}
    output = _output(rest, aside)
    choice = _tool_choice(data.get("toolConfig"), rest)
    logprobs = _logprobs(rest)
    thinking = _thinking(rest)
    stop = _strings(rest, _CONFIG + "stopSequences")
    tier = rest.pop("serviceTier") if isinstance(rest.get("serviceTier"), str) else ""
    labels = rest.pop("labels") if isinstance(rest.get("labels"), dict) else {}
    return Call(
        dialect=_HERE,
        model=request.features.model,
        turns=_collected(tuple(_turns(data))),
        stream=request.features.stream,
        tools=tuple(_tools(data.get("tools"))),
        tool_choice=choice,
        max_output_tokens=request.features.max_output_tokens,
        temperature=_number(rest, "temperature"),
        top_p=_number(rest, "topP"),
        stop=stop,
        output=output,
        top_k=_whole(rest, "topK"),
        seed=_whole(rest, "seed"),
        n=_whole(rest, "candidateCount"),
        frequency_penalty=_number(rest, "frequencyPenalty"),
        presence_penalty=_number(rest, "presencePenalty"),
        logprobs=logprobs,
        thinking=thinking,
        metadata=labels,
        service_tier=tier,
        include_usage=True,
        rest=Kept(rest, **aside),
    )


# --- the conversation --------------------------------------------------------------------------------------


def _turns(data: Json) -> Iterator[Turn]:
    """Yield the turns. Results of functions are a turn of their own, before what else their content says."""
    system = data.get("systemInstruction")
    if isinstance(system, dict):
        left = Kept(others(system, ("role", "parts")), role=system.get("role"))
        yield Turn(Role.SYSTEM, tuple(parts(system.get("parts"))), rest=left)
    contents = [(content, parts(content.get("parts"))) for content in many(data.get("contents"))]
    pairs = _Pairs(part for _, found in contents for part in found)
    for content, found in contents:
        role = content.get("role")
        left = Kept(others(content, ("role", "parts")), role=role)
        named = [pairs.paired(part) for part in found]
        if role == "model":
            yield Turn(Role.ASSISTANT, tuple(named), rest=left)
            continue
        results = tuple(part for part in named if isinstance(part, ToolResult))
        words = tuple(part for part in named if not isinstance(part, ToolResult))
        if results:
            yield Turn(Role.TOOL, results, rest=Kept(role=role) if words else left)
        if words or not results:
            yield Turn(Role.USER, words, rest=Kept(left, role=role, joined=bool(results)))


class _Pairs:
    """Gives every call an id, and every result that of the call it answers.

    Calls without one are numbered, so that the same conversation has the same ids when it is sent again. A
    result without one answers the first open call of its function.
    """

    def __init__(self, found: Iterable[Part]) -> None:
        self._taken = {part.id for part in found if isinstance(part, ToolUse | ToolResult)}
        self._number = 0
        self._open: dict[str, list[str]] = {}

    def paired(self, part: Part) -> Part:
        """Return the part with its id; parts have to come in the conversation's order."""
        match part:
            case ToolUse():
                id_ = part.id or self._made_up()
                self._open.setdefault(part.name, []).append(id_)
            case ToolResult():
                waiting = self._open.get(_aside(part.rest).get("name", ""), [])
                id_ = part.id or (waiting[0] if waiting else self._made_up())
                if id_ in waiting:
                    waiting.remove(id_)
            case _:
                return part
        if part.id:
            return part
        return replace(part, id=id_, rest=Kept(part.rest, **_aside(part.rest), unnamed=True))

    def _made_up(self) -> str:
        while (name := f"call_{self._number}") in self._taken:
            self._number += 1
        self._number += 1
        return name


def _aside(rest: object) -> dict[str, Any]:
    return dict(rest.aside) if isinstance(rest, Kept) else {}


def _collected(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Return the turns with thoughts that another dialect signed put together again.

    A stream brings a thought in pieces, and its signature after the last one. Clients of this dialect give all of
    them back, often each as a content of its own, while other dialects check the signature against the whole.
    """
    if not any(_foreign(part) for turn in turns for part in turn.parts):
        return turns
    joined: list[Turn] = []
    for turn in turns:
        if joined and turn.role is Role.ASSISTANT and joined[-1].role is Role.ASSISTANT:
            before = joined.pop()
            joined.append(replace(before, parts=(*before.parts, *turn.parts)))
        else:
            joined.append(turn)
    return tuple(replace(turn, parts=_whole_thoughts(turn.parts)) for turn in joined)


def _foreign(part: Part) -> bool:
    return isinstance(part, Reasoning) and bool(part.signature) and not seals.opened(_HERE, part.signature)


def _whole_thoughts(found: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the parts with every thought that another dialect signed in one piece, beside its signature."""
    done: list[Part] = []
    for part in found:
        if isinstance(part, Reasoning) and _foreign(part):
            pieces = [part.text]
            while done and isinstance(before := done[-1], Reasoning) and _unsigned(before):
                pieces.append(before.text)
                done.pop()
            done.append(replace(part, text="".join(reversed(pieces))))
        else:
            done.append(part)
    return tuple(done)


def _unsigned(part: Reasoning) -> bool:
    return not part.signature and not part.redacted


# --- settings: each takes its member out of `rest` where it can say it -------------------------------------


def _tools(given: object) -> Iterator[Tool | Opaque]:
    """Yield the functions and, each by its own name, what else may be used; their grouping says nothing."""
    for group in many(given):
        for name, value in group.items():
            if name == "functionDeclarations":
                yield from (_tool(declared) for declared in many(value))
            else:
                yield Opaque(_HERE, name, {name: value})


def _tool(declared: Json) -> Tool:
    homes = ["name"]
    description = declared.get("description")
    if isinstance(description, str):
        homes.append("description")
    given, plainly = declared.get("parameters"), declared.get("parametersJsonSchema")
    aside: Json = {}
    schema: Json = {}
    if isinstance(plainly, dict) and given is None:
        homes.append("parametersJsonSchema")
        schema = plainly
    elif isinstance(given, dict) and plainly is None:
        homes.append("parameters")
        schema = json_schema(given)
        aside["parameters"] = given
    rest = Kept(others(declared, homes), **aside)
    return Tool(declared["name"], description if isinstance(description, str) else "", schema, rest=rest)


def _tool_choice(given: object, rest: Json) -> ToolChoice | None:
    if not isinstance(given, dict):
        return None
    rest |= others(given, ("functionCallingConfig",), "toolConfig.")
    choosing = given.get("functionCallingConfig")
    if not isinstance(choosing, dict):
        return None
    mode, names = choosing.get("mode"), choosing.get("allowedFunctionNames") or []
    kind = _CHOICES.get(mode.upper() if isinstance(mode, str) else "")
    if kind is None or not isinstance(names, list):
        rest[_CHOOSING] = choosing
        return None
    left = others(choosing, ("mode", "allowedFunctionNames"), _CHOOSING + ".")
    rest |= left
    match kind, names:
        case Choice.REQUIRED, [str(name)]:
            return ToolChoice(Choice.NAMED, name)
        case _, [_, *_]:
            rest[_CHOOSING + ".allowedFunctionNames"] = names
    return ToolChoice(kind)


def _number(rest: Json, key: str) -> float | None:
    value = rest.get(_CONFIG + key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    del rest[_CONFIG + key]
    return value


def _whole(rest: Json, key: str) -> int | None:
    value = whole(rest.get(_CONFIG + key))
    if value is not None:
        del rest[_CONFIG + key]
    return value


def _strings(rest: Json, key: str) -> tuple[str, ...]:
    words = many(rest.get(key))
    if not all(isinstance(word, str) for word in words):
        return ()
    rest.pop(key, None)
    return tuple(words)


def _logprobs(rest: Json) -> int | None:
    if rest.get(_CONFIG + "responseLogprobs") is not True:
        return None
    given = rest.get(_CONFIG + "logprobs")
    count = whole(given)
    if given is not None and count is None:
        return None
    del rest[_CONFIG + "responseLogprobs"]
    rest.pop(_CONFIG + "logprobs", None)
    return count or 0


def _output(rest: Json, aside: Json) -> OutputFormat | None:
    """Return the output format; plain text is what every model writes anyway."""
    kind = rest.get(_CONFIG + "responseMimeType")
    given, plainly = (rest.get(_CONFIG + key) for key in ("responseSchema", "responseJsonSchema"))
    if kind == "text/plain" and given is None and plainly is None:
        del rest[_CONFIG + "responseMimeType"]
        aside["responseMimeType"] = kind
        return None
    if kind != _JSON_TYPE or (given is not None and plainly is not None):
        return None
    if isinstance(given, dict):
        del rest[_CONFIG + "responseMimeType"], rest[_CONFIG + "responseSchema"]
        aside["responseSchema"] = given
        return OutputFormat(json_schema(given))
    if plainly is None and given is None:
        del rest[_CONFIG + "responseMimeType"]
        return OutputFormat()
    if isinstance(plainly, dict):
        del rest[_CONFIG + "responseMimeType"], rest[_CONFIG + "responseJsonSchema"]
        return OutputFormat(plainly)
    return None


def _thinking(rest: Json) -> Thinking:
    config = rest.get(_CONFIG + "thinkingConfig")
    if not isinstance(config, dict):
        return Thinking()
    budget, level, show = (config.get(key) for key in ("thinkingBudget", "thinkingLevel", "includeThoughts"))
    tokens = whole(budget)
    homes = ["thinkingBudget"] if tokens is not None else []
    homes += ["thinkingLevel"] if isinstance(level, str) else []
    homes += ["includeThoughts"] if isinstance(show, bool) else []
    del rest[_CONFIG + "thinkingConfig"]
    rest |= others(config, homes, _CONFIG + "thinkingConfig.")
    said = tokens is not None or isinstance(level, str)
    return Thinking(
        enabled=(tokens != 0) if said else None,
        effort=level.lower() if isinstance(level, str) else "",
        budget_tokens=tokens,
        show=show if isinstance(show, bool) else None,
    )
