"""One decision for people: what was asked, under which policy, who could serve and who could not, what was tried.

Takes the shape of `http.decisions`, of a call that was made or of one that was only thought through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from tokenhub_core.cli.options import listing, plain
from tokenhub_core.types import NANO, Json

_SHOWN: Final = 8
"""Candidates in the table, and names of models that were left out for one reason; the rest are counted."""
_TERMS: Final = ("cost", "latency", "failure", "weight", "loss")
_BAR: Final = 20
"""Characters of the line of time."""


def explained(told: Json) -> RenderableType:
    """Show a call that was made."""
    return Group(
        plain(f"How {told['id']} was routed"),
        _asked(told["asked"]),
        *_policy(told["policy"]),
        *_affinity(told.get("affinity")),
        *_candidates(told),
        *_exclusions(told["exclusions"]),
        *_attempts(told),
        *_steps(told.get("composition")),
        _end(told),
    )


def imagined(told: Json) -> RenderableType:
    """Show a call that nobody made."""
    first = told["decision"]
    if first is None:
        end = plain(
            f"refused with {told['error']['status']} {told['error']['type']}: {told['error']['message']}"
        )
    else:
        end = plain(f"{first['model_id']} @ {first['provider_id']} would be asked first ({first['reason']})")
    return Group(
        _asked({**told["asked"], "dialect": told["dialect"]}),
        *_policy(told["policy"]),
        *_candidates(told),
        *_exclusions(told["exclusions"]),
        end,
    )


def _asked(asked: Json) -> Text:
    """Return what the caller asked for, in a line."""
    said = [f"asked for {asked['model'] or 'no model'}", asked["dialect"] or "nothing that is routed"]
    if "text_bytes" in asked:
        said += ["streamed"] if asked["stream"] else []
        said += [f"{asked['text_bytes']} bytes of text"]
        said += [f"{asked['media']} media"] if asked["media"] else []
        if asked["max_output_tokens"] is not None:
            said += [f"at most {asked['max_output_tokens']} tokens out"]
        said += [f"needs {', '.join(asked['needs'])}"] if asked["needs"] else []
    if "lane" in asked:
        said += [f"lane {asked['lane']}", f"directive {asked['directive'] or 'none'}"]
    return plain(", ".join(said))


def _policy(policy: Json | None) -> list[RenderableType]:
    """Return what was wished and allowed, and who said so; what nobody set is left out."""
    if policy is None:
        return []
    why = policy["why"]
    said = [
        f"{name} {_value(policy[name])} ({source})"
        for name, source in why.items()
        if name in policy and (policy[name] is not None or source != "default")
    ]
    return [plain("policy: " + ", ".join(said))]


def _value(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(map(str, value))
    return str(value)


def _affinity(told: Json | None) -> list[RenderableType]:
    """Return where the conversation was before, what told, and whether it must stay there."""
    if told is None:
        return []
    stays = f", must stay there: {told['lock']}" if told["lock"] else ""
    where = f"{told['model']} @ {told['provider']} {told['age']:.0f} s before"
    return [plain(f"conversation: {where}, known by {told['by']}{stays}")]


def _candidates(told: Json) -> list[RenderableType]:
    everyone = [*told["candidates"], *told["spared"]]
    if not everyone:
        return []
    # The eighth column only where there is something to say in it: a terminal has eighty characters.
    drawn = any("draw" in one for one in everyone)
    table = listing("model", "provider")
    for name in ("cost", "lat", "err", "wt", "loss", "score", *(("drawn",) if drawn else ()), "estimate"):
        table.add_column(name, justify="right", no_wrap=True)
    tried = len(told["candidates"])
    for at, one in enumerate(everyone[:_SHOWN]):
        style = "bold green" if one.get("served") else "" if at < tried else "dim"
        table.add_row(*_cells(one, drawn=drawn), style=style)
    if len(everyone) > _SHOWN:
        table.add_row(f"… and {len(everyone) - _SHOWN} more")
    lost = [one for one in everyone[:_SHOWN] if one.get("losses")]
    lines = [f"{one['model']} @ {one['provider']} would lose {', '.join(one['losses'])}" for one in lost]
    if told.get("lone"):
        lines.insert(0, "all are unhealthy: the best is tried in spite of it, alone")
    return [table, *map(plain, lines)]


def _cells(one: Json, *, drawn: bool) -> list[Text]:
    # Decisions that were recorded before there was a term do not have it.
    scores = [*(one["terms"].get(name, 0.0) for name in _TERMS), one["score"]]
    scores += [one["draw"]["sample"] if "draw" in one else 0.0] if drawn else []
    return [
        plain(one["model"]),
        plain(one["provider"]),
        *(Text(f"{score:.2f}") for score in scores),
        Text(f"${one['estimated_nanousd'] / NANO:.6f}"),
    ]


def _exclusions(excluded: Sequence[Json]) -> list[RenderableType]:
    if not excluded:
        return []
    table = listing("left out", "n", "models", right=("n",))
    for one in excluded:
        names = [f"{m['model']} @ {m['provider']}{_detail(m)}" for m in one["models"][:_SHOWN]]
        more = one["count"] - len(names)
        told = ", ".join([*names, f"… and {more} more"] if more else names)
        table.add_row(plain(one["reason"]), str(one["count"]), plain(told))
    return [table]


def _detail(model: Json) -> str:
    return f" ({model['detail']})" if model["detail"] else ""


def _attempts(told: Json) -> list[RenderableType]:
    """Return the tries on one line of time: `.` waiting, `-` up to the first byte, `=` while bytes came."""
    tries = told["attempts"]
    if not tries:
        return []
    whole = max(told["timings"]["total_ms"] or 0.0, *(one["ended_ms"] or 0.0 for one in tries)) or 1.0
    table = listing("try", "candidate", "when", "ms", "came to", "$", right=("ms", "$"))
    for one in tries:
        came = f"{one['cause']} ({one['message']})" if one["cause"] else "answered"
        change = f", {one['change']}" if one.get("change") else ""
        if limit := one.get("ttft_limit_ms"):
            change += f", {limit / 1000:.1f} s to begin"
        if silence := one.get("silence_ms"):
            change += f", silent for {silence / 1000:.1f} s"
        if limit := one.get("stall_limit_ms"):
            change += f" of {limit / 1000:.0f}" if silence else f", {limit / 1000:.0f} s of silence"
        table.add_row(
            str(one["n"]),
            plain(f"{one['model']} @ {one['provider']}"),
            _line(one, whole),
            f"{(one['ended_ms'] or 0.0) - (one['started_ms'] or 0.0):.0f}",
            plain(came + change),
            f"{one.get('cost_nanousd', 0) / NANO:.6f}",
        )
    return [table]


def _steps(made: Json | None) -> list[RenderableType]:
    """Return the calls that made the answer together, and which of them it is."""
    if made is None:
        return []
    table = listing("step", "candidate", "came to", "verdict", "$", right=("$",))
    for one in made["steps"]:
        table.add_row(
            plain(one["name"]),
            plain(f"{one['model']} @ {one['provider']}" if one["model"] else ""),
            plain(one["cause"] or "answered"),
            plain(one["verdict"]),
            f"{one['cost_nanousd'] / NANO:.6f}",
        )
    decided = f", decided by {made['decided']}" if made["decided"] else ""
    return [
        plain(f"mode {made['mode']}, {len(made['steps'])} of at most {made['most']} steps{decided}"),
        table,
    ]


def _line(one: Json, whole: float) -> str:
    start, end = one["started_ms"] or 0.0, one["ended_ms"] or 0.0
    first = end if one.get("first_byte_ms") is None else one["first_byte_ms"]
    begin, turn, stop = (min(_BAR, int(moment / whole * _BAR)) for moment in (start, first, end))
    return "." * begin + "-" * (turn - begin) + "=" * (stop - turn) or "-"


def _end(told: Json) -> Text:
    """Return what came of it: who answered, how much it was, how long it took, and what was lost."""
    usage, timings = told["usage"], told["timings"]
    served = told["served"]
    lines: list[Text] = []
    if served is not None:
        lines.append(plain(f"served by {served['model']} @ {served['provider']}: {served['reason']}"))
    told_of = [f"{usage['input_tokens']} + {usage['output_tokens']} tokens"]
    told_of += [
        f"{usage[f'{kind}_tokens']} {words}"
        for kind, words in (
            ("cache_read", "from cache"),
            ("cache_write", "to cache"),
            ("reasoning", "of thought"),
        )
        if usage[f"{kind}_tokens"]
    ]
    told_of += ["estimated"] if usage["estimated"] else []
    told_of += [f"${told['cost_usd']:.6f}", f"{timings['total_ms'] or 0.0:.0f} ms"]
    told_of += [f"decided in {timings['route_ms']:.1f} ms"] if timings["route_ms"] else []
    told_of += [f"first byte after {timings['ttft_ms']:.0f} ms"] if timings["ttft_ms"] is not None else []
    lines.append(plain(", ".join(told_of)))
    if told["losses"]:
        lines.append(plain("lost on the way: " + ", ".join(told["losses"])))
    if told["outcome"] != "ok":
        error = told["error"]
        why = f"{error['type']}: {error['message']}" if error else ""
        lines.append(plain(f"{told['outcome']} {told['status']} {why}".strip()))
    if told["shadow"]:
        lines.append(_shadow(told["shadow"]))
    if told["simulated"]:
        lines.append(Text("SIMULATED: no provider was called, no money was spent", style="yellow"))
    return Text("\n").join(lines)


def _shadow(shadow: Json) -> Text:
    """Return what we would have done with a call that went its own way."""
    if shadow["fault"]:
        return plain(f"in shadow: refused with {shadow['status']} {shadow['fault']}: {shadow['message']}")
    if shadow["same"]:
        return plain("in shadow: left where it was")
    cost = "an unknown price" if shadow["nanousd"] is None else f"${shadow['nanousd'] / NANO:.6f}"
    return plain(f"in shadow: {shadow['model']} @ {shadow['provider']} for {cost}")
