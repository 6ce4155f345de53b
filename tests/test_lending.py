"""What is lent to a request that passes, and to whom: at the place that it is registered for, and for nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.keys import ANN, limited
from tokenhub_core.admission.doorkeeper import Entry
from tokenhub_core.admission.keyring import Keyring
from tokenhub_core.admission.parking import Change, Reason
from tokenhub_core.clock import SystemClock
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.lending import Lender, Loan
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.types import ApiKey, Dialect, Fleet, Headers, Origin, Provider, ProviderType

KEY = "sk-proj-of-the-provider-0123456789"
HOST = "api.openai.com"
HERE = Origin("https", HOST, 443)
_CLOCK = SystemClock()
OPENAI = Provider("openai", ProviderType.OPENAI, (f"https://{HOST}/v1",), cred_store="vault")


@dataclass
class Locker:
    """Has a credential for everybody, or the fault of why not."""

    secret: str = KEY
    fault: Fault | None = None
    asked: list[str] = field(default_factory=list)

    def available(self, provider_id: str, cred_store: str, name: str = "default") -> bool:
        return True

    def credential(self, provider_id: str, cred_store: str, name: str = "default") -> Secret | None:
        self.asked.append(provider_id)
        if self.fault is not None:
            raise TokenHubError(self.fault)
        return Secret(self.secret) if self.secret else None


def lender(
    *providers: Provider, locker: Locker | None = None, keyring: Keyring | None = None, clock: Clock = _CLOCK
) -> Lender:
    view = Fleet(1, {one.id: one for one in providers or (OPENAI,)})
    return Lender(lambda: view, locker or Locker(), keyring or Keyring(b"salt"), clock)


def entry(path: str = "/v1/files", key: ApiKey | None = ANN, headers: Headers = ()) -> Entry:
    return Entry(headers, path, key, stripped=True, replaced=True)


def refused(it: Lender, asking: Entry, origin: Origin = HERE) -> Fault:
    with pytest.raises(TokenHubError) as caught:
        it.lend(asking, origin, Dialect.OPENAI_CHAT)
    return caught.value.fault


@pytest.mark.parametrize(
    ("kind", "base", "path", "dialect", "fields"),
    [
        (ProviderType.OPENAI, f"https://{HOST}/v1", "/v1/files", "openai_chat", ("authorization", f"Bearer {KEY}")),
        (ProviderType.ANTHROPIC, "https://api.anthropic.com", "/v1/files", "anthropic_messages", ("x-api-key", KEY)),
        (
            ProviderType.GEMINI,
            "https://generativelanguage.googleapis.com",
            "/upload/v1beta/files?uploadType=resumable",
            "gemini",
            ("x-goog-api-key", KEY),
        ),
        (
            ProviderType.GEMINI,
            "https://generativelanguage.googleapis.com",
            "/v1beta/openai/files",
            "gemini",
            ("authorization", f"Bearer {KEY}"),
        ),
        (
            ProviderType.AZURE,
            "https://corp.openai.azure.com",
            "/openai/v1/files",
            "openai_chat",
            ("api-key", KEY),
        ),
    ],
)  # fmt: skip
def test_the_credential_stands_where_its_vendor_reads_it(
    kind: ProviderType, base: str, path: str, dialect: str, fields: tuple[str, str]
) -> None:
    """By the vendor, and by the path where a vendor has several families of them."""
    origin = Origin("https", base.partition("://")[2].partition("/")[0], 443)
    provider = Provider("p", kind, (base,), cred_store="vault")
    loan = lender(provider).lend(entry(path), origin, Dialect(dialect))
    assert loan.on((("accept", "*/*"),)) == (("accept", "*/*"), fields, ("accept-encoding", "identity"))
    assert loan.provider == "p"
    assert KEY not in repr(loan)


def test_what_belongs_to_the_clients_own_account_stays_behind() -> None:
    """Beside another key it is an error there, or somebody else's session; so is a key that was put in since."""
    theirs: Headers = tuple(
        (name, "theirs")
        for name in (
            "openai-organization",
            "openai-project",
            "cookie",
            "x-goog-user-project",
            "authorization",
        )
    )
    loan = lender().lend(entry(), HERE, Dialect.OPENAI_CHAT)
    assert [name for name, _ in loan.on((*theirs, ("openai-beta", "x")))] == [
        "openai-beta",
        "authorization",
        "accept-encoding",
    ]
    assert "theirs" not in str(loan.on(theirs))


@pytest.mark.parametrize(
    "provider",
    [
        Provider("p", ProviderType.OPENAI, ("https://other.example/v1",), cred_store="vault"),
        Provider("p", ProviderType.OPENAI, (f"https://{HOST}:8443/v1",), cred_store="vault"),
        Provider("p", ProviderType.OPENAI, (f"http://{HOST}:443/v1",), cred_store="vault"),
        Provider("p", ProviderType.OPENAI, (f"https://x.{HOST}/v1",), cred_store="vault"),
        Provider("p", ProviderType.OPENAI, (f"https://{HOST}/v1",), enabled=False, cred_store="vault"),
    ],
)
def test_it_is_bound_to_the_place_that_it_is_registered_for(provider: Provider) -> None:
    """Host, port and TLS: for any other one there is no provider, and the credential is not even read."""
    locker = Locker()
    fault = refused(lender(provider, locker=locker), entry())
    assert (fault.http_status, fault.label) == (403, "no_credential")
    assert "no provider is registered" in fault.message
    assert locker.asked == []


@pytest.mark.parametrize(
    ("key", "cause"),
    [
        (limited(providers=("anthropic", f"origin:{HOST}")), "provider_not_allowed"),
        (limited(models=("gpt-4o",)), "model_not_allowed"),
        (limited(providers=("openai",)), ""),
        (None, ""),
    ],
)
def test_a_key_borrows_no_more_than_it_is_good_for(key: ApiKey | None, cause: str) -> None:
    """Not another provider's account, and not through the back door the models that it may not ask for."""
    locker = Locker()
    it = lender(locker=locker)
    if cause:
        assert refused(it, entry(key=key)).label == cause
    else:
        assert it.lend(entry(key=key), HERE, Dialect.OPENAI_CHAT).provider == "openai"
    assert locker.asked == ([] if cause else ["openai"])


def test_of_several_providers_there_the_first_that_the_key_is_good_for_lends() -> None:
    """Two accounts at one vendor: a key for the second one does not spend from the first."""
    second = Provider("second", ProviderType.OPENAI, (f"https://{HOST}/v1",), cred_store="vault")
    it = lender(OPENAI, second)
    assert it.lend(entry(), HERE, Dialect.OPENAI_CHAT).provider == "openai"
    mine = limited(providers=("second",))
    assert it.lend(entry(key=mine), HERE, Dialect.OPENAI_CHAT).provider == "second"


LOCKED = Fault(Kind.OVERLOADED, Blame.US, "locked", cause="vault_locked")


@pytest.mark.parametrize(
    ("locker", "cause", "words"),
    [
        (Locker(fault=LOCKED), "vault_locked", "locked"),
        (Locker(secret=""), "no_credential", "the credential of openai is gone"),
        (
            Locker(secret="two\r\nlines: x"),
            "bad_credential",
            "the credential of provider openai has characters that no header can carry",
        ),
    ],
)
def test_what_cannot_be_read_is_the_operators_affair(locker: Locker, cause: str, words: str) -> None:
    """A client that got a 401 would doubt its own key."""
    fault = refused(lender(locker=locker), entry())
    assert (fault.http_status, fault.label) == (503, cause)
    assert (fault.blame, fault.message) == (Blame.US, words)


def test_a_provider_that_needs_no_credential_lends_none() -> None:
    """Its answer passes as it is: there is nothing in it that could be quoted."""
    locker = Locker()
    open_ = replace(OPENAI, cred_store="none")
    loan = lender(open_, locker=locker).lend(entry(), HERE, Dialect.OPENAI_CHAT)
    accepted, theirs = ("accept", "*/*"), ("cookie", "theirs")
    assert loan.on((accepted, theirs)) == (accepted, ("accept-encoding", "identity"))
    assert loan.veiled((accepted,)) == (accepted,)
    assert [loan.veil(piece) for piece in (b"sk-", b"*", b"")] == [b"sk-", b"*", b""]
    assert locker.asked == []


_NEAR = st.text("sk-x*")


@given(data=st.data(), before=_NEAR, after=_NEAR, times=st.integers(0, 3))
def test_an_answer_that_quotes_the_credential_is_veiled(
    data: st.DataObject, before: str, after: str, times: int
) -> None:
    """However it is cut in pieces; nothing else changes, nothing is lost, and the length stays."""
    key = "sk-sk-x"
    loan = lender(locker=Locker(key)).lend(entry(), HERE, Dialect.OPENAI_CHAT)
    whole = (before + (key + "-") * times + after).encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))) | {0, len(whole)})
    pieces = [whole[a:b] for a, b in pairwise(cuts) if b > a]
    told = b"".join(map(loan.veil, pieces)) + loan.veil(b"")
    assert told == whole.replace(key.encode(), b"*" * len(key))
    assert loan.veiled((("x", f"bad {key}!"),)) == (("x", f"bad {'*' * len(key)}!"),)


CLAUDE = Provider("claude", ProviderType.ANTHROPIC, ("https://api.anthropic.com",), cred_store="vault")
GEMINI = Provider(
    "gemini", ProviderType.GEMINI, ("https://generativelanguage.googleapis.com",), cred_store="vault"
)
_SPOKEN = {
    ProviderType.OPENAI: Dialect.OPENAI_CHAT,
    ProviderType.ANTHROPIC: Dialect.ANTHROPIC_MESSAGES,
    ProviderType.GEMINI: Dialect.GEMINI,
}


class Account:
    """A credential that is lent again and again, by a clock that a scene turns, and what was told of it."""

    def __init__(self, provider: Provider = OPENAI) -> None:
        self.dialect = _SPOKEN[provider.type]
        self.time = 0.0
        self.changes: list[Change] = []
        self.keyring = Keyring(b"salt", tell=self.changes.append)
        self.locker = Locker()
        base = provider.endpoints[0].partition("://")[2].partition("/")[0]
        self.origin = Origin("https", base, 443)
        self.lender = lender(provider, locker=self.locker, keyring=self.keyring, clock=self)

    def now(self) -> float:
        return 1_790_000_000.0 + self.time

    def monotonic(self) -> float:
        return self.time

    def lend(self) -> Loan:
        return self.lender.lend(entry(), self.origin, self.dialect)

    def answered(self, status: int, body: bytes = b"", *headers: tuple[str, str]) -> None:
        """Lend it, and let the host answer, each byte of the body for itself."""
        loan = self.lend()
        loan.began(status, headers)
        for place in range(len(body)):
            loan.veil(body[place : place + 1])
        loan.veil(b"")
        loan.ended()

    @property
    def parked(self) -> list[tuple[Reason, float]]:
        """Why it is parked, and for how many seconds."""
        return [(one.reason, one.until - self.now()) for one in self.keyring.parkings()]


OUT = b'{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'
WRONG = b'{"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}'
SPENT = b'{"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to use the API"}}'
SCOPES = b'{"error": {"message": "Missing scopes: api.usage.read.", "code": null}}'


@pytest.mark.parametrize(
    ("provider", "status", "body", "parked"),
    [
        (OPENAI, 401, WRONG, [(Reason.REFUSED, 60.0)]),
        (OPENAI, 401, b"", [(Reason.REFUSED, 60.0)]),
        (OPENAI, 429, OUT, [(Reason.EXHAUSTED, 300.0)]),
        (OPENAI, 402, b"<html>", [(Reason.EXHAUSTED, 300.0)]),
        (CLAUDE, 400, SPENT, [(Reason.EXHAUSTED, 300.0)]),
        (OPENAI, 404, WRONG.replace(b"invalid_api_key", b"x"), []),
        (OPENAI, 403, b"", []),
        (OPENAI, 401, SCOPES, []),
        (OPENAI, 500, b"", []),
        (OPENAI, 200, OUT, []),
        (OPENAI, 204, b"", []),
    ],
)
def test_a_refusal_parks_the_credential_that_was_lent(
    provider: Provider, status: int, body: bytes, parked: list[tuple[Reason, float]]
) -> None:
    """As that of a routed call does, for all calls; what is said of one path or one call parks nothing."""
    account = Account(provider)
    account.answered(status, body)
    assert account.parked == parked
    assert len(account.changes) == len(parked)
    if not parked:
        account.lend().ended()
        return
    with pytest.raises(TokenHubError) as caught:
        account.lend()
    assert caught.value.fault.label == "credentials_parked"


def test_a_burst_cools_the_credential_that_was_lent() -> None:
    """For as long as the answer says; the next one waits, and nothing is parked."""
    account = Account()
    account.answered(429, b"", ("retry-after", "7"))
    account.time = 6.5
    with pytest.raises(TokenHubError) as caught:
        account.lend()
    assert (caught.value.fault.kind, caught.value.fault.retry_after) == (Kind.RATE_LIMITED, 0.5)
    account.time = 7.0
    account.answered(200)
    assert account.changes == []


def test_a_days_quota_of_one_model_parks_no_credential_that_was_lent() -> None:
    """Nobody has read which model it was; the others have quotas of their own."""
    body = (
        b'{"error": {"status": "RESOURCE_EXHAUSTED", "message": "x", "details": [{'
        b'"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{'
        b'"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "50"}]}]}}'
    )
    account = Account(GEMINI)
    account.answered(429, body)
    assert account.parked == []
    account.lend().ended()


def test_what_was_lent_is_a_probe_when_its_parking_is_over() -> None:
    """Its answer, as soon as its head is here, ends the parking; no answer at all says nothing."""
    account = Account()
    account.answered(401, WRONG)
    account.time = 60.0
    account.lend().ended()
    assert [one.parked for one in account.changes] == [True]
    account.answered(401, WRONG)
    assert account.parked == [(Reason.REFUSED, 120.0)]
    account.time = 180.0
    loan = account.lend()
    loan.began(101, ())
    assert account.parked == []
    loan.ended()
    assert [one.parked for one in account.changes] == [True, True, False]


def test_what_could_not_be_read_was_no_probe() -> None:
    """Nothing was asked of the host, so whoever comes next, when the vault is open again, may ask it."""
    account = Account()
    account.answered(401, WRONG)
    account.time = 60.0
    account.locker.fault = LOCKED
    with pytest.raises(TokenHubError, match=r"^locked$"):
        account.lend()
    account.locker.fault = None
    account.answered(200)
    assert [one.parked for one in account.changes] == [True, False]


def test_a_refusal_of_any_length_is_read_up_to_a_limit() -> None:
    """The words behind it count no more than their status."""
    account = Account()
    loan = account.lend()
    loan.began(429, ())
    loan.veil(b" " * (64 << 10))
    loan.veil(OUT)
    loan.ended()
    assert account.parked == []
