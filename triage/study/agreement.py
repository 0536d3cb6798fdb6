"""Whether a screening, and what it is raced against, computed what the float64 reference says: speed counts only then.

Scores are kept in steps of 1/16 and codes in steps of 1/512, so a pixel within 1/8 of the threshold may fall on the
other side of it. Hence the tolerances, each from the quantisation and none from what was measured:

    log             0.00099   half a code, 0.000977, and float32
    z               0.125     a half step of 1/16 about its middle, and the codes' error over the least deviation 0.02
    mask            only pixels within 0.125 of the threshold may differ
    material        99.95 % of the pixels: a class ends between two codes
    regions         largest score 0.125; histogram 2 % of the pixels; where the masks are equal, area, box and centroid
                    equal and the sum of L within 0.001 per pixel; where a pixel differs, area by one or 2 %, box by
                    one, centroid by 0.2, the sum by 0.05
    dense scenes    thousands of regions meet there, and one pixel joins or parts two: masks as above, and every feature
                    computed again in float64 on the pixels that were found; there one pixel in 16 may change its
                    class: a code is off by a quarter on average, a bin of the material table is 8 codes wide, so one in
                    32 falls into the next bin at each energy, which in a flat thing may be the next class for all
    peers           one code, 3/16 in z (code and score are both rounded), masks as above

Column flags must be equal, and a region table that overflowed agrees with nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from triage.analysis.screening import MIN_AREA, OFFSET, STEPS, Z_STEPS, Screening, log_of_code

Array = NDArray[Any]

LOG, Z, NEAR_Z, PEER_Z = 0.00099, 0.125, 0.125, 3 / 16
MATERIAL = 0.9995
CENTROID, SUM_LOG, HISTOGRAM = 0.2, 0.001, 0.02
BIN_EDGE = 2 * 2 / 32
"""Of the pixels: each that changes its class is missing in one place of the histogram and too many in another."""
BOX = ("col0", "col1", "ch0", "ch1")


def identical(one: Screening, two: Screening) -> bool:
    """Tell whether two results are equal bit for bit."""
    parts = ((*r.q, r.z, r.material, r.column_flags, r.regions, r.overflow) for r in (one, two))
    return all(np.array_equal(a, b) for a, b in zip(*parts, strict=True))


def with_reference(mine: Screening, truth: dict[str, Any], threshold_z: float) -> dict[str, Any]:
    """Compare with tests/reference.screen of the same counts and threshold; every error, and `ok`."""
    mask = mine.z >= int(threshold_z * Z_STEPS)
    odd = mask != truth["mask"]
    both, either = int((mask & truth["mask"]).sum()), int((mask | truth["mask"]).sum())
    # a byte stands for a step of 1/16, so its middle is compared; scores above 255 steps are kept as 255
    z_error = np.abs((mine.z + 0.5) / Z_STEPS - np.minimum(truth["z"], 255.5 / Z_STEPS))
    z_error[mine.column_flags != 0] = 0
    out: dict[str, Any] = {
        "log_max_error": _log_error(mine, truth),
        "z_max_error": float(z_error.max()),
        "material_equal": float((mine.material == truth["material"]).mean()),
        "mask_iou": both / either if either else 1.0,
        "mask_pixels": both,
        "mask_differing": int(odd.sum()),
        "mask_differing_max_distance": float(np.abs(truth["z"][odd] - threshold_z).max(initial=0)),
        "column_flags_equal": bool(np.array_equal(mine.column_flags, truth["flags"])),
        "overflow": mine.overflow,
        "regions": len(mine.regions),
        "reference_regions": len(truth["regions"]),
        **_region_errors(mine, truth["regions"], exact=not odd.any()),
    }
    out["ok"] = bool(
        out["log_max_error"] <= LOG
        and out["z_max_error"] <= Z
        and out["material_equal"] >= MATERIAL
        and out["mask_differing_max_distance"] <= NEAR_Z
        and out["column_flags_equal"]
        and out["overflow"] == 0
        and abs(out["regions"] - out["reference_regions"]) <= out["mask_differing"]
        and out["regions_ok"]
    )
    return out


def on_the_same_pixels(mine: Screening, truth: dict[str, Any], threshold_z: float) -> dict[str, Any]:
    """Compare with tests/reference.screen where regions are dense: masks, and features on the pixels found."""
    mask = mine.z >= int(threshold_z * Z_STEPS)
    odd = mask != truth["mask"]
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    found = []
    for i, where in enumerate(ndimage.find_objects(labels), start=1):
        c, h = np.nonzero(labels[where] == i)
        if len(c) >= MIN_AREA:
            found.append((c + where[0].start, h + where[1].start))
    found.sort(key=lambda p: (p[0].min(), p[1][p[0] == p[0].min()].min()))
    wrong = [
        i
        for i, (pixels, region) in enumerate(zip(found, mine.regions, strict=False))
        if not _describes(region, *pixels, truth)
    ]
    out: dict[str, Any] = {
        "log_max_error": _log_error(mine, truth),
        "mask_pixels": int(mask.sum()),
        "mask_differing": int(odd.sum()),
        "mask_differing_max_distance": float(np.abs(truth["z"][odd] - threshold_z).max(initial=0)),
        "column_flags_equal": bool(np.array_equal(mine.column_flags, truth["flags"])),
        "overflow": mine.overflow,
        "regions": len(mine.regions),
        "regions_of_the_mask": len(found),
        "regions_wrong": len(wrong),
    }
    out["ok"] = bool(
        out["log_max_error"] <= LOG
        and out["mask_differing_max_distance"] <= NEAR_Z
        and out["column_flags_equal"]
        and out["overflow"] == 0
        and len(found) == len(mine.regions)
        and not wrong
    )
    return out


def _describes(region: Any, c: Array, h: Array, truth: dict[str, Any]) -> bool:
    """Tell whether a region's features are those of the pixels at columns `c` and channels `h`."""
    histogram = np.bincount(np.minimum(truth["material"][c, h], 15), minlength=16)
    return bool(
        region["area"] == len(c)
        and tuple(int(region[name]) for name in BOX) == (c.min(), c.max() + 1, h.min(), h.max() + 1)
        and abs(region["centroid_column"] - c.mean()) < 1e-6
        and abs(region["centroid_channel"] - h.mean()) < 1e-6
        and abs(region["sum_log"] - truth["L"][-1][c, h].sum()) <= SUM_LOG * len(c)
        and abs(region["max_z"] + 0.5 / Z_STEPS - min(truth["z"][c, h].max(), 255.5 / Z_STEPS)) <= Z
        and np.abs(region["material"] - histogram).sum() <= max(4.0, BIN_EDGE * len(c))
    )


def _log_error(mine: Screening, truth: dict[str, Any]) -> float:
    return max(float(np.abs(log_of_code(q) - L).max()) for q, L in zip(mine.q, truth["L"], strict=True))


def _region_errors(mine: Screening, truth: list[dict[str, Any]], *, exact: bool) -> dict[str, Any]:
    """Return the largest error of each feature, and whether each region's are within what differing pixels explain.

    Regions are paired by where they begin. One that a pixel near the threshold cut in two, or made one of two, has no
    pair; such are counted, and at most one in twenty may be.

    exact : the masks are equal, so the places must be
    """
    found = {(int(r["col0"]), int(r["ch0"]), int(r["col1"]), int(r["ch1"])): r for r in mine.regions}
    errors = {"area": 0.0, "box": 0.0, "centroid": 0.0, "sum_log_per_pixel": 0.0, "max_z": 0.0, "histogram": 0.0}
    ok, unpaired = True, 0
    for b in truth:
        box = tuple(int(b[name]) for name in ("col0", "ch0", "col1", "ch1"))
        near = min(found, key=lambda key: max(abs(k - v) for k, v in zip(key, box, strict=True)), default=None)
        apart = np.inf if near is None else max(abs(k - v) for k, v in zip(near, box, strict=True))
        if near is None or apart > 1:
            unpaired += 1
            continue
        a, size = found[near], float(b["area"])
        area = abs(float(a["area"]) - size)
        seen = {
            "area": area,
            "box": float(apart),
            "centroid": max(abs(float(a[n]) - b[n]) for n in ("centroid_column", "centroid_channel")),
            "sum_log_per_pixel": abs(float(a["sum_log"]) / float(a["area"]) - b["sum_log"] / size),
            "max_z": abs(float(a["max_z"]) + 0.5 / Z_STEPS - min(b["max_z"], 255.5 / Z_STEPS)),
            "histogram": float(np.abs(a["material"] - b["material"]).sum()),
        }
        errors = {name: max(value, seen[name]) for name, value in errors.items()}
        ok &= area <= (0 if exact else max(1.0, 0.02 * size)) and apart <= (0 if exact else 1)
        ok &= seen["centroid"] <= (1e-6 if exact else CENTROID) and seen["max_z"] <= Z
        ok &= seen["sum_log_per_pixel"] <= (SUM_LOG if exact else 0.05)
        ok &= seen["histogram"] <= max(2.0, HISTOGRAM * size) + area
    ok &= unpaired <= len(truth) / 20
    named = {f"region_{name}_max_error": float(value) for name, value in errors.items()}
    return {**named, "regions_unpaired": unpaired, "regions_ok": bool(ok)}


def with_peer(mine: Screening, peer: dict[str, Any], threshold_z: float) -> dict[str, Any]:
    """Compare a peer's result with ours, to show that both did the same work; every error, and `ok`.

    peer : q (codes) or L (logarithms) per energy, z in steps (uint8) or as scores, material, mask, count of regions
    """
    step = int(threshold_z * Z_STEPS)
    codes = peer.get("q") or [np.round(STEPS * L) + OFFSET for L in peer["L"]]
    z = peer["z"] if peer["z"].dtype == np.uint8 else np.minimum(np.floor(peer["z"] * Z_STEPS), 255)
    odd = (mine.z >= step) != (peer["mask"] != 0)
    away = np.abs(mine.z[odd].astype(np.int32) + 0.5 - step) / Z_STEPS
    out: dict[str, Any] = {
        "code_max_difference": max(
            int(np.abs(a.astype(np.int32) - b).max()) for a, b in zip(mine.q, codes, strict=True)
        ),
        "z_max_difference": float(np.abs(mine.z.astype(np.float32) - z).max() / Z_STEPS),
        "material_equal": float((mine.material == peer["material"]).mean()),
        "mask_differing": int(odd.sum()),
        "mask_differing_max_distance": float(away.max(initial=0)),
        "regions": len(mine.regions),
        "peer_regions": int(peer["regions"]),
    }
    out["ok"] = bool(
        out["code_max_difference"] <= 1
        and out["z_max_difference"] <= PEER_Z
        and out["material_equal"] >= MATERIAL
        and out["mask_differing_max_distance"] <= PEER_Z
        and abs(out["regions"] - out["peer_regions"]) <= out["mask_differing"]
    )
    return out
