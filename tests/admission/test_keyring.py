"""Which credential takes a call, and what keeps one back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from tokenhub_core.admission import keyring as keyring_
from tokenhub_core.admission.headers import Seen
from tokenhub_core.admission.keyring import Chosen, Keyring, Rest
from tokenhub_core.admission.limits import Call, Room
from tokenhub_core.admission.parking import By, Change
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Credential, Dialect, Headers, Provider, ProviderType

CALL = Call("m", 100, 50)
CHAT = Dialect.OPENAI_CHAT
PAIR = Provider(
    "p",
    ProviderType.OPENAI,
    ("https://api.openai.com/v1",),
    cred_store="vault",
    credentials=(Credential("second", "memory"),),
)
LONE = replace(PAIR, credentials=())
ORIGIN = Provider(
    "origin:api.openai.com", ProviderType.ORIGIN, ("https://api.openai.com/v1",), cred_store="caller"
)
OUT = Fault(Kind.QUOTA, Blame.CREDENTIAL, "no money", code="insufficient_quota", cause="quota_exhausted")
SLOW = Fault(Kind.RATE_LIMITED, Blame.CREDENTIAL, "slow down", cause="http_429", retry_after=7.0)
NOT_THIS = Fault(Kind.FORBIDDEN, Blame.CREDENTIAL, "not this model", upstream_status=403)


class Ring:
    """A keyring with a clock that a scene turns, and what it told."""

    def __init__(self, **more: Any) -> None:
        self.changes: list[Change] = []
        self.keyring = Keyring(b"salt", tell=self.changes.append, **more)
        self.now = 0.0

    @property
    def times(self) -> dict[str, Any]:
        return {"now": self.now, "at": 1_790_000_000.0 + self.now}

    def take(self, provider: Provider = PAIR, call: Call = CALL, **more: Any) -> Chosen | Room:
        return self.keyring.take(provider, call, CHAT, **self.times, **more)

    def chosen(self, provider: Provider = PAIR, **more: Any) -> Chosen:
        taken = self.take(provider, **more)
        assert isinstance(taken, Chosen)
        return taken

    def answered(self, chosen: Chosen, remaining: int, limit: int = 100, key: str = "") -> tuple[Seen, ...]:
        return self.keyring.answered(
            chosen,
            (
                ("x-ratelimit-limit-requests", str(limit)),
                ("x-ratelimit-remaining-requests", str(remaining)),
                ("x-ratelimit-reset-requests", "60s"),
            ),
            key=lambda: self.keyring.digest_of("api.openai.com", key or chosen.credential.name),
            **self.times,
        )

    def ended(self, chosen: Chosen, fault: Fault | None = None) -> None:
        self.keyring.ended(chosen, fault, **self.times)

    def room(self, provider: Provider = PAIR, call: Call = CALL, **more: Any) -> Room:
        return self.keyring.room(provider, call, **self.times, **more)

    def names(self, count: int) -> list[str]:
        return [self.chosen().credential.name for _ in range(count)]


def test_what_another_process_was_told_holds_here_and_the_longer_parking_counts() -> None:
    """Parked here too, and free here too; nobody is told again what all know already."""
    there, here = Ring(), Ring()
    there.ended(there.chosen(), OUT)
    (parked,) = there.changes
    longer = structs.replace(parked, parking=structs.replace(parked.parking, until=parked.parking.until + 60))
    for change in (parked, longer, parked):
        here.keyring.adopt(change)
    assert here.chosen().credential.name == "second"
    assert here.keyring._parked == {parked.parking.place: longer.parking}
    here.keyring.adopt(structs.replace(longer, parked=False))
    here.keyring.adopt(structs.replace(longer, parked=False))
    assert here.chosen().credential.name == "default"
    assert here.changes == []


def test_of_equals_the_first_takes_the_call() -> None:
    """Nothing is known of either: always the provider's own one."""
    assert Ring().names(3) == ["default"] * 3


def test_the_one_with_the_most_room_takes_the_call() -> None:
    """Relatively to its limit, and own calls counted: with 3 and 6 left of 100, the second takes four."""
    ring = Ring()
    ring.answered(ring.chosen(), 3)
    ring.answered(ring.chosen(), 6)
    assert ring.names(5) == ["second"] * 3 + ["default", "second"]


def test_one_that_is_switched_off_or_cannot_be_read_takes_nothing() -> None:
    """The other one has to do; without any the call is its reader's affair."""
    off = replace(PAIR, credentials=(Credential("default", "", enabled=False), *PAIR.credentials))
    ring = Ring()
    assert ring.chosen(off).credential.name == "second"
    locked = Ring(available=lambda provider, one: one.name == "second")
    assert locked.chosen().credential.name == "second"
    assert Ring(available=lambda provider, one: False).chosen().credential.name == "default"


def test_a_burst_cools_one_credential_until_its_retry_after() -> None:
    """No parking, no row of history; a provider with that one alone can take nothing meanwhile."""
    ring = Ring()
    ring.ended(ring.chosen(), SLOW)
    assert ring.names(2) == ["second"] * 2
    assert ring.changes == []
    ring.now = 7.0
    assert ring.names(1) == ["default"]
    lone = Ring()
    lone.ended(lone.chosen(LONE), SLOW)
    assert lone.room(LONE) == Room(7.0, "cooling")
    assert isinstance(lone.take(LONE), Room)
    assert isinstance(lone.take(LONE, anyway=True), Chosen)
    lone.ended(lone.chosen(replace(LONE, id="q")), replace(SLOW, retry_after=None))
    assert lone.room(replace(LONE, id="q")).wait == 0


def test_one_without_money_is_parked_and_the_other_one_is_spare() -> None:
    """Until nobody is."""
    ring = Ring()
    first = ring.chosen()
    ring.ended(first, OUT)
    assert ring.keyring.spare(PAIR, CALL, "default", **ring.times)
    second = ring.chosen()
    assert second.credential.name == "second"
    ring.ended(second, OUT)
    assert not ring.keyring.spare(PAIR, CALL, "second", **ring.times)
    assert [(one.parking.place.credential, one.parked, one.by) for one in ring.changes] == [
        ("default", True, By.AUTOMATIC),
        ("second", True, By.AUTOMATIC),
    ]
    assert ring.room() == Room(300.0, "exhausted")
    assert not ring.keyring.spare(LONE, CALL, "default", **ring.times)
    ring.now = 300.0
    assert ring.keyring.spare(PAIR, CALL, "second", **ring.times)


def test_many_calls_that_meet_the_same_are_one_piece_of_news() -> None:
    """A hundred were on their way when the balance ran out: one parking, not a hundred back-offs."""
    ring = Ring()
    calls = [ring.chosen(LONE) for _ in range(100)]
    for one in calls:
        ring.ended(one, OUT)
    assert len(ring.changes) == 1
    assert ring.room(LONE).wait == 300.0


def test_when_a_parking_is_over_one_call_probes() -> None:
    """The others wait for its verdict; a second failure parks for longer, a success ends it."""
    ring = Ring()
    ring.ended(ring.chosen(LONE), OUT)
    ring.now = 300.0
    probe = ring.chosen(LONE)
    assert isinstance(ring.take(LONE), Room)
    ring.ended(probe, OUT)
    assert ring.room(LONE).wait == 600.0
    ring.now = 900.0
    ring.keyring.began(ring.chosen(LONE), at=ring.times["at"])
    assert ring.room(LONE).wait == 0
    assert [one.parked for one in ring.changes] == [True, True, False]


@pytest.mark.parametrize(
    "end", [Fault(Kind.CANCELLED, Blame.CLIENT, "left"), Fault(Kind.INVALID, Blame.CLIENT, "bad")]
)
def test_a_probe_without_a_verdict_lets_the_next_one_probe(end: Fault) -> None:
    """And one that was never heard of again, after ten minutes."""
    ring = Ring()
    ring.ended(ring.chosen(LONE), OUT)
    ring.now = 300.0
    ring.ended(ring.chosen(LONE), end)
    ring.chosen(LONE)
    for later in (0.0, 599.0):
        ring.now = 300.0 + later
        assert isinstance(ring.take(LONE), Room)
    ring.now = 300.0 + 600.0
    ring.chosen(LONE)


def test_a_denial_keeps_one_model_back() -> None:
    """The same key is good for others."""
    ring = Ring()
    ring.ended(ring.chosen(LONE), NOT_THIS)
    assert ring.room(LONE).why == "denied"
    assert ring.room(LONE, Call("other")).wait == 0


def test_a_cool_off_does_not_hide_a_window_that_lasts_longer() -> None:
    """What lasts longest decides, and is what is told."""
    ring = Ring()
    chosen = ring.chosen(LONE)
    ring.answered(chosen, 0)
    ring.ended(chosen, replace(SLOW, retry_after=0.3))
    room = ring.room(LONE)
    assert (room.why, room.wait > 0.3) == ("requests", True)


def test_a_denial_of_a_model_that_nobody_named_keeps_nothing_back() -> None:
    """A call whose model is not known says nothing of all the others."""
    ring = Ring()
    ring.ended(ring.chosen(LONE, call=Call("", 100, 50)), NOT_THIS)
    assert (ring.changes, ring.room(LONE).wait) == ([], 0)


def test_a_callers_own_key_is_never_parked_and_held_back_by_its_own_limits_only() -> None:
    """What one caller's key has left says nothing of another's."""
    ring = Ring()
    mine: Headers = (("authorization", "Bearer sk-mine"),)
    yours: Headers = (("authorization", "Bearer sk-yours"),)
    assert ring.keyring.caller(ORIGIN, mine) == ""
    ring.answered(ring.chosen(ORIGIN), 0, key="sk-mine")
    caller = ring.keyring.caller(ORIGIN, mine)
    assert ring.room(ORIGIN, caller=caller).wait > 0
    assert ring.room(ORIGIN, caller=ring.keyring.caller(ORIGIN, yours)).wait == 0
    ring.ended(ring.chosen(ORIGIN, caller=caller), OUT)
    assert ring.changes == []
    ring.ended(ring.chosen(ORIGIN, caller=caller), SLOW)
    assert ring.room(ORIGIN, Call("other"), caller=caller).wait == 0


def test_what_passes_through_with_the_same_key_uses_up_the_same_windows() -> None:
    """A program that calls the vendor itself with our provider's key: we route before its 429."""
    ring = Ring()
    ring.answered(ring.chosen(LONE), 50, key="sk-shared")
    answer = (
        ("x-ratelimit-limit-requests", "100"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "60s"),
    )
    for key, wait in (("sk-other", 0), ("sk-shared", pytest.approx(0.6))):
        ring.keyring.overheard(
            "api.openai.com",
            CHAT,
            (("authorization", f"Bearer {key}"),),
            answer,
            model=lambda: "m",
            **ring.times,
        )
        assert ring.room(LONE).wait == wait


def test_an_operator_ends_parkings_and_a_changed_key_is_another_key() -> None:
    """Both leave a row that says who."""
    ring = Ring()
    ring.ended(ring.chosen(LONE), OUT)
    ring.answered(ring.chosen(LONE, anyway=True), 0)
    assert ring.keyring.unpark("p", "default", at=1.0, why="by hand") == 1
    assert ring.keyring.unpark("p", "default", at=1.0) == 0
    assert (ring.changes[-1].parked, ring.changes[-1].by) == (False, By.OPERATOR)
    assert ring.room(LONE).why == "requests"
    ring.keyring.forget("p", "default", at=2.0, why="changed")
    assert ring.room(LONE).wait == 0


def test_what_is_restored_holds_at_once() -> None:
    """A restart does not try a dead key again."""
    ring = Ring()
    ring.ended(ring.chosen(), OUT)
    again = Ring()
    again.keyring.restore(ring.keyring.parkings())
    assert again.names(1) == ["second"]
    assert not again.keyring.quiet


def test_nothing_is_looked_at_where_nothing_is_known() -> None:
    """A provider that tells no limits costs one look at the names of its fields, and no digest of its key."""
    ring = Ring()
    chosen = ring.chosen(LONE)
    told = ring.keyring.answered(
        chosen, (("content-type", "x"),), key=lambda: pytest.fail("not needed"), **ring.times
    )
    assert (told, ring.keyring.quiet, chosen.numbers) == ((), True, None)


def test_strangers_keys_are_bounded() -> None:
    """Whoever invents keys at a host that we pass makes us remember 4,096 of them."""
    ring = Ring()
    answer = (("x-ratelimit-remaining-requests", "0"),)
    for n in range(4200):
        ring.keyring.overheard("h", CHAT, (("x-api-key", str(n)),), answer, model=lambda: "m", **ring.times)
    assert len(ring.keyring._known) == 4096
    assert ring.keyring._hosts == {"h": 4096}


def test_the_host_of_whoever_was_forgotten_is_forgotten_too() -> None:
    """Of a host without a known key nobody's name is made any more."""
    ring = Ring()
    answer = (("x-ratelimit-remaining-requests", "0"),)

    def heard(host: str, key: int) -> None:
        request = (("x-api-key", str(key)),)
        ring.keyring.overheard(host, CHAT, request, answer, model=lambda: "m", **ring.times)

    heard("first", 0)
    assert "first" in ring.keyring._hosts
    for n in range(4096):
        heard("h", n)
    assert ring.keyring._hosts == {"h": 4096}


def test_what_passes_and_tells_no_figure_teaches_nothing() -> None:
    """Neither without such fields nor with what is no number; nobody is asked for the model then."""
    ring = Ring()
    for answer in ((("content-type", "x"),), (("x-ratelimit-remaining-requests", "soon"),)):
        ring.keyring.overheard("h", CHAT, (), answer, model=lambda: pytest.fail("not needed"), **ring.times)
    assert ring.keyring.quiet


def test_a_key_is_the_same_whichever_field_carries_it() -> None:
    """The first that is one counts; a request without a key has that of nobody."""
    keyring = Ring().keyring
    own = keyring.digest_of("h", "sk")
    for carrier in ("authorization", "x-api-key", "api-key", "x-goog-api-key"):
        value = "Bearer sk" if carrier == "authorization" else "sk"
        assert keyring.digest("h", (("accept", "*/*"), (carrier, value), ("x-api-key", "other"))) == own
    assert keyring.digest("h", (("accept", "*/*"),)) == keyring.digest("h", ()) == keyring.digest_of("h", "")
    assert keyring.digest("g", (("x-api-key", "sk"),)) != own


def test_a_provider_whose_keys_nobody_can_read_is_not_held_back_by_them() -> None:
    """Why it cannot be read is told where it is read."""
    ring = Ring(available=lambda provider, one: False)
    assert ring.room().wait == 0


def test_a_shorter_cool_off_does_not_end_a_longer_one() -> None:
    """Answers come in any order; and no cool-off is longer than it may be, whatever was asked."""
    ring = Ring()
    for seconds in (60.0, 7.0):
        ring.ended(ring.chosen(LONE, anyway=True), replace(SLOW, retry_after=seconds))
    assert ring.room(LONE).wait == 60.0
    ring.ended(ring.chosen(LONE, anyway=True), replace(SLOW, retry_after=1e12))
    assert ring.room(LONE).wait < 1e6


def test_a_cool_off_is_told_to_other_processes_where_it_is_news() -> None:
    """Many calls meet the same one: what ends a quarter of a second later is none. Whoever ends it tells that too."""
    ring, told = Ring(), list[Rest]()
    ring.keyring.share(told.append)
    for seconds in (7.0, 7.25, 8.5, 3.0):
        ring.ended(ring.chosen(LONE, anyway=True), replace(SLOW, retry_after=seconds))
    ring.ended(ring.chosen(ORIGIN, caller="00"), SLOW)
    for _ in range(2):
        ring.keyring.unpark("p", "default", at=1.0)
    assert told == [Rest("p", "default", seconds) for seconds in (7.0, 8.5, 0.0)]


def test_a_cool_off_that_grows_by_little_steps_is_told_once_they_come_to_something() -> None:
    """Each of them is no news; all together are half a minute that others would go on calling in."""
    ring, told = Ring(), list[Rest]()
    ring.keyring.share(told.append)
    for step in range(5):
        ring.ended(ring.chosen(LONE, anyway=True), replace(SLOW, retry_after=7.0 + step * 0.125))
    assert [one.seconds for one in told] == [7.0, 7.375]
    ring.keyring.unpark("p", "default", at=1.0)
    ring.ended(ring.chosen(LONE), replace(SLOW, retry_after=7.0))
    assert [one.seconds for one in told[2:]] == [0.0, 7.0]


def test_a_cool_off_that_another_process_met_holds_here() -> None:
    """Of two the later end counts, none is longer than an hour, and what was ended there is over here."""
    ring = Ring()
    for seconds, wait in ((7.0, 7.0), (3.0, 7.0), (1e9, 3600.0)):
        ring.keyring.rest(Rest("p", "default", seconds), ring.now)
        assert ring.room(LONE) == Room(wait, "cooling")
    for _ in range(2):
        ring.keyring.rest(Rest("p", "default", 0.0), ring.now)
        assert ring.room(LONE).wait == 0


def test_a_call_is_over_though_its_key_was_changed_meanwhile() -> None:
    """What was counted for it went with what was known of the old key."""
    ring = Ring()
    ring.answered(ring.chosen(LONE), 50)
    chosen = ring.chosen(LONE)
    assert chosen.numbers is not None
    ring.keyring.forget("p", at=0.0, why="changed")
    ring.ended(chosen)
    assert ring.room(LONE).wait == 0


def test_all_that_is_known_of_a_changed_provider_goes() -> None:
    """Its cool-off and its parkings, of every key; what is known of others stays."""
    ring = Ring()
    other = replace(LONE, id="q")
    ring.ended(ring.chosen(LONE), SLOW)
    ring.ended(ring.chosen(other), SLOW)
    ring.ended(ring.chosen(), OUT)
    assert ring.keyring.state("p", "second", now=0.0).parked
    ring.keyring.forget("p", at=2.0, why="changed")
    assert (ring.room(LONE).wait, ring.room(other).wait) == (0, 7.0)
    assert ring.keyring.parkings() == []
    assert [(one.parked, one.why) for one in ring.changes][-1] == (False, "changed")


def test_cool_offs_that_are_over_are_dropped_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Callers make their names; those that still hold stay."""
    monkeypatch.setattr(keyring_, "_STRANGERS", 3)
    ring = Ring()
    for n, seconds in enumerate((1.0, 1.0, 1.0, 60.0)):
        ring.now = 2.0 * (n == 3)
        ring.ended(ring.chosen(ORIGIN, caller=f"{n:02x}"), replace(SLOW, retry_after=seconds))
    assert [key[1] for key in ring.keyring._cooling] == ["03"]


def test_a_call_without_a_model_meets_what_holds_for_all() -> None:
    """And not what holds for one model."""
    ring = Ring()
    ring.ended(ring.chosen(LONE), NOT_THIS)
    assert ring.room(LONE).wait > 0
    assert ring.room(LONE, Call("")).wait == 0
    ring.ended(ring.chosen(LONE, anyway=True), OUT)
    assert ring.room(LONE, Call("")).wait > 0


def test_a_probe_that_is_answered_after_an_operator_ended_the_parking_is_no_news() -> None:
    """There is nothing left to end."""
    ring = Ring()
    ring.ended(ring.chosen(LONE), OUT)
    probe = ring.chosen(LONE, anyway=True)
    assert probe.probe is not None
    ring.keyring.unpark("p", "default", at=1.0)
    assert [(one.parked, one.by, one.why) for one in ring.changes[1:]] == [(False, By.OPERATOR, "")]
    ring.keyring.began(probe, at=2.0)
    assert len(ring.changes) == 2


def test_a_keyring_that_nobody_hears_parks_all_the_same() -> None:
    """Who hears of it is somebody else's affair."""
    keyring = Keyring(b"salt")
    taken = keyring.take(LONE, CALL, CHAT, now=0.0, at=0.0)
    assert isinstance(taken, Chosen)
    keyring.ended(taken, OUT, now=0.0, at=0.0)
    assert [one.place.credential for one in keyring.parkings()] == ["default"]
