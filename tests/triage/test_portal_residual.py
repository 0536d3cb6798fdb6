"""What a load leaves over: points on top of it, pairs of points, loads too short to tell. Even loads leave little."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy.optimize import nnls

from scanner_io.model import Declaration, PortalRecord
from triage.analysis import portal_residual, portal_shape
from triage.analysis.portal import PortalProfile, judge_portal
from triage.analysis.portal_residual import residual_of
from triage.study import portal_traffic as traffic

POTASH = Declaration(hs_codes=("310420",))
"""It gives more than anything here: what is refused is refused for its shape."""


def passages(seed: int, count: int, *, kind: str, point_cps: float = 0.0, apart_mm: float = 0.0) -> list[PortalRecord]:
    """Passages of vehicles with a cargo room of 8 m and more whose excess is called distributed, with speed lines."""
    rng = np.random.default_rng(seed)
    vehicles = traffic.draw_vehicles(rng, 4 * count, traffic.Traffic())
    counts_per_s = np.exp(rng.uniform(np.log(1000), np.log(4000), 4 * count))
    point = traffic.draw_points(rng, vehicles, point_cps)
    if kind == "load":
        loads = [traffic.draw_norm(rng, vehicles, counts_per_s, (0.75, 1.0))]
        x = rng.uniform(loads[0].first_mm, loads[0].end_mm)
        loads += [point._replace(first_mm=x, end_mm=x)] if point_cps else []
    else:
        x = rng.uniform(vehicles.boxes[:, 0], vehicles.boxes[:, 1] - apart_mm)
        one = point._replace(counts_per_s=counts_per_s / 2)
        loads = [one._replace(first_mm=m, end_mm=m) for m in (x, x + apart_mm)]
    drawn = traffic.draw_passages(rng, vehicles, traffic.Traffic(), tuple(loads))
    room = vehicles.boxes[:, 1] - vehicles.boxes[:, 0]
    found = []
    for i in np.flatnonzero(room >= 8000):
        r = drawn.record(int(i))
        form = portal_shape.form_of(r)
        if form.shape == "distributed" and len(found) < count:
            lines = (f"SP,0.1281,{(r.speed_kmh or 0) / 1.609344:.3f},{r.speed_kmh:.3f},000000",) * 3
            found.append(msgspec.structs.replace(r, raw_lines=lines))
    assert len(found) == count
    return found


def told(records: list[PortalRecord]) -> int:
    """Return in how many of them something speaks against one even load."""
    found = [residual_of(r) for r in records]
    return sum(f is not None and bool(f.words()) for f in found)


# The shares are those of the module over hundreds of passages; the limits leave room for the chance of a few.


def test_even_loads_leave_little_over() -> None:
    assert told(passages(1, 14, kind="load")) <= 3  # 5 % are promised; more than 3 come once in 200


def test_a_point_inside_a_load_is_left_over() -> None:
    assert told(passages(2, 8, kind="load", point_cps=1500.0)) >= 6


def test_two_points_near_each_other_are_no_load() -> None:
    assert told(passages(3, 8, kind="two", apart_mm=2500.0)) >= 6


def test_goods_explain_the_load_and_not_the_load_with_a_point() -> None:
    kinds: list[set[str]] = []
    for seed, point_cps in ((5, 0.0), (5, 3000.0)):
        kinds.append(set())
        for r in passages(seed, 2, kind="load", point_cps=point_cps):
            judgement = judge_portal(r, PortalProfile(), declaration=POTASH)
            kinds[-1] |= {f.kind for f in judgement.findings if f.kind.startswith("goods")}
            lowered = all(f.tier == "note" for f in judgement.findings if f.kind in ("gamma_excess", "gamma_level"))
            assert lowered == ("goods_explain" in {f.kind for f in judgement.findings})
            if point_cps:
                (why,) = (f.reason for f in judgement.findings if f.kind == "goods_do_not_explain")
                assert "point" in why
    assert kinds == [{"goods_explain"}, {"goods_do_not_explain"}]


def test_the_explanation_says_what_the_load_could_hide() -> None:
    records = passages(5, 2, kind="load")
    said = [f.reason for r in records for f in judge_portal(r, PortalProfile(), declaration=POTASH).findings]
    hidden = [residual_of(r) for r in records]
    assert all(h is not None and 150 < h.hidden_counts_per_s < 4000 for h in hidden)
    for h in hidden:
        assert h is not None and any(f"below about {h.hidden_counts_per_s:.0f} counts/s inside it" in s for s in said)


def test_what_a_point_shows_beside_a_load_is_what_least_squares_save() -> None:
    v = portal_shape.vehicle_of(passages(5, 1, kind="load")[0], np.full(4, 400.0))
    load = portal_shape.profile(v.x_mm, np.array([7000.0]), 9000.0, 2500.0)
    points = portal_shape.profile(v.x_mm, v.places_mm, 0.0, portal_residual.MIDDLE_MM)
    at, height, flat = int(np.abs(v.places_mm - 8000.0).argmin()), 12.0, 80.0
    counts = flat + 40.0 * load[0] + height * points[at]
    shown = portal_residual._shown(v, counts, flat, 7000.0, 9000.0)
    # Counts without noise: what load and shadow leave over is the point's alone, however the load is fitted.
    y, even, rows = portal_shape.whitened(v, counts, flat, np.concatenate([load, points[at : at + 1]]))
    held = np.append(np.zeros_like(y), 0.0)
    held[: y.size] = y
    beside = np.stack([np.append(even, portal_residual.EVEN_HOLD**0.5), np.append(rows[0], 0.0)], axis=1)
    _, left, *_ = np.linalg.lstsq(beside, held, rcond=None)
    assert left[0] == pytest.approx(height**2 * shown[at], rel=1e-6)


def test_the_words_name_each_reason() -> None:
    def words(**changes: float) -> str:
        values = {"length_mm": 9000.0, "middle_mm": 7000.0, "point_gain": 10.0, "point_mm": 8000.0, "two_gain": -5.0}
        return portal_residual.Residual(**{**values, **changes}, hidden_counts_per_s=700.0).words()

    assert words() == ""
    assert "8.0 m behind the front" in words(point_gain=200.0)
    assert "two points fit better" in words(two_gain=40.0)
    assert "4.6 m long" in words(length_mm=4640.0)
    assert words(point_gain=200.0, two_gain=40.0).count(";") == 1


def test_gains_of_pairs_are_those_of_least_squares_without_negative_parts() -> None:
    rng = np.random.default_rng(6)
    a, b, y = rng.normal(size=(6, 20)), rng.normal(size=(5, 20)), rng.normal(size=20)
    gains = portal_residual._pair_gain(a @ y, b @ y, (a * a).sum(axis=1), (b * b).sum(axis=1), a @ b.T)
    for i in range(6):
        for k in range(5):
            _, left = nnls(np.array([a[i], b[k]]).T, y)
            assert gains[i, k] == pytest.approx(float(y @ y) - left**2)


def test_without_a_background_nothing_is_fitted() -> None:
    (r,) = passages(5, 1, kind="load")
    assert residual_of(msgspec.structs.replace(r, gamma_background=None)) is None
