"""Conversations are known again from what stands on the wire, and from nothing else."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialects.conversations import (
    CHAT,
    GEMINI,
    MESSAGES,
    OLLAMA,
    RESPONSES,
    SPOKEN,
    Model,
    Tool,
    Turn,
    User,
    body,
    said,
    traces,
)
from tokenhub_core.routing.affinity import FADES, LOOSE, Affinity, Served
from tokenhub_core.types import Bond, Dialect, Json, Left, Said, Speaker, Traces

NOW = 1.8e9
SALT = b"of this installation"

HELLO = User("Hello")
CALLED = Model(call="call_9f3a")


def known() -> Affinity:
    return Affinity(SALT)


def note(
    table: Affinity,
    given: Traces,
    who: str = "m",
    left: Left = Left(),
    *,
    at: float = NOW,
    tokens: int = 2_000,
) -> None:
    """Let a call be answered by this model at the provider `p`."""
    thread = table.follow(lambda: given, at)
    table.note(thread, Served(who, "p", at, tokens), left)


def bond(table: Affinity, given: Traces, at: float = NOW + 5) -> Bond | None:
    return table.follow(lambda: given, at).bond


def told(table: Affinity, given: Traces, at: float = NOW + 5) -> tuple[str, str, str] | None:
    """Return whom the call is tied to, what told, and what locks."""
    found = bond(table, given, at)
    return None if found is None else (found.model, found.by, found.lock)


# --- continuations --------------------------------------------------------------------------------------------

talks = st.lists(st.text("abc ", min_size=1, max_size=6), min_size=2, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SPOKEN), talks, st.integers(1, 9), st.integers(1, 9))
def test_a_call_whose_turns_begin_with_a_former_calls_goes_on_with_it(
    dialect: Dialect, texts: list[str], split: int, more: int
) -> None:
    """Wherever the conversation is cut, and however many turns were added since."""
    turns: list[Turn] = [turn for text in texts for turn in (User(text), Model(f"On {text}"))]
    before = 2 * (split % (len(texts) - 1)) + 1
    after = min(len(turns) - 1, before + 2 * more)
    table = known()
    note(table, said(dialect, *turns[:before]))
    assert told(table, said(dialect, *turns[:after])) == ("m", "turns", "")


@pytest.mark.parametrize("dialect", SPOKEN)
def test_what_only_begins_alike_is_another_conversation(dialect: Dialect) -> None:
    """The same system prompt and another first word, or the same first word and no answer yet: nobody is known."""
    table = known()
    note(table, said(dialect, HELLO))
    assert told(table, said(dialect, User("Goodbye"), Model("Hi"), User("More"))) is None
    assert told(table, said(dialect, HELLO)) is None
    assert told(table, said(dialect, HELLO, User("and more"))) is None


@pytest.mark.parametrize("dialect", SPOKEN)
def test_thousands_with_one_system_prompt_are_told_apart(dialect: Dialect) -> None:
    """Each goes on with whoever served it, and not with who served another one."""
    table = known()
    for n in range(1_000):
        note(table, said(dialect, User(f"Question {n}"), system="We all say this."), f"m{n % 7}")
    for n in range(0, 1_000, 97):
        found = told(
            table, said(dialect, User(f"Question {n}"), Model("So."), User("Why?"), system="We all say this.")
        )
        assert found == (f"m{n % 7}", "turns", "")


@pytest.mark.parametrize("dialect", SPOKEN)
def test_a_system_prompt_that_changes_on_the_way_breaks_nothing(dialect: Dialect) -> None:
    """Clients write the time into it."""
    table = known()
    note(table, said(dialect, HELLO, system="It is noon."))
    assert told(table, said(dialect, HELLO, Model("Hi"), User("So?"), system="It is later.")) == (
        "m",
        "turns",
        "",
    )


def test_marks_of_caching_may_move() -> None:
    """A client marks the last turns of each call, and writes what it marks as a part."""
    marked = {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}
    first = {"model": "*", "max_tokens": 9, "messages": [{"role": "user", "content": [marked]}]}
    table = known()
    note(table, traces(MESSAGES, first))
    assert told(table, said(MESSAGES, HELLO, Model("Hi"), User("So?"))) == ("m", "turns", "")


def chat(*messages: Json) -> Traces:
    return traces(CHAT, {"model": "*", "messages": list(messages)})


@pytest.mark.parametrize(
    "again",
    [
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"content": "Hello", "role": "user", "name": "ann"},
        {"role": "user", "content": "Hello", "tool_calls": None},
    ],
)
def test_a_turn_may_be_written_in_another_way(again: Json) -> None:
    """As a string or as a part, with members that say nothing, in any order."""
    table = known()
    note(table, chat({"role": "user", "content": "Hello"}))
    later = chat(
        again, {"role": "assistant", "content": "Hi", "refusal": None}, {"role": "user", "content": "So?"}
    )
    assert told(table, later) == ("m", "turns", "")


def test_thoughts_may_be_left_out_of_what_is_sent_again() -> None:
    """Clients drop the thinking of former turns; the chain knows only what was said."""
    with_thoughts: list[Turn] = [HELLO, Model("Hi", seal="EqMBabc"), User("So?")]
    without: list[Turn] = [HELLO, Model("Hi"), User("So?"), Model("So."), User("And?")]
    for dialect in (MESSAGES, RESPONSES, GEMINI):
        table = known()
        note(table, said(dialect, *with_thoughts))
        assert told(table, said(dialect, *without)) == ("m", "turns", "")


def test_pictures_are_part_of_what_was_said() -> None:
    """Two large ones that differ in their last byte are two."""

    def asked(data: str, *more: Json) -> Traces:
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        return chat({"role": "user", "content": [picture]}, *more)

    table = known()
    note(table, asked("A" * 9_000 + "B"))
    rest = ({"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Why?"})
    assert told(table, asked("A" * 9_000 + "B", *rest)) == ("m", "turns", "")
    assert told(table, asked("A" * 9_000 + "C", *rest)) is None


# --- ids, seals, what is held ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", SPOKEN)
def test_the_results_of_tool_calls_lead_back_to_who_made_them(dialect: Dialect) -> None:
    """The call's id was the answer's, however the client has changed what stands between."""
    table = known()
    note(table, said(dialect, HELLO), left=Left("x", calls=("call_9f3a",)))
    later = said(dialect, HELLO, Model("Let me see", call="call_9f3a"), Tool("call_9f3a"))
    assert told(table, later) == ("m", "calls", "tool_loop")


@pytest.mark.parametrize("dialect", [GEMINI, OLLAMA])
@pytest.mark.parametrize("given_ids", [(), ("call_1",)])
def test_tool_calls_without_ids_are_known_by_the_turns(dialect: Dialect, given_ids: tuple[str, ...]) -> None:
    """Where there was no id, or the client dropped it, the chain of turns tells, and the loop locks all the same."""
    table = known()
    note(table, said(dialect, HELLO), left=Left(calls=given_ids))
    assert told(table, said(dialect, HELLO, Model(call="-"), Tool("-"))) == ("m", "turns", "tool_loop")
    note(table, said(dialect, HELLO, Model(call="-"), Tool("-", "one")), "n")
    assert told(table, said(dialect, HELLO, Model(call="-"), Tool("-", "two"))) == ("m", "turns", "tool_loop")


def test_ids_that_a_model_counts_up_are_those_of_their_conversation() -> None:
    """Some models call their first call `look:0` in every conversation."""
    table = known()
    note(table, said(CHAT, User("one")), "m", Left(calls=("look:0",)))
    note(table, said(CHAT, User("two")), "n", Left(calls=("look:0",)))
    for text, who in (("one", "m"), ("two", "n")):
        later = said(CHAT, User(text), Model(call="look:0"), Tool("look:0"))
        assert told(table, later) == (who, "calls", "tool_loop")


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, RESPONSES, GEMINI])
def test_a_seal_leads_back_to_its_maker(dialect: Dialect) -> None:
    """A thought's signature came with the answer: whoever has the call now must be able to open it."""
    table = known()
    note(table, said(dialect, HELLO), left=Left(seals=(f"{dialect}:EqMBabc",)))
    later = said(dialect, User("Hello, edited"), Model("Hi", seal="EqMBabc"), User("So?"))
    assert told(table, later) == ("m", "thinking", "thinking")


def test_a_seal_that_was_decoded_and_written_anew_is_the_same() -> None:
    """SDKs change base64's alphabet on the way."""
    table = known()
    note(table, said(GEMINI, HELLO), left=Left(seals=("gemini:Ab+/c==",)))
    later = said(GEMINI, User("Edited"), Model("Hi", seal="Ab-_c"), User("So?"))
    assert told(table, later) == ("m", "thinking", "thinking")


def test_googles_word_for_no_signature_is_no_seal() -> None:
    """It stands in the calls of many, and nobody made it."""
    table = known()
    unsigned = "skip_thought_signature_validator"
    note(table, said(GEMINI, HELLO))
    later = said(GEMINI, HELLO, Model("Hi", seal=unsigned), User("So?"))
    assert told(table, later) == ("m", "turns", "")


def test_only_the_models_last_words_lock_by_their_seals() -> None:
    """An older turn's thoughts were another's, perhaps; the latest answer had none."""
    table = known()
    note(table, said(MESSAGES, HELLO, Model("Hi", seal="EqMBabc"), User("So?")))
    later = said(MESSAGES, HELLO, Model("Hi", seal="EqMBabc"), User("So?"), Model("So."), User("And?"))
    assert told(table, later) == ("m", "turns", "")


def test_an_answer_that_its_provider_holds_is_gone_on_from_there() -> None:
    """`previous_response_id` needs none of the turns, and nobody else can know what it names."""
    table = known()
    note(table, said(RESPONSES, HELLO), left=Left("resp_1"))
    later = traces(RESPONSES, {"model": "*", "input": "So?", "previous_response_id": "resp_1"})
    assert told(table, later) == ("m", "response", "stored_state")


@pytest.mark.parametrize("room", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_that_its_provider_holds_stays_there(room: object) -> None:
    """The name stands in every call, the first one too."""
    table = known()
    asked = {"model": "*", "input": "Hello", "conversation": room}
    note(table, traces(RESPONSES, asked))
    assert told(table, traces(RESPONSES, asked | {"input": "So?"})) == ("m", "room", "stored_state")


def test_ids_of_answers_that_never_come_back_leave_no_mark() -> None:
    """A chat completion's id is nobody's `previous_response_id`."""
    table = known()
    note(table, said(CHAT, HELLO), left=Left("chatcmpl-1"))
    assert len(table) == 1


# --- what does not tell ---------------------------------------------------------------------------------------


def test_a_beginning_that_two_have_answered_tells_nothing() -> None:
    """Two conversations began alike at different models: which one goes on cannot be told; at one model it can."""
    table = known()
    later = said(CHAT, HELLO, Model("Hi"), User("So?"))
    note(table, said(CHAT, HELLO), "m")
    note(table, said(CHAT, HELLO), "m")
    assert told(table, later) == ("m", "turns", "")
    note(table, said(CHAT, HELLO), "n")
    assert told(table, later) is None
    note(table, said(CHAT, HELLO), "m")
    assert told(table, later) is None
    note(table, said(CHAT, HELLO), "m", at=NOW + 2 * FADES)
    assert told(table, later, NOW + 2 * FADES + 1) == ("m", "turns", "")


def test_the_longest_beginning_counts() -> None:
    """Whoever served last has the tie, not whoever served first."""
    table = known()
    turns: list[Turn] = [HELLO, Model("Hi"), User("So?"), Model("So."), User("And?")]
    note(table, said(CHAT, *turns[:1]), "m")
    note(table, said(CHAT, *turns[:3]), "n")
    assert told(table, said(CHAT, *turns)) == ("n", "turns", "")


def test_a_tie_fades() -> None:
    """An hour, and the conversation is new; an age is told until then."""
    table = known()
    note(table, said(CHAT, HELLO), tokens=3_000)
    later = said(CHAT, HELLO, Model("Hi"), User("So?"))
    assert bond(table, later, NOW + FADES) == Bond("m", "p", FADES, 3_000, "turns")
    assert bond(table, later, NOW + FADES + 1) is None


def test_a_clock_that_goes_back_makes_nobody_younger_than_new() -> None:
    """An age is never negative."""
    table = known()
    note(table, said(CHAT, HELLO))
    found = bond(table, said(CHAT, HELLO, Model("Hi"), User("So?")), NOW - 50)
    assert found is not None
    assert found.age == 0


def test_whoever_takes_every_call_for_a_new_one_reads_nothing() -> None:
    """Switched off, not a turn is looked at, and nothing is noted."""
    thread = LOOSE.follow(lambda: pytest.fail("read"), NOW)
    LOOSE.note(thread, Served("m", "p", NOW, 1), Left(calls=("c",)))
    assert thread.bond is None


def test_a_call_that_is_no_conversation_is_noted_by_nobody() -> None:
    """A prompt that is to be completed, texts that are to be embedded, a count of tokens."""
    table = known()
    asked: list[tuple[Dialect, Json]] = [
        (Dialect.OPENAI_COMPLETIONS, {"model": "m", "prompt": "Once"}),
        (Dialect.OPENAI_EMBEDDINGS, {"model": "m", "input": "Once"}),
        (Dialect.OLLAMA_GENERATE, {"model": "m", "prompt": "Once"}),
        (Dialect.ANTHROPIC_COUNT_TOKENS, body(MESSAGES, [HELLO])),
    ]
    for dialect, sent in asked:
        note(table, traces(dialect, sent))
    assert len(table) == 0


# --- what it costs --------------------------------------------------------------------------------------------


class Counted:
    """Counts how often a turn is read."""

    def __init__(self, given: Traces) -> None:
        self.reads = 0
        self._given = given

    def __call__(self) -> Traces:
        return Traces(self._given.turns, self._read)

    def _read(self, raw: Any) -> Said | None:
        self.reads += 1
        return self._given.read(raw)


def test_a_first_turn_is_hashed_once_and_looked_up_nowhere() -> None:
    """It is read to see that it is the first, and once more to be noted."""
    table, first = known(), Counted(said(CHAT, HELLO))
    thread = table.follow(first, NOW)
    system_and_user = 2
    assert first.reads == system_and_user
    table.note(thread, Served("m", "p", NOW, 9), Left())
    assert first.reads == 2 * system_and_user


def test_a_tool_loop_is_followed_by_its_ends() -> None:
    """However long it is: the last turns, and the first one to which ids are bound."""
    table = known()
    turns: list[Turn] = [HELLO]
    for n in range(500):
        turns += [Model(call=f"call_{n}"), Tool(f"call_{n}")]
    note(table, said(MESSAGES, *turns[:-2]), left=Left(calls=("call_499",)))
    counted = Counted(said(MESSAGES, *turns))
    thread = table.follow(counted, NOW)
    table.note(thread, Served("m", "p", NOW, 9), Left(calls=("call_500",)))
    assert thread.bond is not None
    assert counted.reads < 30


def test_a_long_talk_is_read_in_one_pass() -> None:
    """Once for the chain, and its last turns once more."""
    table = known()
    turns: list[Turn] = [turn for n in range(500) for turn in (User(f"{n}?"), Model(f"{n}!"))]
    counted = Counted(said(CHAT, *turns, User("So?")))
    thread = table.follow(counted, NOW)
    table.note(thread, Served("m", "p", NOW, 9), Left())
    assert counted.reads <= 1_002 + 30


def test_however_many_conversations_leave_no_more_marks_than_are_kept() -> None:
    """The oldest go first, and are told to whoever stores them."""
    table = Affinity(SALT, keep=500)
    stored: set[bytes] = set()
    for n in range(20_000):
        turn = Said(Speaker.USER, (str(n),))
        thread = table.follow(partial(Traces, (turn,), _itself), NOW)
        table.note(thread, Served("m", "p", NOW, 9), Left())
        if n % 3_000 == 0:
            noted, gone = table.changes()
            stored = (stored | {mark for mark, _ in noted}) - set(gone)
            assert stored == {mark for mark, _ in table.kept()}
    assert len(table) == 500
    assert {mark for mark, _ in table.kept()} == {
        table.follow(partial(Traces, (Said(Speaker.USER, (str(n),)),), _itself), NOW).whole()
        for n in range(19_500, 20_000)
    }


def _itself(turn: Any) -> Said | None:
    assert isinstance(turn, Said)
    return turn


def test_one_call_leaves_few_marks_however_many_it_could() -> None:
    """An answer with a thousand tool calls is known by its first ones."""
    table = known()
    note(
        table,
        said(CHAT, HELLO),
        left=Left(calls=tuple(map(str, range(1_000))), seals=tuple(map(str, range(1_000)))),
    )
    assert len(table) == 16


def test_what_has_faded_is_forgotten_as_others_come() -> None:
    """Nobody has to ask for it."""
    table = known()
    for n in range(50):
        note(table, said(CHAT, User(f"{n}")))
    for n in range(50):
        note(table, said(CHAT, User(f"late {n}")), at=NOW + FADES + 1)
    assert len(table) == 50


# --- what is kept ---------------------------------------------------------------------------------------------


def test_what_is_kept_and_read_again_knows_the_same() -> None:
    """The marks are bytes of one length, and lead to the same bond."""
    table = known()
    note(table, said(CHAT, HELLO), left=Left(calls=("call_1",)))
    again = Affinity(SALT, table.kept())
    later = said(CHAT, HELLO, Model(call="call_1"), Tool("call_1"))
    assert bond(again, later) == bond(table, later)
    assert bond(again, later) is not None
    assert again.changes() == ([], [])


def test_marks_tell_nothing_to_who_does_not_have_the_salt() -> None:
    """With another one every mark of the same words is another: nobody can try what might have been said."""
    tables = [Affinity(salt) for salt in (SALT, b"guessed")]
    for table in tables:
        note(table, said(CHAT, HELLO), left=Left("r", ("call_1",), ("gemini:abc",)))
    marks = [{mark for mark, _ in table.kept()} for table in tables]
    assert [len(one) for one in marks] == [2, 2]
    assert marks[0].isdisjoint(marks[1])
    assert {len(mark) for one in marks for mark in one} == {16}


def test_only_changes_are_told() -> None:
    """What was told once is not told again."""
    table = Affinity(SALT, keep=2)
    for text in "abc":
        note(table, said(CHAT, User(text)))
    noted, gone = table.changes()
    assert (len(noted), len(gone)) == (2, 1)
    assert table.changes() == ([], [])


def test_a_name_too_long_to_be_a_models_is_not_noted() -> None:
    """At a call's own host the caller chooses it."""
    table = known()
    note(table, said(CHAT, HELLO), "m" * 300)
    assert len(table) == 0


# --- several processes ----------------------------------------------------------------------------------------


def shared() -> tuple[Affinity, Affinity]:
    """Return what two processes know."""
    one, two = known(), known()
    one.share()
    two.share()
    return one, two


def test_a_mark_that_two_processes_have_left_is_nobodys_at_both() -> None:
    """As where one process has left it twice; in the database, too, whoever saves last."""
    one, two = shared()
    for table, who in ((one, "m"), (two, "n")):
        note(table, said(Dialect.OPENAI_CHAT, HELLO, Model("Hi")), who)
    for table, other in ((one, two.fresh()), (two, one.fresh())):
        table.changes()
        table.adopt(other)
        assert [served.model for _, served in table.kept()] == [""]
        assert [served.model for _, served in table.changes()[0]] == [""]


def test_of_a_room_the_latest_answer_counts_whoever_tells_of_it_first() -> None:
    """It moved from one model to another: what is told late takes nothing back."""
    one, two = shared()
    room = Traces(room="conv_1")
    note(one, room, "m")
    note(two, room, "n", at=NOW + 1)
    first, second = one.fresh(), two.fresh()
    two.adopt(first)
    one.adopt(second)
    assert [told(table, room) for table in (one, two)] == [("n", "room", "stored_state")] * 2


def test_what_is_known_elsewhere_makes_room_for_what_is_newer() -> None:
    """The bound on marks holds for those that others have told, too."""
    one = known()
    one.share()
    for n in range(5):
        note(one, Traces(room=f"conv_{n}"), at=NOW + n)
    two = Affinity(SALT, keep=3)
    two.adopt(one.fresh())
    assert [served.at for _, served in two.kept()] == [NOW + 2, NOW + 3, NOW + 4]
