"""Names that stand for models: experiments, and pools to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tokenhub_core.types.policy import Form


class Strategy(StrEnum):
    """How an alias comes to a model."""

    WEIGHTED = "weighted"
    """Each target serves its share of whatever the alias is sticky by."""
    ROUND_ROBIN = "round_robin"
    """The targets take turns, by their weights."""
    POOL = "pool"
    """The targets are patterns (`claude-*`); among the models they match the router chooses."""


class Sticky(StrEnum):
    """What keeps its target."""

    REQUEST = "request"
    """Nothing beyond one call."""
    KEY = "key"
    """All calls of one caller: the proxy user, else the address."""
    CONVERSATION = "conversation"
    """All calls that begin with the same words of the user."""


@dataclass(frozen=True, slots=True)
class Target:
    """One model of an alias, as a caller would name it, or a pool's pattern. A weight of 0 takes it out."""

    model: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Alias:
    """A name and what it stands for. The alias `*` holds for calls that leave the choice to the router."""

    name: str
    targets: tuple[Target, ...]
    strategy: Strategy = Strategy.WEIGHTED
    sticky: Sticky = Sticky.REQUEST
    """Of no meaning but for `Strategy.WEIGHTED`."""
    enabled: bool = True
    output_format: Form | None = None
    """The form of its answers' text where the call asks for none."""
    strip_think: bool = False
    """Whether thoughts between tags are taken out of it."""
