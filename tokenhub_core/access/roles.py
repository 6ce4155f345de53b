"""What each role may do at the admin API: one table. Pure.

A viewer reads everything that holds no secret. An operator also acts on what is registered. An admin decides what is
registered, who may do what, and what happens to secrets. A route that is not in the table is an admin's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What someone may do; each role may also do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def reaches(self, least: Role) -> bool:
        """Tell whether this role may do what `least` may."""
        return _ORDER.index(self) >= _ORDER.index(least)


_ORDER: Final = tuple(Role)
_BASE: Final = "/admin/v1"

_TABLE: Final[Mapping[Role, Mapping[str, str]]] = {
    Role.VIEWER: {
        "/info": "GET",
        "/session": "GET POST DELETE",
        "/sessions": "GET",
        "/sessions/{id}": "DELETE",  # their own; an admin ends anybody's
        "/login-links": "POST",  # for whoever asks, with the same role
        "/users": "GET",
        "/users/{id}": "GET",
        "/users/{id}/password": "POST",  # their own; an admin sets anybody's
        "/tokens": "GET",
        "/tokens/{id}": "GET",
        "/apikeys": "GET",
        "/apikeys/{id}": "GET",
        "/budgets": "GET",
        "/budgets/{id}": "GET",
        "/providers": "GET",
        "/providers/{id}/credentials": "GET",
        "/providers/{id}/parkings": "GET",
        "/models": "GET",
        "/aliases": "GET",
        "/aliases/{name}": "GET",
        "/aliases/{name}/report": "GET",
        "/modes": "GET",
        "/shadow/report": "GET",
        "/routing-config": "GET",
        "/routing/simulate": "POST",  # a question; nothing is sent and nothing changed
        "/decisions/{id}": "GET",
        "/webhooks": "GET",
        "/webhooks/{id}/deliveries": "GET",
        "/config": "GET",
        "/config/plan": "POST",  # a question, too
        "/health": "GET",
        "/health/history": "GET",
        "/settings": "GET",  # without the secrets among them
        "/posteriors": "GET",
        "/underway": "GET",
        "/logs": "GET",
        "/logs/export": "GET",  # what its pages show; audited, because it leaves
        "/logs/{id}": "GET",
        "/events": "GET",
        "/stats": "GET",
        "/tsdb/flow": "GET",
        "/tsdb/metrics": "GET",
        "/tsdb/query": "GET",
        "/vault": "GET",
        "/workflows": "GET",
        "/workflows/{id}": "GET",
        "/workflows/{id}/history": "GET",
        "/ca": "GET",
        "/audit": "GET",
        "/audit/verify": "GET",
        "/proofs": "GET",
        "/proofs/{id}": "GET",
        "/proofs/verify": "GET",
    },
    Role.OPERATOR: {
        "/providers/{id}/credentials/{name}/unpark": "POST",
        "/models/{id}": "PATCH",
        "/aliases": "POST",
        "/aliases/{name}": "PATCH DELETE",
        "/modes": "PUT DELETE",
        "/routing-config": "PUT",
        "/prices/refresh": "POST",
        "/rehearse": "POST",
        "/tsdb/prune": "POST",  # what is due, and would go by itself
        "/vault/lock": "POST",
        "/webhooks/{id}/test": "POST",
        "/webhooks/{id}/retry": "POST",
        "/proofs/{id}/check": "POST",  # tells whether a guess at what was said is right
        "/workflows/{id}/cancel": "POST",
    },
    Role.ADMIN: {
        "/users": "POST",
        "/users/{id}": "PATCH DELETE",
        "/users/{id}/unlock": "POST",
        "/tokens": "POST",
        "/tokens/{id}": "PATCH DELETE",
        "/apikeys": "POST",
        "/apikeys/{id}": "PATCH DELETE",
        "/apikeys/{id}/rotate": "POST",
        "/budgets": "POST",
        "/budgets/{id}": "PATCH DELETE",
        "/budgets/{id}/paid": "POST",
        "/providers": "POST",
        "/providers/{id}": "PATCH DELETE",
        "/providers/{id}/catalogue": "POST",
        "/providers/{id}/credentials": "POST",
        "/providers/{id}/credentials/{name}": "PATCH DELETE",
        "/models": "POST",
        "/models/{id}": "DELETE",
        "/config/apply": "POST",
        "/reload": "POST",
        "/webhooks": "POST",
        "/webhooks/{id}": "PATCH DELETE",
        "/webhooks/{id}/secret": "POST",
        "/directives/secrets/{key_id}": "GET",  # a secret
        "/logs/{id}/body": "GET",
        "/ca/rotate": "POST",
        "/ca/hosts": "POST",
        "/ca/hosts/{host}": "DELETE",
        "/vault/init": "POST",
        "/vault/unlock": "POST",
        "/vault/password": "POST",
        "/vault/rotate": "POST",
        "/vault/secrets": "GET",
        "/vault/secrets/{name}": "GET PUT DELETE",
        "/audit/export": "GET",
    },
}

ROUTES: Final[Mapping[tuple[str, str], Role]] = {
    (method, _BASE + path): role
    for role, paths in _TABLE.items()
    for path, methods in paths.items()
    for method in methods.split()
}
"""(method, route) → the least role that may use it. A route is as it is registered, without its patterns."""

_BESIDE: Final[Mapping[str, Role]] = {"/metrics": Role.VIEWER}
"""What is read beside the admin API, by those who need leave for it."""


def least(method: str, path: str) -> Role:
    """Return the least role for a route; reading only the head is reading."""
    return ROUTES.get(("GET" if method == "HEAD" else method, path)) or _BESIDE.get(path, Role.ADMIN)
