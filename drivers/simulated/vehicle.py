"""Container, semi-trailer and the rear of the tractor, as solids.

Sizes follow ISO 668 containers (20, 40 and 45 ft) and a common European semi-trailer; plate thicknesses are typical.
Parts thinner than a pixel get the density that gives the right shade, not the right mass: the projection averages
density over a pixel, where a real pixel averages transmission.
"""

from __future__ import annotations

import msgspec
import numpy as np

from .scene import Disc, Pillow, Prism, Solid, Strip, Tube

FLOOR_MM = 1150.0
"""Underside of the container on its trailer."""
DECK_MM = 172.0
"""Height of the cargo floor above the underside."""
HALF_WIDTH_MM = 1219.0
WALL_MM = 1.8
STEEL = 7.87
RUBBER, WOOD, FOAM, ALUMINIUM = 1.15, 0.70, 0.045, 2.70
LENGTHS_MM = {20: 6058.0, 40: 12192.0, 45: 13716.0}


class Bay(msgspec.Struct, frozen=True, kw_only=True):
    """The room for cargo inside one container, mm."""

    x0: float
    x1: float
    h0: float
    h1: float

    @property
    def length(self) -> float:
        """Length along the vehicle."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Inner height."""
        return self.h1 - self.h0


def bay_of(x0: float, feet: int, height: float, reefer: bool) -> Bay:
    """Return the room inside a container whose front stands at x0."""
    front, back, ceiling = (480.0, 140.0, 170.0) if reefer else (90.0, 110.0, 80.0)
    return Bay(
        x0=x0 + front,
        x1=x0 + LENGTHS_MM[feet] - back,
        h0=FLOOR_MM + (DECK_MM + 40 if reefer else DECK_MM),
        h1=FLOOR_MM + height - ceiling,
    )


def container(x0: float, feet: int, height: float, reefer: bool, rng: np.random.Generator) -> list[Solid]:
    """Return a container, front at x0, doors towards larger x."""
    x1, top = x0 + LENGTHS_MM[feet], FLOOR_MM + height
    solids = [*_shell(x0, x1, top, reefer), *_floor(x0, x1, reefer), *_ends(x0, x1, top), *_posts(x0, x1, top, feet)]
    if reefer:
        solids += _cooling(x0, top, rng)
    else:
        solids += _fittings(x0, x1, top, rng)
    return solids


def _shell(x0: float, x1: float, top: float, reefer: bool) -> list[Solid]:
    """Side walls, roof and rails. A reefer's walls are two thin skins on foam."""
    low, w = FLOOR_MM + 150, HALF_WIDTH_MM
    solids: list[Solid] = []
    for side in (-1, 1):
        z = (side * w - WALL_MM, side * w) if side > 0 else (side * w, side * w + WALL_MM)
        if reefer:
            solids.append(Prism(x0=x0, x1=x1, h0=low, h1=top - 50, z0=z[0], z1=z[1], material="aluminium", g_cm3=4.5))
            foam = sorted((side * w, side * (w - 65)))
            solids.append(
                Prism(x0=x0, x1=x1, h0=low, h1=top, z0=foam[0], z1=foam[1], material="polyethylene", g_cm3=FOAM)
            )
        else:
            solids.append(Prism(x0=x0, x1=x1, h0=low, h1=top - 50, z0=z[0], z1=z[1], shape="corrugated"))
        rail = sorted((side * w, side * (w - 60)))
        solids.append(Prism(x0=x0, x1=x1, h0=top - 62, h1=top, z0=rail[0], z1=rail[1], g_cm3=STEEL * 0.2))
        solids.append(Prism(x0=x0, x1=x1, h0=FLOOR_MM, h1=low, z0=rail[0], z1=rail[1], g_cm3=STEEL * 0.15))
    roof = WALL_MM + 0.2
    solids.append(Prism(x0=x0, x1=x1, h0=top - 12 - roof, h1=top - 12, z0=-w, z1=w, shape="corrugated", pitch_mm=209.0))
    if reefer:
        solids.append(Prism(x0=x0, x1=x1, h0=top - 90, h1=top - 14, z0=-w, z1=w, material="polyethylene", g_cm3=FOAM))
    return solids


def _floor(x0: float, x1: float, reefer: bool) -> list[Solid]:
    """Plywood on cross-members, which lie along the beam and so show as dark ticks; or a reefer's T-bars."""
    w, deck = HALF_WIDTH_MM - 50, FLOOR_MM + DECK_MM
    solids: list[Solid] = []
    if reefer:
        solids.append(Prism(x0=x0 + 60, x1=x1 - 60, h0=deck - 22, h1=deck + 40, z0=-w, z1=w, g_cm3=0.55,
                            material="aluminium"))  # fmt: skip
        solids.append(Prism(x0=x0, x1=x1, h0=deck - 100, h1=deck - 22, z0=-w, z1=w, g_cm3=FOAM * 2,
                            material="polyethylene"))  # fmt: skip
    else:
        solids.append(Prism(x0=x0 + 60, x1=x1 - 60, h0=deck - 28, h1=deck, z0=-w, z1=w, g_cm3=WOOD,
                            material="cellulose"))  # fmt: skip
    pitch = 305.0
    for x in np.arange(x0 + 200, x1 - 150, pitch):
        solids.append(Prism(x0=x, x1=x + 5, h0=FLOOR_MM + 28, h1=deck - 30, z0=-110, z1=110))
        for h in (FLOOR_MM + 26, deck - 34):
            solids.append(Prism(x0=x, x1=x + 45, h0=h, h1=h + 5, z0=-120, z1=120))
    return solids


def _ends(x0: float, x1: float, top: float) -> list[Solid]:
    """Front wall and doors, both seen along their plane."""
    low, w = FLOOR_MM + 110, HALF_WIDTH_MM - 40
    solids: list[Solid] = [
        Prism(x0=x0 + 12, x1=x0 + 58, h0=low, h1=top - 60, z0=-w, z1=w, g_cm3=0.42),
        Prism(x0=x0, x1=x0 + 70, h0=top - 100, h1=top, z0=-w, z1=w, g_cm3=0.5),
        Prism(x0=x0, x1=x0 + 70, h0=FLOOR_MM, h1=low, z0=-w, z1=w, g_cm3=0.5),
        Prism(x0=x1 - 88, x1=x1 - 34, h0=low, h1=top - 90, z0=-w, z1=w, g_cm3=0.30),
        Prism(x0=x1 - 130, x1=x1 - 30, h0=top - 120, h1=top, z0=-w, z1=w, g_cm3=0.5),
        Prism(x0=x1 - 150, x1=x1, h0=FLOOR_MM, h1=low + 20, z0=-w, z1=w, g_cm3=0.6),
    ]
    for h in np.linspace(low + 180, top - 260, 4):
        solids.append(Prism(x0=x1 - 170, x1=x1 - 20, h0=h, h1=h + 95, z0=-w - 20, z1=-w + 30, g_cm3=STEEL * 0.8))
        solids.append(Prism(x0=x1 - 150, x1=x1 - 20, h0=h, h1=h + 95, z0=w - 30, z1=w + 20, g_cm3=STEEL * 0.8))
    for z in (-850.0, -350.0, 350.0, 850.0):  # lock rods with their cams and handles
        solids.append(Prism(x0=x1 - 30, x1=x1 - 2, h0=low - 40, h1=top - 40, z0=z - 13, z1=z + 13, g_cm3=STEEL * 0.5))
    solids.append(Prism(x0=x1 - 36, x1=x1, h0=FLOOR_MM + 1050, h1=FLOOR_MM + 1110, z0=-800, z1=-300, g_cm3=1.2))
    return solids


def _posts(x0: float, x1: float, top: float, feet: int) -> list[Solid]:
    """Corner posts and castings; a 45 ft box has a second set where a 40 ft spreader grips."""
    ends = [(x0, x0 + 115.0), (x1 - 165.0, x1)]
    if feet == 45:
        inset = (LENGTHS_MM[45] - LENGTHS_MM[40]) / 2
        ends += [(x0 + inset, x0 + inset + 100), (x1 - inset - 100, x1 - inset)]
    solids: list[Solid] = []
    for number, (a, b) in enumerate(ends):
        middle = (a + b) / 2
        for side in (-1, 1):
            z0, z1 = sorted((side * HALF_WIDTH_MM, side * (HALF_WIDTH_MM - 80)))
            share = 0.42 if number < 2 else 0.18
            solids.append(Prism(x0=a, x1=b, h0=FLOOR_MM, h1=top, z0=z0, z1=z1, g_cm3=STEEL * share))
            c0, c1 = (a, a + 178) if number % 2 == 0 else (b - 178, b)
            for h in (FLOOR_MM - 12, top - 112):
                z2, z3 = sorted((side * HALF_WIDTH_MM, side * (HALF_WIDTH_MM - 162)))
                solids.append(Prism(x0=c0, x1=c1, h0=h, h1=h + 118, z0=z2, z1=z3, g_cm3=STEEL * 0.42))
                eye = (c0 + c1) / 2
                solids.append(Prism(x0=eye - 30, x1=eye + 30, h0=h + 35, h1=h + 85, z0=z2, z1=z3, g_cm3=-STEEL * 0.42,
                                    shape="round"))  # fmt: skip
        if number >= 2:
            solids.append(Prism(x0=middle - 20, x1=middle + 20, h0=top - 60, h1=top, g_cm3=0.4))
    return solids


def _fittings(x0: float, x1: float, top: float, rng: np.random.Generator) -> list[Solid]:
    """Sheet joints, lashing bars, vents, placards: the faint lines and boxes on every empty container."""
    solids: list[Solid] = []
    w = HALF_WIDTH_MM
    for side in (-1, 1):
        x = x0 + rng.uniform(500, 1100)
        while x < x1 - 300:
            z0, z1 = sorted((side * w, side * (w - 8)))
            solids.append(Prism(x0=x, x1=x + 28, h0=FLOOR_MM + 150, h1=top - 60, z0=z0, z1=z1, g_cm3=STEEL * 0.5))
            x += 1115.0
    for x in np.arange(x0 + 1200, x1 - 600, 1220.0):
        solids.append(Prism(x0=x, x1=x + 35, h0=top - 26, h1=top - 14, z0=-w, z1=w, g_cm3=STEEL * 0.12))
    for _ in range(int(rng.integers(2, 5))):
        x, h = rng.uniform(x0 + 250, x1 - 700), rng.uniform(FLOOR_MM + 1500, top - 350)
        solids.append(Prism(x0=x, x1=x + rng.uniform(150, 420), h0=h, h1=h + rng.uniform(80, 220), z0=-w - 0.8, z1=-w))
    return solids


def _cooling(x0: float, top: float, rng: np.random.Generator) -> list[Solid]:
    """The machinery at a reefer's front: compressor, condenser coil, fans, controller."""
    w = 1000.0
    low = FLOOR_MM + 160
    solids: list[Solid] = [
        Prism(x0=x0 + 390, x1=x0 + 430, h0=low, h1=top - 60, z0=-w, z1=w, material="aluminium", g_cm3=0.06),
        Prism(x0=x0 + 60, x1=x0 + 330, h0=low + 950, h1=low + 1450, z0=-700, z1=700, g_cm3=0.28, texture=(2, 0.2)),
        Prism(x0=x0 + 60, x1=x0 + 360, h0=top - 560, h1=top - 330, z0=-900, z1=900, g_cm3=0.18, texture=(2, 0.2)),
        Pillow(x0=x0 + 90, x1=x0 + 360, h=low + 240, z=-300, rh=190, rz=150, g_cm3=3.4),
        Prism(x0=x0 + 80, x1=x0 + 350, h0=low + 20, h1=low + 60, z0=-700, z1=700, g_cm3=0.8),
        Prism(x0=x0 + 70, x1=x0 + 250, h0=low + 500, h1=low + 900, z0=-900, z1=-450, g_cm3=0.5, texture=(2, 0.4)),
    ]
    for z in (-500.0, 500.0):
        solids.append(Prism(x0=x0 + 120, x1=x0 + 330, h0=top - 300, h1=top - 130, z0=z - 110, z1=z + 110, g_cm3=1.5))
    for _ in range(6):
        x, h = x0 + rng.uniform(60, 330), low + rng.uniform(0, 1500)
        solids.append(Prism(x0=x, x1=x + 22, h0=h, h1=h + rng.uniform(150, 700), z0=-40, z1=0, g_cm3=4.0))
    return solids


# --------------------------------------------------------------------------------------------------------------
# Trailer and tractor


def wheel(x: float, radius: float, z: float, width: float) -> list[Solid]:
    """Return one wheel on its axle: tyre with steel belt, rim, drum and hub. z : its middle plane."""

    def ring(outer: float, inner: float, thick: float, material: str, g_cm3: float) -> Disc:
        r = outer * radius
        return Disc(x0=x - r, x1=x + r, h=radius, z=z, outer=r, inner=inner * radius, thick=thick, material=material,
                    g_cm3=g_cm3)  # fmt: skip

    return [
        ring(1.0, 0.87, width, "polyethylene", RUBBER),
        ring(0.98, 0.89, width * 0.05, "iron", STEEL),
        ring(0.87, 0.58, 70.0, "polyethylene", RUBBER),
        ring(0.62, 0.53, width * 0.22, "iron", STEEL),
        ring(0.55, 0.0, 14.0, "iron", STEEL),
        ring(0.42, 0.33, width * 0.22, "iron", STEEL),
        ring(0.33, 0.0, 30.0, "iron", STEEL),
        ring(0.20, 0.0, width * 0.8, "iron", STEEL),
    ]


def trailer(x0: float, x1: float, landed: bool) -> list[Solid]:
    """Return a skeletal semi-trailer under a load from x0 to x1. landed : its legs stand on the ground."""
    top, neck = FLOOR_MM - 20, x0 + 2500
    solids: list[Solid] = []
    for z in (-480.0, 480.0):
        web = (9.0, z)
        low_neck, low_rear = top - 150, top - 400
        for a, b, l0, l1 in (
            (x0 + 150, neck, low_neck, low_neck),
            (neck, neck + 1300, low_neck, low_rear),
            (neck + 1300, x1, low_rear, low_rear),
        ):
            solids.append(Strip(x0=a, x1=b, low=(l0, l1), high=(top, top), thick=web[0], z=web[1]))
            solids.append(Strip(x0=a, x1=b, low=(l0 - 14, l1 - 14), high=(l0, l1), thick=90.0, z=z))
        solids.append(Strip(x0=x0 + 150, x1=x1, low=(top - 14, top - 14), high=(top, top), thick=90.0, z=z))
    for x in (x0 + 20, x0 + 5900, x0 + 6250, x1 - 150):  # bolsters with twist locks
        solids.append(Prism(x0=x, x1=x + 130, h0=top - 150, h1=top, z0=-1180, z1=1180, g_cm3=0.33))
        for z in (-1140.0, 1140.0):
            solids.append(Prism(x0=x, x1=x + 130, h0=top - 190, h1=top + 40, z0=z - 40, z1=z + 40, g_cm3=STEEL * 0.6))
    for x in np.arange(neck + 700, x1 - 300, 900.0):
        solids.append(Prism(x0=x, x1=x + 70, h0=top - 330, h1=top - 90, z0=-470, z1=470, g_cm3=0.12))
    solids += _legs(x0 + 2650, top, landed)
    for x in (x1 - 3700, x1 - 2390, x1 - 1080):
        solids += _axle(x, top)
    return solids + _underside(x0, x1, top)


def _axle(x: float, top: float) -> list[Solid]:
    """One trailer axle: a wheel on each side, beam, air bag, brake chamber, mudguard."""
    solids = [*wheel(x, 520, -980, 340), *wheel(x, 520, 980, 340)]
    solids.append(Disc(x0=x - 75, x1=x + 75, h=520, z=0, outer=75, inner=58, thick=1500))
    solids.append(Prism(x0=x + 200, x1=x + 430, h0=560, h1=top - 380, z0=-520, z1=-330, material="polyethylene",
                        g_cm3=0.5))  # fmt: skip
    solids.append(Strip(x0=x - 520, x1=x + 380, low=(700, 500), high=(790, 600), thick=60.0, z=-450))
    solids.append(Strip(x0=x - 520, x1=x + 380, low=(700, 500), high=(790, 600), thick=60.0, z=450))
    for z in (-980.0, 980.0):
        solids.append(Disc(x0=x - 600, x1=x + 600, h=520, z=z, outer=600, inner=588, thick=300, above_h=720,
                           material="polyethylene", g_cm3=0.95))  # fmt: skip
    return solids


def _legs(x: float, top: float, landed: bool) -> list[Solid]:
    foot = 0.0 if landed else 330.0
    solids: list[Solid] = []
    for z in (-560.0, 560.0):
        solids.append(Prism(x0=x, x1=x + 120, h0=foot + 330, h1=top - 40, z0=z - 60, z1=z + 60, g_cm3=STEEL * 0.32))
        solids.append(Prism(x0=x + 15, x1=x + 105, h0=foot, h1=foot + 600, z0=z - 45, z1=z + 45, g_cm3=STEEL * 0.3))
        solids.append(Prism(x0=x - 50, x1=x + 170, h0=foot - 40, h1=foot + 20, z0=z - 110, z1=z + 110, g_cm3=2.5))
        solids.append(Strip(x0=x + 110, x1=x + 900, low=(620, top - 330), high=(680, top - 260), thick=14.0, z=z))
    solids.append(Prism(x0=x + 40, x1=x + 75, h0=780, h1=815, z0=-560, z1=560, g_cm3=STEEL * 0.4))
    return solids


def _underside(x0: float, x1: float, top: float) -> list[Solid]:
    """Air tank, spare wheel in its basket, tool box, side guard, bumper and lamp board."""
    spare = x0 + 0.46 * (x1 - x0)
    solids: list[Solid] = [
        Tube(x0=spare + 1350, x1=spare + 2150, h=top - 560, z=-350, outer=130, inner=124),
        Prism(x0=spare, x1=spare + 1000, h0=470, h1=560, z0=-500, z1=500, material="polyethylene", g_cm3=0.42),
        Prism(
            x0=spare, x1=spare + 1000, h0=560, h1=750, z0=-500, z1=500, material="polyethylene", g_cm3=0.16,
            shape="round",
        ),
        Prism(x0=spare + 230, x1=spare + 770, h0=520, h1=760, z0=-270, z1=270, g_cm3=0.5, shape="round"),
        Prism(x0=spare - 60, x1=spare + 1060, h0=440, h1=470, z0=-520, z1=520, g_cm3=0.4),
        Strip(x0=spare - 70, x1=spare - 40, low=(440, 440), high=(top - 400, top - 400), thick=30, z=-500),
        Strip(x0=spare + 1040, x1=spare + 1070, low=(440, 440), high=(top - 400, top - 400), thick=30, z=-500),
        Prism(x0=x1 - 130, x1=x1 - 20, h0=460, h1=580, z0=-1150, z1=1150, g_cm3=0.2),
        Strip(x0=x1 - 260, x1=x1 - 60, low=(top - 400, 500), high=(top - 300, 580), thick=24, z=0),
        Prism(x0=x1 - 60, x1=x1, h0=640, h1=780, z0=-1150, z1=-700, material="polyethylene", g_cm3=0.3),
    ]  # fmt: skip
    for h in (560.0, 790.0):
        for z in (-1180.0, 1180.0):
            solids.append(Prism(x0=x0 + 3900, x1=x1 - 4500, h0=h, h1=h + 90, z0=z, z1=z + 4, material="aluminium",
                                g_cm3=ALUMINIUM))  # fmt: skip
    return solids


def tractor(kingpin: float) -> list[Solid]:
    """Return the tractor behind its cab: it carries the trailer's kingpin at x = kingpin and runs out at x < 0."""
    end = kingpin + 1150
    solids: list[Solid] = []
    for z in (-400.0, 400.0):
        solids.append(Strip(x0=-300, x1=end, low=(700, 700), high=(960, 960), thick=9, z=z))
        for h in (700.0, 948.0):
            solids.append(Strip(x0=-300, x1=end, low=(h, h), high=(h + 12, h + 12), thick=85, z=z))
    for x in (kingpin - 620, kingpin + 720):
        for z in (-1000.0, 1000.0):
            solids += wheel(x, 510, z, 560)
            solids.append(Disc(x0=x - 590, x1=x + 590, h=510, z=z, outer=590, inner=576, thick=560, above_h=800,
                               material="polyethylene", g_cm3=0.95))  # fmt: skip
        solids.append(Pillow(x0=x - 210, x1=x + 210, h=510, z=0, rh=210, rz=180, g_cm3=STEEL * 0.7))
        solids.append(Strip(x0=x - 550, x1=x + 550, low=(560, 560), high=(640, 640), thick=80, z=-420))
    solids += [
        Prism(x0=kingpin - 480, x1=kingpin + 480, h0=1050, h1=1100, z0=-430, z1=430, g_cm3=1.9),
        Prism(x0=kingpin - 250, x1=kingpin + 250, h0=960, h1=1050, z0=-420, z1=420, g_cm3=1.3),
        Tube(x0=-300, x1=max(kingpin - 1500, 300.0), h=640, z=-900, outer=300, material="cellulose", g_cm3=0.75),
        Prism(x0=kingpin - 1420, x1=kingpin - 1330, h0=700, h1=1500, z0=-300, z1=300, g_cm3=0.16),
        Prism(x0=end - 60, x1=end, h0=560, h1=960, z0=-420, z1=420, g_cm3=0.5),
    ]
    return solids
