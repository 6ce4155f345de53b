"""Classification: the same failure is the same fact, whatever dialect, shape or disguise it comes in."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dispatch.backoff import LONGEST
from tokenhub_core.dispatch.classify import classify, classify_body, classify_failed
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Dialect, Failed, Headers, Json

CHAT, MESSAGES = Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES
RESPONSES, GEMINI, OLLAMA = Dialect.OPENAI_RESPONSES, Dialect.GEMINI, Dialect.OLLAMA_CHAT
NOW = 1_800_000_000.0


def answer(dialect: Dialect, status: int, body: object = None, headers: Headers = ()) -> Fault:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return classify(dialect, status, headers, raw, now=NOW)


def chat(message: str = "no", **words: object) -> Json:
    return {"error": {"message": message, "type": None, "param": None, "code": None, **words}}


def messages(kind: str, message: str = "no", **more: object) -> Json:
    return {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_body"}


def google(status: str, message: str = "no", *details: Json, code: int = 400) -> Json:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def quota(*limits: str) -> Json:
    kind = "type.googleapis.com/google.rpc.QuotaFailure"
    return {"@type": kind, "violations": [{"quotaId": limit} for limit in limits]}


def reason(word: str) -> Json:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": word, "domain": "googleapis.com"}


def retry(delay: object) -> Json:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


# --- the status alone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize(
    ("status", "kind", "blame"),
    [
        (400, Kind.INVALID, Blame.CLIENT),
        (401, Kind.AUTH, Blame.CREDENTIAL),
        (402, Kind.QUOTA, Blame.CREDENTIAL),
        (403, Kind.FORBIDDEN, Blame.CREDENTIAL),
        (404, Kind.NOT_FOUND, Blame.US),
        (408, Kind.TRANSIENT, Blame.PROVIDER),
        (409, Kind.TRANSIENT, Blame.PROVIDER),
        (413, Kind.TOO_LARGE, Blame.CLIENT),
        (422, Kind.INVALID, Blame.CLIENT),
        (429, Kind.RATE_LIMITED, Blame.CREDENTIAL),
        (500, Kind.TRANSIENT, Blame.PROVIDER),
        (503, Kind.TRANSIENT, Blame.PROVIDER),
        (529, Kind.OVERLOADED, Blame.PROVIDER),
        (999, Kind.TRANSIENT, Blame.PROVIDER),
    ],
)
def test_an_unreadable_body_leaves_the_status_to_decide(
    dialect: Dialect, status: int, kind: Kind, blame: Blame
) -> None:
    """Without a readable error the status says what happened, and the raw body is never echoed."""
    fault = answer(dialect, status, b"<html>secret page</html>")
    assert (fault.kind, fault.blame, fault.upstream_status) == (kind, blame, status)
    assert fault.message == f"the provider answered {status} without a readable error"


def test_a_cause_names_the_status_and_stays_a_closed_set() -> None:
    """Causes are metric labels: a status outside HTTP's range does not make a new one."""
    assert answer(CHAT, 500).label == "http_500"
    assert answer(CHAT, 429).label == "http_429"
    assert answer(CHAT, 77_123).label == "http_other"


def test_a_redirect_is_a_provider_fault_and_is_not_followed() -> None:
    """A 3xx would carry the credential elsewhere: it is the provider's fault and says nothing of its target."""
    fault = answer(CHAT, 307, b"", (("location", "http://127.0.0.1/"),))
    assert (fault.kind, fault.blame, fault.cause) == (Kind.TRANSIENT, Blame.PROVIDER, "redirect")
    assert "127.0.0.1" not in fault.message


def test_a_status_that_the_caller_caused_reaches_the_caller() -> None:
    """A 422 stays a 422, so that an SDK raises the exception it would have raised."""
    assert answer(CHAT, 422, chat()).http_status == 422
    assert answer(CHAT, 500, chat()).http_status == 502


# --- the words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "status", "body", "kind"),
    [
        (CHAT, 400, chat(code="context_length_exceeded"), Kind.OVERFLOW),
        (CHAT, 500, chat(type="exceed_context_size_error"), Kind.OVERFLOW),
        (CHAT, 429, chat(code="insufficient_quota", type="insufficient_quota"), Kind.QUOTA),
        (CHAT, 429, chat(type="insufficient_quota"), Kind.QUOTA),
        (CHAT, 400, chat(type="budget_exceeded"), Kind.QUOTA),
        (CHAT, 413, chat("too large on tokens per minute", code="rate_limit_exceeded"), Kind.RATE_LIMITED),
        (CHAT, 400, chat(code="content_filter"), Kind.REFUSED),
        (CHAT, 400, chat(code="content_policy_violation"), Kind.REFUSED),
        (CHAT, 403, chat(code="model_not_found"), Kind.NOT_FOUND),
        (CHAT, 503, chat("That model is currently overloaded.", type="server_error"), Kind.OVERLOADED),
        (CHAT, 401, chat(code="invalid_api_key", type="invalid_request_error"), Kind.AUTH),
        (CHAT, 400, chat("API key not valid. Please pass a valid API key."), Kind.AUTH),
        (
            CHAT,
            401,
            chat("You have insufficient permissions. Missing scopes: model.request."),
            Kind.FORBIDDEN,
        ),
        (CHAT, 400, chat(code="string_above_max_length"), Kind.INVALID),
        (MESSAGES, 429, messages("rate_limit_error"), Kind.RATE_LIMITED),
        (
            MESSAGES,
            429,
            messages("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}),
            Kind.QUOTA,
        ),
        (
            MESSAGES,
            429,
            messages("rate_limit_error", "… exceed your account's monthly spend limit."),
            Kind.QUOTA,
        ),
        (MESSAGES, 400, messages("invalid_request_error", "Your credit balance is too low to …"), Kind.QUOTA),
        (MESSAGES, 402, messages("billing_error"), Kind.QUOTA),
        (MESSAGES, 529, messages("overloaded_error"), Kind.OVERLOADED),
        (MESSAGES, 503, messages("overloaded_error"), Kind.OVERLOADED),
        (MESSAGES, 413, messages("request_too_large"), Kind.TOO_LARGE),
        (
            MESSAGES,
            400,
            messages("invalid_request_error", "Output blocked by content filtering policy"),
            Kind.REFUSED,
        ),
        (
            CHAT,
            400,
            {"error": {"message": "filtered", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            Kind.REFUSED,
        ),
        (CHAT, 404, chat(code="DeploymentNotFound"), Kind.NOT_FOUND),
        (CHAT, 400, chat(code="OperationNotSupported"), Kind.NOT_FOUND),
        (CHAT, 429, chat("Requests have exceeded the call rate limit", code="429"), Kind.RATE_LIMITED),
        (
            CHAT,
            429,
            google("RESOURCE_EXHAUSTED", "You exceeded your current quota", code=429),
            Kind.RATE_LIMITED,
        ),
        (RESPONSES, 400, chat(code="image_content_policy_violation"), Kind.REFUSED),
        (RESPONSES, 400, chat("Your input exceeds the context window of this model."), Kind.OVERFLOW),
        (GEMINI, 400, google("INVALID_ARGUMENT", "API key not valid.", reason("API_KEY_INVALID")), Kind.AUTH),
        (GEMINI, 400, google("INVALID_ARGUMENT", "API key expired. Please renew the API key."), Kind.AUTH),
        (
            GEMINI,
            400,
            google("FAILED_PRECONDITION", "User location is not supported for the API use."),
            Kind.FORBIDDEN,
        ),
        (
            GEMINI,
            403,
            google("PERMISSION_DENIED", "no", reason("SERVICE_DISABLED"), code=403),
            Kind.FORBIDDEN,
        ),
        (GEMINI, 404, google("NOT_FOUND", "models/x is not found", code=404), Kind.NOT_FOUND),
        (GEMINI, 503, google("UNAVAILABLE", "The model is overloaded.", code=503), Kind.OVERLOADED),
        (GEMINI, 500, google("INTERNAL", "An internal error has occurred", code=500), Kind.TRANSIENT),
        (
            GEMINI,
            400,
            google("INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520"),
            Kind.TOO_LARGE,
        ),
        (OLLAMA, 404, {"error": "model 'x' not found"}, Kind.NOT_FOUND),
        (
            OLLAMA,
            503,
            {"error": "server busy, please try again.  maximum pending requests exceeded"},
            Kind.OVERLOADED,
        ),
        (OLLAMA, 429, {"error": "you have reached your weekly usage limit"}, Kind.QUOTA),
        (OLLAMA, 400, {"error": '"x" does not support tools'}, Kind.INVALID),
        (
            OLLAMA,
            500,
            {"error": "model requires more system memory (5.3 GiB) than is available"},
            Kind.TRANSIENT,
        ),
        (MESSAGES, 403, messages("permission_error"), Kind.FORBIDDEN),
        (MESSAGES, 500, messages("api_error"), Kind.TRANSIENT),
    ],
)
def test_an_errors_own_words_are_more_precise_than_its_status(
    dialect: Dialect, status: int, body: Json, kind: Kind
) -> None:
    """Codes and types decide before the status does."""
    assert answer(dialect, status, body).kind is kind


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        (CHAT, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."),
        (CHAT, "Your input exceeds the context window of this model."),
        (CHAT, "The input token count (12) exceeds the maximum number of tokens allowed (4)."),
        (CHAT, "the request exceeds the available context size. try increasing it"),
        (CHAT, "Please reduce the length of the messages or completion."),
        (CHAT, "This model's maximum prompt length is 131072 but the request contains 537812 tokens."),
        (CHAT, "The input (516368 tokens) is longer than the model's context length (262144 tokens)."),
        (CHAT, "Current length is 9000 while limit is 8192"),
        (MESSAGES, "prompt is too long: 210000 tokens > 200000 maximum"),
        (MESSAGES, "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"),
        (MESSAGES, "Input is too long for requested model."),
    ],
)
def test_an_exceeded_context_is_recognised_by_its_message(dialect: Dialect, message: str) -> None:
    """Many providers say it in words only; the caller is to blame and gets the code that its SDK knows."""
    fault = answer(
        dialect, 400, chat(message) if dialect is CHAT else messages("invalid_request_error", message)
    )
    assert (fault.kind, fault.blame, fault.label) == (Kind.OVERFLOW, Blame.CLIENT, "context_overflow")
    assert fault.code in {"context_length_exceeded", ""} or dialect is MESSAGES


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Rate limit reached: input is too long for the tokens left", Kind.INVALID),
        ("Too many requests; maximum context length is not the problem", Kind.INVALID),
        ("ThrottlingException: Too many input tokens, please wait", Kind.RATE_LIMITED),
        ("string too long; the maximum context length is unaffected", Kind.INVALID),
    ],
)
def test_what_only_looks_like_an_overflow_is_none(message: str, kind: Kind) -> None:
    """Exclusions come before the signatures."""
    assert answer(CHAT, 400, chat(message)).kind is kind


@pytest.mark.parametrize(
    ("dialect", "status", "body"),
    [
        (
            GEMINI,
            400,
            google("INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (4)."),
        ),
        (OLLAMA, 400, {"error": "prompt too long; exceeded max context length by 3 tokens"}),
        (OLLAMA, 500, {"error": "the input length exceeds the context length"}),
        (CHAT, 400, {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081"}),
        (Dialect.OPENAI_EMBEDDINGS, 400, chat("This model's maximum context length is 8192 tokens")),
        (Dialect.ANTHROPIC_COUNT_TOKENS, 400, messages("invalid_request_error", "prompt is too long: 2 > 1")),
    ],
)  # fmt: skip
def test_every_dialect_has_its_own_words_for_an_overflow(dialect: Dialect, status: int, body: Json) -> None:
    """Each is told to callers as the one kind that it is."""
    assert answer(dialect, status, body).label == "context_overflow"


@pytest.mark.parametrize(
    ("details", "message", "kind", "wait"),
    [
        ((quota("GenerateRequestsPerMinutePerProjectPerModel"), retry("34s")), "x", Kind.RATE_LIMITED, 34.0),
        ((quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), retry("20.5s")), "x", Kind.QUOTA, 20.5),
        ((retry("7.0s"),), "Quota exceeded for metric: requests, limit: 0, model: m", Kind.QUOTA, 7.0),
        ((), "You exceeded your current quota, please check your plan", Kind.RATE_LIMITED, None),
        ((retry("soon"),), "x", Kind.RATE_LIMITED, None),
        ((retry("-3s"),), "x", Kind.RATE_LIMITED, None),
        ((retry(34),), "x", Kind.RATE_LIMITED, None),
        ((retry("999999999s"),), "x", Kind.RATE_LIMITED, LONGEST),
    ],
)
def test_googles_limits_are_told_apart_by_the_quota_that_was_hit(
    details: tuple[Json, ...], message: str, kind: Kind, wait: float | None
) -> None:
    """Its message always talks of a quota; the body says how long to wait, within our bounds."""
    fault = answer(GEMINI, 429, google("RESOURCE_EXHAUSTED", message, *details, code=429))
    assert (fault.kind, fault.retry_after) == (kind, wait)


def test_a_header_wins_over_the_body_on_how_long_to_wait() -> None:
    """It may come from someone nearer, who knows better."""
    body = google("RESOURCE_EXHAUSTED", "x", retry("34s"), code=429)
    assert answer(GEMINI, 429, body, (("retry-after", "2"),)).retry_after == 2.0


@pytest.mark.parametrize(
    "body",
    [
        {"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}},
        {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs", "input": "secret"}]},
    ],
)
def test_a_list_of_complaints_is_a_message(body: Json) -> None:
    """Validation libraries name the field and what is wrong with it; what they quote stays out."""
    fault = answer(CHAT, 422, body)
    assert (fault.kind, fault.message) == (Kind.INVALID, "body.seed: Extra inputs")


def test_a_server_error_that_mentions_context_is_transient() -> None:
    """Signatures belong to statuses: a 500 is no overflow, whatever it talks about."""
    assert answer(CHAT, 500, chat("maximum context length is 10")).kind is Kind.TRANSIENT


def test_only_the_message_is_searched() -> None:
    """A provider that quotes its caller in another field does not change the class."""
    body = chat("Invalid value for messages[0]", param="prompt is too long")
    body["error"]["received"] = "maximum context length, credit balance is too low, context_length_exceeded"
    assert answer(CHAT, 400, body).kind is Kind.INVALID


def test_the_facts_are_kept() -> None:
    """Code, parameter, wait and request id come along."""
    assert answer(CHAT, 500, {}, (("x-should-retry", "FALSE"),)).final
    assert not answer(CHAT, 500, {}, (("x-should-retry", "true"),)).final
    headers = (("retry-after", "7"), ("x-request-id", "req_1"))
    fault = answer(CHAT, 429, chat("slow down", code="rate_limit_exceeded", param="model"), headers)
    assert (fault.code, fault.param, fault.retry_after) == ("rate_limit_exceeded", "model", 7.0)
    assert (fault.message, fault.provider_request_id) == ("slow down", "req_1")


def test_the_request_id_is_found_wherever_it_stands() -> None:
    """OpenAI's header, Anthropic's header, or the body."""
    assert (
        answer(MESSAGES, 500, messages("api_error"), (("request-id", "req_h"),)).provider_request_id
        == "req_h"
    )
    assert answer(MESSAGES, 500, messages("api_error")).provider_request_id == "req_body"


@pytest.mark.parametrize(
    "body",
    [
        {"error": "model is loading"},
        {"object": "error", "message": "model is loading", "code": 500},
        {"message": "model is loading"},
        {"detail": "model is loading"},
        [{"error": {"message": "model is loading", "code": 500}}],
    ],
)
def test_the_shapes_of_compatible_servers_are_read(body: object) -> None:
    """Strings, flat objects and one-element lists are errors, too; a number is no code for callers."""
    fault = answer(CHAT, 500, body)
    assert (fault.message, fault.code) == ("model is loading", "")


def test_a_message_is_one_clean_line_of_at_most_500_characters() -> None:
    """Nothing that a provider says can break a header, a log line or an encoding."""
    fault = answer(CHAT, 500, chat("a\r\nset-cookie: x\x00\u202e" + "y" * 2000))
    assert fault.message.startswith("a set-cookie: x\ufffd\ufffdy")
    assert len(fault.message) == 500
    assert classify_failed(CHAT, Failed(500, "x", "\ud800")).message == "\ufffd"


def test_a_refused_credential_is_never_repeated() -> None:
    """Providers quote the key that they refuse; the caller must not read it."""
    body = chat(
        "Incorrect API key provided: sk-proj-abc123def456ghi789. See https://example.com/account/api-keys."
    )
    fault = answer(CHAT, 401, body)
    assert fault.message == "Incorrect API key provided: [masked]. See https://example.com/account/api-keys."


def test_the_body_is_read_up_to_a_limit() -> None:
    """A huge error is not parsed; its status still counts."""
    fault = answer(CHAT, 500, chat("x", padding="y" * 70_000))
    assert "without a readable error" in fault.message


# --- errors in disguise ----------------------------------------------------------------------------------------


def test_an_error_inside_a_success_is_the_error() -> None:
    """A 200 that holds an error is classified by what the error says it is."""
    fault = classify_body(CHAT, {"error": {"message": "Provider returned error", "code": 429}, "choices": []})
    assert fault is not None
    assert (fault.kind, fault.upstream_status, fault.label) == (Kind.RATE_LIMITED, 429, "body_429")
    overloaded = classify_body(MESSAGES, messages("overloaded_error"))
    assert overloaded is not None
    assert (overloaded.kind, overloaded.upstream_status) == (Kind.OVERLOADED, 529)


def test_an_error_of_unknown_kind_inside_a_success_is_the_providers() -> None:
    """Whatever it was, a success with an error in it is no answer."""
    fault = classify_body(CHAT, {"error": {"message": "hm"}})
    assert fault is not None
    assert (fault.kind, fault.blame, fault.upstream_status) == (Kind.TRANSIENT, Blame.PROVIDER, 502)
    silent = classify_body(MESSAGES, {"type": "error"})
    assert silent is not None
    assert silent.kind is Kind.TRANSIENT


@pytest.mark.parametrize("data", [{}, {"error": None, "choices": []}, {"type": "message", "content": []}])
def test_a_success_without_an_error_is_none(data: Json) -> None:
    """An `error` that is null, as some servers always send, is no error."""
    assert classify_body(CHAT, data) is None
    assert classify_body(MESSAGES, data) is None


@pytest.mark.parametrize(
    ("dialect", "failed", "kind", "status"),
    [
        (MESSAGES, Failed(0, "overloaded_error", "Overloaded"), Kind.OVERLOADED, 529),
        (MESSAGES, Failed(429, "rate_limit_error", "slow"), Kind.RATE_LIMITED, 429),
        (MESSAGES, Failed(400, "invalid_request_error", "prompt is too long: 5 > 4"), Kind.OVERFLOW, 400),
        (MESSAGES, Failed(500, "billing_error", "pay"), Kind.QUOTA, 402),
        (CHAT, Failed(500, "server_error", "oops"), Kind.TRANSIENT, 500),
        (CHAT, Failed(502, "bad_event", "not JSON"), Kind.TRANSIENT, 502),
        (CHAT, Failed(200, "", ""), Kind.TRANSIENT, 502),
        (CHAT, Failed(429, "insufficient_quota", "pay"), Kind.QUOTA, 429),
        (RESPONSES, Failed(0, "rate_limit_exceeded", "slow"), Kind.RATE_LIMITED, 429),
        (RESPONSES, Failed(0, "server_error", "oops"), Kind.TRANSIENT, 500),
        (RESPONSES, Failed(0, "invalid_prompt", "no"), Kind.INVALID, 400),
        (RESPONSES, Failed(0, "image_too_large", "no"), Kind.INVALID, 400),
        (RESPONSES, Failed(0, "context_length_exceeded", "no"), Kind.OVERFLOW, 400),
        (GEMINI, Failed(0, "UNAVAILABLE", "The model is overloaded."), Kind.OVERLOADED, 503),
        (GEMINI, Failed(429, "RESOURCE_EXHAUSTED", "x"), Kind.RATE_LIMITED, 429),
        (OLLAMA, Failed(0, "", "an error was encountered while running the model"), Kind.TRANSIENT, 502),
    ],
)
def test_an_error_inside_a_stream_is_what_it_would_have_been_as_a_response(
    dialect: Dialect, failed: Failed, kind: Kind, status: int
) -> None:
    """The real class drives cool-off and failover, not the 200 that the stream began with."""
    fault = classify_failed(dialect, failed)
    assert (fault.kind, fault.upstream_status) == (kind, status)
    assert fault.message


# --- anything --------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "type",
                    "code",
                    "message",
                    "details",
                    "error_code",
                    "param",
                    "request_id",
                    "detail",
                    "loc",
                    "msg",
                    "status",
                    "reason",
                    "retryDelay",
                    "violations",
                    "quotaId",
                    "innererror",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(dialect=st.sampled_from(Dialect), status=st.integers(300, 999), data=JSON | st.binary(max_size=60))
def test_any_body_is_survived(dialect: Dialect, status: int, data: object) -> None:
    """Whatever a provider sends, the result is one bounded, encodable fact."""
    fault = answer(dialect, status, data)
    assert 0 < len(fault.message.encode()) <= 4 * 500
    assert fault.upstream_status == status
    assert 400 <= fault.http_status < 600
    if isinstance(data, dict):
        found = classify_body(dialect, data)
        assert (found is None) == (not data.get("error") and data.get("type") != "error")
