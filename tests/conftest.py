"""What every test runs under: generated inputs are the same in each run, and nothing is held to a time."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Without changes a run has the result of the one before; `scripts/test search` looks for examples that no run has
# had. How long an example takes is the machine's affair.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "search", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")
