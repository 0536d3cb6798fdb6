"""What one vehicle is: its kind, its containers, their load, what does not belong, what is declared.

Every vehicle has random streams of its own, by purpose, so that vehicle k is the same whatever came before it, at any
resolution and with any set of devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from scanner_io.formats.iso6346 import check_digit
from scanner_io.model import Box, Declaration, Load

from . import cargo
from .carriers import CAB_MM, CARRIERS, HOLD_KINDS, Carrier, Order
from .config import Config
from .portal import Source
from .scene import Extent, Scene, Solid
from .stow import solid
from .threats import THREATS, UNDECLARED, Threat

PLAN, DRAW, TEXTURE, NOISE, SCAN, PORTAL, PAPERS, FAULTS, THREAT, PLACE, CAMERAS = range(1, 12)
"""What a vehicle's random streams are for."""
BEAM_BEHIND_PORTAL_MM = 1500.0
MAX_LOAD_KG = {0: 1400.0, 20: 21_700.0, 40: 26_500.0, 45: 27_500.0}
"""Heaviest load by length of the container; 0 is a van's hold."""
BESIDE_KG = 12_500.0
"""Heaviest load of one of two containers on a trailer."""
VAN_WIDTH = 0.75
"""How wide a van's hold is against a container; its load is as much shallower along the beam."""
CONTAINER_PREFIX = "SIMU"
"""An owner code for containers that do not exist."""


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """What a vehicle really carries: for tests and evaluation, never part of the event stream.

    carrier : kind of vehicle; cargo, cargo_second : kind of load of its containers, "" without
    cargo_kg, tare_kg : mass of all loads, and of all containers
    doors : end of the picture at which the first container has its doors, "" without
    rear_first : the vehicle was scanned from behind
    threat : kind of what does not belong, "" if all does
    threat_box : the smallest rectangle of columns and channels in which it changes the picture
    threat_pixels : how many pixels it changes by more than 3 %; 0 where it is there but cannot be seen
    threat_transmission : per energy, median of signal with against signal without it, in these pixels
    threat_background : median transmission there without it, at the highest energy
    gamma_counts_per_s, norm_counts_per_s, neutron_counts_per_s : highest net rate of all detectors, 0 without
    gamma_x_mm : place of the gamma source along the scan
    misdeclared : how the declaration is wrong, "" if it is right
    """

    index: int
    source_ref: str
    carrier: str
    cargo: str
    cargo_second: str = ""
    load: Load
    feet: int
    reefer: bool
    cargo_kg: float
    tare_kg: float
    container_number: str
    doors: str = ""
    rear_first: bool = False
    threat: str = ""
    threat_box: Box | None = None
    threat_pixels: int = 0
    threat_transmission: tuple[float, ...] = ()
    threat_background: float | None = None
    gamma_counts_per_s: float = 0.0
    gamma_x_mm: float | None = None
    norm_counts_per_s: float = 0.0
    neutron_counts_per_s: float = 0.0
    misdeclared: str = ""
    faults: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All decisions about one vehicle, before anything is drawn. Places are those of the scan.

    truth : without what only the picture can tell of a threat
    clean : the same vehicle without the threat; threat : what room it takes. None without one
    """

    truth: Truth
    scene: Scene
    declaration: Declaration
    sources: tuple[Source, ...]
    front_mm: float
    rear_mm: float
    cab_mm: tuple[float, float] | None
    speed_mm_s: float
    enter_s: float
    clean: Scene | None = None
    threat: Extent | None = None

    @property
    def scan_start_s(self) -> float:
        """When x = 0 reaches the beam, seconds into the slot."""
        return self.enter_s + (BEAM_BEHIND_PORTAL_MM - self.front_mm) / self.speed_mm_s


class _Drawn(NamedTuple):
    """What the first draws say: kinds of vehicle, load and threat ("" without), whether the load is radioactive."""

    carrier: str
    kind: str
    norm: bool
    threat: str
    feet: int
    reefer: bool


class _Hold(NamedTuple):
    """One container or hold: what it was loaded with, what it holds with the threat, the threat's kind and room."""

    kind: str
    clean: list[Solid]
    load: list[Solid]
    threat: str = ""
    box: Extent | None = None


def stream(config: Config, index: int, purpose: int) -> np.random.Generator:
    """Return the random stream of one vehicle for one purpose."""
    return np.random.default_rng([config.seed, index + 1, purpose])


def source_ref(config: Config, index: int) -> str:
    """Return the driver's name of a passage."""
    return f"sim-{config.seed}-{index:06d}"


def plan(config: Config, index: int) -> Plan:
    """Return what vehicle `index` is."""
    rng = stream(config, index, PLAN)
    drawn = _draw(config, rng)
    tall = drawn.feet == 45 or drawn.reefer or rng.random() < 0.55
    order = Order(feet=drawn.feet, height_mm=2896.0 if tall else 2591.0, reefer=drawn.reefer, cab=config.scan_cab)
    carrier = CARRIERS[drawn.carrier](stream(config, index, DRAW), order)
    holds = _filled(config, index, rng, drawn, carrier)
    placed = _Placed(config, carrier, stream(config, index, PLACE))
    sources = tuple(placed.source(s) for s in _sources(config, rng, carrier, norm=drawn.norm))
    declaration, misdeclared = _declare(stream(config, index, PAPERS), config, holds, drawn, carrier)
    truth = _truth(config, index, drawn, carrier, holds, placed, sources)
    hidden = next((k for k, hold in enumerate(holds) if hold.box is not None), None)
    front, rear = placed.span(carrier.front_mm, carrier.rear_mm)
    speed = float(rng.uniform(1600, 2500))
    return Plan(
        truth=msgspec.structs.replace(
            truth, misdeclared=misdeclared, container_number=next(iter(declaration.container_numbers), "")
        ),
        scene=placed.scene([hold.load for hold in holds]),
        clean=None if hidden is None else placed.scene([hold.clean for hold in holds]),
        threat=None if hidden is None else placed.room(holds[hidden].box, hidden),
        declaration=declaration,
        sources=sources,
        front_mm=front,
        rear_mm=rear,
        cab_mm=placed.span(*carrier.cab_mm) if carrier.cab_mm else None,
        speed_mm_s=speed,
        # The beam is on before a vehicle that begins late in its scan is at the portal.
        enter_s=float(rng.uniform(1.2, 2.5)) + max(0.0, (front - BEAM_BEHIND_PORTAL_MM) / speed),
    )


def _truth(
    config: Config, index: int, drawn: _Drawn, carrier: Carrier, holds: Sequence[_Hold], placed: _Placed,
    sources: Sequence[Source],
) -> Truth:  # fmt: skip
    """Return what is true of a vehicle but for its papers and its picture."""
    kinds = tuple(hold.kind for hold in holds)
    kg = _mass_kg(holds)
    point = next((s for s in sources if not s.neutron and s.x0 == s.x1), None)
    return Truth(
        index=index,
        source_ref=source_ref(config, index),
        carrier=drawn.carrier,
        cargo=kinds[0] if kinds else "",
        cargo_second=kinds[1] if len(kinds) > 1 else "",
        load="loaded" if kg > 0 else "empty",
        feet=carrier.feet,
        reefer=drawn.reefer and carrier.feet > 0,
        cargo_kg=round(kg, 1),
        tare_kg=carrier.tare_kg,
        container_number="",
        doors=placed.doors if carrier.boxes else "",
        rear_first=placed.rear_first,
        threat=next((hold.threat for hold in holds if hold.threat), ""),
        gamma_x_mm=point.x0 if point else None,
        faults=_faults(config, stream(config, index, FAULTS)),
        gamma_counts_per_s=point.counts_per_s if point else 0.0,
        norm_counts_per_s=sum(s.counts_per_s for s in sources if s.x0 != s.x1),
        neutron_counts_per_s=sum(s.counts_per_s for s in sources if s.neutron),
    )


def _mass_kg(holds: Sequence[_Hold]) -> float:
    """Return the mass of all loads with what does not belong."""
    return float(sum(s.mass_kg for hold in holds for s in hold.load))


def _draw(config: Config, rng: np.random.Generator) -> _Drawn:
    weights = config.cargo or {k: 2.0 if k == "empty" else 1.0 for k in cargo.KINDS}
    kind = _pick(rng, cargo.KINDS, weights)
    norm = rng.random() < config.norm_share
    if norm and kind not in cargo.NORM_KINDS:
        kind = str(rng.choice(cargo.NORM_KINDS))
    carrier = _pick(rng, CARRIERS, config.carriers or {"semi_trailer": 1.0})
    threat = ""
    if rng.random() < config.threat_share:
        threat = _pick(rng, THREATS, config.threats or dict.fromkeys(THREATS, 1.0))
    if threat == UNDECLARED:
        kind, norm = "empty", False
    if carrier == "van" and kind not in HOLD_KINDS:
        kind, norm = "mixed", False
    feet = _feet(cargo.KINDS[kind], rng)
    reefer = cargo.KINDS[kind].reefer or (kind == "empty" and feet != 45 and rng.random() < 0.1)
    if carrier == "two_twenties" and not (_beside(kind) and not reefer):
        carrier = "semi_trailer"
    if carrier in ("bare_chassis", "car"):
        kind, norm, threat = "", False, ""
    return _Drawn(carrier, kind, norm, threat, feet, reefer)


def _pick(rng: np.random.Generator, kinds: Iterable[str], weights: Mapping[str, float]) -> str:
    names = list(kinds)
    shares = np.array([weights.get(name, 0.0) for name in names])
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def _beside(kind: str) -> bool:
    """Return whether the goods travel in one of two 20 ft containers on a trailer."""
    return 20 in cargo.KINDS[kind].feet and not cargo.KINDS[kind].reefer


def _feet(kind: cargo.Kind, rng: np.random.Generator) -> int:
    """Return the length of the container: 40 ft is the commonest, as at any port."""
    shares = {20: 0.3, 40: 0.58, 45: 0.12}
    weights = np.array([shares[feet] for feet in kind.feet])
    return int(rng.choice(kind.feet, p=weights / weights.sum()))


def _filled(
    config: Config, index: int, rng: np.random.Generator, drawn: _Drawn, carrier: Carrier
) -> list[_Hold]:  # fmt: skip
    """Load every container, and put the threat into one of them."""
    holds: list[_Hold] = []
    for number, bay in enumerate(carrier.bays):
        kind = drawn.kind
        if number:
            fitting = [k for k in cargo.KINDS if _beside(k)]
            weights = {k: config.cargo.get(k, 0.0) for k in fitting} if config.cargo else dict.fromkeys(fitting, 1.0)
            kind = _pick(rng, fitting, weights)
        limit = BESIDE_KG if len(carrier.bays) > 1 else MAX_LOAD_KG[carrier.feet]
        load = cargo.KINDS[kind].build(rng, bay)
        if not carrier.feet:
            load = [msgspec.structs.replace(s, g_cm3=s.g_cm3 * VAN_WIDTH) for s in load]
        load = _scaled(load, limit * rng.uniform(0.72, 0.98))
        holds.append(_Hold(kind, load, load))
    if drawn.threat and holds:
        hidden = stream(config, index, THREAT)
        number = int(hidden.integers(0, len(holds))) if drawn.threat != UNDECLARED else 0
        holds[number] = _with_threat(hidden, carrier, number, holds[number], drawn.threat)
    return holds


def _with_threat(rng: np.random.Generator, carrier: Carrier, number: int, hold: _Hold, name: str) -> _Hold:
    """Return the hold with the threat in it, or with an extra item where that kind of threat cannot be."""
    for kind in (name, "extra_item", "dense_block"):
        threat = THREATS[kind](rng, carrier.bays[number], hold.clean)
        if threat is not None:
            return _Hold(hold.kind, hold.clean, threat.load, kind, _differs(hold.clean, threat))
    return hold


def _differs(clean: list[Solid], threat: Threat) -> Extent:
    """Return the room of the threat and of all that came or went with it: goods that had to make way are larger."""
    before, after = {id(s) for s in clean}, {id(s) for s in threat.load}
    extents = [s.extent for s in clean if id(s) not in after] + [s.extent for s in threat.load if id(s) not in before]
    e = np.array([threat.box, *extents])
    low, high = e.min(axis=0).tolist(), e.max(axis=0).tolist()
    return (low[0], high[1], low[2], high[3], low[4], high[5])


def _scaled(load: list[Solid], limit_kg: float) -> list[Solid]:
    """Thin a load that is heavier than the road allows."""
    total = sum(s.mass_kg for s in load)
    if total <= limit_kg:
        return load
    return [msgspec.structs.replace(s, g_cm3=s.g_cm3 * limit_kg / total) for s in load]


class _Placed:
    """How a vehicle stands in its scan: shifted by the cab, containers turned round, the whole of it rear first."""

    def __init__(self, config: Config, carrier: Carrier, rng: np.random.Generator) -> None:
        self._carrier = carrier
        self._shift = CAB_MM if config.scan_cab else 0.0
        self._span = config.span_mm
        turned = rng.random(max(1, len(carrier.boxes))) < config.turned_share
        self._turned = tuple(bool(t) for t in turned)
        self.rear_first = bool(rng.random() < config.rear_first_share)

    @property
    def doors(self) -> str:
        """End of the picture at which the first container has its doors."""
        return "left" if self._turned[0] != self.rear_first else "right"

    def _scan(self, solids: Sequence[Solid]) -> list[Solid]:
        moved = [s.moved(self._shift) for s in solids] if self._shift else list(solids)
        return [s.mirrored(self._span / 2) for s in moved] if self.rear_first else moved

    def _turn(self, solids: Sequence[Solid], number: int) -> list[Solid]:
        if not self._carrier.boxes or not self._turned[number]:
            return list(solids)
        ends = [s.extent[:2] for s in self._carrier.boxes[number]]
        middle = (min(e[0] for e in ends) + max(e[1] for e in ends)) / 2
        return [s.mirrored(middle) for s in solids]

    def scene(self, loads: Sequence[Sequence[Solid]]) -> Scene:
        """Return everything that is scanned, with these loads in the holds."""
        solids = list(self._carrier.solids)
        for number, load in enumerate(loads):
            box = self._carrier.boxes[number] if self._carrier.boxes else []
            solids += self._turn([*box, *load], number)
        return Scene(self._scan(solids))

    def room(self, box: Extent | None, number: int) -> Extent | None:
        """Return where something in a hold comes to be."""
        if box is None:
            return None
        (there,) = self._scan(self._turn([solid(box, "water", 1.0)], number))
        return there.extent

    def span(self, x0: float, x1: float) -> tuple[float, float]:
        """Return where a range along the vehicle comes to be."""
        (there,) = self._scan([solid((x0, x1, 0, 1, 0, 1), "water", 1.0)])
        return there.x0, there.x1

    def source(self, source: Source) -> Source:
        """Return where a source comes to be."""
        x0, x1 = self.span(source.x0, source.x1)
        return msgspec.structs.replace(source, x0=x0, x1=x1)


def _sources(config: Config, rng: np.random.Generator, carrier: Carrier, *, norm: bool) -> tuple[Source, ...]:
    """Draw what is radioactive; strengths are log-uniform from what the shadow hides to what nobody can miss."""
    sources: list[Source] = []
    gamma, neutron = rng.random() < config.source_share, rng.random() < config.neutron_share
    x0, x1 = (carrier.bays[0].x0, carrier.bays[0].x1) if carrier.bays else (max(carrier.front_mm, 0), carrier.rear_mm)
    x = rng.uniform(x0, x1)
    near, up = rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.6)
    shares = (near * (1 - up), near * up, (1 - near) * (1 - up), (1 - near) * up)
    strength = float(np.exp(rng.uniform(np.log(250), np.log(8000))))
    neutrons = float(np.exp(rng.uniform(np.log(15), np.log(300))))
    load = float(np.exp(rng.uniform(np.log(300), np.log(3000))))
    if gamma:
        sources.append(Source(x0=x, x1=x, counts_per_s=strength, shares=shares))
    if neutron:
        sources.append(Source(x0=x, x1=x, counts_per_s=neutrons, neutron=True))
    if norm:
        sources.append(Source(x0=x0, x1=x1, counts_per_s=load))
    return tuple(sources)


def _faults(config: Config, rng: np.random.Generator) -> tuple[str, ...]:
    shares = {
        "link_loss": config.link_loss_share,
        "dead_channels": config.dead_channel_share,
        "beam_off": config.beam_off_share,
        "missing_gx": config.missing_gx_share,
        "drifting_channels": config.drifting_channel_share,
        "stopped": config.stop_share,
    }
    # One draw for each, so that switching one fault on leaves the others where they were.
    return tuple(name for name, share in shares.items() if rng.random() < share)


# --------------------------------------------------------------------------------------------------------------
# Papers


def _declare(
    rng: np.random.Generator, config: Config, holds: Sequence[_Hold], drawn: _Drawn, carrier: Carrier
) -> tuple[Declaration, str]:
    """Return the declaration and how it is wrong."""
    kinds = tuple(hold.kind for hold in holds)
    numbers = tuple(f"{CONTAINER_PREFIX}{int(rng.integers(0, 1_000_000)):06d}" for _ in range(len(carrier.boxes) or 1))
    wrong, told = _told(rng, config, kinds, drawn) if carrier.boxes else ("", kinds)
    goods = [g for k in told if (g := _goods(rng, k, norm=drawn.norm and k == drawn.kind)) is not None]
    empty = all(k == "empty" for k in told)
    cargo_kg = 0.0 if empty else max(_mass_kg(holds), 900.0) * rng.normal(1, 0.015)
    country = f"X{'ABCDEFGH'[int(rng.integers(0, 8))]}"  # user-assigned in ISO 3166: no country at all
    text = " and ".join(g.text for g in goods) or ("empty container" if carrier.boxes else "no container")
    declaration = Declaration(
        container_numbers=tuple(f"{n}{check_digit(n)}" for n in numbers) if carrier.boxes else (),
        hs_codes=tuple(g.hs for g in goods),
        goods=f"{text} (simulated)",
        declared_empty=empty if carrier.bays else None,
        gross_weight_kg=float(round(carrier.tare_kg + cargo_kg, -1)) if carrier.boxes else None,
        seals=(f"SIM{int(rng.integers(0, 10**7)):07d}",) if goods else (),
        consignor=f"Simulated Exporter {int(rng.integers(1, 40)):02d}",
        consignee=f"Simulated Importer {int(rng.integers(1, 60)):02d}",
        authorised_trader=bool(rng.random() < 0.25),
        origin=country,
        route=(f"{country}SIM", "XZSIM"),
        prior_scans=int(rng.poisson(0.7)),
        simulated=True,
    )
    if any(hold.threat == UNDECLARED for hold in holds):
        wrong = "declared empty, is loaded"
    return declaration, wrong


def _told(
    rng: np.random.Generator, config: Config, kinds: tuple[str, ...], drawn: _Drawn
) -> tuple[str, tuple[str, ...]]:
    """Return how the papers are wrong, "" if they are right, and the kinds that they tell of."""
    kind = kinds[0]
    if rng.random() >= config.misdeclared_share or drawn.threat == UNDECLARED:
        return "", kinds
    others = [k for k in cargo.KINDS if k not in (kind, "empty")]
    if kind == "empty":
        return "declared loaded, is empty", (str(rng.choice(others)), *kinds[1:])
    if rng.random() < 0.4:
        return "declared empty, is loaded", ("empty", *kinds[1:])
    told = str(rng.choice(others))
    return f"declared {told}, is {kind}", (told, *kinds[1:])


def _goods(rng: np.random.Generator, told: str, *, norm: bool) -> cargo.Goods | None:
    options = [g for g in cargo.KINDS[told].goods if g.norm or not norm] if told else []
    return options[int(rng.integers(0, len(options)))] if options else None
