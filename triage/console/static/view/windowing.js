// Which values are black and which are white: presets, typed, dragged, by percentiles of all pixels or of a region.
import {middleOf} from './look.js';
import {TileStore} from './tiles.js';

const WINDOW_PERCENT = 0.5;

export const Windowing = (Base) => class extends Base {
  _usePreset(n, tell = true) {
    const preset = this.scan.presets[n];
    if (preset) this.setWindow(preset.low, preset.high, preset.name, tell);
  }

  setWindow(low, high, preset = null, tell = true) {
    const white = this.scan.value.white;
    this.low = Math.max(-white, Math.min(white - 1, low));
    this.high = Math.min(2 * white, Math.max(this.low + 1, high));
    this.preset = preset;
    const led = this.leads && this.linked?.scan ? this.linked : null;
    if (led) { const share = led.scan.value.white / white; led.setWindow(Math.round(low * share), Math.round(high * share), preset, tell); }
    if (tell) this._tell('window-change', {low: this.low, high: this.high, preset});
    this.redraw();
  }

  typed(which, value) {
    if (!Number.isFinite(value)) { this.requestUpdate(); return; }
    if (which === 'low') this.setWindow(value, Math.max(value + 1, this.high)); else this.setWindow(Math.min(this.low, value - 1), value);
  }

  dragHistogram(event) {
    const {left, width} = event.currentTarget.getBoundingClientRect();
    const value = Math.round(((event.clientX - left) / width) * this.scan.value.white);
    if (event.type === 'pointerdown') { event.currentTarget.setPointerCapture(event.pointerId); this.grip = Math.abs(value - this.low) < Math.abs(value - this.high) ? 'low' : 'high'; }
    if (this.grip === 'low') this.setWindow(Math.min(value, this.high - 1), this.high); else this.setWindow(this.low, Math.max(value, this.low + 1));
  }

  _stepWindow(width, level) {
    const span = this.high - this.low;
    const middle = (this.high + this.low) / 2 + level * this.scan.value.white;
    const half = Math.max(1, (span * width) / 2);
    this.setWindow(Math.round(middle - half), Math.round(middle + half));
  }

  _autoWindow() {
    const percentiles = this.scan.energies.find((e) => e.name === this.shownEnergy).percentiles;
    const [low, high] = [percentiles[String(WINDOW_PERCENT)], percentiles[String(100 - WINDOW_PERCENT)]];
    this.setWindow(low, Math.max(high, low + 1), 'auto');
  }

  /** Window on the middle of the values in a box, once its tiles are here. */
  _roiWindow(box) {
    const level = Math.max(0, Math.min(this.scan.levels - 1, Math.ceil(Math.log2(Math.sqrt(((box.x1 - box.x0) * (box.y1 - box.y0)) / 1e6)))));
    this.roi = {box, level, energy: this.shownEnergy};
    this._tryRoi();
    this.redraw();
  }

  _roiTiles() {
    if (!this.roi) return [];
    const {box, level, energy} = this.roi;
    const step = this.scan.tile * 2 ** level;
    const found = [];
    for (let ty = Math.floor(box.y0 / step); ty * step < box.y1; ty += 1) for (let tx = Math.floor(box.x0 / step); tx * step < box.x1; tx += 1) found.push({energy, level, tx, ty, reduce: 'mean'});
    return found;
  }

  _tryRoi() {
    if (!this.roi || !this.probe) return;
    const {box, level} = this.roi;
    const tiles = this._roiTiles().map((w) => this.probe.get(TileStore.nameOf(w.energy, w.level, w.tx, w.ty, w.reduce), true));
    if (tiles.some((e) => !e)) return;
    const [size, edge] = [2 ** level, this.scan.tile];
    const parts = tiles.map((e) => {
      const clip = (v, from, most) => Math.max(0, Math.min(most, v - from));
      const [x0, x1] = [clip(Math.floor(box.x0 / size), e.tx * edge, e.width), clip(Math.ceil(box.x1 / size), e.tx * edge, e.width)];
      const [y0, y1] = [clip(Math.floor(box.y0 / size), e.ty * edge, e.height), clip(Math.ceil(box.y1 / size), e.ty * edge, e.height)];
      const out = new Uint16Array((x1 - x0) * (y1 - y0));
      for (let y = y0; y < y1; y += 1) out.set(e.data.subarray(y * e.width + x0, y * e.width + x1), (y - y0) * (x1 - x0));
      return out;
    });
    const all = new Uint16Array(parts.reduce((n, p) => n + p.length, 0));
    let at = 0;
    for (const part of parts) { all.set(part, at); at += part.length; }
    this.roi = null;
    if (all.length) { const [low, high] = middleOf(all, WINDOW_PERCENT); this.setWindow(low, Math.max(high, low + 1), 'region'); }
  }
};
