// Drawing what there is of a picture, and asking for what there is not; marks over it.
import {nothing, render, svg} from '/static/vendor/lit.js';
import {t} from '/static/shell/i18n.js';
import {fillLut, GREY, STANDARD} from './look.js';
import {loupeMark, miniMarks, paneMarks} from './marks.js';
import {TileStore} from './tiles.js';
import {plan, wishes} from './viewport.js';

export const SURROUND = [22, 22, 22]; // --image-surround
const UPLOADS = 4; // tiles handed to the graphics card per frame
const SLOW_MS = 28; // a frame; while frames are slower, movement is drawn from coarser tiles

export const Painting = (Base) => class extends Base {
  redraw() {
    if (this.pending || !this.surface) return;
    this.pending = requestAnimationFrame((now) => {
      this.pending = null;
      if (this.moving && this.lastFrame) this.frameMs += 0.25 * (Math.min(200, now - this.lastFrame) - this.frameMs);
      this.lastFrame = now;
      this.draw();
    });
  }

  _lookNow() {
    const {scan, look} = this;
    const on = {...STANDARD};
    for (const name of ['invert', 'log', 'edge']) on[name] = this.held.has(name);
    const material = this.mode === 'material' ? scan.material : null;
    const palette = material ? 'grey' : this.palette;
    const table = this.colours?.[palette] ?? GREY;
    const key = [this.low, this.high, on.invert, on.log, scan.value.white, table === GREY ? '' : palette].join();
    if (look.key !== key) { fillLut(look.lut, {low: this.low, high: this.high, ...on}, scan.value.white, table); look.key = key; look.version += 1; }
    Object.assign(look, {edge: on.edge, reduce: this.reduce, white: scan.value.white, material, opaque: this.overlays ? scan.value.opaque_below ?? 0 : 0});
    look.query = this.surface.form === 'u16' ? '' : this._query(on, palette);
    return look;
  }

  /** The look as the server is told it; while a window is being dragged, not more often than the server can follow. */
  _query(on, palette) {
    const asked = `&low=${this.low}&high=${this.high}&palette=${palette}${Object.entries(on).map(([name, is]) => (is ? `&${name}=1` : '')).join('')}${this.overlays ? '&opaque=1' : ''}`;
    const now = performance.now();
    if (this.asked && this.asked.scan === this.scan.sha256 && asked !== this.asked.query && now - this.asked.at < 120) {
      clearTimeout(this.askTimer);
      this.askTimer = setTimeout(() => { this.askTimer = 0; this.redraw(); }, 130);
      return this.asked.query;
    }
    if (this.asked?.query !== asked || this.asked.scan !== this.scan.sha256) this.asked = {query: asked, at: now, scan: this.scan.sha256};
    return asked;
  }

  /** Draw now what there is, and ask for what there is not. */
  draw() {
    const {scan, surface, store, bounds} = this;
    if (!surface || !bounds) return;
    if (!scan?.energies.length || !store) { surface.clear(SURROUND); return; }
    if (surface.lost) return;
    const look = this._lookNow();
    const panes = this._panes();
    const extra = [this._miniPane(), this._loupePane()].filter(Boolean);
    const slow = this.moving && this.frameMs > SLOW_MS;
    let uploads = UPLOADS;
    let postponed = false;
    const ready = (entry) => {
      if (surface.has(entry)) return true;
      if (uploads <= 0) { postponed = true; return false; }
      uploads -= 1;
      surface.take(entry);
      return true;
    };
    const common = {reduce: this.reduce, bounds, ready};
    for (const pane of [...panes, ...extra]) {
      pane.within = this._within(pane);
      Object.assign(pane, plan(scan, store, pane, {...common, ...this._energiesOf(pane), coarse: slow || look.edge || extra.includes(pane)}));
    }
    surface.draw([...panes, ...extra], look, SURROUND);
    store.want(this._wishes(panes, extra, look, slow));
    if (this.probe !== store) this.probe.want(this._probeWishes());
    const any = panes.some((p) => p.items.length);
    if (surface.canvas.hidden === any) surface.canvas.hidden = !any;
    this.drawn = {scale: this.port.scale, worst: Math.max(...panes.map((p) => p.worst)), level: panes[0].level, complete: panes.every((p) => !p.holes && !p.standIns) && !postponed};
    this._drawMarks(panes, extra);
    this._showStatus();
    if (!this.painted && any && panes.every((p) => !p.holes)) this._firstPaint();
    if (postponed) this.redraw();
  }

  _wishes(panes, extra, look, slow) {
    const {scan, reduce, bounds, surface} = this;
    const {store} = this;
    // until there is a picture, the whole of it in one tile comes before all else
    if (!this.painted && !store.refused.size && !store.failures.size) return panes.flatMap((pane) => wishes(scan, pane, {energies: this._energiesIn(pane), reduce, bounds, query: look.query, first: true}));
    const list = [];
    const names = new Set();
    const add = (wishesOf, low = false) => {
      for (const w of wishesOf) { const name = TileStore.nameOf(w.energy, w.level, w.tx, w.ty, w.reduce); if (!names.has(name)) { names.add(name); list.push({...w, low}); } }
    };
    for (const pane of [...panes, ...extra]) {
      add(wishes(scan, pane, {energies: this._energiesIn(pane), reduce, bounds, query: look.query, coarse: slow || look.edge}));
    }
    if (surface.form === 'u16') {
      add(this._probeWishes());
      const others = scan.energies.map((e) => e.name).filter((n) => n !== panes[0].energy); // what a blink or the material view will need
      if (this.painted && !slow && others.length) add(wishes(scan, panes[0], {energies: others, reduce, bounds, coarse: true}), true);
    }
    return list;
  }

  _firstPaint() {
    this.painted = true;
    this.redraw(); // asks for the rest
    const {scan} = this;
    const at = performance.now();
    const detail = {scan_id: scan.scan_id, sha256: scan.sha256, ms: at - this.since, renderer: this.renderer, level: this.drawn.worst};
    requestAnimationFrame(() => { if (this.scan === scan || this.scan?.sha256 === scan.sha256) this._tell('scan-first-paint', detail); });
  }

  _drawMarks(panes, extra) {
    const {scan, ratio: r, port} = this;
    const css = (p) => ({x: p.x / r, y: p.y / r, w: p.w / r, h: p.h / r});
    const names = Object.fromEntries(scan.energies.map((e) => [e.name, ['low', 'high'].includes(e.label) ? t(`view.${e.label}`) : e.label]));
    const view = {
      scan, overlays: this.overlays, opacity: this.overlayOpacity, selected: this.selectedFinding, regions: this.regions ?? [], drawing: this.drawing, measures: this.measures,
      cursor: this._cursorMark(), cross: this.cross, clicked: (index) => this._tell('finding-click', {index}), mmPerPx: scan.column_pitch_mm ? (scan.column_pitch_mm * r) / port.scale : null,
    };
    const mini = extra.find((p) => p.left === 0 && p.sx !== p.sy || p.w !== p.h) && this._miniPane();
    render(svg`${panes.map((pane) => {
      const to = (b) => ({x: ((b.x0 - port.left) * port.scale) / r, y: ((b.y0 - port.top) * port.scale) / r, w: ((b.x1 - b.x0) * port.scale) / r, h: ((b.y1 - b.y0) * port.scale) / r});
      return paneMarks({...view, name: panes.length > 1 ? names[pane.energy] : this.name}, css(pane), to);
    })}
    ${mini ? miniMarks(css(mini), this._seenInMini(css(mini))) : nothing}
    ${this.held.has('magnifier') && this.pointer ? loupeMark(css(this._loupePane())) : nothing}`, this.marks);
    this._showWhy();
  }

  _cursorMark() { const c = this.cursor; return c && (this.foreign || this.mode === 'side-by-side') ? {x: c.x, y: c.y ?? null} : null; }
};
