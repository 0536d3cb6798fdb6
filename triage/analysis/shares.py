"""Shares with exact intervals."""

from __future__ import annotations

from typing import Any

from scipy.special import betaincinv


def share(hits: int, of: int) -> dict[str, Any]:
    """Return a share with its exact 95 % interval; value is None of nothing.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404.
    """
    low = float(betaincinv(hits, of - hits + 1, 0.025)) if hits else 0.0
    high = float(betaincinv(hits + 1, of - hits, 0.975)) if hits < of else 1.0
    return {
        "hits": hits, "of": of, "value": round(hits / of, 5) if of else None, "low": round(low, 5),
        "high": round(high, 5),
    }  # fmt: skip


def words(one: dict[str, Any]) -> str:
    """Say a share with its interval."""
    if not one["of"]:
        return "none"
    return f"{one['hits']}/{one['of']} = {one['value']:.1%} ({one['low']:.1%} to {one['high']:.1%})"
