"""Judgement of one occupancy of a radiation portal monitor.

In this order: the vendor's own alarm flags, which nothing here mutes or lowers; the vendor's alarm rule replayed beside
them (`portal_vendor`); tests of our own that only add findings and keep one false alarm rate together
(`portal_tests`, `portal_baseline`); the shape of an excess and its place on the vehicle (`portal_shape`); and what the
declared goods explain of it (`portal_goods`), which lowers our own findings and never an alarm, neutrons, a point, or
what is left beside an even load (`portal_residual`).

Pure functions of a record, its scan's papers and picture, and a profile.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from scipy.special import pdtr

from scanner_io.errors import DataError
from scanner_io.model import (
    Box,
    Declaration,
    Finding,
    Intervals,
    PortalRecord,
    PortalSettings,
    Quality,
    Radiograph,
    Tier,
)

from .portal_goods import Explanation, explain
from .portal_residual import residual_of
from .portal_shape import Form, columns_of, form_of, place_words, unsteady
from .portal_tests import Assessment, Evidence, assess
from .portal_vendor import (
    buffered,
    gamma_alarm_findings,
    gamma_background,
    neutron_alarm_findings,
    replay_rule,
    rule_findings,
    window_alarm_findings,
)

KINDS = {
    "shaped": "gamma_excess",
    "level": "gamma_level",
    "one_sided": "gamma_one_sided",
    "energy": "gamma_energy",
    "neutron": "neutron_excess",
}
"""Finding of each test."""

FAULT_WORDS = {
    "GH": ("portal_fault", "gamma background high (GH)"),
    "GL": ("portal_fault", "gamma background low (GL)"),
    "NH": ("portal_fault", "neutron background high (NH)"),
    "TT": ("portal_tamper", "tamper contact open (TT)"),
    "start_not_seen": ("portal_start_not_seen", "the start of the passage was not seen; counts may be missing"),
    "damaged_line": ("portal_damaged_line", "a line of the passage could not be read; counts may be missing"),
    "unknown_line": (
        "portal_unknown_line",
        "a line of the passage has an unknown code: it may be a damaged count or alarm",
    ),
    "lines_lost": ("portal_lines_lost", "fewer gamma lines came than the passage took time for"),
    "line_repeated": (
        "portal_line_repeated",
        "lines of the passage came more than once: counts and their times are not sure",
    ),
    "clock_stepped": ("portal_clock_stepped", "the clock was set back during the passage; its times are not sure"),
    **{
        f"{channel}_{code}": ("portal_fault", f"{channel} {words}")
        for channel in ("gamma", "neutron")
        for code, words in (
            ("low", "counts low"),
            ("high", "counts high"),
            ("overload", "channel overloaded"),
            ("not_ready", "channel not ready"),
        )
    },
    "background_unusable": ("portal_fault", "the portal's background is no number of counts"),
    "power_fail": ("portal_fault", "mains power has failed"),
    "low_battery": ("portal_fault", "battery low"),
    "open": ("portal_tamper", "cabinet open"),
    "device_error": ("portal_fault", "the portal reports an error"),
    "device_reset": ("portal_fault", "the portal reports a reset"),
    "frozen": ("portal_frozen", "the portal's own time stands still: its readings are old"),
    "readings_lost": ("portal_lines_lost", "readings of the portal are missing within the passage"),
    "background_jumped": (
        "portal_background_jumped",
        "the last gamma background before entry differs from the one before it: a damaged line, or a source nearby",
    ),
    "background_old": (
        "portal_background_old",
        "the last gamma background is more than 15 minutes older than the passage: none has come since",
    ),
    "passages_missed": (
        "portal_passages_missed",
        "the portal counted more objects than were seen: a passage before this one has no record",
    ),
    "no_occupancy_signal": ("portal_no_occupancy_signal", "no occupancy sensor saw the passage"),
    "alarm_output": ("portal_alarm_output", "the portal's alarm output was on though no channel was read in alarm"),
    "alarm_without_counts": ("portal_alarm_without_counts", "a channel was in alarm at a reading without counts"),
    "count_stepped": ("portal_count_stepped", "the portal's running count fell; counts may be missing"),
    "spectroscopic": (
        "portal_spectroscopic",
        "lines of a spectroscopic portal came: its counts mean something else than is read here",
    ),
    "window_alarm": ("portal_window_alarm", "an energy-window alarm (AA) came in a passage without gamma counts"),
    "too_long": ("portal_too_long", "the portal stayed occupied for so long that the record was cut"),
}
"""Fault of a record: quality code and words."""


DROPPED_LEFT = (0.4, 0.25)
"""The least share of their background that all detectors together, and one of them, see behind the strongest shielding
known (0.42 together over 700 vehicles; that of one is not recorded)."""
DROPPED_CHANCE = 1e-7
"""Chance of so low a count behind that shielding below which an interval was not counted; 3e-5 for a passage."""
DEAD_NEUTRON_CHANCE = 1e-4
"""Chance of no neutron at half the background's rate below which the detectors are held for dead."""
NEUTRON_SILENT_S = 8.0
"""A portal's own background is above 1 count/s (2.6 and 6.4 recorded): none in so long is not by chance."""


class PortalProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds of the portal's judgement.

    assumed_nsigma : vendor threshold taken where the portal never told its settings, standard deviations of the
        background; 7.0 is the vendor's default (real portals stand at 4 to 5)
    far_per_occupancy : promised rate of findings on passages without a source, all tests of a passage together; the
        vendor's own alarms are not counted, nor what really radiates (patients, loads)
    neutron_background_s : seconds over which the portal averages its neutron background
    neutron_showers : variance of the neutron background over its mean, less one, that is put down to cosmic-ray
        showers in steel; recorded portals have 0 within 10 %
    expect_neutron : the portal has neutron detectors, so a passage without neutron lines is a fault
    dead_fraction : a detector below this share of its background for the whole passage is dead or cut off; the
        strongest shielding known leaves 0.42
    dead_min_counts : counts expected in the passage below which nothing is said of a detector
    """

    assumed_nsigma: float = 7.0
    far_per_occupancy: float = 1e-3
    neutron_background_s: float = 120.0
    neutron_showers: float = 0.2
    expect_neutron: bool = True
    dead_fraction: float = 0.1
    dead_min_counts: float = 50.0

    def __post_init__(self) -> None:
        """Check. Raises DataError."""
        for name in ("assumed_nsigma", "neutron_background_s", "dead_min_counts"):
            if not 0 < getattr(self, name) < math.inf:
                raise DataError(f"PortalProfile.{name}: {getattr(self, name)}, expected above 0")
        if not 1e-4 <= self.far_per_occupancy <= 0.1:
            raise DataError(
                f"PortalProfile.far_per_occupancy: {self.far_per_occupancy}, expected 1e-4 to 0.1, the rates that the "
                "tests' scores were simulated for"
            )
        if not 0 <= self.neutron_showers < 10:
            raise DataError(f"PortalProfile.neutron_showers: {self.neutron_showers}, expected 0 to below 10")
        if not 0 <= self.dead_fraction < 1:
            raise DataError(f"PortalProfile.dead_fraction: {self.dead_fraction}, expected 0 to below 1")


class PortalJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """What judgement says of one occupancy.

    gamma_alarm, neutron_alarm : the vendor's flag in any interval
    gamma_intervals, alarm_intervals : gamma intervals of the record, and those of them in vendor alarm
    """

    findings: tuple[Finding, ...]
    quality: tuple[Quality, ...]
    gamma_alarm: bool
    neutron_alarm: bool
    gamma_intervals: int
    alarm_intervals: int


def judge_portal(
    record: PortalRecord,
    profile: PortalProfile,
    *,
    declaration: Declaration | None = None,
    radiograph: Radiograph | None = None,
) -> PortalJudgement:
    """Return what is to be said of one occupancy; papers and picture are those of the same passage."""
    settings = record.settings or PortalSettings(nsigma=profile.assumed_nsigma)
    replay = replay_rule(record, settings.nsigma, settings.gamma_intervals)
    assessed = assess(
        record, neutron_background_s=profile.neutron_background_s, neutron_showers=profile.neutron_showers
    )
    raised = [e for e in assessed.evidence if assessed.family_of(e) <= profile.far_per_occupancy]
    vendor_neutrons = neutron_alarm_findings(record)
    alarms = gamma_alarm_findings(record, replay, settings)
    form: Form | None = None
    explanation: Explanation | None = None
    if alarms or any(e.test in ("shaped", "level") for e in raised):
        form = form_of(record)
        explanation = _doubted(record, explain(form, declaration))
    neutrons = bool(vendor_neutrons) or any(e.test == "neutron" for e in raised)
    findings = [
        *alarms,
        *vendor_neutrons,
        *window_alarm_findings(record),
        *rule_findings(record, replay, settings),
        *_untested(record),
        *(_finding(record, e, assessed, profile, explanation, neutrons) for e in raised),
        *_form(alarms, form, explanation, neutrons),
        *_column_note(record, radiograph, alarms, raised),
    ]
    return PortalJudgement(
        findings=tuple(findings),
        quality=tuple(_quality(record, profile, settings)),
        gamma_alarm=bool(record.gamma_alarm.any()),
        neutron_alarm=bool(record.neutron_alarm.any()),
        gamma_intervals=int(record.gamma.shape[0]),
        alarm_intervals=int(record.gamma_alarm.sum()),
    )


def _doubted(record: PortalRecord, explanation: Explanation | None) -> Explanation | None:
    """Return the explanation, taken back where the speed is not sure or a load does not account for all of it."""
    if explanation is None or not explanation.explains:
        return explanation
    if why := unsteady(record):
        return Explanation(False, f"{explanation.words}, if it moved evenly, which is not known: {why}")
    residual = residual_of(record)
    why = "no background to fit a load with" if residual is None else residual.words()
    if residual is None or why:
        return Explanation(False, f"{explanation.words}, but not all that was seen: {why}")
    hidden = (
        f"a point source below about {residual.hidden_counts_per_s:.0f} counts/s inside it could not be told from it"
    )
    return Explanation(True, f"{explanation.words}; {hidden}")


# --------------------------------------------------------------------------------------------------------------
# Findings of the tests


def _finding(
    record: PortalRecord, e: Evidence, assessed: Assessment, profile: PortalProfile, explanation: Explanation | None,
    neutrons: bool,
) -> Finding:  # fmt: skip
    """Return a test's finding; a distributed gamma excess that the goods explain is a note."""
    gamma = e.test in ("shaped", "level")
    tier: Tier = "note" if gamma and explanation is not None and explanation.explains and not neutrons else "review"
    family, asked = assessed.family_of(e), profile.far_per_occupancy
    place = place_words(record, e.first, e.end) if e.test != "neutron" else ""
    reason = (
        f"{e.words}{place}; p = {e.p_value:.1e}, and {family:.1e} for any test of the passage to be as sure without a "
        f"source (asked for: {asked:.0e})"
    )
    if tier == "note" and explanation is not None:
        reason = f"{reason}; {explanation.words}"
    return Finding(
        kind=KINDS[e.test], score=e.score, reason=reason, tier=tier, p_value=e.p_value,
        where=Intervals(first=e.first, end=e.end),
    )  # fmt: skip


def _form(alarms: list[Finding], form: Form | None, explanation: Explanation | None, neutrons: bool) -> list[Finding]:
    """Notes: whether the excess is a point or a load, and what the declared goods say to it."""
    if form is None:
        return []
    words = {
        "point": f"the gamma excess is a point ({form.words})",
        "distributed": f"the gamma excess is distributed along the vehicle ({form.words})",
        "unclear": f"whether the gamma excess is a point or a load is not clear: {form.words}",
    }[form.shape]
    found = [Finding(kind=f"gamma_{form.shape}", score=form.gain, reason=words, tier="note")]
    if explanation is None:
        return found
    told = explanation.words
    if explanation.explains and alarms:
        told = f"{told}; the vendor's alarm stays an alarm"
    if explanation.explains and neutrons:
        told = f"{told}; neutrons are never explained by goods"
    kind = "goods_explain" if explanation.explains else "goods_do_not_explain"
    return [*found, Finding(kind=kind, score=0.0, reason=told, tier="note")]


def _untested(record: PortalRecord) -> list[Finding]:
    """A note where the tests for the shape of a source were not made, so that nobody relies on them."""
    if buffered(record) or gamma_background(record) is None or record.gamma.shape[0] < 2:
        return []
    reason = (
        "no test for the shape of a source: it is made for records that begin with intervals from before entry "
        "(Rapiscan); beside the vendor's alarm, levels, energies and neutrons were tested"
    )
    return [Finding(kind="gamma_shape_untested", score=0.0, reason=reason, tier="note")]


def _column_note(
    record: PortalRecord, radiograph: Radiograph | None, alarms: list[Finding], raised: list[Evidence]
) -> list[Finding]:
    """A box in the radiograph where the gamma excess is, by the clock of both."""
    place = next(((e.first, e.end) for e in raised if e.test == "shaped"), None)
    if place is None and alarms and isinstance(alarms[0].where, Intervals):
        place = (alarms[0].where.first, alarms[0].where.end)
    columns = columns_of(record, radiograph, *place) if place is not None and radiograph is not None else None
    if columns is None or radiograph is None:
        return []
    first, end = columns
    reason = (
        f"columns {first} to {end - 1} were in the beam while the gamma counts were high; where beam and portal do not "
        "stand together, the way between them is to be added"
    )
    box = Box(first_column=first, end_column=end, first_channel=0, end_channel=radiograph.detector.channels)
    return [Finding(kind="gamma_place", score=0.0, reason=reason, tier="note", where=box)]


# --------------------------------------------------------------------------------------------------------------
# Quality


def _quality(record: PortalRecord, profile: PortalProfile, settings: PortalSettings) -> list[Quality]:
    """What limits the record: none of it ever reads as clear."""
    found: list[Quality] = []
    n = record.gamma.shape[0]
    if record.gamma.size == 0:
        found.append(Quality(code="portal_no_gamma", reason="the passage has no gamma counts at all", fatal=True))
    elif n < settings.gamma_intervals:
        reason = f"{n} gamma intervals, fewer than the {settings.gamma_intervals} of the portal's own alarm sum"
        found.append(Quality(code="portal_short", reason=reason))
    if record.truncated:
        words = {"timed_out": "lines stopped", "link_lost": "the link was lost", "aborted": "no end line (GX) came"}
        reason = f"the passage did not end as a portal ends one: {words.get(record.end_reason, record.end_reason)}"
        found.append(Quality(code="portal_truncated", reason=reason))
    if record.gamma.size and gamma_background(record) is None:
        seen = record.gamma_background
        reason = "no gamma background before entry" if seen is None else f"gamma background {seen} cannot be used"
        found.append(Quality(code="portal_no_background", reason=reason))
    if profile.expect_neutron and record.neutron.shape[0] == 0:
        found.append(Quality(code="portal_no_neutron", reason="the passage has no neutron counts"))
    elif profile.expect_neutron and record.neutron_background is None:
        found.append(Quality(code="portal_no_neutron_background", reason="no neutron background known"))
    for fault in record.faults:
        code, words_of_fault = FAULT_WORDS.get(fault, ("portal_fault", f"fault {fault[:40]}"))
        found.append(Quality(code=code, reason=words_of_fault))
    return found + (_dead_detectors(record, profile) or _dropped(record))  # one that is dead holds less throughout


def _dead_detectors(record: PortalRecord, profile: PortalProfile) -> list[Quality]:
    """A detector that counts in the background and (almost) not while a vehicle stands there."""
    background = gamma_background(record)
    if background is None:
        return []
    seen = record.gamma.sum(axis=0)
    expected = background * (record.gamma.shape[0] * record.gamma_interval_s)
    dead = np.flatnonzero((expected >= profile.dead_min_counts) & (seen < profile.dead_fraction * expected))
    return [
        Quality(
            code="portal_dead_detector",
            reason=f"gamma detector {d + 1}: {seen[d]} counts, {expected[d]:.0f} expected from background",
        )
        for d in dead
    ] + _dead_neutrons(record, profile)


def _dropped(record: PortalRecord) -> list[Quality]:
    """Intervals that hold less than any load leaves: a counter that has wrapped, or did not count for a moment."""
    background = gamma_background(record)
    if background is None:
        return []
    together, one = (share * record.gamma_interval_s * background for share in DROPPED_LEFT)
    totals = record.gamma.sum(axis=1)
    if (totals >= together.sum()).all() and (record.gamma >= one).all():
        return []  # as nearly always: what is not below the mean is not unlikely
    low = pdtr(totals, together.sum()) < DROPPED_CHANCE
    low |= (pdtr(record.gamma, one) < DROPPED_CHANCE).any(axis=1)
    if not low.any():
        return []
    at = int(np.flatnonzero(low)[0])
    reason = (
        f"{int(low.sum())} of {low.size} gamma intervals hold less than the densest load leaves, first interval {at}: "
        f"{record.gamma[at].tolist()} against {background * record.gamma_interval_s} of background; a counter has "
        "wrapped or stood still"
    )
    return [Quality(code="portal_dropout", reason=reason)]


def _dead_neutrons(record: PortalRecord, profile: PortalProfile) -> list[Quality]:
    """Neutron detectors that count nothing: a vehicle shades some neutrons, never all of them."""
    seconds = record.neutron.shape[0] * record.neutron_interval_s
    background = record.neutron_background
    if not profile.expect_neutron or background is None or record.neutron.any():
        return []
    expected = float(background.sum()) * seconds
    if math.exp(-expected / 2) < DEAD_NEUTRON_CHANCE:
        reason = f"no neutron was counted in {seconds:g} s, {expected:.0f} expected from background"
        return [Quality(code="portal_dead_neutron", reason=reason)]
    if expected == 0 and seconds >= NEUTRON_SILENT_S:
        reason = f"no neutron was counted in {seconds:g} s, and none before entry: the neutron detectors may be dead"
        return [Quality(code="portal_dead_neutron", reason=reason)]
    return []
