// Where pictures stand on the stage: one, or two side by side; the whole in a corner; a magnifier.
const LOUPE = {px: 230, times: 4};
const MINI = {w: 170, h: 90, least: 18};

export const Panes = (Base) => class extends Base {
  _measureStage() {
    if (!this.stage) return;
    const {width, height} = this.stage.getBoundingClientRect();
    this.ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.max(1, Math.round(width * this.ratio)), Math.max(1, Math.round(height * this.ratio))];
    this.bounds = {w, h};
    const canvas = this.surface?.canvas;
    if (canvas && (canvas.width !== w || canvas.height !== h)) { canvas.width = w; canvas.height = h; }
    const [pane] = this._layout();
    this.port.resize(pane.w, pane.h);
  }

  /** The panes, device pixels: one, or two where the energies stand side by side, whichever way shows them larger. */
  _layout() {
    const {w, h} = this.bounds ?? {w: 1, h: 1};
    if (this.mode !== 'side-by-side') return [{x: 0, y: 0, w, h}];
    const {columns, rows} = this.port;
    const gap = Math.round(2 * (this.ratio ?? 1));
    const half = (n) => Math.floor((n - gap) / 2);
    if (Math.min(half(w) / columns, h / rows) > Math.min(w / columns, half(h) / rows)) return [{x: 0, y: 0, w: half(w), h}, {x: w - half(w), y: 0, w: half(w), h}];
    return [{x: 0, y: 0, w, h: half(h)}, {x: 0, y: h - half(h), w, h: half(h)}];
  }

  _panes() {
    const {port, scan} = this;
    const energies = scan.energies.map((e) => e.name);
    const two = this.mode === 'side-by-side' ? [...energies].reverse() : [this.shownEnergy];
    return this._layout().map((pane, n) => ({...pane, sx: port.scale, sy: port.scale, left: port.left, top: port.top, energy: two[n]}));
  }

  _miniPane() {
    const {port, ratio} = this;
    if (this.mode === 'side-by-side' || this.compact || port.scale <= port.whole * 1.02) return null;
    let w = MINI.w * ratio;
    let h = (w * port.rows) / port.columns;
    if (h > MINI.h * ratio) { h = MINI.h * ratio; w = (h * port.columns) / port.rows; }
    h = Math.max(MINI.least * ratio, h);
    [w, h] = [Math.round(w), Math.round(h)];
    if (w > this.bounds.w / 2 || h > this.bounds.h / 2) return null;
    return {x: this.bounds.w - w - Math.round(8 * ratio), y: Math.round(8 * ratio), w, h, sx: w / port.columns, sy: h / port.rows, left: 0, top: 0, energy: this.shownEnergy};
  }

  _loupePane() {
    if (!this.held.has('magnifier') || !this.pointer) return null;
    const size = Math.round(LOUPE.px * this.ratio);
    const scale = Math.min(32, Math.max(1, this.port.scale * LOUPE.times));
    const pane = this._paneAt(this.pointer);
    const [x, y] = this.port.toImage(this.pointer.x - pane.x, this.pointer.y - pane.y);
    const corner = {x: Math.round(this.pointer.x - size / 2), y: Math.round(this.pointer.y - size / 2)};
    return {...corner, w: size, h: size, sx: scale, sy: scale, left: x - size / 2 / scale, top: y - size / 2 / scale, energy: pane.energy};
  }

  _paneAt({x, y}) { return this._panes().find((p) => x >= p.x && x < p.x + p.w && y >= p.y && y < p.y + p.h) ?? this._panes()[0]; }

  _within(pane) {
    const box = this.scan.container ?? {x0: 0, y0: 0, x1: this.scan.columns, y1: this.scan.rows};
    return [pane.x + (box.x0 - pane.left) * pane.sx, pane.y + (box.y0 - pane.top) * pane.sy, pane.x + (box.x1 - pane.left) * pane.sx, pane.y + (box.y1 - pane.top) * pane.sy];
  }

  _energiesOf(pane) {
    if (this.mode !== 'material') return {shown: pane.energy, low: null};
    const [low, high] = this.scan.material.energies;
    return this.surface.form === 'png' ? {shown: 'material', low: null} : {shown: high, low};
  }

  _energiesIn(pane) { const {shown, low} = this._energiesOf(pane); return low ? [shown, low] : [shown]; }

  _seenInMini(mini) {
    const {port} = this;
    const clip = (v, most) => Math.max(0, Math.min(most, v));
    const x0 = clip((port.left / port.columns) * mini.w, mini.w);
    const y0 = clip((port.top / port.rows) * mini.h, mini.h);
    const x1 = clip(((port.left + port.w / port.scale) / port.columns) * mini.w, mini.w);
    const y1 = clip(((port.top + port.h / port.scale) / port.rows) * mini.h, mini.h);
    return {x: mini.x + x0, y: mini.y + y0, w: x1 - x0, h: y1 - y0};
  }
};
