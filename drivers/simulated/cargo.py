"""What is inside: the kinds of cargo, each with what it may be declared as. Goods, names and weights are invented.

Where sizes and densities come from: bulk densities of trade tables as stowage factors give them (m³/t; e.g. sugar in
bags 1.2, coffee 1.8, cotton 2.5 pressed, citrus 2.2, frozen meat 1.8, newsprint rolls 1.9), rounded and spread; unit
sizes of the packaging standards (ISO 6780 pallets, 210 l drums, 1000 l totes); payloads of ISO 668 containers. The
arrangements (wandering columns, lower rows at the doors, cones under spouts, slumped bags) follow published scans.
A heavy kind is thinned by `passage` where it would be heavier than the road allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from . import clutter, loose, metal, stacked
from .scene import Solid
from .vehicle import Bay

Rng = np.random.Generator
Order = Literal["empty", "homogeneous", "stacked", "sparse", "cluttered"]


class Goods(NamedTuple):
    """One declaration that fits a kind of cargo. norm : it may be naturally radioactive."""

    hs: str
    text: str
    norm: bool = False


class Kind(NamedTuple):
    """One kind of cargo.

    build : makes the solids of one load; no two are alike
    goods : what it is declared as
    order : how its picture is ordered
    g_cm2 : between which areal densities along the beam the median of the rays that meet the load lies, by stowage
        factor, width and payload; the load alone, without container
    feet : containers it travels in; reefer : these are refrigerated
    """

    build: Callable[[Rng, Bay], list[Solid]]
    goods: tuple[Goods, ...]
    order: Order
    g_cm2: tuple[float, float]
    feet: tuple[int, ...] = (20, 40, 45)
    reefer: bool = False


def _nothing(rng: Rng, bay: Bay) -> list[Solid]:
    """Nothing."""
    return []


HEAVY = (20, 40)
"""Containers of goods that are weighed out before they are measured out."""

KINDS: dict[str, Kind] = {
    "empty": Kind(_nothing, (), "empty", (0, 0)),
    "cartons": Kind(
        stacked.cartons,
        (Goods("851660", "electric ovens and cookers"), Goods("640399", "footwear"),
         Goods("611020", "knitted garments"), Goods("190531", "biscuits")),
        "stacked", (15, 90),
    ),
    "fruit": Kind(
        stacked.fruit, (Goods("080510", "oranges"), Goods("080390", "bananas"), Goods("080810", "apples")),
        "stacked", (45, 115), (40,), True,
    ),
    "frozen": Kind(
        stacked.frozen, (Goods("020230", "frozen beef, boneless"), Goods("020714", "frozen chicken cuts")),
        "stacked", (55, 130), HEAVY, True,
    ),
    "sacks": Kind(
        loose.sacks,
        (Goods("090111", "coffee, not roasted"), Goods("170199", "sugar"),
         Goods("310420", "potassium chloride fertiliser", True)),
        "stacked", (45, 170), HEAVY,
    ),
    "big_bags": Kind(
        loose.big_bags,
        (Goods("170199", "sugar in big bags"), Goods("390210", "polypropylene granules"),
         Goods("251010", "natural phosphate", True)),
        "homogeneous", (50, 220), HEAVY,
    ),
    "bulk": Kind(
        loose.bulk,
        (Goods("120190", "soya beans"), Goods("100590", "maize"), Goods("230400", "soya-bean meal"),
         Goods("250810", "bentonite", True)),
        "homogeneous", (60, 185), HEAVY,
    ),
    "flexitank": Kind(
        loose.flexitank,
        (Goods("220429", "wine in a flexitank"), Goods("151211", "sunflower oil in a flexitank")),
        "homogeneous", (150, 250), (20,),
    ),
    "bales": Kind(
        stacked.bales, (Goods("520100", "cotton, not carded"), Goods("630900", "worn clothing in bales"),
                        Goods("470790", "waste paper in bales")),
        "stacked", (35, 115), (40, 45),
    ),
    "fabric_rolls": Kind(
        stacked.fabric_rolls, (Goods("540752", "woven polyester fabric"), Goods("570330", "carpets in rolls")),
        "stacked", (25, 90),
    ),
    "tyres": Kind(
        stacked.tyres, (Goods("401110", "new tyres for motor cars"), Goods("401220", "used tyres")),
        "stacked", (8, 85),
    ),
    "drums": Kind(
        stacked.drums, (Goods("151190", "palm oil in drums"), Goods("200912", "orange juice in drums"),
                        Goods("290511", "methanol in drums")),
        "stacked", (70, 210), HEAVY,
    ),
    "totes": Kind(
        stacked.totes, (Goods("340290", "cleaning preparations in bulk containers"), Goods("320890", "varnish")),
        "stacked", (60, 240), HEAVY,
    ),
    "bottles": Kind(
        stacked.bottles, (Goods("220300", "beer"), Goods("200570", "olives in jars"), Goods("220210", "lemonade")),
        "stacked", (60, 190), HEAVY,
    ),
    "paper": Kind(
        stacked.paper, (Goods("480100", "newsprint in rolls"), Goods("480525", "testliner in rolls")),
        "stacked", (60, 170), HEAVY,
    ),
    "timber": Kind(
        stacked.timber, (Goods("440710", "sawn pine"), Goods("440799", "sawn hardwood")), "stacked", (50, 135),
    ),
    "logs": Kind(
        stacked.logs, (Goods("440349", "tropical logs"), Goods("440320", "pine logs")), "homogeneous", (30, 175), HEAVY,
    ),
    "tiles": Kind(
        stacked.tiles, (Goods("690721", "ceramic tiles", True), Goods("680223", "granite slabs", True)),
        "sparse", (80, 230), HEAVY,
    ),
    "white_goods": Kind(
        stacked.white_goods, (Goods("841810", "refrigerators"), Goods("845011", "washing machines")),
        "stacked", (5, 60),
    ),
    "coils": Kind(
        metal.coils, (Goods("720839", "hot-rolled steel in coils"), Goods("760711", "aluminium strip in coils")),
        "sparse", (15, 900), HEAVY,
    ),
    "pipes": Kind(
        metal.pipes, (Goods("730431", "steel tubes"), Goods("391721", "plastic pipes")), "stacked", (25, 400), HEAVY,
    ),
    "plates": Kind(
        metal.plates, (Goods("700529", "float glass in racks"), Goods("680291", "marble slabs"),
                       Goods("720851", "steel plate")),
        "sparse", (5, 140), HEAVY,
    ),
    "ingots": Kind(
        metal.ingots, (Goods("760110", "aluminium ingots"), Goods("790111", "zinc ingots"),
                       Goods("740311", "copper cathodes"), Goods("780110", "refined lead")),
        "sparse", (30, 900), HEAVY,
    ),
    "reels": Kind(
        metal.reels, (Goods("854449", "electric cable on drums"),), "sparse", (25, 420), HEAVY,
    ),
    "blocks": Kind(
        metal.blocks, (Goods("251611", "crude granite", True), Goods("251511", "crude marble")),
        "sparse", (100, 480), HEAVY,
    ),
    "scrap": Kind(
        metal.scrap, (Goods("720449", "ferrous scrap"), Goods("760200", "aluminium scrap")), "cluttered", (15, 160),
        HEAVY,
    ),
    "machinery": Kind(
        metal.machinery, (Goods("847989", "machines, not specified elsewhere"), Goods("841350", "pumps")),
        "cluttered", (3, 160),
    ),
    "car_parts": Kind(
        metal.car_parts, (Goods("870899", "used parts of motor cars"), Goods("840991", "used engines")),
        "cluttered", (5, 130),
    ),
    "cars": Kind(
        metal.cars, (Goods("870323", "used motor cars"),), "cluttered", (1, 20),
    ),
    "furniture": Kind(
        clutter.furniture, (Goods("940360", "wooden furniture"), Goods("940161", "upholstered seats")),
        "cluttered", (5, 60),
    ),
    "mixed": Kind(
        clutter.mixed, (Goods("940370", "furniture and household goods"), Goods("950300", "toys, mixed")),
        "cluttered", (5, 60),
    ),
    "part_loads": Kind(
        clutter.part_loads, (Goods("392690", "consolidated goods"), Goods("732399", "household articles")),
        "cluttered", (3, 150),
    ),
}  # fmt: skip
"""Kinds of cargo."""

NORM_KINDS = tuple(name for name, kind in KINDS.items() if any(g.norm for g in kind.goods))
"""Kinds that may be naturally radioactive."""
