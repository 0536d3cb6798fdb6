"""`scanlane evaluate dual-energy`: the transparency model and its inversion against what others computed and measured.

Four parts, each left out where its files are absent: Geant4 transparencies of 12 materials (errors of the model,
materials told apart), a Geant4 dual-energy scene (map and segments), real pairs of flat-panel radiographs (one material
at all thicknesses), and simulated vehicles of this project (mass; labelled simulated). The speed is measured in any
case.
"""

from __future__ import annotations

import csv
import statistics
import time
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanner_io import driver, energy_calibration
from scanner_io.attenuation import SYMBOLS
from scanner_io.energy_calibration import Beam, EnergyCalibration, Point, Spectrum, Zone
from scanner_io.errors import DataError
from scanner_io.model import Declaration, DetectorState, LineBlock, Radiograph, ScanStart
from scanner_io.storage import write_durable
from triage.analysis.container import Frame
from triage.analysis.declaration import judge_mass
from triage.analysis.dual_energy import CLASS_BOUNDS_Z, CLASSES, Inversion, codes_of, inversion_of
from triage.analysis.image import ImageProfile, judge_image
from triage.analysis.material import Mass, MaterialJudgement, MaterialProfile, judge_material
from triage.analysis.shares import share
from triage.analysis.transparency import FREE_STREAMING, BeamModel, alpha, fit, spectrum_of
from triage.service.strip_workers import StripWorkers

Array: TypeAlias = NDArray[Any]

COMPOUNDS = {101: "CH2", 102: "Al2O3"}
"""Numbers of the table's materials that are no elements."""
CALIBRATED_AT = ("C", "Fe", "Pb")
SCENE_ZONE_ROWS = 5
MAP_COLUMNS, MAP_CHANNELS = 5000, 2000
TOLD_APART_SD = 3.0
EXAMPLE_SEED = 3


def evaluate_dual_energy(
    attenuation: Path | None, kilovolt: Path | None, out: Path | None = None, *, rounds: int = 9, vehicles: int = 0
) -> dict[str, Any]:
    """Return what was found, part by part; absent parts are None.

    attenuation : folder with mev_transparency_geant4.csv, mev_spectra.csv, mev_dual_scene.npz
    kilovolt : folder with Fusion2-120kV.png, Fusion2-320kV.png, FusionPart1-120kV.png, FusionPart1-180kV.png
    out : PNG maps are written there, and the energy calibration of a simulated lane as an example of one
    rounds : repetitions of the speed measurement; vehicles : simulated ones whose mass is estimated
    """
    report: dict[str, Any] = {"transparency": None, "classes": None, "scene": None, "kilovolt": None, "mass": None}
    if attenuation is not None:
        table = Geant4Table(attenuation)
        report["transparency"] = {f"{beam}MV": table.errors(beam) for beam in ("4", "6", "10")}
        report["classes"] = {f"{high}/{low}MV": table.told(low, high) for low, high in PAIRS}
        report["scene"] = _scene(attenuation / "mev_dual_scene.npz", out)
    if kilovolt is not None:
        from .dual_energy_kilovolt import casting, nickel

        report["kilovolt"] = {"nickel": nickel(kilovolt, out), "casting": casting(kilovolt, out)}
    if out is not None:
        _example(out)
    if vehicles:
        report["mass"] = simulated_mass(vehicles)
    report["speed"] = map_speed(rounds)
    return report


def default_folder(name: str) -> Path | None:
    """Return the folder of shared data beside this source checkout, None where it is absent."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / name
    return folder if folder.is_dir() else None


def in_words(report: dict[str, Any]) -> list[str]:
    """Return the report as lines."""
    lines = []
    for beam, errors in (report["transparency"] or {}).items():
        for part in ("from_10_g_cm2", "below_10_g_cm2", "all"):
            e = errors[part]
            lines.append(
                f"transparency {beam:5} {part:15} {e['points']:4} points: mean {e['mean_percent']} %, max "
                f"{e['max_percent']} % (free streaming: mean {e['free_streaming_mean_percent']} %)"
            )
        lines += [
            f"    beyond 2 %: {b['material']} {b['areal_density_g_cm2']:g} g/cm2 {b['percent']:+} % "
            f"(the table's own 1 sd {b['table_sd_percent']} %)"
            for b in errors["beyond_2_percent"]
        ]
    for pair, c in (report["classes"] or {}).items():
        lines.append(
            f"classes {pair}: right {c['right']} of {c['told_apart']} that can be told apart ({c['right_percent']} %), "
            f"of {c['pairs']}; one class alone {c['one_class']}, wrongly {c['one_class_wrong']}; the set holds the "
            f"truth {c['set_holds_truth']} times"
        )
    if report["scene"] is not None:
        lines.append(f"scene: {report['scene']['simulated']}, {report['scene']['seconds']} s")
        lines += [
            f"    columns {s['columns']} channels {s['channels']}: {s['class']}; Z {s['effective_z']}, "
            f"g/cm2 {s['areal_density_g_cm2']}"
            for s in report["scene"]["segments"]
        ]
    for name, part in (report["kilovolt"] or {}).items():
        lines.append(f"{name}: {part}")
    if report["mass"] is not None:
        m = report["mass"]
        lines.append(
            f"mass (SIMULATED): {m['inside_interval']} of {m['vehicles']} inside the interval, {m['only_lower_bound']} "
            f"of them only a lower bound; median error {m['median_error_percent']} %"
        )
    speed = report["speed"]
    lines.append(
        f"map of {speed['columns']} x {speed['channels']} pixels: {speed['two_threads_ms']} ms on two threads, "
        f"{speed['one_thread_ms']} ms on one"
    )
    return lines


PAIRS = (("4", "10"), ("6", "10"), ("4", "6"))


# ------------------------------------------------------------------------------------------ Geant4 transparencies


class Geant4Table:
    """Log-transparencies that Geant4 computed: simulated by others, with a code that shares nothing with the model."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError for files that are not the expected ones."""
        try:
            with (folder / "mev_transparency_geant4.csv").open(newline="", encoding="ascii") as file:
                self.rows = list(csv.DictReader(file))
            spectra = np.genfromtxt(folder / "mev_spectra.csv", delimiter=",", names=True)
            self.spectra = {
                b: Spectrum(
                    energy_mev=tuple(spectra["energy_MeV"].tolist()),
                    signal=tuple((spectra[f"phi_{b}MV"] * spectra["detector_response"]).tolist()),
                )
                for b in ("4", "6", "10")
            }
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{folder}: not the attenuation tables ({error}); name the folder that holds them"
            ) from error

    def beam(self, beam: str) -> Beam:
        """Return a beam of the table as a calibration has it: without noise of its own."""
        return Beam(endpoint_mv=float(beam), air_sd=1e-3, dark_sd=1e-6, scatter_sd=0.0, spectrum=self.spectra[beam])

    def points(self, low: str, high: str) -> tuple[Point, ...]:
        """Return the calibration points of two beams: carbon, iron and lead at one thickness."""
        points = []
        for material in CALIBRATED_AT:
            pair = [
                next(r for r in self.rows if r["set"] == "calib" and r["beam_MeV"] == b and _name(r) == material)
                for b in (low, high)
            ]
            grams = [float(r["areal_density_effective_g_cm2"]) for r in pair]
            low_alpha, high_alpha = (float(r["alpha"]) for r in pair)
            points.append(
                Point(
                    material=material, areal_density_g_cm2=sum(grams) / 2, alpha_low=low_alpha, alpha_high=high_alpha
                )
            )  # fmt: skip
        return tuple(points)

    def calibration(self, low: str, high: str) -> EnergyCalibration:
        """Return the energy calibration of two beams of the table."""
        return EnergyCalibration(
            low=self.beam(low), high=self.beam(high), zone=(Zone(point=self.points(low, high)),), simulated=True
        )

    def errors(self, beam: str) -> dict[str, Any]:
        """Return how far the model, fitted to three wedges, and the model without any fit are from the table."""
        low, high, energy = ("4", "10", "low") if beam == "4" else ("4", beam, "high")
        fitted = fit(self.beam(beam), self.points(low, high), energy, f"{beam} MV")
        plain = BeamModel(spectrum=spectrum_of(self.beam(beam)), scalars=FREE_STREAMING, model_error=0.0)
        rows = [r for r in self.rows if r["beam_MeV"] == beam and r["set"] != "calib"]
        grams = np.array([float(r["areal_density_g_cm2"]) for r in rows])
        share, free = (self._missed(model, rows) for model in (fitted, plain))
        # the calibration's own author tests from 10 g/cm2 on; below, the table's own error is up to 0.8 %
        parts = {"from_10_g_cm2": grams >= 10, "below_10_g_cm2": grams < 10, "all": grams > 0}
        report: dict[str, Any] = {
            name: {**_summary(share[part]), "free_streaming_mean_percent": _summary(free[part])["mean_percent"]}
            for name, part in parts.items()
        }
        report["scalars"] = [round(float(s), 3) for s in fitted.scalars.factors[[2, 1, 3]]]
        report["beyond_2_percent"] = [
            {"material": _name(r), "areal_density_g_cm2": float(r["areal_density_g_cm2"]), "percent": round(100 * s, 2),
             "table_sd_percent": round(100 * float(r["alpha_sd"]) / float(r["alpha"]), 2)}
            for r, s in zip(rows, share.tolist(), strict=True) if abs(s) > 0.02
        ]  # fmt: skip
        return report

    def _missed(self, model: BeamModel, rows: list[dict[str, str]]) -> Array:
        share = []
        for row in rows:
            grams = np.array([float(row["areal_density_effective_g_cm2"])])
            predicted = float(alpha(model.spectrum, model.scalars, _material(row), grams)[0])
            share.append(predicted / float(row["alpha"]) - 1)
        return np.array(share)

    def told(self, low: str, high: str, least_g_cm2: float = 20.0) -> dict[str, Any]:
        """Return how often the class of a (material, thickness) of the table is told right.

        Whether it can be told apart is decided from the table itself: no material of another class in it has, at the
        same high energy's alpha, a ratio closer than three standard deviations of the table's own noise.
        """
        inversion = inversion_of(self.calibration(low, high))
        pairs = self._pairs(low, high, least_g_cm2)
        counts = dict.fromkeys(("pairs", "told_apart", "right", "set_holds_truth", "one_class", "one_class_wrong"), 0)
        wrong = []
        errors = []
        for pair in pairs:
            verdict = inversion.judge(pair["low"], pair["high"], 1e9)
            truth = pair["class"]
            apart = self._apart(pair, low, high)
            counts["pairs"] += 1
            counts["told_apart"] += apart
            counts["right"] += apart and verdict.likely == truth
            counts["set_holds_truth"] += bool(verdict.classes & (1 << truth))
            counts["one_class"] += verdict.classes == 1 << truth
            counts["one_class_wrong"] += verdict.classes in (1, 2, 4, 8) and verdict.classes != 1 << truth
            errors.append(abs(verdict.areal_density_g_cm2 / pair["grams"] - 1))
            if apart and verdict.likely != truth:
                wrong.append(f"{pair['material']} {pair['nominal']:g} g/cm2 read as {CLASSES[verdict.likely]}")
        return {
            **counts,
            "right_percent": round(100 * counts["right"] / max(counts["told_apart"], 1), 2),
            "areal_density_error_percent": {
                "median": round(100 * statistics.median(errors), 2), "max": round(100 * max(errors), 2),
            },
            "wrong": wrong,
        }  # fmt: skip

    def _pairs(self, low: str, high: str, least_g_cm2: float) -> list[dict[str, Any]]:
        keys = ("set", "material", "areal_density_g_cm2")
        lows = {tuple(r[k] for k in keys): r for r in self.rows if r["beam_MeV"] == low}
        pairs = []
        for row in self.rows:
            other = lows.get(tuple(row[k] for k in keys))
            if row["beam_MeV"] != high or row["set"] == "calib" or other is None:
                continue
            if float(row["areal_density_g_cm2"]) < least_g_cm2:
                continue
            pairs.append({
                "material": _name(row), "class": _class(row), "nominal": float(row["areal_density_g_cm2"]),
                "grams": float(row["areal_density_effective_g_cm2"]),
                "low": float(other["alpha"]), "high": float(row["alpha"]),
                "low_sd": float(other["alpha_sd"]), "high_sd": float(row["alpha_sd"]),
            })  # fmt: skip
        return pairs

    def _apart(self, pair: dict[str, Any], low: str, high: str) -> bool:
        """Return whether the table has a ratio like this one's for no material of another class."""
        ratio = pair["low"] / pair["high"]
        sd = np.sqrt(pair["low_sd"] ** 2 + (ratio * pair["high_sd"]) ** 2) / pair["high"]
        others: dict[str, list[dict[str, Any]]] = {}
        for other in self._pairs(low, high, 0.0):
            if other["class"] != pair["class"]:
                others.setdefault(other["material"], []).append(other)
        for rows in others.values():
            rows.sort(key=lambda r: r["high"])
            highs = [r["high"] for r in rows]
            if not highs[0] <= pair["high"] <= highs[-1]:
                continue
            theirs = float(np.interp(pair["high"], highs, [r["low"] / r["high"] for r in rows]))
            if abs(theirs - ratio) <= TOLD_APART_SD * sd:
                return False
        return True


def _summary(share: Array) -> dict[str, Any]:
    percent = 100 * np.abs(share)
    return {
        "points": int(share.size),
        "mean_percent": round(float(percent.mean()), 3),
        "max_percent": round(float(percent.max()), 2),
    }


def _material(row: dict[str, str]) -> str | int:
    number = int(row["material"])
    return COMPOUNDS.get(number, number)


def _name(row: dict[str, str]) -> str:
    material = _material(row)
    return SYMBOLS[material] if isinstance(material, int) else material


def _class(row: dict[str, str]) -> int:
    """Return the class of a material by its effective atomic number: by weight for the two compounds."""
    material = _material(row)
    number = Point(material=str(material), areal_density_g_cm2=1, alpha_low=2, alpha_high=1).mean_z if isinstance(
        material, str
    ) else material  # fmt: skip
    return int(np.searchsorted(CLASS_BOUNDS_Z, number, side="right"))


# ------------------------------------------------------------------------------------------------- Geant4 scene


def scene_calibration(scene: Any, rows: int = SCENE_ZONE_ROWS) -> EnergyCalibration:
    """Return the energy calibration of the Geant4 scene: a zone per few rows, for its beam softens off the axis."""
    zones: list[Zone] = []
    noise = _air_sd(scene["im_L"]), _air_sd(scene["im_H"])
    for first in range(0, scene["im_H"].shape[0], rows):
        own, middle = slice(first, first + rows), first + rows // 2
        points = tuple(
            Point(
                material=SYMBOLS[int(scene["Z_calib"][middle, k])],
                areal_density_g_cm2=float(scene["lmbda_calib"][own, k].mean()),
                alpha_low=float(scene["alpha_L_calib"][own, k].mean()),
                alpha_high=float(scene["alpha_H_calib"][own, k].mean()),
            )
            for k in range(scene["Z_calib"].shape[1])
        )
        low, high = (
            Beam(
                endpoint_mv=endpoint, air_sd=sd, dark_sd=1e-5, scatter_sd=1e-4,
                spectrum=Spectrum(
                    energy_mev=tuple(scene["E"].tolist()), signal=tuple((scene[phi][middle] * scene["D"]).tolist())
                ),
            )
            for endpoint, phi, sd in ((6.0, "phi_6MeV", noise[0]), (9.0, "phi_9MeV", noise[1]))
        )  # fmt: skip
        zones.append(Zone(point=points, end_channel=first + rows, low=low, high=high))
    axis = zones[0]
    assert axis.low is not None
    assert axis.high is not None
    return EnergyCalibration(
        low=axis.low, high=axis.high, zone=tuple(zones), simulated=True, note="Geant4, simulated by others"
    )


def _air_sd(image: Array) -> float:
    """Return the noise of a thin part of an image of -ln T, from second differences along its rows."""
    second = (image[:, :-2] - 2 * image[:, 1:-1] + image[:, 2:]) / np.sqrt(6)
    thin = image[:, 1:-1] < 0.3
    return float(np.median(np.abs(second[thin])) / 0.6745)


def judge_scene(path: Path) -> tuple[Any, Inversion, MaterialJudgement]:
    """Return the scene, its inversion and what is said of it."""
    with np.load(path) as file:
        scene = {name: file[name] for name in file.files}
    inversion = Inversion(scene_calibration(scene), pixels=1.0)
    rows, columns = scene["im_H"].shape
    nothing = np.zeros(rows, np.float32)
    detector = DetectorState(
        energies=("low", "high"), channels=rows, dark=(nothing, nothing), air=(nothing + 1, nothing + 1),
        bad_channels=np.zeros(rows, np.bool_), note="Geant4, simulated by others",
    )  # fmt: skip
    frame = Frame(left=0, right=columns, roof_left=0, roof_right=0, floor_left=rows, floor_right=rows, floor_seen=True)
    q = (codes_of(scene["im_L"].T.copy()), codes_of(scene["im_H"].T.copy()))
    profile = MaterialProfile(cells_high=rows, min_side_share=0.03)
    return scene, inversion, judge_material(q, detector, frame, inversion, profile)


def _scene(path: Path, out: Path | None) -> dict[str, Any]:
    began = time.perf_counter()
    scene, inversion, said = judge_scene(path)
    if out is not None:
        from .dual_energy_pictures import scene_picture

        scene_picture(out / "scene_9_6MV.png", scene, inversion, said)
    return {
        "simulated": "Geant4, by others",
        "zones": len(inversion.curves),
        "wall_alpha": [round(a, 3) for a in said.wall_alpha],
        "seconds": round(time.perf_counter() - began, 2),
        "segments": [segment_row(s) for s in sorted(said.segments, key=lambda s: s.where.first_column)],
        "findings": [{"kind": f.kind, "reason": f.reason} for f in said.findings],
    }


def segment_row(segment: Any) -> dict[str, Any]:
    """Return a segment as plain values."""
    v, box = segment.told, segment.where
    return {
        "columns": [box.first_column, box.end_column], "channels": [box.first_channel, box.end_channel],
        "class": v.words, "likely": CLASSES[v.likely], "effective_z": [v.low_z, v.effective_z, v.high_z],
        "areal_density_g_cm2": [round(g, 1) for g in (v.low_g_cm2, v.areal_density_g_cm2, v.high_g_cm2)],
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------- mass, speed


def _example(out: Path) -> None:
    """Write the energy calibration of a simulated lane and the map of one of its vehicles. SIMULATED."""
    simulated: Any = driver.load("simulated")
    config = simulated.Config(vehicles=1, seed=EXAMPLE_SEED, portal=False, threat_share=1.0)
    calibration = simulated.energy_calibration(config)
    text = energy_calibration.to_toml(calibration)
    out.mkdir(parents=True, exist_ok=True)
    write_durable(out / "simulated.energy.toml", text.encode(), replace=True)
    from triage.analysis.material_picture import material_map

    from .dual_energy_pictures import write_png

    shown = material_map(_radiograph(simulated, config, 0), ImageProfile(energy=calibration), simulated=True)
    assert shown is not None
    write_png(out / "simulated_6_9MV.png", shown)


def _radiograph(simulated: Any, config: Any, index: int) -> Radiograph:
    """Return the radiograph of one simulated vehicle."""
    events = simulated.simulate_passage(config, index)
    start = next(e for e in events if isinstance(e, ScanStart))
    blocks = [e for e in events if isinstance(e, LineBlock)]
    counts = tuple(np.concatenate([b.counts[k] for b in blocks]) for k in range(len(start.detector.energies)))
    times = np.concatenate([b.column_utc_ns for b in blocks])
    return Radiograph(detector=start.detector, counts=counts, column_utc_ns=times)


def simulated_mass(vehicles: int, seed: int = 11) -> dict[str, Any]:
    """Return how the estimated mass of simulated vehicles compares with what was put into them. SIMULATED."""
    simulated: Any = driver.load("simulated")
    config = simulated.Config(vehicles=vehicles, seed=seed, portal=False, threat_share=0.0)
    profile = ImageProfile(energy=simulated.energy_calibration(config))
    rows: list[dict[str, Any]] = []
    for index in range(vehicles):
        image = _radiograph(simulated, config, index)
        truth = simulated.ground_truth(config, index)
        mass = judge_image(image, profile).material.mass
        kg = truth.cargo_kg + simulated.TARE_KG[truth.feet]
        inside = mass.low_kg is not None and mass.low_kg <= kg <= (mass.high_kg or np.inf)
        rows.append({
            "cargo": truth.cargo, "truth_kg": round(kg), "kg": None if mass.kg is None else round(mass.kg),
            "only_lower_bound": mass.low_kg is not None and mass.high_kg is None, "inside": bool(inside),
            "words": mass.words,
            "off_seen": {word: _off_seen(mass, kg, off) for word, off in (("less", -OFF_KG), ("more", OFF_KG))},
            "right_flagged": _off_seen(mass, kg, 0.0),
        })  # fmt: skip
    known = [r for r in rows if r["kg"] is not None and not r["only_lower_bound"]]
    return {
        "simulated": True, "vehicles": vehicles,
        "estimated": len(known), "only_lower_bound": sum(r["only_lower_bound"] for r in rows),
        "inside_interval": sum(r["inside"] for r in rows),
        "median_error_percent": round(
            100 * statistics.median([abs(r["kg"] / r["truth_kg"] - 1) for r in known]), 1
        ) if known else None,
        "weight_off": weight_off(rows), "rows": rows,
    }  # fmt: skip


OFF_KG = 6000.0
"""By so much a declared weight is wrong in `weight_off`."""


def _off_seen(mass: Mass, kg: float, off_kg: float) -> bool | None:
    """Tell whether a gross weight that is so far off contradicts the mass; None: nothing so light can be declared."""
    if kg + off_kg <= 0:
        return None
    return bool(judge_mass(Declaration(gross_weight_kg=kg + off_kg, tare_weight_kg=1.0), mass, None))


def weight_off(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return by true mass, container included, how often a declared gross weight OFF_KG off is told, and a right one.

    less, more : the declared weight is too low, or too high
    """
    told = []
    for least_t, most_t in ((0, 6), (6, 10), (10, 15), (15, 20), (20, 60)):
        inside = [r for r in rows if least_t <= r["truth_kg"] / 1000 < most_t]
        seen = {w: [r["off_seen"][w] for r in inside if r["off_seen"][w] is not None] for w in ("less", "more")}
        told.append({
            "from_t": least_t, "to_t": most_t, "right_flagged": share(sum(r["right_flagged"] for r in inside),
                                                                      len(inside)),
            **{w: share(sum(v), len(v)) for w, v in seen.items()},
        })  # fmt: skip
    return told


def map_speed(rounds: int) -> dict[str, Any]:
    """Return how long the map of a 10-megapixel image takes on one and two threads, interleaved, median ms."""
    wedges = [(m, g) for m in ("C", "Fe", "Pb") for g in (20.0, 60.0, 150.0)]
    low, high = (Beam(endpoint_mv=e, air_sd=0.007) for e in (6.0, 9.0))
    alphas = [
        [float(alpha(spectrum_of(b), FREE_STREAMING, m, np.array([g]))[0]) for m, g in wedges] for b in (low, high)
    ]
    points = tuple(
        Point(material=m, areal_density_g_cm2=g, alpha_low=lo, alpha_high=hi)
        for (m, g), lo, hi in zip(wedges, *alphas, strict=True)
    )
    inversion = Inversion(EnergyCalibration(low=low, high=high, zone=(Zone(point=points),), simulated=True))
    q = _cargo_like()
    out = np.zeros(q[0].shape, np.float32), np.zeros(q[0].shape, np.uint8)
    times: dict[str, list[float]] = {"one_thread_ms": [], "two_threads_ms": []}
    with StripWorkers(2) as workers:
        inversion.look_up(*q, map_strips=workers.map, out=out)
        for _ in range(rounds):
            for name, mapping in (("one_thread_ms", map), ("two_threads_ms", workers.map)):
                began = time.perf_counter()
                inversion.look_up(*q, map_strips=mapping, out=out)
                times[name].append((time.perf_counter() - began) * 1e3)
    return {
        "columns": MAP_COLUMNS, "channels": MAP_CHANNELS, "rounds": rounds,
        **{name: round(statistics.median(values), 1) for name, values in times.items()},
    }  # fmt: skip


def _cargo_like() -> tuple[Array, Array]:
    """Return log codes of two energies, (5000, 2000) uint16: blocks of three materials with noise. SIMULATED."""
    rng = np.random.default_rng(3)
    blocks = rng.uniform(0.05, 6, (50, 20))
    high = np.kron(blocks, np.ones((MAP_COLUMNS // 50, MAP_CHANNELS // 20)))
    ratio = np.kron(rng.choice((1.21, 1.14, 1.06), blocks.shape), np.ones((MAP_COLUMNS // 50, MAP_CHANNELS // 20)))
    noisy = [image + rng.normal(0, 0.02, high.shape) for image in (ratio * high, high)]
    return codes_of(noisy[0]), codes_of(noisy[1])
