"""Getting in: passwords, which are tried ever more slowly after wrong ones, and login links."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from tests.fakes.access import (
    PASSWORD,
    Shifted,
    add_token,
    add_user,
    cheap_passwords,
    log_in,
    logins_of,
    opened,
    register_of,
    signed_in,
)
from tests.fakes.house import House, Told, house
from tokenhub_core.access import passwords
from tokenhub_core.access.tickets import LIFETIME
from tokenhub_core.access.values import Kind as OwnerKind
from tokenhub_core.access.values import Owner
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Secret
from tokenhub_core.types import Json
from tokenhub_core.vault import throttle
from tokenhub_core.vault.turn import QUEUE


@pytest.fixture(autouse=True)
def cheap() -> Iterator[None]:
    with cheap_passwords():
        yield


@pytest.fixture
def clock(it: House, monkeypatch: pytest.MonkeyPatch) -> Shifted:
    return turned(it, monkeypatch)


def turned(it: House, monkeypatch: pytest.MonkeyPatch, at: float = 1_700_000_000.0) -> Shifted:
    """Give the application a clock that is turned by hand."""
    clock = Shifted(at)
    monkeypatch.setattr(logins_of(it), "_clock", clock)
    monkeypatch.setattr(register_of(it), "_clock", clock)
    return clock


async def tried(it: House, name: str, password: str = "wrong" * 3, source: str = "10.0.0.1") -> str:
    """Try a password from an address, and return what it was refused with."""
    try:
        await logins_of(it).user(name, Secret(password), source)
    except TokenHubError as error:
        return error.fault.label
    return ""


def same(one: Told, other: Told) -> bool:
    """Tell whether two answers are the same to whoever gets them."""
    left, right = (
        {k: v for k, v in told.headers if k not in {"date", "x-request-id"}} for told in (one, other)
    )
    return (one.status, left, one.body) == (other.status, right, other.body)


async def entries(it: House, action: str) -> list[tuple[str, str, str, str]]:
    found: list[Json] = (await it.done("GET", f"/audit?action={action}"))["entries"][::-1]
    return [(one["action"], one["actor"], one["subject"], one["outcome"]) for one in found]


# --- passwords


async def test_whatever_is_wrong_the_answer_is_the_same(it: House) -> None:
    """No such user, another password, a user who is disabled with the right one: nobody learns which."""
    await add_user(it, "ada")
    off = await add_user(it, "off")
    await it.done("PATCH", f"/users/{off['id']}", {"enabled": False})
    wrong = await log_in(it, "ada", "wrong" * 3)
    assert (wrong.status, wrong.fault["code"]) == (401, "login_failed")
    assert same(wrong, await log_in(it, "nobody"))
    assert same(wrong, await log_in(it, "off"))
    assert not wrong.header("set-cookie")


async def test_a_user_who_does_not_exist_costs_as_much(
    it: House, clock: Shifted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step: the same statements, and a password that is tried against a string of the same costs."""
    await add_user(it, "ada")
    await it.done("PATCH", f"/users/{(await add_user(it, 'off'))['id']}", {"enabled": False})
    work: list[str] = []
    matches = passwords.matches

    def seen(stored: str, password: bytes) -> bool:
        work.append(" ".join(stored.split("$")[1:4]))
        return matches(stored, password)

    def asked(*told: object) -> None:
        # Others look at what has changed meanwhile: of them none asks for these.
        if any(part in str(told[2]) for part in ("admin_attempts", "admin_users.name = ", "INTO audit ")):
            work.append(str(told[2]))

    async def cost(name: str, password: str, source: str) -> list[str]:
        """Return the work of every wrong password: before the lock, the one that locks, and one after it."""
        work.clear()
        for number in range(throttle.FREE + 1):
            clock.at += throttle.delay(number)
            assert await tried(it, name, password, f"{source}.{number}.1") == "login_failed"
        return [*work]

    monkeypatch.setattr(passwords, "matches", seen)
    event.listen(Engine, "before_cursor_execute", asked)
    try:
        wrong = await cost("ada", "wrong" * 3, "10.0")
        assert await cost("nobody", "wrong" * 3, "10.1") == wrong
        assert await cost("off", PASSWORD, "10.2") == wrong
    finally:
        event.remove(Engine, "before_cursor_execute", asked)
    assert sum(one.startswith("argon2id") for one in wrong) == throttle.FREE + 1
    assert sum("admin_users.name = " in one for one in wrong) == throttle.FREE + 1
    assert sum("INTO audit " in one for one in wrong) == 2
    assert any("INTO admin_attempts" in one for one in wrong)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "ada"} | {"ticket": "x"},
        {"ticket": "x", "password": "y"},
        {"user": 1, "password": PASSWORD},
        {"user": "a" * 65, "password": PASSWORD},
        {"user": "ada", "password": "x" * 1025},
        {"token": "x"},
        b"{",
        b"user=ada&password=x",
    ],
)
async def test_what_is_no_login_is_refused_before_anything_is_tried(it: House, body: object) -> None:
    """As a 400, and counted for nobody."""
    told = await it.ask("POST", "/admin/v1/login", body)
    assert told.status == 400
    assert not told.header("set-cookie")


async def test_another_site_cannot_log_a_browser_in(it: House) -> None:
    """Not even as the attacker himself: the Origin of the page is another one."""
    await add_user(it, "eve")
    body = {"user": "eve", "password": PASSWORD}
    told = await it.ask("POST", "/admin/v1/login", body, {"origin": "https://evil.example"})
    assert (told.status, told.fault["code"]) == (403, "bad_origin")


# --- how wrong ones slow the next one down


async def test_after_five_wrong_passwords_a_user_waits_longer_each_time(it: House, clock: Shifted) -> None:
    """From wherever they come, up to a quarter of an hour; then one may be tried, and the right one ends it."""
    await add_user(it, "ada")
    sources = (f"10.0.{n}.1" for n in range(250))
    for _ in range(throttle.FREE):
        assert await tried(it, "ada", source=next(sources)) == "login_failed"
    for failures in range(throttle.FREE, 17):
        clock.at += throttle.delay(failures) - 0.5
        assert await tried(it, "ada", PASSWORD, next(sources)) == "login_locked"
        clock.at += 0.5
        assert await tried(it, "ada", source=next(sources)) == "login_failed"
    assert throttle.delay(17) == throttle.LONGEST == 900
    clock.at += throttle.LONGEST
    assert await tried(it, "ada", PASSWORD, next(sources)) == ""
    assert await tried(it, "ada", source=next(sources)) == "login_failed"
    assert await tried(it, "ada", PASSWORD, next(sources)) == ""


async def test_after_five_wrong_passwords_a_source_waits_whatever_the_name(it: House, clock: Shifted) -> None:
    """Also for names that do not exist; from elsewhere the same users come in."""
    await add_user(it, "ada")
    for number in range(throttle.FREE):
        assert await tried(it, f"guess{number}") == "login_failed"
    assert await tried(it, "ada", PASSWORD) == "login_locked"
    assert await tried(it, "ada", PASSWORD, "10.0.0.2") == ""
    clock.at += 1
    assert await tried(it, "ada", PASSWORD) == ""


async def test_a_user_of_ones_own_gives_no_more_guesses(it: House, clock: Shifted) -> None:
    """A right password does not begin its source's count anew: it only costs nothing."""
    await add_user(it, "ada")
    await add_user(it, "eve")
    for number in range(throttle.FREE - 1):
        assert await tried(it, f"guess{number}") == "login_failed"
        assert await tried(it, "eve", PASSWORD) == ""
    assert await tried(it, "guess") == "login_failed"
    assert await tried(it, "eve", PASSWORD) == "login_locked"


async def test_who_does_not_exist_is_locked_like_who_does(it: House, clock: Shifted) -> None:
    """In the same words, with the same wait, at the same count."""
    await add_user(it, "ada")
    told: dict[str, list[str]] = {"ada": [], "nobody": []}
    for name, seen in told.items():
        for number in range(8):
            source = f"10.{len(name)}.{number}.1"
            seen.append(await tried(it, name, source=source))
    assert told["ada"] == told["nobody"]
    assert "login_locked" in told["ada"]


async def test_a_lock_says_how_long(it: House) -> None:
    """As a 429 with Retry-After, and without trying the password."""
    await add_user(it, "ada")
    for _ in range(throttle.FREE):
        await log_in(it, "ada", "wrong" * 3)
    told = await log_in(it, "ada", "wrong" * 3)
    assert (told.status, told.fault["code"]) == (429, "login_locked")
    assert int(told.header("retry-after")) >= 1


async def test_wrong_passwords_are_counted_over_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops the process, or waits until it stops, begins nothing anew."""
    async with house(tmp_path) as it:
        clock = turned(it, monkeypatch)
        await add_user(it, "ada")
        for number in range(7):
            await tried(it, "ada", source=f"10.0.{number}.1")
            clock.at += 4
    async with house(tmp_path) as it:
        turned(it, monkeypatch, clock.at - 4)
        assert await tried(it, "ada", PASSWORD, "10.1.0.1") == "login_locked"


async def test_a_password_counts_before_it_is_tried(it: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that cutting the connection, or the process, while it is tried saves nothing."""
    await add_user(it, "ada")

    def cut(stored: str, password: bytes) -> bool:
        raise RuntimeError

    monkeypatch.setattr(passwords, "matches", cut)
    for _ in range(throttle.FREE):
        with pytest.raises(RuntimeError):
            await tried(it, "ada", PASSWORD)
    assert await tried(it, "ada", PASSWORD) == "login_locked"


async def test_a_day_later_nothing_is_counted(it: House, clock: Shifted) -> None:
    """An address that many share does not wait for what others did last year."""
    await add_user(it, "ada")
    for _ in range(throttle.FREE + 5):
        await tried(it, "ada")
        clock.at += 900
    clock.at += 24 * 3600
    for _ in range(throttle.FREE):
        assert await tried(it, "ada") == "login_failed"


async def test_nobody_can_keep_everybody_out(it: House) -> None:
    """While passwords wait, the token and a login link let in at once."""
    await add_user(it, "ada", "admin")
    for _ in range(12):
        await log_in(it, "ada", "wrong" * 3)
    assert (await log_in(it, "ada")).status == 429
    ticket = (await it.done("POST", "/login-links"))["ticket"]
    assert await opened(it, await it.ask("POST", "/admin/v1/login", {"ticket": ticket})).in_()


async def test_locks_and_their_end_are_in_the_audit_log(it: House, clock: Shifted) -> None:
    """By name for users; names that strangers make up are not written down."""
    ada = await add_user(it, "ada")
    for number in range(throttle.FREE):
        await tried(it, "ada", source=f"10.0.{number}.1")
    clock.at += 900
    assert await tried(it, "ada", PASSWORD, "10.1.0.1") == ""
    for number in range(throttle.FREE):
        await tried(it, "ada", source=f"10.2.{number}.1")
    assert await tried(it, "ada", PASSWORD, "10.1.0.1") == "login_locked"
    await it.done("POST", f"/users/{ada['id']}/unlock")
    assert await tried(it, "ada", PASSWORD, "10.1.0.1") == ""
    for _ in range(throttle.FREE):
        await tried(it, "secret-typed-as-a-name", source="10.3.0.1")
    assert await entries(it, "login") == [
        ("login.lock", "system", "user:ada", "denied"),
        ("login.unlock", "system", "user:ada", "done"),
        ("login.lock", "system", "user:ada", "denied"),
        ("login.unlock", "admin-token", "user:ada", "done"),
        ("login.lock", "system", "user:?", "denied"),
    ]
    (denied,) = (await it.done("GET", "/audit?action=access"))["entries"]
    assert (denied["source"], denied["reason"]) == ("10.3.0.1", "login_locked")
    assert "secret-typed" not in str(await it.done("GET", "/audit"))


async def test_a_failed_login_is_in_the_audit_log(it: House) -> None:
    """As a denied attempt, of nobody."""
    assert (await log_in(it, "ada")).status == 401
    (denied,) = (await it.done("GET", "/audit"))["entries"]
    assert (denied["action"], denied["actor"], denied["subject"], denied["reason"]) == (
        "access",
        "anonymous",
        "POST /admin/v1/login",
        "login_failed",
    )


async def test_passwords_are_tried_one_at_a_time_and_few_wait(
    it: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes 64 MiB; who comes when four wait is told to come again."""
    at_once, most, hold = 0, 0, threading.Event()

    def slow(stored: str, password: bytes) -> bool:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        hold.wait()
        at_once -= 1
        return False

    monkeypatch.setattr(passwords, "matches", slow)
    tries = [asyncio.create_task(tried(it, f"u{n}", source=f"10.0.{n}.1")) for n in range(QUEUE + 3)]
    while sum(task.done() for task in tries) < 2:  # noqa: ASYNC110 - no event tells of the refusals
        await asyncio.sleep(0.001)
    hold.set()
    told = await asyncio.gather(*tries)
    assert sorted(told) == ["login_busy"] * 2 + ["login_failed"] * (QUEUE + 1)
    assert most == 1


# --- login links


async def test_a_login_link_lets_in_once(it: House) -> None:
    """Whoever is second with the same one is told so, at the same time too."""
    ticket = (await it.done("POST", "/login-links"))["ticket"]
    both = await asyncio.gather(*[it.ask("POST", "/admin/v1/login", {"ticket": ticket}) for _ in range(2)])
    assert sorted(told.status for told in both) == [200, 401]
    assert {told.fault["code"] for told in both if told.status == 401} == {"login_link"}
    (browser,) = [opened(it, told) for told in both if told.status == 200]
    assert (await browser.admin("GET", "/session")).json["actor"] == f"session:{browser.id}"
    assert (await browser.admin("GET", "/session")).json["role"] == "admin"


class Another:
    """The other workers, of whom one may know a ticket."""

    def __init__(self, *told: bytes) -> None:
        self._told = told

    async def ask(self, kind: str, body: bytes) -> tuple[bytes, ...]:
        return self._told if (kind, body) == ("ticket", b"thlogin_x") else ()


async def test_a_login_link_lets_in_at_whichever_worker_it_is_shown(
    it: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that gave it out spends it, once; where nobody knows it, or its owner is gone, it opens nothing."""
    logins, ada = logins_of(it), await add_user(it, "ada")
    owner = Owner(OwnerKind.USER, ada["id"])
    ticket = logins.ticket(owner).encode()
    told = await logins._redeemed(ticket)
    assert await logins._redeemed(ticket) == b""
    monkeypatch.setattr(logins, "_siblings", Another(told))
    assert await logins.redeem("thlogin_x") == owner
    for siblings, name in ((Another(), "thlogin_x"), (Another(told), "thlogin_y")):
        monkeypatch.setattr(logins, "_siblings", siblings)
        with pytest.raises(TokenHubError) as caught:
            await logins.redeem(name)
        assert caught.value.fault.label == "login_link"
    await it.done("DELETE", f"/users/{ada['id']}")
    monkeypatch.setattr(logins, "_siblings", Another(told))
    with pytest.raises(TokenHubError):
        await logins.redeem("thlogin_x")


async def test_a_login_link_is_good_for_ten_minutes(it: House, clock: Shifted) -> None:
    """To the second."""
    tickets = [(await it.done("POST", "/login-links"))["ticket"] for _ in range(2)]
    clock.at += LIFETIME - 1
    assert (await it.ask("POST", "/admin/v1/login", {"ticket": tickets[0]})).status == 200
    clock.at += 1
    assert (await it.ask("POST", "/admin/v1/login", {"ticket": tickets[1]})).status == 401
    assert LIFETIME == 600


async def test_a_login_link_makes_nobody_more_than_they_were(it: House) -> None:
    """It has the role of the token that it was made with, and no use when that is revoked before."""
    made = await add_token(it, "t", "viewer")
    shown = {"authorization": f"Bearer {made['token']}"}
    tickets = [
        (await it.ask("POST", "/admin/v1/login-links", headers=shown)).json["ticket"] for _ in range(2)
    ]
    browser = opened(it, await it.ask("POST", "/admin/v1/login", {"ticket": tickets[0]}))
    told = (await browser.admin("GET", "/session")).json
    assert (told["actor"], told["role"]) == ("token:t", "viewer")
    await it.done("DELETE", f"/tokens/{made['id']}")
    assert (await it.ask("POST", "/admin/v1/login", {"ticket": tickets[1]})).status == 401
    assert not await browser.in_()
    found = [(action, actor) for action, actor, *_ in await entries(it, "login.link")]
    assert found == [("login.link", "token:t")] * 2


async def test_the_link_that_is_printed_at_the_start_lets_in(it: House) -> None:
    """It is made by the application itself; each is another one."""
    tickets = [it.app.login_ticket() for _ in range(2)]
    assert tickets[0] != tickets[1]
    for ticket in tickets:
        assert await opened(it, await it.ask("POST", "/admin/v1/login", {"ticket": ticket})).in_()


async def test_only_so_many_login_links_wait(it: House) -> None:
    """The oldest ones are let go of."""
    tickets = [it.app.login_ticket() for _ in range(17)]
    for ticket, status in ((tickets[0], 401), (tickets[1], 200), (tickets[16], 200)):
        assert (await it.ask("POST", "/admin/v1/login", {"ticket": ticket})).status == status


async def test_whose_right_to_come_in_ends_while_they_do_gets_no_session(
    it: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the right password and the session there is a moment."""
    ada = await add_user(it, "ada")
    logins = logins_of(it)
    user = logins.user

    async def disabled_meanwhile(*args: object) -> object:
        found = await user(*args)  # type: ignore[arg-type]
        await it.done("PATCH", f"/users/{ada['id']}", {"enabled": False})
        return found

    monkeypatch.setattr(logins, "user", disabled_meanwhile)
    told = await log_in(it, "ada")
    assert (told.status, told.fault["code"]) == (401, "login_failed")
    assert (await it.done("GET", "/sessions"))["total"] == 0
    assert await (await signed_in(it, it.token)).in_()
