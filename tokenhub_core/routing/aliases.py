"""Names that stand for models: which one it is this time.

A weighted alias spreads what it is sticky by (calls, callers or conversations) over its targets by rendezvous hashing:
each target draws an exponential waiting time of rate `weight` from a hash of alias, target and unit, and the shortest
one wins, so a target's chance is its weight's exact share. A target that goes away gives up its own units and no other
moves; one whose weight grows only gains. Source: Thaler and Ravishankar, "Using name-based mappings to increase hit
rates", IEEE/ACM Transactions on Networking 6(1), 1998; the weights after the exponential race.

The exact id of a model comes before an alias of the same name, and an alias never leads to another one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final

import msgspec
from msgspec import structs

from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.policy import ANY_MODEL
from tokenhub_core.routing.fleet import named
from tokenhub_core.types import Alias, Fleet, Policy, Sticky, Strategy, TextSlot

ANY: Final = "*"
"""The alias of calls that leave the choice to the router."""

MAX_TARGETS: Final = 100
MAX_WEIGHT: Final = 10_000
_PERSON: Final = b"tokenhub alias"
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


class Asking(msgspec.Struct, frozen=True):
    """Who asks, for those aliases that it matters to."""

    seed: str
    """The id of the call."""
    key: str = ""
    conversation: Callable[[], str] = lambda: ""
    """Returns what `conversation_key` does; asked only where an alias is sticky by it."""
    turn: Callable[[str], int] = lambda _: 0
    """Returns how often the alias of this name has had its turn; asked only for a round robin."""


class Applied(msgspec.Struct, frozen=True):
    """The policy with its alias resolved; the other fields are empty where the name is no alias."""

    policy: Policy
    alias: str = ""
    variant: str = ""
    """The target, as the alias names it; empty for a pool."""
    model: str = ""
    """The id of the model that the variant means; `*` for a pool."""
    chances: Mapping[str, float] = {}
    """Each target's probability, where the call's id drew among them; empty where something else decided."""


class Turns:
    """Counts the turns of each round robin. A restart begins anew."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def take(self, name: str) -> int:
        """Return how often `take` was called for `name` before."""
        turn = self._taken.get(name, 0)
        self._taken[name] = turn + 1
        return turn

    def peek(self, name: str) -> int:
        """Return what `take` would, and count nothing."""
        return self._taken.get(name, 0)


def applied(wishes: Policy, view: Fleet, asking: Asking) -> Applied:
    """Replace an alias in the policy by what it comes to this time.

    A pool, and the alias `*`, also bound which models may serve at all: they say what "any model" means. Raises
    `TokenHubError` (`NO_CANDIDATE`) where no target of a weighted alias is left.
    """
    name = wishes.model or ANY
    alias = view.aliases.get(name)
    if alias is None or not alias.enabled or name in view.by_id:
        return Applied(wishes)
    wishes = _shaped(wishes, alias)
    source = f"{wishes.why.get('model', 'default')}, alias {name}"
    if alias.strategy is Strategy.POOL:
        why = {**wishes.why, "model": source, "models": f"alias {name}"}
        pool = structs.replace(wishes, model=None, models=view.pools.get(name, frozenset()), why=why)
        return Applied(pool, name, model=ANY)
    gone = missing(alias, view)
    variant = resolve(
        alias,
        seed=asking.seed,
        key=asking.key,
        conversation=asking.conversation() if alias.sticky is Sticky.CONVERSATION else "",
        turn=asking.turn(name) if alias.strategy is Strategy.ROUND_ROBIN else 0,
        without=gone,
    )
    told = ", ".join(f"{model} {reason}" for model, reason in gone.items())
    if not variant:
        message = f"The alias '{name}' has no target that can serve ({told or 'every weight is 0'})."
        raise TokenHubError(Fault(Kind.NO_CANDIDATE, Blame.US, message, cause="alias_empty", param="model"))
    why = {**wishes.why, "model": f"{source} without {told}" if told else source}
    bound = wishes.models
    if name == ANY:
        bound = frozenset(model.id for target in alias.targets for model in named(view, target.model))
        why["models"] = f"alias {name}"
    policy = structs.replace(wishes, model=variant, models=bound, why=why)
    return Applied(policy, name, variant, named(view, variant)[0].id, chances(alias, gone))


def _shaped(wishes: Policy, alias: Alias) -> Policy:
    """Return the policy with the shape of the alias's answers, where nobody but the operator asked for one."""
    shape = {"output_format": alias.output_format, "strip_think": alias.strip_think}
    meant = {
        name: value for name, value in shape.items() if value and wishes.why.get(name, "default") == "default"
    }
    if not meant:
        return wishes
    why = {**wishes.why, **dict.fromkeys(meant, f"alias {alias.name}")}
    return structs.replace(wishes, **meant, why=why)


def chances(alias: Alias, without: Collection[str] = ()) -> dict[str, float]:
    """Return the share of each target that is left; empty where not the call's own id draws among them."""
    if alias.strategy is not Strategy.WEIGHTED or alias.sticky is not Sticky.REQUEST:
        return {}
    return shares(alias, without)


def shares(alias: Alias, without: Collection[str] = ()) -> dict[str, float]:
    """Return the share of each target of positive weight that is not in `without`, over all that it serves."""
    left = {one.model: one.weight for one in alias.targets if one.weight > 0 and one.model not in without}
    whole = sum(left.values())
    return {model: weight / whole for model, weight in left.items()}


def resolve(
    alias: Alias,
    *,
    seed: str,
    key: str = "",
    conversation: str = "",
    turn: int = 0,
    without: Collection[str] = (),
) -> str:
    """Return the target that serves, empty where none of positive weight is left beside those in `without`.

    An unknown caller or conversation falls back to the call itself. A round robin depends on `turn` alone: in any run
    of as many turns as its weights have parts each target has exactly its share, spread out and not in blocks.
    """
    left = {one.model: one.weight for one in alias.targets if one.weight > 0 and one.model not in without}
    if not left:
        return ""
    if alias.strategy is Strategy.ROUND_ROBIN:
        return _in_turn(left, turn)
    unit = {Sticky.REQUEST: "", Sticky.KEY: key, Sticky.CONVERSATION: conversation}[alias.sticky]
    unit = f"{alias.sticky}\0{unit}" if unit else f"{Sticky.REQUEST}\0{seed}"
    return min(left, key=lambda model: _waiting(f"{alias.name}\0{model}\0{unit}") / left[model])


def meant(found: Applied, view: Fleet) -> frozenset[str]:
    """Return the ids of the models that an applied alias came to, none where the name was no alias."""
    if not found.alias:
        return frozenset()
    if not found.variant:
        return found.policy.models or frozenset()
    return frozenset(model.id for model in named(view, found.variant))


def missing(alias: Alias, view: Fleet) -> dict[str, str]:
    """Return the targets that cannot serve as things stand, each with the reason; those of weight 0 are left out."""
    found: dict[str, str] = {}
    for target in alias.targets:
        if alias.strategy is Strategy.POOL:
            if target.weight and not any(fnmatchcase(id_, target.model) for id_ in view.by_id):
                found[target.model] = "matches no model"
            continue
        models = named(view, target.model) if target.weight else ()
        if target.weight and not models:
            found[target.model] = "is not registered"
        elif target.weight and not any(m.enabled and view.providers[m.provider_id].enabled for m in models):
            found[target.model] = "is disabled"
    return found


def check(alias: Alias, view: Fleet) -> None:
    """Refuse (`INVALID`, naming the field) an alias that would shadow a model, lead on to an alias, or lead nowhere."""
    if alias.name in view.by_id:
        raise client_fault(f"{alias.name!r} is a model's id; its name comes first", param="name")
    if alias.name in ANY_MODEL and alias.name != ANY:
        raise client_fault(f"the alias of calls that name no model is {ANY!r}", param="name")
    names = [target.model for target in alias.targets]
    if not 1 <= len(names) <= MAX_TARGETS or len(set(names)) < len(names):
        raise client_fault(f"give 1 to {MAX_TARGETS} variants, each once", param="variants")
    if not all(0 <= target.weight <= MAX_WEIGHT for target in alias.targets):
        raise client_fault(f"a weight is between 0 and {MAX_WEIGHT}", param="variants")
    if not any(target.weight for target in alias.targets):
        raise client_fault("one variant at least needs a weight above 0", param="variants")
    if alias.sticky is not Sticky.REQUEST and alias.strategy is not Strategy.WEIGHTED:
        raise client_fault(f"a {alias.strategy} alias is sticky by nothing", param="sticky_by")
    pool = alias.strategy is Strategy.POOL
    for name in names:
        if not pool and (name == alias.name or (name in view.aliases and name not in view.by_id)):
            raise client_fault(f"{name!r} is an alias; aliases are not chained", param="variants")
        if pool and not any(fnmatchcase(model, name) for model in view.by_id):
            raise client_fault(f"no model matches {name!r}", param="variants")
        if not pool and not named(view, name):
            raise client_fault(f"there is no model {name!r}", param="variants")


def caller_key(key_id: str, proxy_user: str, peer: str) -> str:
    """Return whose calls an alias keeps together by key: the key's, else the proxy user's, else the address's."""
    if key_id:
        return f"key {key_id}"
    return f"user {proxy_user}" if proxy_user else f"peer {peer}"


def conversation_key(slots: Iterable[TextSlot]) -> str:
    """Return what stays the same over the turns of a conversation: a hash of the user's first message.

    `slots` are a dialect's `text_slots`. Empty where the user wrote nothing.
    """
    first: tuple[str | int, ...] | None = None
    digest = hashlib.blake2b(digest_size=16)
    for slot in slots:
        if first is None and slot.role == "user":
            first = slot.path[:2]
        if first is not None:
            if slot.role != "user" or slot.path[:2] != first:
                break
            text = slot.text.encode("utf-8", "surrogatepass")
            digest.update(len(text).to_bytes(8) + text)
    return digest.hexdigest() if first is not None else ""


def _waiting(unit: str) -> float:
    """Return an exponentially distributed time of rate 1, always the same for one unit."""
    digest = hashlib.blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8, person=_PERSON).digest()
    return -math.log(((int.from_bytes(digest) >> 11) + 0.5) / 2**53)


def _in_turn(weights: dict[str, int], turn: int) -> str:
    """Return whose turn it is: a walk over the parts of the whole by a step that visits each once and lies far off.

    Steps near the golden section of the whole keep neighbours in time far from each other in the order of parts.
    """
    part = math.gcd(*weights.values())
    whole = sum(weights.values()) // part
    step = next(
        step
        for away in range(whole + 1)
        for step in (round(whole * _GOLDEN) + away, round(whole * _GOLDEN) - away)
        if step > 0 and math.gcd(step, whole) == 1
    )
    place = turn * step % whole
    for model, weight in weights.items():
        place -= weight // part
        if place < 0:
            return model
    raise AssertionError("a place is within the whole")
