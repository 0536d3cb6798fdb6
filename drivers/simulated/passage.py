"""One vehicle: what it is, what the lane's devices make of it, and what is true of it.

Every vehicle has random streams of its own, by purpose, so that vehicle k is the same whatever came before it, at any
resolution and with any set of devices.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from functools import lru_cache

import msgspec
import numpy as np

from scanner_io.model import (
    NANOSECONDS,
    Box,
    Declaration,
    DeclarationSeen,
    Event,
    Health,
    LineBlock,
    Load,
    ScanEnd,
    ScanStart,
)

from . import cargo, portal, threats, vehicle
from .config import PASSAGE_S, Config
from .portal import Source, Transit
from .radiograph import Detector, conditions_of
from .scene import SPAN_MM, Scene, Solid, Textures, View

_PLAN, _DRAW, _TEXTURE, _NOISE, _SCAN, _PORTAL, _PAPERS, _FAULTS = range(1, 9)
CAB_MM = 4300.0
"""Length of the cab, which passes the portal but not the beam."""
BEAM_BEHIND_PORTAL_MM = 1500.0
TARE_KG = {20: 2250.0, 40: 3800.0, 45: 4700.0}
MAX_LOAD_KG = {20: 21_700.0, 40: 26_500.0, 45: 27_500.0}
CONTAINER_PREFIX = "SIMU"
"""An owner code for containers that do not exist."""


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """What a vehicle really carries: for tests and evaluation, never part of the event stream.

    threat_box : the smallest rectangle of columns and channels that holds the threat
    gamma_counts_per_s, norm_counts_per_s, neutron_counts_per_s : highest net rate of all detectors, 0 without
    gamma_x_mm : place of the gamma source along the scan
    misdeclared : how the declaration is wrong, "" if it is right
    """

    index: int
    source_ref: str
    cargo: str
    load: Load
    feet: int
    reefer: bool
    cargo_kg: float
    container_number: str
    threat: str = ""
    threat_box: Box | None = None
    gamma_counts_per_s: float = 0.0
    gamma_x_mm: float | None = None
    norm_counts_per_s: float = 0.0
    neutron_counts_per_s: float = 0.0
    misdeclared: str = ""
    faults: tuple[str, ...] = ()


class _Plan(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All decisions about one vehicle, before anything is drawn."""

    truth: Truth
    scene: Scene
    declaration: Declaration
    sources: tuple[Source, ...]
    front_mm: float
    rear_mm: float
    speed_mm_s: float
    enter_s: float

    @property
    def scan_start_s(self) -> float:
        """When x = 0 reaches the beam, seconds into the slot."""
        return self.enter_s + (BEAM_BEHIND_PORTAL_MM - self.front_mm) / self.speed_mm_s


def stream(config: Config, index: int, purpose: int) -> np.random.Generator:
    """Return the random stream of one vehicle for one purpose."""
    return np.random.default_rng([config.seed, index + 1, purpose])


def plan(config: Config, index: int) -> _Plan:
    """Return what vehicle `index` is."""
    rng = stream(config, index, _PLAN)
    kind = _kind(config, rng)
    norm = rng.random() < config.norm_share
    if norm and kind not in cargo.NORM_KINDS:
        kind = str(rng.choice(cargo.NORM_KINDS))
    feet = _feet(cargo.KINDS[kind], rng)
    reefer = cargo.KINDS[kind].reefer or (kind == "empty" and feet != 45 and rng.random() < 0.1)
    tall = feet == 45 or reefer or rng.random() < 0.55
    solids, bay, ends = _vehicle(stream(config, index, _DRAW), feet, 2896.0 if tall else 2591.0, reefer)
    load = _scaled(cargo.KINDS[kind].build(rng, bay), MAX_LOAD_KG[feet] * rng.uniform(0.72, 0.98))
    kg = sum(s.mass_kg for s in load)
    threat = None
    name = ""
    if rng.random() < config.threat_share:
        name = str(rng.choice(list(threats.THREATS)))
        threat = threats.THREATS[name](stream(config, index, _SCAN), bay)
    sources, rates = _sources(config, rng, bay, norm)
    declaration, misdeclared = _declare(stream(config, index, _PAPERS), config, kind, norm, feet, kg)
    truth = Truth(
        index=index,
        source_ref=source_ref(config, index),
        cargo=kind,
        load="empty" if kind == "empty" else "loaded",
        feet=feet,
        reefer=reefer,
        cargo_kg=round(kg, 1),
        container_number=declaration.container_numbers[0],
        threat=name,
        threat_box=_box(View(config.columns, config.channels), threat) if threat else None,
        misdeclared=misdeclared,
        faults=_faults(config, stream(config, index, _FAULTS)),
        **rates,
    )
    return _Plan(
        truth=truth,
        scene=Scene([*solids, *load, *(threat.solids if threat else [])]),
        declaration=declaration,
        sources=sources,
        front_mm=ends[0],
        rear_mm=ends[1],
        speed_mm_s=float(rng.uniform(1600, 2500)),
        enter_s=float(rng.uniform(1.2, 2.5)),
    )


def source_ref(config: Config, index: int) -> str:
    """Return the driver's name of a passage."""
    return f"sim-{config.seed}-{index:06d}"


def _kind(config: Config, rng: np.random.Generator) -> str:
    weights = config.cargo or {k: 2.0 if k == "empty" else 1.0 for k in cargo.KINDS}
    shares = np.array([weights.get(k, 0.0) for k in cargo.KINDS])
    return list(cargo.KINDS)[int(rng.choice(len(shares), p=shares / shares.sum()))]


def _feet(kind: cargo.Kind, rng: np.random.Generator) -> int:
    """Return the length of the container: 40 ft is the commonest, as at any port."""
    shares = {20: 0.3, 40: 0.58, 45: 0.12}
    weights = np.array([shares[feet] for feet in kind.feet])
    return int(rng.choice(kind.feet, p=weights / weights.sum()))


def _vehicle(
    rng: np.random.Generator, feet: int, height: float, reefer: bool
) -> tuple[list[Solid], vehicle.Bay, tuple[float, float]]:
    """Return container, trailer and tractor, the room for cargo, and where the whole vehicle begins and ends."""
    x0 = rng.uniform(1500, 1900)
    deck = 13_000.0 if feet == 45 else vehicle.LENGTHS_MM[40] + 60
    # A 20 ft box rides at the rear, at the front, or over the middle.
    place = float(rng.choice((1.0, 1.0, 0.5, 0.0))) if feet == 20 else 0.0
    at = x0 + place * (deck - 60 - vehicle.LENGTHS_MM[20])
    towed = rng.random() < 0.8
    solids = vehicle.container(at, feet, height, reefer, rng)
    solids += vehicle.trailer(x0, x0 + deck, landed=not towed)
    front = x0
    if towed:
        solids += vehicle.tractor(x0 + rng.uniform(900, 1200))
        front = -CAB_MM
    rear = max(x0 + deck, at + vehicle.LENGTHS_MM[feet])
    return solids, vehicle.bay_of(at, feet, height, reefer), (front, rear)


def _scaled(load: list[Solid], limit_kg: float) -> list[Solid]:
    """Thin a load that is heavier than the road allows."""
    total = sum(s.mass_kg for s in load)
    if total <= limit_kg:
        return load
    return [msgspec.structs.replace(s, g_cm3=s.g_cm3 * limit_kg / total) for s in load]


def _box(view: View, threat: threats.Threat) -> Box:
    x0, x1, h0, h1, z0, z1 = threat.box
    first, end = view.rows_of(h0, h1, z0, z1)
    left = int(max(x0, 0.0) / view.column_pitch_mm)
    right = int(min(x1, SPAN_MM - 1) / view.column_pitch_mm) + 1
    return Box(first_column=left, end_column=right, first_channel=first, end_channel=max(end, first + 1))


def _sources(
    config: Config, rng: np.random.Generator, bay: vehicle.Bay, norm: bool
) -> tuple[tuple[Source, ...], dict[str, float]]:
    """Draw what is radioactive; strengths are log-uniform from what the shadow hides to what nobody can miss."""
    sources: list[Source] = []
    rates: dict[str, float] = {}
    gamma, neutron = rng.random() < config.source_share, rng.random() < config.neutron_share
    x = rng.uniform(bay.x0, bay.x1)
    near, up = rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.6)
    shares = (near * (1 - up), near * up, (1 - near) * (1 - up), (1 - near) * up)
    strength = float(np.exp(rng.uniform(np.log(250), np.log(8000))))
    neutrons = float(np.exp(rng.uniform(np.log(15), np.log(300))))
    load = float(np.exp(rng.uniform(np.log(300), np.log(3000))))
    if gamma:
        sources.append(Source(x0=x, x1=x, counts_per_s=strength, shares=shares))
        rates |= {"gamma_counts_per_s": strength, "gamma_x_mm": x}
    if neutron:
        sources.append(Source(x0=x, x1=x, counts_per_s=neutrons, neutron=True))
        rates["neutron_counts_per_s"] = neutrons
    if norm:
        sources.append(Source(x0=bay.x0, x1=bay.x1, counts_per_s=load))
        rates["norm_counts_per_s"] = load
    return tuple(sources), rates


def _faults(config: Config, rng: np.random.Generator) -> tuple[str, ...]:
    shares = {
        "link_loss": config.link_loss_share,
        "dead_channels": config.dead_channel_share,
        "beam_off": config.beam_off_share,
        "missing_gx": config.missing_gx_share,
    }
    # One draw for each, so that switching one fault on leaves the others where they were.
    return tuple(name for name, share in shares.items() if rng.random() < share)


# --------------------------------------------------------------------------------------------------------------
# Papers


def check_digit(code: str) -> int:
    """Return the check digit of a container number's first ten characters. Source: ISO 6346, annex A."""
    values = {str(d): d for d in range(10)}
    value = 10
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        value += value % 11 == 0  # multiples of 11 are left out
        values[letter] = value
        value += 1
    return sum(values[c] << i for i, c in enumerate(code)) % 11 % 10


def _declare(
    rng: np.random.Generator, config: Config, kind: str, norm: bool, feet: int, kg: float
) -> tuple[Declaration, str]:
    """Return the declaration and how it is wrong."""
    code = f"{CONTAINER_PREFIX}{int(rng.integers(0, 1_000_000)):06d}"
    wrong = ""
    told = kind
    if rng.random() < config.misdeclared_share:
        others = [k for k in cargo.KINDS if k not in (kind, "empty")]
        if kind == "empty":
            wrong, told = "declared loaded, is empty", str(rng.choice(others))
        elif rng.random() < 0.4:
            wrong, told = "declared empty, is loaded", "empty"
        else:
            told = str(rng.choice(others))
            wrong = f"declared {told}, is {kind}"
    options = [g for g in cargo.KINDS[told].goods if g.norm or not (norm and told == kind)]
    goods = options[int(rng.integers(0, len(options)))] if options else None
    cargo_kg = 0.0 if told == "empty" else max(kg, 900.0) * rng.normal(1, 0.015)
    country = f"X{'ABCDEFGH'[int(rng.integers(0, 8))]}"  # user-assigned in ISO 3166: no country at all
    declaration = Declaration(
        container_numbers=(f"{code}{check_digit(code)}",),
        hs_codes=(goods.hs,) if goods else (),
        goods=f"{goods.text} (simulated)" if goods else "empty container (simulated)",
        declared_empty=told == "empty",
        gross_weight_kg=float(round(TARE_KG[feet] + cargo_kg, -1)),
        seals=(f"SIM{int(rng.integers(0, 10**7)):07d}",) if goods else (),
        consignor=f"Simulated Exporter {int(rng.integers(1, 40)):02d}",
        consignee=f"Simulated Importer {int(rng.integers(1, 60)):02d}",
        authorised_trader=bool(rng.random() < 0.25),
        origin=country,
        route=(f"{country}SIM", "XZSIM"),
        prior_scans=int(rng.poisson(0.7)),
        simulated=True,
    )
    return declaration, wrong


# --------------------------------------------------------------------------------------------------------------
# Events


@lru_cache(maxsize=4)
def _detector(key: bytes) -> Detector:
    return Detector(msgspec.json.decode(key, type=Config))


def detector_of(config: Config) -> Detector:
    """Return the lane's detector; made once."""
    return _detector(msgspec.json.encode(config))


def passage(config: Config, index: int, slot_utc_ns: int) -> Iterator[tuple[int, Event]]:
    """Yield the events of vehicle `index` with the instants at which they become known, in order.

    Made as they are asked for: a block of columns takes milliseconds, a whole vehicle up to seconds.
    """
    this = plan(config, index)
    cut_s = None
    if "link_loss" in this.truth.faults:
        cut_s = this.scan_start_s + float(stream(config, index, _FAULTS).uniform(0.2, 0.8)) * SPAN_MM / this.speed_mm_s
    parts = []
    if config.declarations:
        parts.append(_papers(this, slot_utc_ns))
    if config.portal:
        parts.append(_portal(config, this, slot_utc_ns, cut_s))
    if config.radiograph:
        parts.append(_scan(config, this, slot_utc_ns, cut_s))
    # merge is stable: of one instant, papers come before counts and counts before columns
    return heapq.merge(*parts, key=lambda item: item[0])


def _papers(this: _Plan, slot_utc_ns: int) -> Iterator[tuple[int, Event]]:
    at = slot_utc_ns + int((this.enter_s - 0.5) * NANOSECONDS)
    yield at, DeclarationSeen(utc_ns=at, declaration=this.declaration, source_ref=this.truth.source_ref)


def _portal(config: Config, this: _Plan, slot_utc_ns: int, cut_s: float | None) -> Iterator[tuple[int, Event]]:
    rng = stream(config, this.truth.index, _PORTAL)
    shade_mm, shade = _shade(this, rng)
    transit = Transit(
        slot_utc_ns=slot_utc_ns,
        slot_s=PASSAGE_S + config.interval_s,
        enter_s=this.enter_s,
        speed_mm_s=this.speed_mm_s,
        front_mm=this.front_mm,
        rear_mm=this.rear_mm,
        shade_mm=shade_mm,
        shade=shade,
        sources=this.sources,
        number=this.truth.index % 999_999 + 1,
        nsigma=config.nsigma,
        lose_gx="missing_gx" in this.truth.faults,
    )
    if this.truth.index == 0:
        text = "SIMULATED lane: portal lines, radiographs and declarations are computed, no device is connected"
        yield slot_utc_ns, Health(utc_ns=slot_utc_ns, component="simulated", state="ok", text=text)
    for event in portal.decode(portal.speak(transit, rng), transit, cut_s):
        yield event.utc_ns, event  # type: ignore[union-attr]  # a portal gives no LineBlock


def _shade(this: _Plan, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return knots along the vehicle and the share of the ground's radiation that it takes away there.

    From the areal density of the very vehicle that is scanned, blurred by the pillars' field of view and scaled to a
    depth like that of recorded passages: median 41 %, a twentieth below 27 % or above 52 %.
    """
    view = View(165, 61)
    block = this.scene.draw(view, 0, view.columns)
    dense = block.density.sum(axis=0).mean(axis=1)
    behind = np.arange(-6000.0, SPAN_MM + 6000, 100.0)
    along = np.interp(behind, view.x_mm, dense, left=0.0, right=0.0)
    if this.front_mm < 0:  # the cab, with its engine
        along = np.where((behind > this.front_mm) & (behind < 0), 45.0, along)
    taken = 1 - np.exp(-along / 25.0)
    kernel = np.exp(-np.abs(np.arange(-3000.0, 3001, 100.0)) / portal.FIELD_MM)
    taken = np.convolve(taken, kernel / kernel.sum(), mode="same")
    depth = np.clip(rng.normal(0.41, 0.07), 0.22, 0.58)
    return behind, taken / taken.max() * depth


def _scan(config: Config, this: _Plan, slot_utc_ns: int, cut_s: float | None) -> Iterator[tuple[int, Event]]:
    index, name = this.truth.index, this.truth.source_ref
    detector = detector_of(config)
    textures = Textures(detector.view, stream(config, index, _TEXTURE))
    conditions = conditions_of(config, detector, stream(config, index, _SCAN), this.truth.faults)
    start = slot_utc_ns + int(this.scan_start_s * NANOSECONDS)
    times = start + (detector.view.x_mm / this.speed_mm_s * NANOSECONDS).astype(np.int64)
    cut = None if cut_s is None else slot_utc_ns + int(cut_s * NANOSECONDS)
    yield start, ScanStart(source_ref=name, utc_ns=start, detector=detector.state())
    for first, counts in detector.lines(this.scene, textures, conditions, stream(config, index, _NOISE)):
        at = times[first : first + len(counts[0])]
        last = int(at[-1])
        if cut is not None and last >= cut:
            yield cut, ScanEnd(source_ref=name, utc_ns=cut, reason="link_lost")
            return
        yield last, LineBlock(source_ref=name, first_column=first, counts=counts, column_utc_ns=at)
    end = start + int(SPAN_MM / this.speed_mm_s * NANOSECONDS)
    yield end, ScanEnd(source_ref=name, utc_ns=end)
