"""Declared against seen: the plainest contradictions between papers and picture."""

from __future__ import annotations

from scanner_io.model import Box, Declaration, Finding, Load


def judge_declaration(declaration: Declaration, load: Load, container: Box | None) -> tuple[Finding, ...]:
    """Return what the declaration and the radiograph's load contradict each other in."""
    says_empty = declaration.declared_empty
    if says_empty is None and declaration.hs_codes:
        says_empty = False
    if says_empty is True and load == "loaded":
        return (
            Finding(
                kind="declared_empty_but_loaded", score=1.0, tier="review", where=container,
                reason="declared empty, but the radiograph shows a load",
            ),
        )  # fmt: skip
    if says_empty is False and load == "empty":
        goods = declaration.goods or f"HS {', '.join(declaration.hs_codes)}" if declaration.hs_codes else "goods"
        return (
            Finding(
                kind="declared_loaded_but_empty", score=1.0, tier="review", where=container,
                reason=f"declared loaded ({goods}), but the container looks empty",
            ),
        )  # fmt: skip
    return ()
