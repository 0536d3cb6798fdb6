"""What the console's page is told of decision codes, and what it may have written down."""

from __future__ import annotations

from typing import Any

from scanner_io.decision_codes import BY_VERDICT, GROUPS

PAGE_EVENTS = frozenset(
    {"enhancement", "first_paint", "tile_refused", "tile_error", "renderer", "measure", "overlay", "sound", "shelved"}
)
"""What the page may have written down."""


def told() -> dict[str, Any]:
    """Return the codes as the page uses them."""
    return {
        "groups": {k: list(v) for k, v in GROUPS.items()},
        "by_verdict": {k: list(v) for k, v in BY_VERDICT.items()},
    }
