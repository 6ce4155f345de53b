"""What each vendor's answers tell of rate limits, and that strangers' values can do no harm."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.admission.headers import (
    DAY,
    Metric,
    Seen,
    duration,
    mentioned,
    pacific_midnight,
    read,
    read_body,
    table,
)
from tokenhub_core.types import Dialect, Headers

AT = 1_790_000_000.0
"""2026-09-21 14:13:20 UTC."""
CHAT = Dialect.OPENAI_CHAT
MESSAGES = Dialect.ANTHROPIC_MESSAGES
R, T, IN, OUT, SHARE = Metric


def told(vendor: str, *fields: tuple[str, str], dialect: Dialect = CHAT) -> list[Seen]:
    headers: Headers = (("content-type", "application/json"), *fields)
    assert mentioned(headers)
    return list(read(table(vendor, dialect), headers, at=AT))


def each(pattern: str, *values: str) -> list[tuple[str, str]]:
    """Return the fields `pattern` with limit, remaining and reset in its place."""
    return [
        (pattern.format(part), value)
        for part, value in zip(("limit", "remaining", "reset"), values, strict=False)
    ]


GOLDEN: list[tuple[str, list[tuple[str, str]], list[Seen]]] = [
    (
        "openai",
        [
            *each("x-ratelimit-{}-requests", "500", "499", "120ms"),
            *each("x-ratelimit-{}-tokens", "30000", "29000", "6m0s"),
            *each("x-ratelimit-{}-project-tokens", "90000", "89000", "1h2m3.5s"),
        ],
        [
            Seen(R, "", 500, 499, 0.12, by_model=True, refills=True),
            Seen(T, "", 30_000, 29_000, 360, by_model=True, refills=True),
            Seen(T, "project", 90_000, 89_000, 3723.5, by_model=True, refills=True),
        ],
    ),
    (
        "azure",
        [("x-ratelimit-remaining-requests", "9"), ("x-ratelimit-remaining-tokens", "1200")],
        [
            Seen(R, "", None, 9, None, by_model=True, refills=True),
            Seen(T, "", None, 1200, None, by_model=True, refills=True),
        ],
    ),
    (
        "groq",
        [
            *each("x-ratelimit-{}-requests", "14400", "14399", "2m59.56s"),
            *each("x-ratelimit-{}-tokens", "18000", "17900", "7.66s"),
        ],
        [
            Seen(R, "day", 14_400, 14_399, 179.56, by_model=True, refills=True),
            Seen(T, "minute", 18_000, 17_900, 7.66, by_model=True, refills=True),
        ],
    ),
    (
        "mistral",
        [
            *each("x-ratelimit-{}-tokens-minute", "500000", "499000"),
            *each("x-ratelimit-{}-tokens-month", "1000000000", "999999000", "1728000"),
            *each("ratelimitbysize-{}", "500000", "498000", "41"),
        ],
        [
            Seen(T, "minute", 500_000, 499_000, 41, by_model=True),
            Seen(T, "month", 1e9, 999_999_000, 1_728_000, by_model=True),
        ],
    ),
    (
        "cerebras",
        [
            *each("x-ratelimit-{}-requests-day", "14400", "14000", "33011.382867"),
            *each("x-ratelimit-{}-tokens-minute", "60000", "59000", "11.38"),
        ],
        [
            Seen(R, "day", 14_400, 14_000, 33_011.382867, by_model=True),
            Seen(T, "minute", 60_000, 59_000, 11.38, by_model=True),
        ],
    ),
    (
        "together",
        [*each("x-ratelimit-{}", "10", "0", "1"), *each("x-tokenlimit-{}", "3000", "2500", "0.5")],
        [Seen(R, "", 10, 0, 1, by_model=True), Seen(T, "", 3000, 2500, 0.5, by_model=True)],
    ),
    (
        "openrouter",
        each("x-ratelimit-{}", "20", "0", str(int((AT + 42) * 1000))),
        [Seen(R, "", 20, 0, 42)],
    ),
    (
        "anthropic",
        [
            *each("anthropic-ratelimit-requests-{}", "50", "49", "2026-09-21T14:13:22Z"),
            *each("anthropic-ratelimit-tokens-{}", "48000", "47000", "2026-09-21T14:14:20Z"),
            *each("anthropic-ratelimit-input-tokens-{}", "40000", "39000", "2026-09-21T14:13:30+00:00"),
            *each("anthropic-ratelimit-output-tokens-{}", "8000", "8000", "2026-09-21T14:13:20Z"),
        ],
        [
            Seen(R, "minute", 50, 49, 2, by_model=True, refills=True),
            Seen(T, "minute", 48_000, 47_000, 60, by_model=True, refills=True),
            Seen(IN, "minute", 40_000, 39_000, 10, by_model=True, refills=True),
            Seen(OUT, "minute", 8000, 8000, 0, by_model=True, refills=True),
        ],
    ),
    (
        "anthropic",
        [
            ("anthropic-ratelimit-unified-status", "allowed_warning"),
            ("anthropic-ratelimit-unified-reset", str(int(AT) + 3600)),
            ("anthropic-ratelimit-unified-5h-status", "rejected"),
            ("anthropic-ratelimit-unified-5h-reset", str(int(AT) + 3600)),
            ("anthropic-ratelimit-unified-5h-utilization", "1.0"),
            ("anthropic-ratelimit-unified-7d-status", "allowed"),
            ("anthropic-ratelimit-unified-7d-reset", str(int(AT) + 200_000)),
            ("anthropic-ratelimit-unified-7d-utilization", "0.25"),
        ],
        [
            Seen(SHARE, "unified", 1, 1, 3600),
            Seen(SHARE, "5h", 1, 0, 3600),
            Seen(SHARE, "7d", 1, 0.75, 200_000),
        ],
    ),
    (
        "",
        [
            ("ratelimit-policy", '"burst";q=100;w=60, "day";q=5000;w=86400'),
            ("ratelimit", '"burst";r=3;t=30, "day";r=4000'),
        ],
        [Seen(R, "burst", 100, 3, 30), Seen(R, "day", 5000, 4000, 86_400)],
    ),
    ("", [("ratelimit", "limit=100, remaining=7, reset=50")], [Seen(R, "", 100, 7, 50)]),
    ("", each("ratelimit-{}", "100", "7", "50"), [Seen(R, "", 100, 7, 50)]),
    (
        "",
        [
            ("ratelimit-policy", '"default";q=9000;qu="tokens";w=60'),
            ("ratelimit", '"default";r=10;t=5;pk=:c2VjcmV0:'),
        ],
        [Seen(T, "default", 9000, 10, 5)],
    ),
]


@pytest.mark.parametrize(("vendor", "fields", "windows"), GOLDEN)
def test_every_vendors_fields_are_read_by_its_own_table(
    vendor: str, fields: list[tuple[str, str]], windows: list[Seen]
) -> None:
    """The same field counts requests of a day at one vendor and of a minute at another."""
    seen = told(vendor, *fields, dialect=MESSAGES if vendor == "anthropic" else CHAT)
    assert [(one.metric, one.window, one.limit, one.remaining) for one in seen] == [
        (one.metric, one.window, one.limit, one.remaining) for one in windows
    ]
    assert [one.resets for one in seen] == [pytest.approx(one.resets, abs=1e-3) for one in windows]
    assert [(one.by_model, one.refills) for one in seen] == [(one.by_model, one.refills) for one in windows]


def test_a_moment_counts_from_the_answers_own_clock() -> None:
    """A provider whose clock is an hour off still means ten seconds, whatever else it tells beside the moment."""
    date = ("date", "Mon, 21 Sep 2026 15:13:20 GMT")
    fields = each("anthropic-ratelimit-requests-{}", "50", "0", "2026-09-21T15:13:30Z")
    for some in (fields, fields[2:]):
        [seen] = told("anthropic", date, *some, dialect=MESSAGES)
        assert seen.resets == 10


@pytest.mark.parametrize(
    ("vendor", "name"),
    [
        ("mistral", "x-ratelimit-reset-req-minute"),
        ("mistral", "x-ratelimit-reset-tokens-minute"),
        ("mistral", "x-ratelimit-reset-tokens-month"),
        ("mistral", "ratelimitbysize-reset"),
        ("mistral", "x-ratelimitbysize-reset-minute"),
        ("mistral", "x-ratelimitbysize-reset-month"),
        ("cerebras", "x-ratelimit-reset-requests-hour"),
        ("cerebras", "x-ratelimit-reset-tokens-day"),
        ("together", "x-ratelimit-reset"),
        ("together", "x-tokenlimit-reset"),
        ("", "x-ratelimit-reset"),
        ("", "ratelimit-reset"),
    ],
)
@pytest.mark.parametrize("value", ["30", str(int(AT) + 30), str((int(AT) + 30) * 1000)])
def test_a_reset_may_be_told_in_seconds_or_as_a_moment(vendor: str, name: str, value: str) -> None:
    """Seconds from now, seconds since the epoch or milliseconds since it: the three cannot be taken for each other."""
    [seen] = told(vendor, (name, value))
    assert seen.resets == 30


def test_an_unknown_host_is_read_by_its_dialect() -> None:
    """Whoever speaks Anthropic's dialect behind another name says it in Anthropic's fields."""
    fields = each("anthropic-ratelimit-requests-{}", "50", "49", "2026-09-21T14:13:22Z")
    assert told("", *fields, dialect=MESSAGES)
    assert told("", *fields) == []


@pytest.mark.parametrize(
    "value",
    [
        "nan",
        "inf",
        "-1",
        "1e999",
        "1e3",
        "",
        " ",
        "0x10",
        "1_000",
        "\N{FULLWIDTH DIGIT NINE}",
        "1" * 65,
        "six",
        "6m-3s",
        "6m0",
        "--",
    ],
)
def test_what_is_no_number_is_not_told(value: str) -> None:
    """A limit that nobody can read is no limit."""
    [seen] = told("openai", ("x-ratelimit-remaining-requests", value), ("x-ratelimit-limit-requests", "5"))
    assert seen.remaining is None


@pytest.mark.parametrize(
    ("vendor", "value", "most"),
    [
        ("groq", "999999999999h", 1.1 * DAY),
        ("openai", "99999999d", 1.1 * DAY),
        ("openrouter", "9" * 18, 1.1 * DAY),
    ],
)
def test_a_reset_is_never_farther_than_its_window_is_long(vendor: str, value: str, most: float) -> None:
    """Or one answer could keep a provider out for years; one in the past is now."""
    name = "x-ratelimit-reset" if vendor == "openrouter" else "x-ratelimit-reset-requests"
    [seen] = told(vendor, (name, value))
    assert seen.resets == pytest.approx(most)
    [past] = told("openrouter", ("x-ratelimit-reset", "1000"))
    assert past.resets == 0


def test_more_than_the_limit_cannot_remain() -> None:
    """The smaller of the two is believed; a count without end is held."""
    [seen] = told("openai", *each("x-ratelimit-{}-requests", "5", "999999999999999999"))
    assert (seen.limit, seen.remaining) == (5, 5)
    [huge] = told("openai", ("x-ratelimit-remaining-requests", "9" * 18))
    assert huge.remaining == 1e15


def failure(*quotas: tuple[str, str], wait: str = "") -> bytes:
    violations = [
        {
            "quotaId": quota,
            "quotaValue": value,
            "quotaDimensions": {"model": "gemini-x", "location": "global"},
        }
        for quota, value in quotas
    ]
    details: list[dict[str, Any]] = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}
    ]
    if wait:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": wait})
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota", "details": details}
    return orjson.dumps({"error": error})


def test_gemini_says_it_in_the_body_of_its_refusal() -> None:
    """A minute's quota ends when RetryInfo says, a day's at midnight of the Pacific coast."""
    body = failure(
        ("GenerateContentInputTokensPerModelPerMinute-FreeTier", "250000"),
        ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "50"),
        ("SomethingElsePerDay", "1"),
        wait="31.5s",
    )
    minute, day = read_body(Dialect.GEMINI, body, at=AT)
    assert minute == Seen(IN, "minute", 250_000, 0, 31.5, by_model=True, model="gemini-x")
    assert day == Seen(R, "day", 50, 0, pacific_midnight(AT) - AT, by_model=True, model="gemini-x")
    assert pacific_midnight(AT) == 1_790_064_000  # 2026-09-22 08:00 UTC
    assert read_body(CHAT, body, at=AT) == ()


NAMES = sorted(
    name for vendor in ("openai", "anthropic", "mistral", "cerebras", "") for name in table(vendor, CHAT)
)
VALUES = st.one_of(
    st.text(max_size=80),
    st.from_regex(r'[\d.\-+eE:TZmshud ";=,rqtw]{0,80}', fullmatch=True),
    st.sampled_from(
        ["2026-02-30T00:00:00Z", "9999-12-31T23:59:59+23:59", "0001-01-01T00:00:00+23:59", "1e400"]
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([*NAMES, "date", "x"]), VALUES), max_size=12), st.sampled_from(Dialect)
)
def test_no_field_can_raise_or_leave_its_bounds(fields: list[tuple[str, str]], dialect: Dialect) -> None:
    """Whatever a provider sends: finite, not negative, at most a month away."""
    for vendor in ("openai", "anthropic", "mistral", "cerebras", "openrouter", "together", "groq", ""):
        for one in read(table(vendor, dialect), tuple(fields), at=AT):
            for number in (one.limit, one.remaining):
                assert number is None or 0 <= number <= 1e15
            assert one.resets is None or 0 <= one.resets <= 35 * DAY


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.text() | st.integers(0, 9),
            lambda kids: (
                st.lists(kids)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "error",
                            "details",
                            "violations",
                            "quotaId",
                            "quotaDimensions",
                            "retryDelay",
                            "model",
                            "quotaValue",
                        ]
                    ),
                    kids,
                )
            ),
        ).map(orjson.dumps),
    )
)
def test_no_body_can_raise(body: bytes) -> None:
    """An error page may hold anything."""
    for one in read_body(Dialect.GEMINI, body, at=AT):
        assert one.remaining == 0


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789.hmsund", max_size=70))
def test_a_duration_is_finite_or_none(text: str) -> None:
    """Also where it is nearly one."""
    seconds = duration(text)
    assert seconds is None or 0 <= seconds <= 1e15


@pytest.mark.parametrize(
    ("text", "seconds"), [("9" * 18, 1e9), ("9" * 64, None), ("1s" + " " * 63, None), ("6m0s", 360.0)]
)
def test_a_duration_is_as_short_as_a_field_for_people(text: str, seconds: float | None) -> None:
    """Of 64 characters at most; what is longer is not looked into."""
    found = duration(text)
    assert (found is None) is (seconds is None)
    assert found is None or seconds is None or found >= min(seconds, 360.0)


def test_reading_is_linear_in_the_length_of_a_field() -> None:
    """Fields that are longer than any vendor's are not looked into, and long lists are read item by item."""
    spaces = "a" + " " * 1000 + "x"
    for value in (spaces, ";" * 1000, '"' * 1000, "1h" * 500, "=" * 1000, ("a;" * 8 + ",") * 60):
        assert read(table("", CHAT), (("ratelimit", value), ("ratelimit-policy", value)), at=AT) == ()
    assert read(table("", CHAT), (("ratelimit", '"a";r=1,' * 10_000),), at=AT) == ()


def test_an_answer_without_such_fields_is_not_looked_into() -> None:
    """The quick look says no for what ordinary answers carry."""
    assert not mentioned((("content-type", "application/json"), ("date", "x"), ("x-request-id", "x")))
