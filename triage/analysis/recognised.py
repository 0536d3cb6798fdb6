"""Whether a scan that another administration made need not be made again here, and why.

It is recognised only if everything speaks for it; what is not known does not. A reason to look again is a risk of one's
own, an answer there that was no clearance, or a sign of tampering on the way: another container number, another seal,
another image.

Source: mutual recognition of controls, WCO SAFE Framework of Standards, standard 7 of pillar 1 (targeting and
communication); ISO 17712 (seals) for the seal as the sign of an unopened box.
"""

from __future__ import annotations

import msgspec

from scanner_io.formats.iso6346 import tidy
from scanner_io.model import TriageResult

from .same_image import Compared

CHANGED_KIND = "changed_since_previous"


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a scan from elsewhere, out of a package that was verified.

    verdict : of the person there, "" where none decided
    """

    scan_id: str
    sender: str
    start_utc_ns: int
    outcome: str
    verdict: str
    container_numbers: tuple[str, ...]
    seals: tuple[str, ...]


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the container here.

    seals : as they are read or declared here
    result : of a scan that was made here all the same, perhaps of the portal alone
    image : its image held against the received one, None where none was made
    risk_score : by the profile here, None where none was made
    """

    utc_ns: int
    container_numbers: tuple[str, ...]
    seals: tuple[str, ...]
    result: TriageResult | None = None
    image: Compared | None = None
    risk_score: float | None = None


class Recognition(msgspec.Struct, frozen=True, kw_only=True):
    """The answer.

    against : reasons to image it here again; empty where it is recognised
    image : what came of holding both images against each other
    """

    recognised: bool
    against: tuple[str, ...]
    image: str
    words: str


def recognised(
    received: Received, here: Here, *, most_risk: float, most_days: float, image_needed: bool = False
) -> Recognition:  # fmt: skip
    """Return whether a received scan stands for one of our own.

    most_risk : score here from which on we look ourselves; most_days : age from which on a scan is old
    image_needed : only where an image was taken here and held against the received one

    An image that was taken here must show what the received one shows, whether it is needed or not.
    """
    against = [*_there(received, here, most_days), *_same_box(received, here)]
    if here.risk_score is None:
        against.append("its risk was not scored here")
    elif here.risk_score >= most_risk:
        against.append(f"its risk here is {here.risk_score:g}, from {most_risk:g} on we look ourselves")
    result = here.result
    if result is not None:
        changed = [f.reason for f in result.findings if f.kind == CHANGED_KIND]
        against += [f"the image has changed: {reason}" for reason in changed]
        if result.gamma_alarm or result.neutron_alarm:
            against.append("the portal alarmed here")
    if here.image is not None and here.image.same is not True:
        word = "cannot be compared" if here.image.same is None else "has changed"
        against.append(f"the image {word}: {here.image.words}")
    elif here.image is None and image_needed:
        against.append("no image here was held against the received one")
    who = f"scan {received.scan_id} of {received.sender}"
    seen = "no image was made here to compare" if here.image is None else here.image.words
    words = f"{who} is recognised: same container, same seals, cleared there, nothing against it here; {seen}"
    if against:
        words = f"{who} is not recognised: {'; '.join(against)}"
    return Recognition(recognised=not against, against=tuple(against), image=seen, words=words)


def _there(received: Received, here: Here, most_days: float) -> list[str]:
    found = []
    if received.verdict and received.verdict != "clear":
        found.append(f"the answer there was {received.verdict!r}")
    elif not received.verdict and received.outcome != "CLEAR":
        found.append(f"the machine there said {received.outcome}, and no person decided")
    if received.outcome == "UNUSABLE":
        found.append("the scan there could not be used")
    days = (here.utc_ns - received.start_utc_ns) / 86_400e9
    if days < 0:
        found.append(f"it was made {-days:.1f} days in the future: look at the clocks")
    elif days > most_days:
        found.append(f"it is {days:.1f} days old, {most_days:g} are allowed")
    return found


def _same_box(received: Received, here: Here) -> list[str]:
    found = []
    for what, there, now in (
        ("container number", received.container_numbers, here.container_numbers),
        ("seal", received.seals, here.seals),
    ):
        old, new = {tidy(t) for t in there}, {tidy(t) for t in now}
        if not old or not new:
            found.append(f"no {what} is known {'there' if not old else 'here'}, so that it cannot be compared")
        elif old != new:
            found.append(f"{what} differs: {', '.join(sorted(old))} there, {', '.join(sorted(new))} here")
    return found
