"""What is held to its tests: the modules, by area, and the tests that belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Area:
    """Modules or folders of them, and files or folders of tests; all below the root."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def files(self, root: Path) -> list[str]:
        """Return the files of its modules, those that hold no code left out."""
        found: list[Path] = []
        for name in self.modules:
            place = root / name
            found += sorted(place.rglob("*.py")) if place.is_dir() else [place]
        return [path.relative_to(root).as_posix() for path in found if "\n" in path.read_text().strip()]


AREAS: Final = {
    "identity": Area(
        modules=(
            "tokenhub_core/admission/apikeys.py",
            "tokenhub_core/admission/doorkeeper.py",
            "tokenhub_core/admission/foreign.py",
            "tokenhub_core/admission/identity.py",
            "tokenhub_core/admission/tenures.py",
            "tokenhub_core/apikeys.py",
            "tokenhub_core/lending.py",
        ),
        tests=(
            "tests/admission/test_apikeys.py",
            "tests/admission/test_apikey_bodies.py",
            "tests/admission/test_bringing.py",
            "tests/admission/test_doorkeeper.py",
            "tests/admission/test_foreign.py",
            "tests/admission/test_identity.py",
            "tests/admission/test_tenures.py",
            "tests/apikeys",
            "tests/http/test_apikeys.py",
            "tests/store/test_apikeys.py",
            "tests/test_identity.py",
            "tests/test_lending.py",
            "tests/test_tenures.py",
        ),
    ),
    "admission": Area(
        modules=(
            "tokenhub_core/admission/drawing.py",
            "tokenhub_core/admission/headers.py",
            "tokenhub_core/admission/idempotency.py",
            "tokenhub_core/admission/keyring.py",
            "tokenhub_core/admission/limits.py",
            "tokenhub_core/admission/parking.py",
            "tokenhub_core/admission/pool.py",
            "tokenhub_core/admission/quotas.py",
            "tokenhub_core/admission/throttle.py",
        ),
        tests=(
            "tests/admission/test_headers.py",
            "tests/admission/test_idempotency.py",
            "tests/admission/test_keyring.py",
            "tests/admission/test_limits.py",
            "tests/admission/test_parking.py",
            "tests/admission/test_pool.py",
            "tests/admission/test_quotas.py",
            "tests/admission/test_throttle.py",
            "tests/idempotency",
            "tests/test_drawing.py",
            "tests/test_limits.py",
            "tests/test_throttling.py",
        ),
    ),
    "access": Area(
        modules=("tokenhub_core/access", "tokenhub_core/http/sessions.py"),
        tests=(
            "tests/access",
            "tests/http/test_login.py",
            "tests/http/test_roles.py",
            "tests/http/test_sessions.py",
            "tests/http/test_users.py",
            "tests/store/test_access_rows.py",
            "tests/test_changes.py",
            "tests/test_docs.py",
        ),
    ),
    "budgets": Area(
        modules=(
            "tokenhub_core/admission/budgets.py",
            "tokenhub_core/admission/leases.py",
            "tokenhub_core/admission/ledger.py",
            "tokenhub_core/admission/outlay.py",
            "tokenhub_core/budgets.py",
        ),
        tests=(
            "tests/admission/test_budgets.py",
            "tests/admission/test_leases.py",
            "tests/admission/test_ledger.py",
            "tests/admission/test_outlay.py",
            "tests/http/test_budgets.py",
            "tests/test_budgets.py",
            "tests/test_leases.py",
            "tests/test_overspending.py",
        ),
    ),
    "vault": Area(modules=("tokenhub_core/vault",), tests=("tests/vault",)),
    "directives": Area(
        modules=(
            "tokenhub_core/admission/vetting.py",
            "tokenhub_core/directives.py",
            "tokenhub_core/leave.py",
            "tokenhub_core/signing.py",
        ),
        tests=(
            "tests/test_directives.py",
            "tests/trust/test_directive_corpus.py",
            "tests/trust/test_leave.py",
            "tests/trust/test_signing.py",
            "tests/trust/test_vetting.py",
        ),
    ),
    "addresses": Area(
        modules=(
            "tokenhub_core/addresses.py",
            "tokenhub_core/admission/addresses.py",
            "tokenhub_core/http/resolver.py",
        ),
        tests=(
            "tests/access/test_addresses.py",
            "tests/admission/test_addresses.py",
            "tests/trust/test_address_corpus.py",
            "tests/trust/test_redirects.py",
        ),
    ),
}
