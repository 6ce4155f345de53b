"""One decision, told to people."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console, RenderableType

from tokenhub_core.cli.decision import explained, imagined
from tokenhub_core.http.decisions import of_record, of_simulation
from tokenhub_core.routing.eligibility import Circumstances
from tokenhub_core.routing.fleet import build
from tokenhub_core.routing.plan import decide
from tokenhub_core.types import Features, Json, Mode, Model, Need, Policy, Provider, ProviderType


def candidate(model: str = "m", **more: Any) -> Json:
    terms = {"cost": 0.25, "latency": 0.0, "failure": 0.1, "weight": -0.2}
    base = {"model": model, "provider": "p", "score": 0.15, "terms": terms, "estimated_nanousd": 2_500_000}
    return {**base, **more}


def decided(*candidates: Json, **more: Any) -> Json:
    """Return a decision as it is stored, of a caller that asked for little."""
    asked = {
        "model": "m",
        "stream": True,
        "max_output_tokens": 700,
        "needs": ["tools", "vision"],
        "text_bytes": 4000,
        "media": 1,
        "turns": 2,
    }
    policy = {
        "mode": "cheap",
        "max_budget_usd": 0.0,
        "model": "m",
        "tags": [],
        "fallback": True,
        "provider": None,
    }
    why = {"mode": "directive", "max_budget_usd": "default", "model": "request", "provider": "default"}
    base = {"asked": asked, "policy": {**policy, "why": why}, "skips": [], "spared": []}
    return {**base, "candidates": list(candidates or (candidate(),)), **more}


def row(**more: Any) -> Json:
    """Return one record as the store gives it back."""
    return {
        "id": "req_1",
        "at": 1,
        "decision": decided(),
        "method": "POST",
        "path": "/v1/chat/completions",
        "dialect": "openai_chat",
        "stream": True,
        "origin_host": "",
        "program": "",
        "model_id": "m",
        "provider_id": "p",
        "requested_model": "m",
        "directive": "",
        "reason": "routed-hint-exact",
        "lane": "handoff",
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "usage_estimated": False,
        "cost_nanousd": 1_500_000,
        "queue_ms": 0.0,
        "route_ms": 0.26,
        "ttft_ms": 4.0,
        "total_ms": 12.4,
        "outcome": "ok",
        "status": 200,
        "error_class": "",
        "message": "",
        "losses": [],
        "identical": True,
        "stop_reason": "end",
        "attempts": [attempt()],
        "simulated": False,
        **more,
    }


def attempt(n: int = 1, cause: str = "", message: str = "", **more: Any) -> Json:
    return {
        "n": n,
        "model": "m",
        "provider": "p",
        "cause": cause,
        "message": message,
        "started_ms": 1.0,
        "first_byte_ms": None,
        "ended_ms": 9.0,
        "cost_nanousd": 0,
        "change": "",
        **more,
    }


def printed(what: RenderableType, *, color: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=color, color_system="truecolor" if color else None).print(what)
    return out.getvalue()


def shown(data: Json, *, color: bool = False) -> str:
    return printed(explained(of_record(data)), color=color)


def joined(told: str) -> str:
    return " ".join(told.split())


def test_a_call_is_told_from_the_question_to_the_bill() -> None:
    """What was asked, under which policy and by whose wish, the score in its parts, the try, the end."""
    head, table, rest = shown(row()).partition("model ")[0], *shown(row()).partition("try ")[::2]
    assert joined(head) == (
        "How req_1 was routed asked for m, openai_chat, streamed, 4000 bytes of text, 1 media, at most 700 tokens"
        " out, needs tools, vision, lane handoff, directive none"
        " policy: mode cheap (directive), max_budget_usd 0.0 (default),"
    )
    names, _, values = table[table.index("model  ") :].splitlines()[:3]
    assert names.split() == ["model", "provider", "cost", "lat", "err", "wt", "loss", "score", "estimate"]
    assert values.split() == ["m", "p", "0.25", "0.00", "0.10", "-0.20", "0.00", "0.15", "$0.002500"]
    assert "1 m @ p .------------- 8 answered 0.000000" in joined(rest)
    assert joined(rest).endswith(
        "served by m @ p: routed-hint-exact 10 + 5 tokens, $0.001500, 12 ms, decided in 0.3 ms, first byte after 4 ms"
    )


def test_a_call_that_went_on_says_where_it_came_from() -> None:
    """Who served the conversation before, what told, and why it must stay there; no line where it began."""
    bond = {"model": "m", "provider": "p", "age": 4.4, "tokens": 900, "by": "calls", "lock": "tool_loop"}
    told = joined(shown(row(decision=decided(affinity=bond))))
    assert "conversation: m @ p 4 s before, known by calls, must stay there: tool_loop model" in told
    free = joined(shown(row(decision=decided(affinity={**bond, "lock": ""}))))
    assert "conversation: m @ p 4 s before, known by calls model" in free
    for beginning in (decided(), decided(affinity=None)):
        assert "conversation" not in shown(row(decision=beginning))


def test_who_served_stands_out() -> None:
    """Among the others, by model and provider both."""
    told = shown(
        row(provider_id="q", decision=decided(candidate(), candidate(provider="q"), candidate("n"))),
        color=True,
    )
    assert [("\x1b[1;32m" in line) for line in told.splitlines() if "0.25" in line] == [False, True, False]


def test_a_long_list_is_cut_and_counted() -> None:
    """Eight candidates, and eight names for each reason to be left out; beyond that, numbers."""
    skips = [{"model": f"s{n}", "provider": "p", "reason": "disabled"} for n in range(11)]
    skips.append({"model": "t", "provider": "p", "reason": "health_down", "detail": "until noon"})
    told = shown(row(decision=decided(*(candidate(f"m{n}") for n in range(20)), skips=skips)))
    assert "… and 12 more" in told
    assert "m7" in told
    assert "m8" not in told
    left = joined(told[told.index("left out") :])
    assert "disabled 11 s0 @ p, s1 @ p" in left
    assert "s7 @ p, … and 3 more health_down 1 t @ p (until noon)" in left


def test_tries_stand_on_one_line_of_time() -> None:
    """When each began, when its first byte came, when it ended, and what it came to."""
    first = attempt(1, "http_500", "it broke", started_ms=0.0, ended_ms=5.0)
    second = attempt(
        2, started_ms=5.0, first_byte_ms=7.5, ended_ms=10.0, change="reduced-max-tokens", cost_nanousd=7000
    )
    told = shown(row(attempts=[first, second], total_ms=10.0))
    tries = joined(told[told.index("try ") :])
    assert "1 m @ p ---------- 5 http_500 (it broke) 0.000000" in tries
    assert "2 m @ p ..........-----===== 5 answered," in tries
    assert "reduced-max-tokens" in told
    assert "0.000007" in told


def test_a_try_says_how_long_it_had_to_begin() -> None:
    """Where that was not what the setting says."""
    late = shown(row(attempts=[attempt(1, "ttft_timeout", "late", ttft_limit_ms=10_400.0)]))
    assert "10.4 s to" in joined(late[late.index("try ") :])
    assert " s to" not in joined(shown(row()))


def test_what_was_lost_and_what_was_cached_is_told() -> None:
    """Before anything was sent, and by the answer."""
    told = joined(
        shown(
            row(
                decision=decided(candidate(losses=["top_k"])),
                losses=["top_k", "part:thinking"],
                cache_read_tokens=3,
                reasoning_tokens=2,
                usage_estimated=True,
            )
        )
    )
    assert "m @ p would lose top_k" in told
    assert "lost on the way: top_k, part:thinking" in told
    assert "3 from cache, 2 of thought, estimated" in told


def test_an_end_that_is_not_good_is_told() -> None:
    """With its status and its words, also where nobody was ever a candidate."""
    failed = row(
        outcome="error", status=502, error_class="http_500", message="it broke", reason="", model_id=""
    )
    assert "error 502 http_500: it broke" in shown({**failed, "decision": None, "attempts": []})
    assert "cancelled 499" in shown(row(outcome="cancelled", status=499))


def test_a_decision_from_before_there_were_versions_is_told() -> None:
    """It has neither a call nor anyone who was spared."""
    old = {"candidates": [candidate()], "skips": [], "policy": {"mode": "cheap", "why": {}}}
    assert "asked for m, openai_chat, lane handoff" in shown(row(decision=old))


def test_a_made_up_answer_is_told_as_such() -> None:
    """Nobody shall take it for a real one."""
    assert "SIMULATED: no provider was called, no money was spent" in shown(row(simulated=True))
    assert "SIMULATED" not in shown(row())


def test_a_call_that_nobody_made_is_told_like_one() -> None:
    """Who would be asked first; or why it would be refused, and who is left out for what."""
    provider = Provider("p", ProviderType.OPENAI, ("https://p.example",))
    view = build([provider], [Model("m", "p"), Model("n", "p", weight=1)], version=1)
    now = Circumstances({}, lambda _: True)
    ask = Features("", needs=frozenset({Need.TOOLS}))
    policy = Policy(Mode.CHEAP, min_weight=2, why={"min_weight": "request"})
    told = joined(printed(imagined(of_simulation(*decide(view, ask, policy, now=now, seed="s")))))
    assert "asked for no model, openai_chat, 0 bytes of text, needs tools" in told
    assert "policy: min_weight 2 (request)" in told
    assert "weight_below_minimum 1 n @ p" in told
    assert told.endswith("m @ p would be asked first (routed-weight-5)")
    refused = decide(view, ask, Policy(min_weight=9), now=now, seed="s")
    told = joined(printed(imagined(of_simulation(*refused))))
    assert "weight_below_minimum 2 m @ p, n @ p" in told
    assert "refused with 400 no_candidate: No model may serve this call (2 weight_below_minimum)." in told


def test_it_fits_a_terminal_whatever_is_in_it() -> None:
    """Eighty columns, no codes, no markup; what is long is folded."""
    evil = "\x1b[31m[red]" + "x" * 100 + "\r\n:smile:"
    told = shown(
        row(
            id=evil,
            requested_model=evil,
            reason=evil,
            message=evil,
            outcome="error",
            error_class="x",
            losses=[evil],
            attempts=[attempt(1, "c", evil, model=evil)],
            decision=decided(
                candidate(evil, provider=evil, losses=[evil]),
                skips=[{"model": evil, "provider": evil, "reason": "disabled"}],
                policy={"model": evil, "tags": [evil], "why": {"model": evil, "tags": evil}},
            ),
        )
    )
    assert "\x1b" not in told
    assert "\r" not in told
    assert "[red]" in told
    assert all(len(line) <= 80 for line in told.splitlines())


def test_the_steps_of_a_call_stand_in_a_table() -> None:
    """Which calls made the answer, who made them, what each cost, and what the judge chose."""
    steps = [
        {
            "name": "voter-1",
            "model": "m",
            "provider": "p",
            "cost_nanousd": 5_000_000,
            "verdict": "final",
            "cause": "",
        },
        {
            "name": "voter-2",
            "model": "n",
            "provider": "q",
            "cost_nanousd": 0,
            "verdict": "",
            "cause": "http_500",
        },
        {
            "name": "judge",
            "model": "o",
            "provider": "q",
            "cost_nanousd": 0,
            "verdict": "voter-1",
            "cause": "",
        },
    ]
    made = {"mode": "vote", "decided": "judge", "most": 4, "steps": steps}
    told = joined(shown(row(composition=made)))
    assert "mode vote, 3 of at most 4 steps, decided by judge" in told
    for words in (
        "voter-1 m @ p answered final 0.005000",
        "voter-2 n @ q http_500",
        "judge o @ q answered voter-1",
    ):
        assert words in told
