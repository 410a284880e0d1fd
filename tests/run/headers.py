"""The header of a sweep's record, where a test does not care what it says."""

from typing import Any


def header(**changes: Any) -> dict[str, Any]:
    """All that a header must have."""
    return {
        "strategy": "random",
        "seed": 0,
        "metric": None,
        "direction": "minimize",
        "fingerprint": {},
        **changes,
    }
