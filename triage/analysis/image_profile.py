"""Every threshold of the judgement of an image."""

from __future__ import annotations

import msgspec

from scanner_io.energy_calibration import EnergyCalibration

from .container import ContainerProfile
from .correction import CorrectionProfile
from .goods_profile import GoodsHistory
from .image_damage import DamageProfile
from .image_faults import FaultProfile
from .material import MaterialProfile


class ImageProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Every threshold of the image judgement. Shares are of the straightened container unless said otherwise.

    correction, container, faults, damage : thresholds of those steps
    threshold_z : from which `screen` calls a pixel anomalous; 4 standard deviations of the box around it
    grid_rows, max_grid_columns : height and largest length of the grid on which the container is judged; 384 rows keep
        an object of 2 % of the height (5 cm) five rows high
    end_share, roof_share, floor_share : structure left out at both ends, under the roof and above the floor line: end
        frames are 1-3 % of the length, the roof rail 3 %, the floor with its cross-members 8-14 % of the height
    opaque_t : transmission below which nothing can be claimed; insertions darker than this are found by chance only
    opaque_note_share, opaque_review_share : opaque part of the cargo area worth a note, and worth a person's look: a
        tenth is a row of pallets, 1.2 m of the 12 m of a forty-foot container from floor to roof, and so much unseen is
        no clear scan. What is less is told with the outcome
    opaque_load_share : opaque part of the load itself, however little of the container it fills, worth a person's look
    load_ratio : a pixel is cargo below this share of the wall's transmission, or below load_t
    load_t : as a transmission; with the shares below it separates every clean scan seen so far
    bulk_share : cargo thinner than this share of the height (6 cm) does not count as load: ribs, rails, posts
    wall_t : darkest transmission of two container walls; what is darker everywhere may be a light load all over
    wall_percentile : of -ln T in the cargo area: what is called the wall
    empty_share, loaded_share : part of the cargo area up to which cargo means empty, and from which it means loaded;
        seen: empties 0-.23 %, loads from 9 % on, one scan with low boxes in or under it 2.3 %
    light_ratio, light_share : an empty container also has at most this share below light_ratio of the wall; seen in
        empties: up to 1.8 %; light goods fill more
    contrast_scales : half sizes of the contrast boxes, as shares of the height: 2 to 12 % objects
    unrest_share : size of the neighbourhood whose unrest a contrast must beat, of the height
    unrest_floor : least unrest, in -ln T; 3 % of brightness is what a wall's ribs do
    contrast_note : score (contrast over unrest) of a note
    contrast_review, light_review : score from which a dark and a light contrast ask for a review. On 33 real scans
        with nothing known against them the largest are 6.2 and 6.2; a gap between stacks is light and common, a void
        is rarely found at all, so light has to be stranger
    contrast_min : least difference in -ln T of a contrast finding; below, no person can check it
    free_t_ratio : transmission of free space, as a share of the wall's
    item_min_depth : least -ln T of an extra item above the wall
    item_min_share, item_max_share : smallest and largest side of an extra item, of the height
    item_free_share : part of an item's surroundings that must be free space
    item_review_score : score of an extra item, depth times size in percent of the height, that asks for a review
    alike : items of one size at one height from which they are the load: what does not belong has no row of its like
    max_area_share : contrast regions over this share of the cargo area are load, not findings
    max_findings : contrast and item findings shown per image, best first; one restless texture must not fill a screen
    fuser : what places unlike their surroundings are searched with: "packaged", the path of a file of `scanlane study
        train-fuser`, or "none" for plain contrasts in their stead
    unlike_note, unlike_review : how rare a place must be in clean scans to be told, and to ask for a review: 1 is one
        place per clean scan, 2 one in ten scans
    energy : the lane's energy calibration; without it nothing is said of materials or mass
    material : limits of what is said of them
    goods : what loads of each declared chapter looked like before; without it nothing is said of that
    """

    correction: CorrectionProfile = CorrectionProfile()
    container: ContainerProfile = ContainerProfile()
    faults: FaultProfile = FaultProfile()
    damage: DamageProfile = DamageProfile()
    threshold_z: float = 4.0
    grid_rows: int = 384
    max_grid_columns: int = 2048
    end_share: float = 0.05
    roof_share: float = 0.06
    floor_share: float = 0.15
    opaque_t: float = 0.03
    opaque_note_share: float = 0.01
    opaque_review_share: float = 0.10
    opaque_load_share: float = 0.5
    load_ratio: float = 0.65
    load_t: float = 0.60
    bulk_share: float = 0.023
    wall_t: float = 0.75
    wall_percentile: float = 5.0
    empty_share: float = 0.005
    loaded_share: float = 0.04
    light_ratio: float = 0.80
    light_share: float = 0.03
    contrast_scales: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08)
    unrest_share: float = 0.5
    unrest_floor: float = 0.03
    contrast_note: float = 5.0
    contrast_review: float = 6.5
    light_review: float = 8.0
    contrast_min: float = 0.10
    free_t_ratio: float = 0.85
    item_min_depth: float = 0.15
    item_min_share: float = 0.015
    item_max_share: float = 0.25
    item_free_share: float = 0.85
    item_review_score: float = 1.0
    alike: int = 4
    max_area_share: float = 0.05
    max_findings: int = 5
    fuser: str = "packaged"
    unlike_note: float = 1.0
    unlike_review: float = 2.0
    energy: EnergyCalibration | None = None
    material: MaterialProfile = MaterialProfile()
    goods: GoodsHistory | None = None
