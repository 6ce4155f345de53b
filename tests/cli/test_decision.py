"""One decision as a table."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from tokenhub_core.cli.decision import decision_table
from tokenhub_core.types import Json


def candidate(model: str = "m", **more: Any) -> Json:
    terms = {"cost": 0.25, "latency": 0.0, "failure": 0.1, "weight": -0.2}
    base = {"model": model, "provider": "p", "score": 0.15, "terms": terms, "estimated_nanousd": 2_500_000}
    return {**base, **more}


def row(**more: Any) -> Json:
    """Return one record as the admin API shows it."""
    return {
        "id": "req_1",
        "decision": {"candidates": [candidate()], "skips": []},
        "model_id": "m",
        "provider_id": "p",
        "requested_model": "m",
        "directive": "",
        "mode": "cheap",
        "reason": "routed-hint-exact",
        "lane": "handoff",
        "input_tokens": 10,
        "output_tokens": 5,
        "cost_nanousd": 1_500_000,
        "total_ms": 12.4,
        "outcome": "ok",
        "status": 200,
        "error_class": "",
        "message": "",
        "attempts": [attempt()],
        "simulated": False,
        **more,
    }


def attempt(n: int = 1, cause: str = "", message: str = "") -> Json:
    return {
        "n": n,
        "model": "m",
        "provider": "p",
        "cause": cause,
        "message": message,
        "started_ms": 1.0,
        "ended_ms": 9.0,
    }


def shown(data: Json, width: int = 80, *, color: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=color, color_system="truecolor" if color else None).print(
        decision_table(data)
    )
    return out.getvalue()


def test_a_score_is_broken_down() -> None:
    """Its four parts, their sum, what the call would cost there, and what it came to."""
    lines = shown(row()).splitlines()
    assert lines[0].startswith("How req_1 was routed")
    assert lines[1].split() == ["model", "provider", "cost", "lat", "err", "wt", "loss", "score", "estimate"]
    assert lines[3].split() == ["m", "p", "0.25", "0.00", "0.10", "-0.20", "0.00", "0.15", "$0.002500"]
    assert lines[4:] == [
        "asked for m, directive none, mode cheap, routed-hint-exact, lane handoff",
        "10 + 5 tokens, $0.001500, 12 ms",
    ]


def test_who_served_stands_out() -> None:
    """Among the others, by model and provider both."""
    candidates = [candidate(), candidate(provider="q"), candidate("n")]
    told = shown(row(provider_id="q", decision={"candidates": candidates, "skips": []}), color=True)
    assert [("\x1b[1;32m" in line) for line in told.splitlines() if "0.25" in line] == [False, True, False]


def test_a_long_list_is_cut_and_counted() -> None:
    """Eight candidates, and eight names of those that were left out; beyond that, numbers."""
    many = {
        "candidates": [candidate(f"m{n}") for n in range(20)],
        "skips": [
            {"model": f"s{n}", "provider": "p", "reason": ("disabled", "health_down")[n % 2]}
            for n in range(9)
        ],
    }
    told = shown(row(decision=many))
    assert "… and 12 more" in told
    assert "m7" in told
    assert "m8" not in told
    assert "left out: 5 disabled, 4 health_down" in told
    few = {"candidates": [candidate()], "skips": many["skips"][:2]}
    assert "left out: s0 (disabled), s1 (health_down)" in shown(row(decision=few))


def test_tries_are_told_where_one_failed() -> None:
    """A single good one is nothing to tell."""
    assert "answered" not in shown(row())
    told = shown(row(attempts=[attempt(1, "http_500", "it broke"), attempt(2)]))
    assert "1. m @ p: http_500 (it broke), 8 ms" in told
    assert "2. m @ p: answered, 8 ms" in told


def test_an_end_that_is_not_good_is_told() -> None:
    """With its status and its words, also where nobody was ever a candidate."""
    failed = row(
        outcome="error", status=502, error_class="http_500", message="it broke", reason="", model_id=""
    )
    assert "error 502 http_500: it broke" in shown({**failed, "decision": None})
    assert "cancelled 499" in shown(row(outcome="cancelled", status=499))


def test_a_made_up_answer_is_told_as_such() -> None:
    """Nobody shall take it for a real one."""
    assert "SIMULATED: no provider was called, no money was spent" in shown(row(simulated=True))
    assert "SIMULATED" not in shown(row())


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
            attempts=[attempt(1, "c", evil)],
            decision={
                "candidates": [candidate(evil, provider=evil)],
                "skips": [{"model": evil, "provider": evil, "reason": "disabled"}],
            },
        )
    )
    assert "\x1b" not in told
    assert "\r" not in told
    assert "[red]" in told
    assert all(len(line) <= 80 for line in told.splitlines())
