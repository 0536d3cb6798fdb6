"""Declared against seen: the plainest contradictions between papers and picture."""

from __future__ import annotations

from scanner_io.model import Box, Declaration, Finding, Load

from .material import Mass


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


#: Largest empty weight of a freight container (45 feet, with cooling): a declared gross weight may hold it or not.
MAX_TARE_KG = 4_900.0


def judge_mass(declaration: Declaration, mass: Mass, container: Box | None) -> tuple[Finding, ...]:
    """Return what the mass by two energies and the declared gross weight contradict each other in.

    The mass includes the container, the declared weight may or may not, unless the container's own weight is declared
    too: only a weight that fits neither way is one.
    """
    declared = declaration.gross_weight_kg
    if declared is None or mass.low_kg is None:
        return ()
    without = MAX_TARE_KG if declaration.tare_weight_kg is None else 0.0
    least, most = mass.low_kg - without, mass.high_kg
    if declared < least:
        word = "more"
    elif most is not None and declared > most:
        word = "less"
    else:
        return ()
    reason = (
        f"the declared gross weight of {declared / 1000:.1f} t does not fit: the image shows {word}, {mass.words}, "
        "container included"
    )
    score = abs(declared - (least if word == "more" else (most or 0.0))) / 1000
    return (Finding(kind="mass_differs", score=score, reason=reason, tier="review", where=container),)
