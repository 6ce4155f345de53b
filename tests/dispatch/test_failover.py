"""The failover machine, as transcripts: facts go in, steps come out, nothing is sent and nobody sleeps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.failover import ESCALATED, REDUCED, Failover, GiveUp, Limits, Step, Try, Wait
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Candidate, Model, Plan, Policy, Provider, ProviderType, Terms

DOWN = Fault(Kind.TRANSIENT, Blame.PROVIDER, "boom", cause="http_500", upstream_status=500)
BUSY = Fault(Kind.OVERLOADED, Blame.PROVIDER, "busy", cause="http_529", upstream_status=529)
SLOW = Fault(Kind.TIMEOUT, Blame.PROVIDER, "slow", cause="ttft_timeout")
LIMITED = Fault(Kind.RATE_LIMITED, Blame.CREDENTIAL, "slow down", cause="http_429", upstream_status=429)
POOR = Fault(Kind.QUOTA, Blame.CREDENTIAL, "no money", upstream_status=429)
LOCKED = Fault(Kind.AUTH, Blame.CREDENTIAL, "bad key", cause="http_401", upstream_status=401)
FORBIDDEN = Fault(Kind.FORBIDDEN, Blame.CREDENTIAL, "not yours", cause="http_403", upstream_status=403)
UNKNOWN = Fault(Kind.NOT_FOUND, Blame.US, "no such model", cause="http_404", upstream_status=404)
WRONG = Fault(Kind.INVALID, Blame.CLIENT, "bad field", cause="http_400", upstream_status=400)
FULL = Fault(Kind.OVERFLOW, Blame.CLIENT, "too long", upstream_status=400)
USUAL = Limits()
UNPAID = Fault(Kind.BUDGET, Blame.CLIENT, "budget used up")


def candidate(
    name: str, *, context: int = 0, kind: ProviderType = ProviderType.OPENAI, max_output: int = 0
) -> Candidate:
    """`a.m` is model m at provider a; a bare `a` has a model of the same name."""
    provider, _, model = name.partition(".")
    return Candidate(
        model=Model(model or provider, provider, max_context_tokens=context, max_output_tokens=max_output),
        provider=Provider(provider, kind, ()),
        score=0.0,
        terms=Terms(),
        estimated_nanousd=0,
    )


def plan(*candidates: Candidate | str, tokens: int = 100) -> Plan:
    chosen = tuple(candidate(each) if isinstance(each, str) else each for each in candidates)
    return Plan(Policy(), chosen, (), input_tokens=tokens, output_tokens=512, reason="test")


class Scene:
    """A machine, a clock that moves only when the machine waits, and the names of what was tried."""

    def __init__(
        self,
        steps: Plan,
        *,
        limits: Limits = USUAL,
        budget: RetryBudget | None = None,
        cap: int | None = None,
    ) -> None:
        self.budget, self.now = budget or RetryBudget(), 1000.0
        self.machine = Failover(
            steps, limits=limits, retries=self.budget, started=self.now, max_output_tokens=cap
        )
        self.waits: list[float] = []
        self.tries: list[Try] = []

    def step(self) -> Step:
        return self.machine.next(self.now, 0.5)

    def fail_first(self, fault: Fault = DOWN, *, after: float = 0.0) -> None:
        self.tried()
        self.now += after
        self.machine.failed(fault, self.now)

    def tried(self) -> Try:
        step = self.step()
        assert isinstance(step, Try)
        return step

    def over(self) -> Fault:
        step = self.step()
        assert isinstance(step, GiveUp)
        return step.fault

    def meets(self, *faults: Fault) -> Fault:
        """Let each try end with the next fault, the last of them from then on; return the final fault."""
        left = list(faults)
        while True:
            match self.step():
                case Wait(seconds):
                    self.waits.append(round(seconds, 3))
                    self.now += seconds
                case Try() as tried:
                    self.tries.append(tried)
                    self.machine.failed(left.pop(0) if len(left) > 1 else left[0], self.now)
                case GiveUp(fault):
                    return fault

    @property
    def names(self) -> list[str]:
        """`a` or `a.m`, in the order in which they were tried."""
        pairs = [(tried.candidate.provider.id, tried.candidate.model.id) for tried in self.tries]
        return [provider if provider == model else f"{provider}.{model}" for provider, model in pairs]


def empty_budget(*providers: str) -> RetryBudget:
    budget = RetryBudget()
    for provider in providers:
        while budget.withdraw(provider, 1000.0):
            pass
    return budget


# --- the order -------------------------------------------------------------------------------------------------


def test_the_first_candidate_is_tried_first_and_an_answer_ends_it() -> None:
    """The plan's order is the machine's order."""
    scene = Scene(plan("a", "b"), limits=Limits(total_seconds=30))
    first = scene.step()
    assert first == Try(candidate("a"), 1, 30.0, None, others=True)
    scene.machine.succeeded()
    assert isinstance(scene.step(), GiveUp)


@pytest.mark.parametrize(
    ("names", "attempts", "told"),
    [
        (("a.1",), 5, [False]),
        (("a.1", "b.1", "a.2"), 5, [True, False, False]),
        (("a.1", "b.1", "c.1"), 2, [True, False]),
    ],
    ids=["lone", "same-provider", "attempts"],
)
def test_a_try_says_whether_a_provider_is_left_that_was_not_asked(
    names: tuple[str, ...], attempts: int, told: list[bool]
) -> None:
    """Whoever waits for the last one waits as long as is allowed; a further model of one that was asked is none."""
    scene = Scene(plan(*names), limits=Limits(max_attempts=attempts, retries_per_candidate=0))
    scene.meets(DOWN)
    assert [tried.others for tried in scene.tries] == told


@pytest.mark.parametrize("fault", [DOWN, BUSY, SLOW, LIMITED, POOR, LOCKED, FORBIDDEN, UNKNOWN])
def test_another_candidate_is_tried_at_once(fault: Fault) -> None:
    """As long as something new is left nobody waits."""
    scene = Scene(plan("a", "b"))
    scene.fail_first(fault)
    step = scene.tried()
    assert (step.candidate, step.n) == (candidate("b"), 2)


def test_the_last_one_left_is_retried_twice_with_growing_waits() -> None:
    """100 ms, then 200 ms, at the middle of the jitter; then it is over."""
    scene = Scene(plan("a"))
    fault = scene.meets(DOWN)
    assert scene.names == ["a", "a", "a"]
    assert scene.waits == [0.1, 0.2]
    assert (fault.message, fault.http_status) == ("boom", 502)


def test_with_nothing_new_left_those_with_the_fewest_failures_come_first() -> None:
    """Retries go round instead of hammering one candidate."""
    scene = Scene(plan("a", "b"), limits=Limits(max_attempts=6))
    scene.meets(DOWN)
    assert scene.names == ["a", "b", "a", "b", "a", "b"]


def test_attempts_are_capped() -> None:
    """However long the plan is."""
    scene = Scene(plan(*"abcdefgh"))
    assert scene.meets(DOWN).message == "5 providers failed; last: boom"
    assert scene.names == list("abcde")


def test_a_dead_provider_with_many_models_does_not_use_up_the_attempts() -> None:
    """Models at providers that have not failed come before further models of one that has."""
    scene = Scene(plan("a.1", "a.2", "a.3", "a.4", "a.5", "b"), limits=Limits(max_attempts=3))
    scene.meets(DOWN)
    assert scene.names == ["a.1", "b", "a.2"]


def test_a_timeout_is_retried_once_only() -> None:
    """A call that takes longer than the limit would take as long again, and may be billed each time."""
    scene = Scene(plan("a"))
    assert scene.meets(SLOW).http_status == 504
    assert scene.names == ["a", "a"]


@pytest.mark.parametrize("fault", [LIMITED, POOR, LOCKED])
def test_what_concerns_the_credential_concerns_the_whole_provider(fault: Fault) -> None:
    """The other models of the provider would meet the same."""
    scene = Scene(plan("a.1", "a.2", "b"))
    scene.meets(fault, DOWN)
    assert scene.names == ["a.1", "b", "b", "b"]


@pytest.mark.parametrize("fault", [LIMITED, POOR, LOCKED, FORBIDDEN])
def test_a_spare_credential_is_tried_at_once_and_the_provider_passed_over_without_one(fault: Fault) -> None:
    """The same candidate again, before any other; a fault that is not its credential's is no reason for that."""
    scene = Scene(plan("a.1", "b"))
    scene.tried()
    scene.machine.failed(fault, scene.now, spare=True)
    assert scene.tried().candidate.provider.id == "a"
    scene.machine.failed(fault, scene.now)
    assert scene.tried().candidate.provider.id == "b"
    other = Scene(plan("a.1", "b"))
    other.tried()
    other.machine.failed(DOWN, other.now, spare=True)
    assert other.tried().candidate.provider.id == "b"


def test_of_refusals_for_limits_alone_the_soonest_is_told() -> None:
    """Nothing was sent: the caller is told when the first of them can take a call."""
    scene = Scene(plan("a", "b", "c"))
    for seconds in (30.0, 4.0, 9.0):
        scene.tried()
        scene.machine.refused(Fault(Kind.RATE_LIMITED, Blame.CREDENTIAL, "full", retry_after=seconds))
    assert scene.over().retry_after == 4.0


@pytest.mark.parametrize("fault", [FORBIDDEN, UNKNOWN])
def test_what_concerns_one_model_leaves_the_providers_others(fault: Fault) -> None:
    """A missing model says nothing of its neighbours, and is not asked for again."""
    scene = Scene(plan("a.1", "a.2"))
    scene.meets(fault, fault)
    assert scene.names == ["a.1", "a.2"]


def test_a_provider_that_asks_not_to_be_tried_again_is_not() -> None:
    """`x-should-retry: false`: others are asked, and this one is not come back to."""
    scene = Scene(plan("a", "b"))
    scene.meets(replace(DOWN, final=True), replace(DOWN, final=True))
    assert scene.names == ["a", "b"]


# --- rate limits and Retry-After -------------------------------------------------------------------------------


def test_a_short_rate_limit_is_waited_for_once_when_nothing_else_is_left() -> None:
    """The wait is never shorter than asked for; a second rate limit ends the call."""
    scene = Scene(plan("a"))
    fault = scene.meets(replace(LIMITED, retry_after=2.0))
    assert scene.names == ["a", "a"]
    assert scene.waits == [2.1]
    assert (fault.http_status, fault.retry_after) == (429, 2.0)


@pytest.mark.parametrize("retry_after", [None, 5.1, 60.0])
def test_a_long_or_unknown_rate_limit_is_handed_on(retry_after: float | None) -> None:
    """The caller gets the 429 and its Retry-After at once."""
    scene = Scene(plan("a"))
    fault = scene.meets(replace(LIMITED, retry_after=retry_after))
    assert (scene.names, scene.waits) == (["a"], [])
    assert (fault.http_status, fault.retry_after) == (429, retry_after)


def test_an_overload_is_left_alone_as_long_as_it_asks() -> None:
    """Retry-After counts for every fault that carries one, from the moment of the failure."""
    scene = Scene(plan("a"))
    scene.meets(replace(BUSY, retry_after=3.0), DOWN)
    assert scene.waits == [3.1, 0.2]
    scene = Scene(plan("a"))
    scene.meets(replace(BUSY, retry_after=30.0))
    assert scene.names == ["a"]


def test_a_rate_limited_candidate_comes_back_last() -> None:
    """Whoever failed otherwise is retried before."""
    scene = Scene(plan("a", "b"))
    scene.meets(replace(LIMITED, retry_after=1.0), DOWN, DOWN, DOWN, DOWN)
    assert scene.names == ["a", "b", "b", "b", "a"]


# --- the caller's own faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.INVALID, Kind.TOO_LARGE, Kind.REFUSED, Kind.CANCELLED, Kind.TIMEOUT])
def test_what_the_caller_got_wrong_is_not_shown_to_another_model(kind: Kind) -> None:
    """It ends the call at once, in the provider's own words."""
    fault = Fault(kind, Blame.CLIENT, "yours")
    scene = Scene(plan("a", "b"))
    assert scene.meets(fault) is fault
    assert scene.names == ["a"]


def test_nonsense_from_a_provider_is_not_the_callers_fault() -> None:
    """An oversized answer fails over, and is never told as an oversized request."""
    huge = Fault(Kind.TOO_LARGE, Blame.PROVIDER, "an answer of 200 MB")
    scene = Scene(plan("a", "b"))
    scene.meets(huge, POOR)
    assert scene.names == ["a", "b"]
    assert Scene(plan("a")).meets(huge).http_status == 502


# --- the context -----------------------------------------------------------------------------------------------


def test_an_overflow_is_first_met_with_a_smaller_output_cap() -> None:
    """Room is the context less the input and a margin of 256."""
    scene = Scene(plan(candidate("a", context=1000), candidate("b", context=9000), tokens=500), cap=4096)
    scene.meets(FULL, POOR)
    assert scene.names == ["a", "a", "b"]
    assert [tried.max_output_tokens for tried in scene.tries] == [None, 244, None]
    assert [tried.change for tried in scene.tries] == ["", REDUCED, ""]


@pytest.mark.parametrize(
    ("context", "cap", "max_output"),
    [
        (0, 4096, 0),  # nobody knows the context
        (819, None, 0),  # 63 tokens of room
        (1000, 244, 0),  # the cap fits already
        (1000, None, 200),  # the model's own cap fits already
    ],
)
def test_a_smaller_cap_is_not_tried_where_it_cannot_help(
    context: int, cap: int | None, max_output: int
) -> None:
    """Then the overflow is the caller's, and says so."""
    scene = Scene(plan(candidate("a", context=context, max_output=max_output), tokens=500), cap=cap)
    assert scene.meets(FULL) is FULL
    assert scene.names == ["a"]


def test_an_overflow_goes_to_larger_contexts_only() -> None:
    """Sufficient ones, the smallest first; then larger ones, the largest first; then unknown ones."""
    fleet = plan(
        candidate("a", context=1000),
        candidate("same", context=1000),
        candidate("unknown"),
        candidate("tight", context=1200),
        candidate("roomy", context=1500),
        candidate("huge", context=9000),
        candidate("enough", context=2000),
        tokens=1000,
    )
    scene = Scene(fleet, limits=Limits(max_attempts=9), cap=100)
    assert scene.meets(FULL) is FULL
    # `huge` overflows as well: only candidates of unknown size could still be larger.
    assert scene.names == ["a", "enough", "huge", "unknown"]
    assert [tried.change for tried in scene.tries] == ["", ESCALATED, ESCALATED, ESCALATED]
    scene = Scene(fleet, limits=Limits(max_attempts=9, retries_per_candidate=0))
    scene.meets(FULL, DOWN)
    assert scene.names == ["a", "enough", "huge", "roomy", "tight", "unknown"]


def test_a_smaller_cap_is_tried_once() -> None:
    """When that overflows as well, the input alone is too long."""
    scene = Scene(plan(candidate("a", context=1000), tokens=500))
    assert scene.meets(FULL) is FULL
    assert scene.names == ["a", "a"]


def test_a_reduced_cap_stays_with_its_candidate() -> None:
    """A retry of the same candidate keeps the cap; another candidate gets the caller's own."""
    scene = Scene(plan(candidate("a", context=1000), "b", tokens=500))
    scene.meets(FULL, DOWN)
    assert scene.names == ["a", "a", "b", "b", "a"]
    assert [tried.max_output_tokens for tried in scene.tries] == [None, 244, None, None, 244]


# --- the commit, the clock, the budget -------------------------------------------------------------------------


def test_nothing_is_tried_after_the_commit() -> None:
    """The caller has seen a beginning that no other model would continue."""
    scene = Scene(plan("a", "b"))
    scene.step()
    scene.machine.committed()
    scene.machine.failed(DOWN, scene.now)
    assert scene.step() == GiveUp(DOWN)
    assert scene.step() == GiveUp(DOWN)


def test_no_try_begins_after_the_deadline() -> None:
    """The caller is told that the time was up, and what happened last."""
    scene = Scene(plan("a", "b"), limits=Limits(total_seconds=2))
    scene.fail_first(after=2)
    fault = scene.over()
    assert (fault.http_status, fault.cause) == (504, "deadline")
    assert fault.message == "no answer within 2 s; last: boom"


def test_a_deadline_that_passed_before_the_first_try_is_told() -> None:
    """Routing and queueing count, too."""
    scene = Scene(plan("a"), limits=Limits(total_seconds=2))
    scene.now += 3
    fault = scene.over()
    assert fault.message == "the limit of 2 s passed before any try"


def test_no_wait_reaches_the_deadline() -> None:
    """Waiting for a try that cannot be made is no use to anybody."""
    scene = Scene(plan("a"), limits=Limits(total_seconds=0.1))
    assert scene.meets(DOWN).message == "boom"
    assert scene.waits == []
    scene = Scene(plan("a"), limits=Limits(total_seconds=2))
    assert scene.meets(replace(LIMITED, retry_after=2.0)).http_status == 429
    assert scene.waits == []


def test_each_try_knows_the_time_left() -> None:
    """The shell bounds the attempt with it."""
    scene = Scene(plan("a", "b"), limits=Limits(total_seconds=10))
    scene.fail_first(after=4)
    assert scene.tried().timeout == 6.0


def test_a_sleep_that_ends_early_is_continued() -> None:
    """A wait is over when its time has come, not when somebody asks again."""
    scene = Scene(plan("a"))
    scene.fail_first()
    first = scene.step()
    scene.now += 0.04
    rest = scene.step()
    assert isinstance(first, Wait)
    assert isinstance(rest, Wait)
    assert first.seconds == pytest.approx(0.1)
    assert rest.seconds == pytest.approx(0.06)
    scene.now += 0.0599
    assert isinstance(scene.step(), Try)


def test_retries_spend_the_providers_budget() -> None:
    """Two retries are two credits; the first try earned a fifth of one."""
    scene = Scene(plan("a"))
    scene.meets(DOWN)
    assert scene.budget.balance("a", scene.now) == 98


def test_without_budget_nobody_is_retried() -> None:
    """A storm ends here: one attempt per call."""
    scene = Scene(plan("a"), budget=empty_budget("a"))
    scene.meets(DOWN)
    assert (scene.names, scene.waits) == (["a"], [])


def test_a_hop_to_another_provider_is_free_and_to_another_model_of_the_same_is_not() -> None:
    """The budget protects a provider from all further tries of one call."""
    scene = Scene(plan("a.1", "a.2", "b"), budget=empty_budget("a", "b"))
    scene.meets(DOWN)
    assert scene.names == ["a.1", "b"]


def test_an_empty_budget_closes_the_provider_for_the_rest_of_the_call() -> None:
    """Also when credits come back while another provider is busy failing."""
    scene = Scene(plan("a.1", "a.2", "b"), budget=empty_budget("a"))
    names = []
    while not isinstance(step := scene.step(), GiveUp):
        if isinstance(step, Wait):
            scene.now += step.seconds
            continue
        names.append(step.candidate.provider.id)
        if len(names) == 3:
            scene.now += 11
        scene.machine.failed(DOWN, scene.now)
    assert names == ["a", "b", "b", "b"]
    assert scene.budget.balance("a", scene.now) > 0


def test_a_reduced_cap_spends_the_budget_too() -> None:
    """Whatever the reason, a further try is a further load."""
    scene = Scene(plan(candidate("a", context=1000), "b", tokens=500), budget=empty_budget("a"))
    scene.meets(FULL, POOR)
    assert scene.names == ["a", "b"]


# --- refusals --------------------------------------------------------------------------------------------------


def test_a_refused_try_is_no_attempt() -> None:
    """It strikes the candidate, counts on, and leaves the attempts and the budgets alone."""
    scene = Scene(plan("a", "b"), limits=Limits(max_attempts=1), budget=RetryBudget(per_second=0, ratio=1.0))
    scene.step()
    scene.machine.refused(UNPAID)
    step = scene.tried()
    assert (step.candidate, step.n) == (candidate("b"), 2)
    scene.machine.succeeded()
    assert (scene.budget.balance("a", scene.now), scene.budget.balance("b", scene.now)) == (0, 1)


def test_when_everything_was_refused_the_caller_learns_why() -> None:
    """A used-up budget is a 402, not a failure of providers."""
    scene = Scene(plan("a"))
    scene.step()
    scene.machine.refused(UNPAID)
    assert scene.step() == GiveUp(UNPAID)


def test_a_plan_without_candidates_is_given_up() -> None:
    """There is nothing to try."""
    fault = Scene(plan()).over()
    assert fault.kind is Kind.NO_CANDIDATE


# --- what the caller is told -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status"), [(DOWN, 502), (BUSY, 503), (SLOW, 504), (LOCKED, 502), (LIMITED, 503)]
)
def test_when_all_failed_the_last_fault_is_named(fault: Fault, status: int) -> None:
    """The status says what kind of failure it was, and the provider's own words are kept."""
    scene = Scene(plan("a", "b"), limits=Limits(max_attempts=2))
    told = scene.meets(DOWN, fault)
    assert (told.http_status, told.cause) == (status, "all_failed")
    assert told.message == f"all 2 providers failed; last: {fault.message}"
    assert told.upstream_status == fault.upstream_status


def test_several_rate_limits_are_one() -> None:
    """429, with the moment at which the first of them ends."""
    scene = Scene(plan("a", "b", "c"))
    told = scene.meets(
        replace(LIMITED, retry_after=60.0),
        replace(LIMITED, retry_after=20.0),
        replace(LIMITED, retry_after=40.0),
    )
    assert (told.http_status, told.retry_after) == (429, 20.0)


def test_models_of_one_provider_are_not_called_providers() -> None:
    """The message counts what was tried."""
    told = Scene(plan("a.1", "a.2")).meets(UNKNOWN)
    assert told.message == "all 2 models of one provider failed; last: no such model"


@pytest.mark.parametrize("fault", [LOCKED, FORBIDDEN])
def test_our_credentials_failure_is_not_the_callers(fault: Fault) -> None:
    """401 and 403 would make the caller look for a mistake in its own key."""
    told = Scene(plan("a")).meets(fault)
    assert (told.http_status, told.message) == (502, fault.message)


@pytest.mark.parametrize("fault", [LOCKED, FORBIDDEN, POOR, replace(BUSY, upstream_status=529)])
def test_the_origins_status_stands(fault: Fault) -> None:
    """The caller's own credential met its own provider: it hears what it would have heard without us."""
    scene = Scene(plan(candidate("a", kind=ProviderType.ORIGIN)), limits=Limits(retries_per_candidate=0))
    assert scene.meets(fault).http_status == fault.upstream_status


def test_a_try_whose_outcome_was_never_told_counts_as_failed() -> None:
    """The machine goes on rather than stall, and never tries that candidate again."""
    scene = Scene(plan("a"))
    scene.step()
    fault = scene.over()
    assert fault.cause == "no_outcome"


def test_a_late_report_is_ignored() -> None:
    """Only the try that is open can fail, and only once."""
    scene = Scene(plan("a", "b"))
    scene.fail_first()
    scene.machine.failed(WRONG, scene.now)
    scene.machine.refused(UNPAID)
    assert isinstance(scene.step(), Try)


def test_a_cancelled_call_is_over_whoever_cancelled_it() -> None:
    """Nobody waits for an answer any more."""
    ours = Fault(Kind.CANCELLED, Blame.US, "shutting down")
    scene = Scene(plan("a", "b"))
    assert scene.meets(ours) is ours
    assert scene.names == ["a"]
