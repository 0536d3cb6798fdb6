"""Image quality from a picture of a test object: what steel it sees through, which wires, what contrast, how sharp.

The object is the site's own, and so are the limits; where its parts lie is told by a table of boxes. The questions are
those of IEC 62523 (7.1 penetration, 7.2 wire, 7.3 contrast sensitivity, 7.4 spatial resolution) and ANSI N42.46, and
the pair of wires that can no longer be told apart is that of ISO 19232-5; the objects, sizes and pass limits of these
standards are not, so that no conformance to any of them is claimed, nor a power to detect from a sharp image.

All images are (rows, columns) of linear counts or transmission, large = air.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from scanner_io.errors import DataError

Array: TypeAlias = NDArray[Any]

DUPLEX_MM = (0.8, 0.63, 0.5, 0.4, 0.32, 0.25, 0.2, 0.16, 0.13, 0.1, 0.08, 0.063, 0.05)
"""Diameters of the pairs 1D to 13D; the gap between the two wires is one diameter. Source: EN 462-5 / ISO 19232-5."""
DIP = 0.2
"""The first pair whose dip is less than this share cannot be told apart. Source: ISO 19232-5."""
LEAST_PIXELS = 50
SURE = 3.0
"""So many standard errors of its contrast a block or plate must have to count as seen at all."""
FINEST = 0.5
"""Line pairs per pixel above which a picture cannot tell. Source: the sampling theorem."""
_EDGE_BINS = 4
"""Bins per pixel of an edge's profile. Source: ISO 12233, slanted edge."""


class Region(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A half-open rectangle of the image, in pixels."""

    first_column: Annotated[int, msgspec.Meta(ge=0)]
    end_column: Annotated[int, msgspec.Meta(ge=1)]
    first_row: Annotated[int, msgspec.Meta(ge=0)]
    end_row: Annotated[int, msgspec.Meta(ge=1)]

    def of(self, image: Array, what: str) -> Array:
        """Return the part of the image. Raises DataError if it does not lie within, or is empty."""
        rows, columns = image.shape
        inside = self.first_column < self.end_column <= columns and self.first_row < self.end_row <= rows
        if not inside:
            raise DataError(
                f"{what}: columns {self.first_column}..{self.end_column}, rows {self.first_row}..{self.end_row} are no "
                f"part of an image of {columns} columns and {rows} rows"
            )
        return image[self.first_row : self.end_row, self.first_column : self.end_column].astype(np.float64)

    def places(self) -> tuple[Array, Array]:
        """Return row and column of every pixel in the image, each (pixels,) float64, row by row."""
        rows, columns = np.mgrid[self.first_row : self.end_row, self.first_column : self.end_column]
        return rows.ravel().astype(np.float64), columns.ravel().astype(np.float64)

    def overlaps(self, other: Region) -> bool:
        """Return whether a pixel lies in both."""
        return (
            max(self.first_column, other.first_column) < min(self.end_column, other.end_column)
            and max(self.first_row, other.first_row) < min(self.end_row, other.end_row)
        )  # fmt: skip


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A block behind so much of a material (penetration), or a plate on it (contrast sensitivity).

    thickness_mm : of what lies in front; plate_mm : of the plate, for contrast sensitivity
    block, surround : where the block or plate is, and a place beside it of the same thickness
    """

    thickness_mm: Annotated[float, msgspec.Meta(ge=0)]
    plate_mm: Annotated[float, msgspec.Meta(gt=0)] | None = None
    block: Region
    surround: Region


class Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A straight wire along the longer side of its box, about in the middle. diameter_mm : 0 for a blank place"""

    diameter_mm: Annotated[float, msgspec.Meta(ge=0)]
    box: Region
    along: Literal["rows", "columns"]


class Duplex(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An indicator with pairs of wires. box : of the wires alone; across : the direction in which the pairs follow"""

    box: Region
    across: Literal["rows", "columns"] = "columns"


class Edge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A straight edge, a few degrees off the pixels. across : the direction that its sharpness is told of"""

    box: Region
    across: Literal["rows", "columns"]


class TestObject(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the parts of a test object lie, and what the site asks of it.

    pixel_mm : size of a pixel at the object, needed for sharpness in millimetres
    seen_cnr : contrast-to-noise ratio from which a block or plate counts as seen
    wire_share : share of its length over which a wire must stand out
    limits : what the site asks: `penetration_mm`, `wire_mm`, `contrast_percent`, `mtf10_per_mm`, `resolution_mm`
    """

    name: str
    pixel_mm: Annotated[float, msgspec.Meta(gt=0)] | None = None
    seen_cnr: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    wire_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    penetration: tuple[Step, ...] = ()
    contrast: tuple[Step, ...] = ()
    wires: tuple[Wire, ...] = ()
    duplex: Duplex | None = None
    edges: tuple[Edge, ...] = ()
    limits: dict[str, float] = {}


LARGER_IS_BETTER = {
    "penetration_mm": True, "wire_mm": False, "contrast_percent": False, "mtf10_per_mm": True, "resolution_mm": False,
}  # fmt: skip


def contrast_to_noise(image: Array, block: Region, surround: Region, what: str = "step") -> tuple[float, float]:
    """Return how far a block lies below its surround, in standard deviations of the surround, and the error of that.

    image : (rows, columns); what : begins the words of an error

    One plane and the depth of the block are fitted to both places at once, by least squares, so that a gradient of the
    beam which goes through both is neither contrast nor noise. A block brighter than its surround gives less than 0.
    The error is one standard error. It grows where the places are small and lie far apart, as a block and a gradient
    are then hard to tell apart. A beam that is bent over the places, and not a plane, is not taken out.

    Raises DataError for a place that is not of the image or has less than `LEAST_PIXELS`, places that overlap or cannot
    be told from a gradient, or a surround without noise.
    """
    parts = {"block": block.of(image, f"{what}, block"), "surround": surround.of(image, f"{what}, surround")}
    for name, part in parts.items():
        if part.size < LEAST_PIXELS:
            raise DataError(f"{what}, {name}: {part.size} pixels, expected at least {LEAST_PIXELS}")
    if block.overlaps(surround):
        raise DataError(f"{what}: block and surround overlap, so that neither is itself alone")
    if np.ptp(parts["surround"]) == 0:
        raise DataError(f"{what}, surround: every pixel has one value: no noise to hold a contrast against")
    depth, depth_error, spread = _depth_of_block(parts["block"], parts["surround"], block, surround, what)
    cnr = depth / spread
    return cnr, math.hypot(depth_error / spread, cnr / math.sqrt(2 * parts["surround"].size))


def _depth_of_block(
    inside: Array, outside: Array, block: Region, surround: Region, what: str
) -> tuple[float, float, float]:
    """Return surround less block, its standard error, and the noise of the surround, in the units of the image."""
    rows, columns = (np.concatenate(axes) for axes in zip(block.places(), surround.places(), strict=True))
    is_block = np.arange(rows.size) < inside.size
    values = np.concatenate([inside.ravel(), outside.ravel()])
    basis = np.stack([np.ones(rows.size), _unit(rows), _unit(columns), -1.0 * is_block], axis=1)
    fit, _, rank, _ = np.linalg.lstsq(basis, values, rcond=1e-9)
    if rank < basis.shape[1]:
        raise DataError(f"{what}: block and surround are too narrow or lie so that a gradient looks like a block")
    rest = values - basis @ fit
    spread = float(rest[~is_block].std(ddof=1))
    if spread < 1e-9 * float(np.abs(outside).max()):
        raise DataError(f"{what}, surround: is a plane without noise to hold a contrast against")
    noise = np.where(is_block, rest[is_block].std(ddof=1), spread)  # a dark block has less noise than its surround
    row = np.linalg.pinv(basis)[3]
    return float(fit[3]), float(np.sqrt((row**2 * noise**2).sum())), spread


def _unit(values: Array) -> Array:
    """Return the values about their middle, over half their range."""
    middle = (values.max() + values.min()) / 2
    return np.asarray((values - middle) / max(float(np.ptp(values)) / 2, 1.0))


def steps(image: Array, parts: Sequence[Step], seen_cnr: float) -> list[dict[str, Any]]:
    """Return the contrast-to-noise ratio of every step, thinnest first, and whether it is seen.

    Seen is what reaches `seen_cnr` and is also `SURE` standard errors above nothing. Raises DataError.
    """
    rows = []
    for number, step in enumerate(sorted(parts, key=lambda s: s.thickness_mm)):
        what = f"step {number} of {step.thickness_mm:g} mm"
        cnr, error = contrast_to_noise(image, step.block, step.surround, what)
        rows.append({
            "thickness_mm": step.thickness_mm, "plate_mm": step.plate_mm, "cnr": round(cnr, 3),
            "cnr_error": round(error, 3), "seen": cnr >= max(seen_cnr, SURE * error),
        })  # fmt: skip
    return rows


def thickest_seen(rows: Sequence[dict[str, Any]]) -> float | None:
    """Return the thickest step up to which every one is seen; None: not even the first."""
    best = None
    for row in rows:
        if not row["seen"]:
            break
        best = float(row["thickness_mm"])
    return best


def least_contrast(rows: Sequence[dict[str, Any]]) -> float | None:
    """Return the smallest plate that is seen, in per cent of what it lies on, with every larger one seen as well."""
    by_share = sorted(
        ((100 * r["plate_mm"] / r["thickness_mm"], r["seen"]) for r in rows if r["plate_mm"] and r["thickness_mm"]),
        reverse=True,
    )
    best = None
    for share, seen in by_share:
        if not seen:
            break
        best = share
    return best


def wire(image: Array, part: Wire, what: str, pixel_mm: float | None) -> dict[str, Any]:
    """Return over which share of its length a wire stands out of its noise by three standard deviations.

    The box is cut into pieces along the wire; in each, the profile across it is searched for a dark line of the wire's
    width within a quarter of the box about the middle. Where nothing is, one piece in about fifty passes by chance.
    """
    box = part.box.of(image, what)
    strip = box if part.along == "columns" else box.T  # the wire runs along axis 1
    across, length = strip.shape
    if across < 12 or length < 32:
        raise DataError(f"{what}: {length} pixels along and {across} across, expected at least 32 and 12")
    width = 1.0 if pixel_mm is None or not part.diameter_mm else max(1.0, part.diameter_mm / pixel_mm)
    pieces = np.array_split(strip, max(4, length // 32), axis=1)
    passed = [_line_snr(piece, width) > 3.0 for piece in pieces]
    return {"diameter_mm": part.diameter_mm, "share": round(float(np.mean(passed)), 3), "pieces": len(pieces)}


def _line_snr(piece: Array, width: float) -> float:
    """Return how far the deepest line near the middle lies below the rest, in standard deviations of such lines."""
    profile = piece.mean(axis=1)
    smooth = gaussian_filter1d(profile, max(0.5, width / 2.355), mode="nearest") - gaussian_filter1d(
        profile, max(3.0, 2 * width), mode="nearest"
    )
    middle, quarter = len(smooth) // 2, max(2, len(smooth) // 8)
    near = slice(middle - quarter, middle + quarter + 1)
    rest = np.concatenate([smooth[: near.start], smooth[near.stop :]])
    spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    return float((np.median(rest) - smooth[near].min()) / max(spread, 1e-12)) - math.sqrt(2 * math.log(2 * quarter + 1))


def duplex(image: Array, part: Duplex, pixel_mm: float) -> dict[str, Any]:
    """Return the dip between the wires of each pair, and the first pair that can no longer be told apart.

    resolution_mm is None where every pair that was found is told apart. The profile is that of depth, -ln of the counts
    over the plate's own, averaged along the wires. Raises DataError where the pairs are not found: the thickest must
    stand at one end.
    """
    from scipy.signal import find_peaks  # to load it takes a second, and it is asked for once a day

    box = part.box.of(image, "duplex")
    strip = box if part.across == "columns" else box.T
    plate = np.median(strip, axis=0)
    floor = gaussian_filter1d(np.asarray(_upper(plate, int(6.4 / pixel_mm))), 2.0)
    least = max(1e-6 * float(strip.max()), 1e-12)  # counts or transmission, never 0
    depth = np.log(np.maximum(floor, least) / np.maximum(strip.mean(axis=0), least))
    noise = 1.4826 * float(np.median(np.abs(np.diff(depth)))) / math.sqrt(2)
    peaks, _ = find_peaks(depth, prominence=max(4 * noise, 0.01 * float(depth.max())))
    groups = np.split(peaks, np.flatnonzero(np.diff(peaks) > 1.5 * 2 * DUPLEX_MM[0] / pixel_mm) + 1)
    groups = [g for g in groups if len(g)]
    if len(groups) < 2 or depth.max() < 10 * noise:
        raise DataError("duplex: no pairs of wires are seen in the box; name the box of the wires alone, and pixel_mm")
    if depth[groups[0]].max() < depth[groups[-1]].max():
        groups.reverse()
    pairs, sizes = [], []
    for diameter, group in zip(DUPLEX_MM, groups, strict=False):
        pairs.append({"diameter_mm": diameter, "dip": round(_dip(depth, np.sort(group)), 3)})
        if len(group) == 2:  # the wires' middles lie two diameters apart
            sizes.append(2 * diameter / abs(int(group[1]) - int(group[0])))
    merged = next((p["diameter_mm"] for p in pairs if p["dip"] < DIP), None)
    size = round(float(np.median(sizes)), 4) if sizes else None
    return {"pairs": pairs, "resolution_mm": merged, "pairs_seen": len(groups), "pixel_mm_by_pairs": size}


def _parted(pairs: dict[str, Any] | None) -> tuple[float | None, bool]:
    """Return the first pair that cannot be told apart, in mm, or the finest one found and True: it is less than that.

    pairs : as `duplex` returns it; None, and None for it, where there is no indicator
    """
    if pairs is None:
        return None, False
    if pairs["resolution_mm"] is None:
        return float(pairs["pairs"][-1]["diameter_mm"]), True
    return float(pairs["resolution_mm"]), False


def _upper(values: Array, reach: int) -> list[float]:
    """Return the plate's own counts: of each neighbourhood what nine of ten values do not pass."""
    return [float(np.quantile(values[max(0, i - reach) : i + reach + 1], 0.9)) for i in range(len(values))]


def _dip(depth: Array, group: Array) -> float:
    """Return (A + B - 2C) / (A + B) of two wires A, B and the least depth C between them; 0 for one line."""
    if len(group) < 2:
        return 0.0
    first, last = int(group[0]), int(group[-1])
    a, b = float(depth[first]), float(depth[last])
    return (a + b - 2 * float(depth[first : last + 1].min())) / (a + b)


def edge(image: Array, part: Edge, what: str, pixel_mm: float | None) -> dict[str, Any]:
    """Return the frequencies at which the modulation of a slanted edge has fallen to 50 and 10 %.

    In line pairs per pixel, and per millimetre where the size of a pixel is known. An edge that keeps more than that up
    to `FINEST` gives `FINEST`, and mtf50_is_bound or mtf10_is_bound is True: it is at least so sharp. None where noise
    alone could keep the modulation up, so that nothing is told. Raises DataError for a box that is too small or an edge
    that cannot be measured in it. Method: ISO 12233, slanted edge, with a straight line fitted to the edge.
    """
    box = part.box.of(image, what)
    strip = box if part.across == "columns" else box.T  # rows of profiles across the edge
    lines, width = strip.shape
    if lines < 16 or width < 16:
        raise DataError(f"{what}: {width} x {lines} pixels, expected at least 16 x 16")
    slope = np.abs(np.diff(gaussian_filter1d(strip, 1.0, axis=1), axis=1))
    slope = np.where(slope > 0.2 * slope.max(axis=1, keepdims=True), slope, 0.0)
    centres = (slope * (np.arange(width - 1) + 0.5)).sum(axis=1) / np.maximum(slope.sum(axis=1), 1e-12)
    tilt, offset = np.polyfit(np.arange(lines), centres, 1)
    if not 0.02 < abs(tilt) < 0.5:
        raise DataError(f"{what}: the edge leans by {math.degrees(math.atan(tilt)):.1f} degrees, expected 1 to 26")
    distance = (np.arange(width) - (offset + tilt * np.arange(lines)[:, None])) * math.cos(math.atan(tilt))
    bins = np.floor(distance * _EDGE_BINS).astype(int)
    reach = int(min(-bins.min(axis=1).max(), bins.max(axis=1).min()))
    inside = np.abs(bins) < reach
    index = (bins[inside] + reach).ravel()
    number = np.bincount(index, minlength=2 * reach)
    if reach < 8 * _EDGE_BINS or (number[1:-1] == 0).any():
        raise DataError(f"{what}: the edge lies too near an end of its box, or leans too little, to be measured")
    profile = np.bincount(index, strip[inside].ravel(), minlength=2 * reach) / np.maximum(number, 1)
    spread = np.diff(profile[1:-1]) * np.hanning(len(profile) - 3)
    modulation = np.abs(np.fft.rfft(spread, 16 * len(spread)))
    contrast = float(modulation[0])
    modulation /= contrast
    frequency = np.fft.rfftfreq(16 * len(spread), 1 / _EDGE_BINS)
    bin_blur = np.sinc(frequency / _EDGE_BINS) ** 2  # of the bins, and of the difference of two of them
    floor = _noise_floor(profile) / contrast
    found: dict[str, Any] = {}
    for name, level in (("mtf50", 0.5), ("mtf10", 0.1)):
        below = np.flatnonzero((modulation / bin_blur < level) & (frequency <= FINEST))
        is_bound = not len(below) and 3 * floor < level
        at = float(frequency[below[0]]) if len(below) else FINEST if is_bound else None
        found[f"{name}_per_pixel"] = None if at is None else round(at, 4)
        found[f"{name}_per_mm"] = None if at is None or pixel_mm is None else round(at / pixel_mm, 4)
        found[f"{name}_is_bound"] = is_bound
    return {"across": part.across, **found}


def _noise_floor(profile: Array) -> float:
    """Return the modulation that noise alone has at `FINEST`, in the units of the profile.

    profile : (bins,) of an edge; its outer quarters are taken as flat but for noise and a slow gradient
    """
    quarter = len(profile) // 4
    differences = np.concatenate([np.diff(profile[1:quarter]), np.diff(profile[-quarter:-1])])
    per_bin = float(differences.std(ddof=1)) / math.sqrt(2)
    response = 2 * math.sin(math.pi * FINEST / _EDGE_BINS)  # of the difference of two bins
    return per_bin * response * math.sqrt(float((np.hanning(len(profile) - 3) ** 2).sum()))


def _sharpness(edges: Sequence[dict[str, Any]]) -> tuple[float | None, bool]:
    """Return the least mtf10 of the edges in line pairs per mm, and whether it is only known to be at least that.

    None where there is no edge, no size of a pixel, or an edge that nothing is told of.
    """
    told = [(e["mtf10_per_mm"], e["mtf10_is_bound"]) for e in edges]
    if not told or any(value is None for value, _ in told):
        return None, False
    return min(told)


def measure(image: Array, what: TestObject) -> dict[str, Any]:
    """Return all that can be told of the image, and whether each of the site's limits is kept.

    `bounds` names the figures that are only known to be no worse than they say: the system is sharper than that.

    Raises DataError for a part that cannot be measured, or a limit of a name that is none.
    """
    if odd := set(what.limits) - set(LARGER_IS_BETTER):
        raise DataError(f"limits: {', '.join(sorted(odd))}, expected {', '.join(LARGER_IS_BETTER)}")
    penetration = steps(image, what.penetration, what.seen_cnr)
    contrast = steps(image, what.contrast, what.seen_cnr)
    wires = [wire(image, w, f"wire {n} of {w.diameter_mm:g} mm", what.pixel_mm) for n, w in enumerate(what.wires)]
    blank = [w["share"] for w in wires if not w["diameter_mm"]]
    seen = [w["diameter_mm"] for w in wires if w["diameter_mm"] and w["share"] >= what.wire_share]
    if what.duplex is not None and what.pixel_mm is None:
        raise DataError("pixel_mm: is missing; a duplex indicator needs it")
    pairs = None if what.duplex is None or what.pixel_mm is None else duplex(image, what.duplex, what.pixel_mm)
    edges = [edge(image, e, f"edge {n}", what.pixel_mm) for n, e in enumerate(what.edges)]
    sharp, bounded = _sharpness(edges)
    parted, all_parted = _parted(pairs)
    bounds = {"mtf10_per_mm": "at least"} if bounded else {}
    bounds |= {"resolution_mm": "less than"} if all_parted else {}
    figures = {
        "penetration_mm": thickest_seen(penetration), "contrast_percent": least_contrast(contrast),
        # A blank place in which a wire is seen makes every wire doubtful.
        "wire_mm": None if not seen or max(blank, default=0.0) >= what.wire_share else min(seen),
        "resolution_mm": parted, "mtf10_per_mm": sharp,
    }  # fmt: skip
    kept = {
        name: (value := figures[name]) is not None and (value >= limit if LARGER_IS_BETTER[name] else value <= limit)
        for name, limit in what.limits.items()
    }
    return {
        "object": what.name, "figures": figures, "bounds": bounds, "limits": what.limits, "kept": kept,
        "passed": all(kept.values()),
        "penetration": penetration, "contrast": contrast, "wires": wires, "duplex": pairs, "edges": edges,
    }  # fmt: skip
