"""A site's own machine scores, out of its archive, in place of a scenario's assumption.

How often the machine flags a clean picture is counted over the archive's pictures. How often it flags contraband can be
counted only where people looked whatever the machine said: at passages drawn at random. Finds among flagged pictures
would say that the machine finds nearly all, for the others were never looked at. So with fewer than LEAST_FINDS finds
among random ones the scenario's measured point is kept, moved along its curve to the site's own share of flags.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from scipy.stats import norm

from scanner_io.errors import ConfigError
from triage.analysis.shares import share
from triage.service.risk_archive import passages
from triage.service.selecting import drawn_at_random
from triage.service.store import Place

from .scenario import Scenario
from .traffic import detector_distance

LEAST_PICTURES, LEAST_FINDS = 100, 20


class SiteScores(NamedTuple):
    """What an archive says of the machine.

    flagged : share of pictures of passages that are no hits, with interval
    finds : normal scores, among clean ones, of hits that were drawn at random
    """

    pictures: int
    simulated: int
    flagged: dict[str, Any]
    finds: tuple[float, ...]
    finds_flagged: int


def site_scores(place: Place) -> SiteScores:
    """Count an archive's pictures. Raises ConfigError for fewer than LEAST_PICTURES."""
    at_random = drawn_at_random(place)
    clean: list[float] = []
    finds: list[tuple[float, bool]] = []
    pictures = simulated = flagged = others = 0
    for passage in passages(place, history=False):
        kinds = passage.facts()["image.findings"]
        if kinds is None:
            continue
        pictures += 1
        simulated += passage.simulated
        p = passage.result.standing.p_value if passage.result.standing is not None else None
        if passage.hit:
            if passage.scan_id in at_random and p is not None:
                finds.append((p, bool(kinds)))
            continue
        others += 1
        flagged += bool(kinds)
        if p is not None:
            clean.append(p)
    if pictures < LEAST_PICTURES:
        raise ConfigError([f"{place}: {pictures} pictures in it; a share of flags needs {LEAST_PICTURES} at least"])
    scores = tuple(
        float(norm.isf((sum(c <= p for c in clean) + 1) / (len(clean) + 2))) for p, _ in finds
    )  # fmt: skip
    return SiteScores(pictures, simulated, share(flagged, others), scores, sum(f for _, f in finds))


def with_scores(scenario: Scenario, seen: SiteScores, where: str) -> tuple[Scenario, dict[str, Any]]:
    """Return the scenario with the site's own machine, and in words and figures what was taken from the archive."""
    replace = msgspec.structs.replace
    # a share of 0 or 1 is no point of a curve: half a picture is added, as for any count that came out empty
    count = seen.flagged["of"]
    rate = (seen.flagged["hits"] + 0.5) / (count + 1)
    enough = len(seen.finds) >= LEAST_FINDS
    if enough:
        threshold = norm.isf(rate)
        found = sum(s > threshold for s in seen.finds) / len(seen.finds)
        how = f"{len(seen.finds)} finds among passages drawn at random in {where}"
    else:
        found = float(norm.sf(norm.isf(rate) - detector_distance(scenario)))
        how = (
            f"the scenario's curve ({scenario.sources['detector.found_at_that']}), at the share of flags in {where}; "
            f"{len(seen.finds)} finds among passages drawn at random, {LEAST_FINDS} are needed to count"
        )
    source = f"{seen.pictures} pictures in {where}"
    changed = replace(
        scenario, detector=replace(scenario.detector, false_alarm_share=rate, found_at_that=found),
        find_scores=seen.finds if enough else (),
        sources={**scenario.sources, "detector.false_alarm_share": source, "detector.found_at_that": how},
    )  # fmt: skip
    told = {
        "archive": where, "pictures": seen.pictures, "simulated": seen.simulated, "flagged": seen.flagged,
        "finds_at_random": len(seen.finds), "finds_flagged": share(seen.finds_flagged, len(seen.finds)),
        "own_finds_used": enough, "found_at_that": round(found, 4), "found_at_that_source": how,
    }  # fmt: skip
    return changed, told
