"""The contestants of the triage benchmark, each written as well as its library allows.

Every peer has `run(counts) -> dict` with q or L, material, z, mask and the count of regions, computes the pipeline of
triage.analysis.screening.screen, is given its calibration beforehand and keeps its buffers between runs. Peers trust
the beam: they look for no dropped column.
"""

import cv2
import numpy as np
from scipy import ndimage

from triage.service.strip_workers import StripWorkers

T_MIN, T_MAX = float(np.exp(-7.6)), float(np.exp(0.24))
HALO = 32
BOXES = (7, 21, 63)
#: Variance of 0.02 in L, and the same in codes of 1/512.
FLOOR_L = 0.02**2
FLOOR = FLOOR_L * 512**2


def _bridges(bad_channels):
    bad, good = np.flatnonzero(bad_channels), np.flatnonzero(~bad_channels)
    after = np.searchsorted(good, bad)
    below, above = good[np.maximum(after - 1, 0)], good[np.minimum(after, good.size - 1)]
    weight = ((bad - below) / np.maximum(above - below, 1)).clip(0, 1).astype(np.float32)
    return bad, below, above, weight


class OpenCvPeer:
    """Chain of OpenCV calls (numpy where that is faster) over strips of columns, or over the whole image as one strip.

    What made it fast: 16-bit codes as in scanlane (a median 3x and a box mean 2x faster than in float32, and half the
    memory); every call writes into a kept array; one square root, after the maximum over the boxes; row and column
    factors by numpy, which broadcasts; squares summed from float32, a tenth faster than from uint16; components into a
    kept 16-bit label image on all threads, a third of the time of a new 32-bit one (which a scene of more regions than
    16 bits can number still gets). Integral images (integral2) lose to the running sums of the box filters: three
    scales of them read eight doubles per pixel. Components have OpenCV's own statistics only: no sum, maximum or
    material histogram.
    """

    def __init__(self, calibration, material_table, columns, *, strip, workers, cv_threads):
        self.calibration, self.table = calibration, material_table
        self.columns, self.strip, self.workers, self.cv_threads = columns, strip, workers, cv_threads
        self.energies = len(calibration.dark)
        channels = calibration.bad_channels.size
        rows = min(strip + 2 * HALO, columns)
        # OpenCV does not broadcast a row over an image, and subtracts from uint16 faster than numpy: laid out once
        self.dark = [np.tile(d, (rows, 1)) for d in calibration.dark]
        self.gain = [np.tile(g, (rows, 1)) for g in calibration.inv_gain]
        self.bridges = _bridges(calibration.bad_channels)
        first, last = calibration.air_channels
        self.air = slice(first, last + 1)
        good = ~calibration.bad_channels[self.air]
        self.air_weight = (good / good.sum()).astype(np.float32)[:, None]
        self.q = [np.empty((columns, channels), np.uint16) for _ in range(self.energies)]
        self.material = np.zeros((columns, channels), np.uint8)
        self.z = np.empty((columns, channels), np.uint8)
        self.mask = np.empty((columns, channels), np.uint8)
        self.labels = {cv2.CV_16U: np.empty((columns, channels), np.uint16)}
        kinds = {"t": "f4", "mean": "f4", "square": "f4", "best": "f4", "real": "f4", "code": "u2", "high": "u2"}
        self.work = [{name: np.empty((rows, channels), kind) for name, kind in kinds.items()} for _ in range(workers)]
        self.pool = StripWorkers(workers)

    def close(self):
        """Stop the pool."""
        self.pool.close()

    def run(self, counts):
        """Screen one radiograph; the result's images are overwritten by the next run."""
        cv2.setNumThreads(self.cv_threads)
        starts = list(range(0, self.columns, self.strip))

        def share(worker):
            for start in starts[worker :: self.workers]:
                self._strip(counts, start, min(start + self.strip, self.columns), self.work[worker])

        list(self.pool.map(share, range(self.workers)))
        cv2.setNumThreads(max(self.workers, self.cv_threads))
        cv2.compare(self.z, 64, cv2.CMP_GE, dst=self.mask)
        stats = self.components()
        kept = int((stats[1:, cv2.CC_STAT_AREA] >= 5).sum())
        return {"q": self.q, "z": self.z, "mask": self.mask, "material": self.material, "regions": kept}

    def components(self):
        """Return OpenCV's statistics of the mask's components, the background's first."""
        try:
            return self._components(cv2.CV_16U)
        except cv2.error as error:
            if "overflowed label type" not in str(error):
                raise
            self.labels.setdefault(cv2.CV_32S, np.empty(self.mask.shape, np.int32))
            return self._components(cv2.CV_32S)

    def _components(self, kind):
        _, _, stats, _ = cv2.connectedComponentsWithStats(
            self.mask, labels=self.labels[kind], connectivity=8, ltype=kind
        )
        return stats

    def _codes(self, raw, energy, work, out):
        """Write round(512 L) + 128 after the median of one strip."""
        n = len(raw)
        t, code = work["t"][:n], work["code"][:n]
        cv2.subtract(raw, self.dark[energy][:n], dst=t, dtype=cv2.CV_32F)
        cv2.multiply(t, self.gain[energy][:n], dst=t)
        np.multiply(t, 1.0 / (t[:, self.air] @ self.air_weight), out=t)
        bad, below, above, weight = self.bridges
        if bad.size:
            lower = t[:, below]
            t[:, bad] = lower + weight * (t[:, above] - lower)
        np.clip(t, np.float32(T_MIN), np.float32(T_MAX), out=t)
        cv2.log(t, dst=t)
        cv2.addWeighted(t, -512.0, t, 0.0, 128.0, dst=code, dtype=cv2.CV_16U)
        cv2.medianBlur(code, 3, dst=out)

    def _strip(self, counts, start, stop, work):
        a, b = max(start - HALO, 0), min(stop + HALO, self.columns)
        n, own = b - a, slice(start - a, stop - a)
        high = work["high"][:n]
        if self.energies == 2:
            # the low energy is needed in the own columns only, and in one more on either side for the median
            c, d = max(start - 1, 0), min(stop + 1, self.columns)
            self._codes(counts[0][c:d], 0, work, high[: d - c])
            self.q[0][start:stop] = high[start - c : stop - c]
        self._codes(counts[-1][a:b], self.energies - 1, work, high)
        self.q[-1][start:stop] = high[own]
        if self.energies == 2:
            self._materials(start, stop, work)
        w, best = work["t"][: stop - start], work["best"][: stop - start]
        real = work["real"][:n]
        np.copyto(real, high)
        for i, size in enumerate(BOXES):
            mean, square = work["mean"][:n], work["square"][:n]
            cv2.boxFilter(high, cv2.CV_32F, (size, size), dst=mean, borderType=cv2.BORDER_REPLICATE)
            cv2.sqrBoxFilter(real, cv2.CV_32F, (size, size), dst=square, borderType=cv2.BORDER_REPLICATE)
            mean, square = mean[own], square[own]
            cv2.multiply(mean, mean, dst=w)
            cv2.subtract(square, w, dst=square)
            np.add(square, np.float32(FLOOR), out=square)
            cv2.subtract(high[own], mean, dst=w, dtype=cv2.CV_32F)
            cv2.multiply(w, w, dst=w)
            if i == 0:
                cv2.divide(w, square, dst=best)
            else:
                cv2.divide(w, square, dst=w)
                cv2.max(best, w, dst=best)
        cv2.sqrt(best, dst=best)
        # OpenCV rounds where scanlane cuts off: half a step less. It saturates at 255 by itself
        cv2.addWeighted(best, 16.0, best, 0.0, -0.5, dst=self.z[start:stop], dtype=cv2.CV_8U)

    def _materials(self, start, stop, work):
        # remap of the class table, x by the high energy and y by the low one; it rounds, and a bin is 8 codes
        n = stop - start
        x, y = work["mean"][:n], work["square"][:n]
        cv2.addWeighted(self.q[1][start:stop], 0.125, self.q[1][start:stop], 0.0, -0.4375, dst=x, dtype=cv2.CV_32F)
        cv2.addWeighted(self.q[0][start:stop], 0.125, self.q[0][start:stop], 0.0, -0.4375, dst=y, dtype=cv2.CV_32F)
        cv2.remap(self.table, x, y, cv2.INTER_NEAREST, dst=self.material[start:stop], borderMode=cv2.BORDER_REPLICATE)


class NaivePeer:
    """float32 numpy and scipy.ndimage, as a first script would be written, whole image at a time."""

    def __init__(self, calibration, material_table):
        self.calibration, self.table = calibration, material_table

    def run(self, counts):
        first, last = self.calibration.air_channels
        used = np.arange(first, last + 1)[~self.calibration.bad_channels[first : last + 1]]
        bad, below, above, weight = _bridges(self.calibration.bad_channels)
        logs = []
        for raw, dark, inv_gain in zip(counts, self.calibration.dark, self.calibration.inv_gain, strict=True):
            t = (raw.astype(np.float32) - dark) * inv_gain
            t /= t[:, used].mean(axis=1, keepdims=True)
            t[:, bad] = t[:, below] + weight * (t[:, above] - t[:, below])
            logs.append(ndimage.median_filter(-np.log(np.clip(t, T_MIN, T_MAX)), size=3, mode="nearest"))
        index = [np.clip(np.floor(L * 64 + 16.0625), 0, 511).astype(np.intp) for L in logs]
        material = self.table[index[0], index[-1]]
        L, z = logs[-1], None
        for size in BOXES:
            mean = ndimage.uniform_filter(L, size, mode="nearest")
            variance = np.maximum(ndimage.uniform_filter(L * L, size, mode="nearest") - mean * mean, 0)
            score = np.abs(L - mean) / np.sqrt(variance + FLOOR_L)
            z = score if z is None else np.maximum(z, score)
        mask = z >= 4
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        every = np.arange(1, count + 1)
        area = ndimage.sum_labels(mask, labels, every)
        boxes = ndimage.find_objects(labels)
        features = {
            "area": area,
            "box": boxes,
            "centroid": ndimage.center_of_mass(mask, labels, every),
            "sum": ndimage.sum_labels(L, labels, every),
            "max": ndimage.maximum(z, labels, every),
            "material": [
                np.bincount(material[boxes[i - 1]][labels[boxes[i - 1]] == i], minlength=16) for i in every[area >= 5]
            ],
        }
        return {
            "L": logs,
            "material": material,
            "z": z,
            "mask": mask,
            "regions": int((area >= 5).sum()),
            "features": features,
        }


class SkimagePeer:
    """scikit-image, stage by stage: it has the median and the components, and of the box statistics only integrals."""

    def __init__(self):
        from skimage import filters, measure

        self._filters, self._measure = filters, measure
        self._around = np.ones((3, 3), bool)

    def median(self, codes):
        return self._filters.median(codes, self._around, mode="nearest")

    def components(self, z, codes, threshold):
        """Return the features of every region, whatever its area."""
        labels = self._measure.label(z >= threshold, connectivity=2)
        intensity = np.stack((codes, z), axis=-1)
        wanted = ("area", "bbox", "centroid", "intensity_mean", "intensity_max")
        return self._measure.regionprops_table(labels, intensity, properties=wanted)
