// <scan-view>: a radiograph, 16 bits deep, tile by tile; never a pixel of another scan.
import {html, LitElement, nothing, render, svg} from '/static/vendor/lit.js';
import {t} from '/static/shell/i18n.js';
import {barView, shownText, statusText} from './bar.js';
import {GlRenderer} from './gl.js';
import {fillLut, GREY, middleOf, palettes, STANDARD} from './look.js';
import {kindName, legendView, loupeMark, miniMarks, opaqueKey, paneMarks, TIER_SHAPE} from './marks.js';
import {CanvasRenderer, PngRenderer} from './soft.js';
import {viewStyles} from './styles.js';
import {TileStore} from './tiles.js';
import {plan, Viewport, wishes} from './viewport.js';

const SURROUND = [22, 22, 22]; // --image-surround
const HELD = ['invert', 'log', 'edge', 'magnifier', 'pan'];
const UPLOADS = 4; // tiles handed to the graphics card per frame
const REST_MS = 140; // after which a movement has ended
const READ_MS = 120; // a cursor at rest for so long is read exactly
const BLINK_MS = 700;
const SLOW_MS = 28; // a frame; while frames are slower, movement is drawn from coarser tiles
const LOUPE = {px: 230, times: 4};
const MINI = {w: 170, h: 90, least: 18};
const PAN_PX = 80;
const VIEWPORT = /^(zoom-|pan-|fit$|one-to-one$)/; // actions that move what is seen
const WINDOW = /^(preset-|width-|level-|auto-window$)/;
const WINDOW_PERCENT = 0.5;

export class ScanView extends LitElement {
  static styles = viewStyles;
  static properties = {
    scan: {attribute: false}, energy: {attribute: false}, mode: {}, overlays: {type: Boolean}, overlayOpacity: {type: Number}, reduce: {},
    palette: {}, tool: {}, regions: {attribute: false}, selectedFinding: {attribute: false}, cursor: {attribute: false}, linked: {attribute: false},
    prefer: {}, compact: {type: Boolean}, leads: {type: Boolean}, led: {type: Boolean}, name: {}, keyName: {attribute: false}, low: {state: true}, high: {state: true}, preset: {state: true},
  };

  constructor() {
    super();
    Object.assign(this, {mode: 'grey', overlays: true, overlayOpacity: 0.9, reduce: 'mean', palette: 'grey', tool: 'pan', regions: [], selectedFinding: null, linked: null, prefer: '', compact: false, leads: false, led: false, name: '', low: 0, high: 65535, preset: 'full'});
    this.port = new Viewport();
    this.look = {lut: new Uint32Array(65536), version: 0, key: ''};
    this.held = new Map(); // action -> since
    this.measures = [];
    this.colours = null;
    this.surface = null; // the renderer
    this.frameMs = 16;
    this.blinkOther = false;
  }

  // ------------------------------------------------------------------------------------------------------- a scan

  get scan() { return this._scan ?? null; }
  /** Set what is shown; another scan clears the screen before anything else happens. */
  set scan(scan) {
    const before = this._scan ?? null;
    this._scan = scan;
    if (before && scan && before.scan_id === scan.scan_id && before.sha256 === scan.sha256) { this.requestUpdate('scan', before); this.redraw(); return; }
    this.#forget();
    if (scan) this.#begin(scan);
    this.requestUpdate('scan', before);
  }

  #forget() {
    for (const action of [...this.held.keys()]) this.action(action, 'up');
    this.store?.close();
    this.probe?.close();
    Object.assign(this, {store: null, probe: null, drawn: null, painted: false, reading: null, measures: [], drawing: null, cross: null, roi: null, hovered: null, mode: 'grey', blinkOther: false, refusedText: '', failedText: ''});
    this._cursor = null;
    clearTimeout(this.readTimer);
    this.surface?.clear(SURROUND);
    for (const canvas of this.renderRoot?.querySelectorAll?.('canvas') ?? []) canvas.hidden = true;
    const marks = this.renderRoot?.querySelector?.('svg.marks');
    if (marks) render(nothing, marks);
  }

  #begin(scan) {
    this.since = performance.now();
    this.energy = scan.default_energy;
    this.#usePreset(0, false);
    this.port.of(scan.columns, scan.rows);
    this.port.fitted = 'whole';
    if (scan.energies.length && this.surface) this.#openStores();
    this.#measureStage();
    this.redraw();
  }

  #openStores() {
    const {scan} = this;
    const told = {
      onDrop: (entry) => this.surface?.drop(entry),
      onTile: () => { this.failedText = ''; this.#readCursor(); this.#tryRoi(); this.redraw(); },
      onRefused: ({tile, reason}) => { this.refusedText = reason; this.requestUpdate(); this.#tell('tile-refused', {scan_id: scan.scan_id, sha256: scan.sha256, tile, reason}); },
      onError: ({tile, status, text, count}) => { this.failedText = text; if (count === 1) this.#tell('tile-error', {tile, status, text}); this.#showStatus(); },
    };
    this.store = new TileStore(scan, {...told, form: this.surface.form});
    this.probe = this.surface.form === 'u16' ? this.store : new TileStore(scan, {...told, onDrop: () => {}, form: 'u16', budget: 48e6});
  }

  get shownEnergy() {
    const names = this.scan?.energies.map((e) => e.name) ?? [];
    if (this.mode === 'blink' && this.blinkOther) return names.find((n) => n !== this.energy) ?? this.energy;
    return names.includes(this.energy) ? this.energy : this.scan?.default_energy;
  }

  get renderer() { return this.surface?.name ?? ''; }

  // ------------------------------------------------------------------------------------------------------- drawing by

  firstUpdated() {
    this.stage = this.renderRoot.querySelector('.stage');
    this.marks = this.renderRoot.querySelector('svg.marks');
    this.#chooseRenderer();
    this.observer = new ResizeObserver(() => { this.#measureStage(); this.draw(); });
    this.observer.observe(this.stage);
    this.#measureStage();
    this.#loadPalettes();
    if (this.scan?.energies.length) this.#openStores();
    this.redraw();
  }

  connectedCallback() {
    super.connectedCallback();
    this.onLanguage = () => this.requestUpdate();
    window.addEventListener('scanlane-language', this.onLanguage);
    if (this.observer) { this.observer.observe(this.stage); if (this.scan?.energies.length && !this.store) this.#openStores(); this.redraw(); }
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    window.removeEventListener('scanlane-language', this.onLanguage);
    this.observer?.disconnect();
    clearInterval(this.blinkTimer);
    this.store?.close();
    this.probe?.close();
    this.store = this.probe = null;
    this.painted = true; // what is shown again is not painted for the first time
  }

  async #loadPalettes() {
    try { this.colours = await palettes(); } catch (error) { this.#tell('tile-error', {tile: 'palettes', status: 0, text: error.message}); }
    this.redraw();
  }

  #canvas(which) { return this.renderRoot.querySelector(`canvas.${which}`); }

  #chooseRenderer() {
    let reason = '';
    if (this.prefer !== 'canvas' && this.prefer !== 'png') {
      const canvas = this.#canvas('gl');
      try {
        this.surface = new GlRenderer(canvas);
        canvas.addEventListener('webglcontextlost', (event) => { event.preventDefault(); this.#use(this.soft ??= new CanvasRenderer(this.#canvas('soft')), t('view.context_lost')); });
        canvas.addEventListener('webglcontextrestored', () => { this.graphic.prepare(); this.#use(this.graphic, t('view.context_restored')); });
        this.graphic = this.surface;
        this.#tell('renderer-change', {renderer: 'webgl2', reason: ''});
        return;
      } catch (error) { reason = error.message; }
    } else reason = t('view.preferred');
    this.surface = this.soft = new (this.prefer === 'canvas' ? CanvasRenderer : PngRenderer)(this.#canvas('soft'));
    this.#tell('renderer-change', {renderer: this.surface.name, reason});
  }

  #use(surface, reason) {
    const other = this.surface === surface ? null : this.surface;
    this.surface = surface;
    if (other) other.canvas.hidden = true;
    this.#tell('renderer-change', {renderer: surface.name, reason});
    this.#measureStage();
    this.draw();
  }

  #measureStage() {
    if (!this.stage) return;
    const {width, height} = this.stage.getBoundingClientRect();
    this.ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.max(1, Math.round(width * this.ratio)), Math.max(1, Math.round(height * this.ratio))];
    this.bounds = {w, h};
    const canvas = this.surface?.canvas;
    if (canvas && (canvas.width !== w || canvas.height !== h)) { canvas.width = w; canvas.height = h; }
    const [pane] = this.#layout();
    this.port.resize(pane.w, pane.h);
  }

  /** The panes, device pixels: one, or two where the energies stand side by side, whichever way shows them larger. */
  #layout() {
    const {w, h} = this.bounds ?? {w: 1, h: 1};
    if (this.mode !== 'side-by-side') return [{x: 0, y: 0, w, h}];
    const {columns, rows} = this.port;
    const gap = Math.round(2 * (this.ratio ?? 1));
    const half = (n) => Math.floor((n - gap) / 2);
    if (Math.min(half(w) / columns, h / rows) > Math.min(w / columns, half(h) / rows)) return [{x: 0, y: 0, w: half(w), h}, {x: w - half(w), y: 0, w: half(w), h}];
    return [{x: 0, y: 0, w, h: half(h)}, {x: 0, y: h - half(h), w, h: half(h)}];
  }

  #panes() {
    const {port, scan} = this;
    const energies = scan.energies.map((e) => e.name);
    const two = this.mode === 'side-by-side' ? [...energies].reverse() : [this.shownEnergy];
    return this.#layout().map((pane, n) => ({...pane, sx: port.scale, sy: port.scale, left: port.left, top: port.top, energy: two[n]}));
  }

  #miniPane() {
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

  #loupePane() {
    if (!this.held.has('magnifier') || !this.pointer) return null;
    const size = Math.round(LOUPE.px * this.ratio);
    const scale = Math.min(32, Math.max(1, this.port.scale * LOUPE.times));
    const pane = this.#paneAt(this.pointer);
    const [x, y] = this.port.toImage(this.pointer.x - pane.x, this.pointer.y - pane.y);
    const corner = {x: Math.round(this.pointer.x - size / 2), y: Math.round(this.pointer.y - size / 2)};
    return {...corner, w: size, h: size, sx: scale, sy: scale, left: x - size / 2 / scale, top: y - size / 2 / scale, energy: pane.energy};
  }

  #paneAt({x, y}) { return this.#panes().find((p) => x >= p.x && x < p.x + p.w && y >= p.y && y < p.y + p.h) ?? this.#panes()[0]; }

  // ------------------------------------------------------------------------------------------------------- drawing

  redraw() {
    if (this.pending || !this.surface) return;
    this.pending = requestAnimationFrame((now) => {
      this.pending = null;
      if (this.moving && this.lastFrame) this.frameMs += 0.25 * (Math.min(200, now - this.lastFrame) - this.frameMs);
      this.lastFrame = now;
      this.draw();
    });
  }

  #lookNow() {
    const {scan, look} = this;
    const on = {...STANDARD};
    for (const name of ['invert', 'log', 'edge']) on[name] = this.held.has(name);
    const material = this.mode === 'material' ? scan.material : null;
    const palette = material ? 'grey' : this.palette;
    const table = this.colours?.[palette] ?? GREY;
    const key = [this.low, this.high, on.invert, on.log, scan.value.white, table === GREY ? '' : palette].join();
    if (look.key !== key) { fillLut(look.lut, {low: this.low, high: this.high, ...on}, scan.value.white, table); look.key = key; look.version += 1; }
    Object.assign(look, {edge: on.edge, reduce: this.reduce, white: scan.value.white, material, opaque: this.overlays ? scan.value.opaque_below ?? 0 : 0});
    look.query = this.surface.form === 'u16' ? '' : this.#query(on, palette);
    return look;
  }

  /** The look as the server is told it; while a window is being dragged, not more often than the server can follow. */
  #query(on, palette) {
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
    const look = this.#lookNow();
    const panes = this.#panes();
    const extra = [this.#miniPane(), this.#loupePane()].filter(Boolean);
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
      pane.within = this.#within(pane);
      Object.assign(pane, plan(scan, store, pane, {...common, ...this.#energiesOf(pane), coarse: slow || look.edge || extra.includes(pane)}));
    }
    surface.draw([...panes, ...extra], look, SURROUND);
    store.want(this.#wishes(panes, extra, look, slow));
    if (this.probe !== store) this.probe.want(this.#probeWishes());
    const any = panes.some((p) => p.items.length);
    if (surface.canvas.hidden === any) surface.canvas.hidden = !any;
    this.drawn = {scale: this.port.scale, worst: Math.max(...panes.map((p) => p.worst)), level: panes[0].level, complete: panes.every((p) => !p.holes && !p.standIns) && !postponed};
    this.#drawMarks(panes, extra);
    this.#showStatus();
    if (!this.painted && any && panes.every((p) => !p.holes)) this.#firstPaint();
    if (postponed) this.redraw();
  }

  #energiesOf(pane) {
    if (this.mode !== 'material') return {shown: pane.energy, low: null};
    const [low, high] = this.scan.material.energies;
    return this.surface.form === 'png' ? {shown: 'material', low: null} : {shown: high, low};
  }

  #energiesIn(pane) { const {shown, low} = this.#energiesOf(pane); return low ? [shown, low] : [shown]; }

  #within(pane) {
    const box = this.scan.container ?? {x0: 0, y0: 0, x1: this.scan.columns, y1: this.scan.rows};
    return [pane.x + (box.x0 - pane.left) * pane.sx, pane.y + (box.y0 - pane.top) * pane.sy, pane.x + (box.x1 - pane.left) * pane.sx, pane.y + (box.y1 - pane.top) * pane.sy];
  }

  #wishes(panes, extra, look, slow) {
    const {scan, reduce, bounds, surface} = this;
    const {store} = this;
    // until there is a picture, the whole of it in one tile comes before all else
    if (!this.painted && !store.refused.size && !store.failures.size) return panes.flatMap((pane) => wishes(scan, pane, {energies: this.#energiesIn(pane), reduce, bounds, query: look.query, first: true}));
    const list = [];
    const names = new Set();
    const add = (wishesOf, low = false) => {
      for (const w of wishesOf) { const name = TileStore.nameOf(w.energy, w.level, w.tx, w.ty, w.reduce); if (!names.has(name)) { names.add(name); list.push({...w, low}); } }
    };
    for (const pane of [...panes, ...extra]) {
      add(wishes(scan, pane, {energies: this.#energiesIn(pane), reduce, bounds, query: look.query, coarse: slow || look.edge}));
    }
    if (surface.form === 'u16') {
      add(this.#probeWishes());
      const others = scan.energies.map((e) => e.name).filter((n) => n !== panes[0].energy); // what a blink or the material view will need
      if (this.painted && !slow && others.length) add(wishes(scan, panes[0], {energies: others, reduce, bounds, coarse: true}), true);
    }
    return list;
  }

  #firstPaint() {
    this.painted = true;
    this.redraw(); // asks for the rest
    const {scan} = this;
    const at = performance.now();
    const detail = {scan_id: scan.scan_id, sha256: scan.sha256, ms: at - this.since, renderer: this.renderer, level: this.drawn.worst};
    requestAnimationFrame(() => { if (this.scan === scan || this.scan?.sha256 === scan.sha256) this.#tell('scan-first-paint', detail); });
  }

  #drawMarks(panes, extra) {
    const {scan, ratio: r, port} = this;
    const css = (p) => ({x: p.x / r, y: p.y / r, w: p.w / r, h: p.h / r});
    const names = Object.fromEntries(scan.energies.map((e) => [e.name, ['low', 'high'].includes(e.label) ? t(`view.${e.label}`) : e.label]));
    const view = {
      scan, overlays: this.overlays, opacity: this.overlayOpacity, selected: this.selectedFinding, regions: this.regions ?? [], drawing: this.drawing, measures: this.measures,
      cursor: this.#cursorMark(), cross: this.cross, clicked: (index) => this.#tell('finding-click', {index}), mmPerPx: scan.column_pitch_mm ? (scan.column_pitch_mm * r) / port.scale : null,
    };
    const mini = extra.find((p) => p.left === 0 && p.sx !== p.sy || p.w !== p.h) && this.#miniPane();
    render(svg`${panes.map((pane) => {
      const to = (b) => ({x: ((b.x0 - port.left) * port.scale) / r, y: ((b.y0 - port.top) * port.scale) / r, w: ((b.x1 - b.x0) * port.scale) / r, h: ((b.y1 - b.y0) * port.scale) / r});
      return paneMarks({...view, name: panes.length > 1 ? names[pane.energy] : this.name}, css(pane), to);
    })}
    ${mini ? miniMarks(css(mini), this.#seenInMini(css(mini))) : nothing}
    ${this.held.has('magnifier') && this.pointer ? loupeMark(css(this.#loupePane())) : nothing}`, this.marks);
    this.#showWhy();
  }

  #cursorMark() { const c = this.cursor; return c && (this.foreign || this.mode === 'side-by-side') ? {x: c.x, y: c.y ?? null} : null; }

  #seenInMini(mini) {
    const {port} = this;
    const clip = (v, most) => Math.max(0, Math.min(most, v));
    const x0 = clip((port.left / port.columns) * mini.w, mini.w);
    const y0 = clip((port.top / port.rows) * mini.h, mini.h);
    const x1 = clip(((port.left + port.w / port.scale) / port.columns) * mini.w, mini.w);
    const y1 = clip(((port.top + port.h / port.scale) / port.rows) * mini.h, mini.h);
    return {x: mini.x + x0, y: mini.y + y0, w: x1 - x0, h: y1 - y0};
  }

  // ------------------------------------------------------------------------------------------------------- the window

  #usePreset(n, tell = true) {
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
    if (tell) this.#tell('window-change', {low: this.low, high: this.high, preset});
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

  #stepWindow(width, level) {
    const span = this.high - this.low;
    const middle = (this.high + this.low) / 2 + level * this.scan.value.white;
    const half = Math.max(1, (span * width) / 2);
    this.setWindow(Math.round(middle - half), Math.round(middle + half));
  }

  #autoWindow() {
    const percentiles = this.scan.energies.find((e) => e.name === this.shownEnergy).percentiles;
    const [low, high] = [percentiles[String(WINDOW_PERCENT)], percentiles[String(100 - WINDOW_PERCENT)]];
    this.setWindow(low, Math.max(high, low + 1), 'auto');
  }

  /** Window on the middle of the values in a box, once its tiles are here. */
  #roiWindow(box) {
    const level = Math.max(0, Math.min(this.scan.levels - 1, Math.ceil(Math.log2(Math.sqrt(((box.x1 - box.x0) * (box.y1 - box.y0)) / 1e6)))));
    this.roi = {box, level, energy: this.shownEnergy};
    this.#tryRoi();
    this.redraw();
  }

  #roiTiles() {
    if (!this.roi) return [];
    const {box, level, energy} = this.roi;
    const step = this.scan.tile * 2 ** level;
    const found = [];
    for (let ty = Math.floor(box.y0 / step); ty * step < box.y1; ty += 1) for (let tx = Math.floor(box.x0 / step); tx * step < box.x1; tx += 1) found.push({energy, level, tx, ty, reduce: 'mean'});
    return found;
  }

  #tryRoi() {
    if (!this.roi || !this.probe) return;
    const {box, level} = this.roi;
    const tiles = this.#roiTiles().map((w) => this.probe.get(TileStore.nameOf(w.energy, w.level, w.tx, w.ty, w.reduce), true));
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

  // ------------------------------------------------------------------------------------------------------- values

  /** Values of a pixel of level 0 by energy, null where its tile is not here. */
  pixel(x, y) {
    if (!this.probe || !(x >= 0 && y >= 0 && x < this.scan.columns && y < this.scan.rows)) return null;
    const values = {};
    for (const {name} of this.scan.energies) {
      const v = this.#valueAt(name, 0, x, y, this.reduce) ?? this.#valueAt(name, 0, x, y, 'mean');
      if (v == null) return null;
      values[name] = v;
    }
    return values;
  }

  #valueAt(energy, level, x, y, reduce) {
    const {tile} = this.scan;
    const [px, py] = [x >> level, y >> level];
    const entry = this.probe?.get(TileStore.nameOf(energy, level, Math.floor(px / tile), Math.floor(py / tile), reduce), true);
    return entry ? entry.data[(py % tile) * entry.width + (px % tile)] : null;
  }

  #probeWishes() {
    const list = this.#roiTiles();
    if (this.readAt) {
      const {tile} = this.scan;
      for (const {name} of this.scan.energies) list.push({energy: name, level: 0, tx: Math.floor(this.readAt.x / tile), ty: Math.floor(this.readAt.y / tile), reduce: this.probe === this.store ? this.reduce : 'mean'});
    }
    return list;
  }

  /** Values under the cursor: exact where level 0 is here, else those of the tile that is shown. */
  #readCursor() {
    const c = this.cursor;
    if (!c || c.y == null || !this.scan) { this.reading = null; return; }
    const exact = this.pixel(c.x, c.y);
    if (exact) { this.reading = {values: exact, exact: true}; return; }
    const values = {};
    for (const {name} of this.scan.energies) {
      for (let level = 1; level < this.scan.levels; level += 1) { const v = this.#valueAt(name, level, c.x, c.y, this.reduce); if (v != null) { values[name] = v; break; } }
    }
    this.reading = {values, exact: false};
  }

  /** What the detector itself gave for the pixel under a cursor at rest. */
  async #askCounts(c) {
    const {scan} = this;
    if (scan.value.kind !== 'transmission') return;
    try {
      const answer = await fetch(`/api/scan/${encodeURIComponent(scan.scan_id)}/${scan.sha256}/counts/${c.x}/${c.y}`);
      const told = await answer.json();
      if (!answer.ok) throw Object.assign(new Error(told.error), {status: answer.status});
      if (told.scan_id !== scan.scan_id || told.sha256 !== scan.sha256 || this.scan !== scan || this.cursor?.x !== told.x || this.cursor?.y !== told.y) return;
      this.counts = told.counts;
      this.#showStatus();
    } catch (error) { this.#tell('tile-error', {tile: 'counts', status: error.status ?? 0, text: error.message}); }
  }

  /** Millimetres from the picture's left and bottom edge; null where the pitch is not known. */
  mm(x, y) {
    const {column_pitch_mm: across, channel_pitch_mm: up} = this.scan;
    return across && up ? {x: x * across, y: y * up} : null;
  }

  #boxMm(box) {
    const size = this.mm(box.x1 - box.x0, box.y1 - box.y0);
    return size && {w: Math.round(size.x), h: Math.round(size.y)};
  }

  get cursor() { return this._cursor ?? null; }
  /** Set from outside: a column, marked by a line. */
  set cursor(c) { this._cursor = c; this.foreign = Boolean(c); this.readAt = null; this.#readCursor(); this.redraw(); }

  #moveCursor(point) {
    const {scan} = this;
    this.pointer = point;
    let c = null;
    if (point && scan?.energies.length) {
      const pane = this.#paneAt(point);
      const [x, y] = this.port.toImage(point.x - pane.x, point.y - pane.y).map(Math.floor);
      if (x >= 0 && y >= 0 && x < scan.columns && y < scan.rows) c = {x, y};
    }
    const same = c?.x === this._cursor?.x && c?.y === this._cursor?.y && !this.foreign;
    this._cursor = c;
    this.foreign = false;
    this.readAt = null;
    clearTimeout(this.readTimer);
    this.counts = null;
    if (c) this.readTimer = setTimeout(() => { this.readAt = c; this.draw(); this.#readCursor(); this.#showStatus(); this.#askCounts(c); }, READ_MS);
    this.#readCursor();
    if (!same) this.#tell('scan-cursor', c && {...c, values: this.reading?.values ?? {}, mm: this.mm(c.x + 0.5, scan.rows - c.y - 0.5)});
    if (this.linked?.scan) this.linked.cursor = c && this.linked.samePlace(c, this);
    this.#hover(c);
    if (this.held.has('magnifier') || this.mode === 'side-by-side') this.redraw(); else this.#showStatus();
  }

  #hover(c) {
    const within = (f) => f.box && c.x >= f.box.x0 && c.x < f.box.x1 && c.y >= f.box.y0 && c.y < f.box.y1;
    const area = (f) => (f.box.x1 - f.box.x0) * (f.box.y1 - f.box.y0);
    const found = c && this.overlays ? this.scan.findings.filter(within).sort((a, b) => area(a) - area(b))[0] : null;
    if (found?.index !== this.hovered) { this.hovered = found?.index ?? null; this.#showWhy(); }
  }

  /** The reason of the box that is pointed at, beside it; that of a selected one stands in the list. */
  #showWhy() {
    const element = this.renderRoot.querySelector('.why');
    if (!element) return;
    const f = this.overlays && !this.drawing && !this.held.has('magnifier') ? this.scan?.findings.find((g) => g.index === this.hovered && g.box) : null;
    element.hidden = !f;
    if (!f) return;
    if (this.why !== f) { this.why = f; render(html`<b><span class=${`tier-${f.tier}`}>${f.index} <span aria-hidden="true">${TIER_SHAPE[f.tier]}</span> ${t(`tier.${f.tier}`)}</span> · ${kindName(f.kind)}</b>${f.reason}`, element); }
    const {port, ratio: r} = this;
    const [x0, y0] = port.toPane(f.box.x0, f.box.y0).map((v) => v / r);
    const [x1, y1] = port.toPane(f.box.x1, f.box.y1).map((v) => v / r);
    const [w, h] = [this.bounds.w / r, this.bounds.h / r];
    const size = element.getBoundingClientRect();
    const right = x1 + 10 + size.width < w;
    const left = x0 - 10 - size.width > 0;
    element.style.left = `${right ? x1 + 10 : left ? x0 - 10 - size.width : Math.max(4, Math.min(w - size.width - 4, x0))}px`;
    element.style.top = `${Math.max(4, Math.min(h - size.height - 4, right || left ? y0 : y1 + 22 + size.height < h ? y1 + 22 : y0 - size.height - 22))}px`;
  }

  #showStatus() {
    const root = this.renderRoot;
    if (!this.scan || !root.querySelector('.at')) return;
    root.querySelector('.at').textContent = statusText(this);
    root.querySelector('.shown').textContent = shownText(this);
    const wait = this.store?.state ?? {missing: 0, failing: 0};
    const text = wait.failing ? t('view.failing', {n: wait.failing, text: this.failedText}) : this.drawn && !this.drawn.complete && wait.missing ? t('view.loading', {n: wait.missing}) : '';
    const element = root.querySelector('.wait');
    element.textContent = text;
    element.classList.toggle('bad', wait.failing > 0);
  }

  // ------------------------------------------------------------------------------------------------------- actions

  holds(action) { return this.held.has(action); }

  /** Ask the page for what is its own to change: a tool, the overlays. */
  ask(what) {
    if (!this.dispatchEvent(new CustomEvent('view-ask', {detail: {what}, bubbles: true, composed: true, cancelable: true}))) return;
    if (what === 'overlays') this.overlays = !this.overlays; else this.tool = this.tool === what ? 'pan' : what;
  }

  show(energy) {
    if (this.leads) this.linked?.show?.(energy);
    this.#setMode('grey');
    this.energy = energy;
    this.redraw();
  }

  #setMode(mode) {
    if (mode === this.mode) mode = 'grey';
    if ((mode === 'material' && !this.scan.material) || (mode !== 'grey' && mode !== 'material' && this.scan.energies.length < 2)) return;
    clearInterval(this.blinkTimer);
    this.blinkOther = false;
    this.mode = mode;
    if (mode === 'blink') {
      this.blinkOther = true;
      if (!matchMedia('(prefers-reduced-motion: reduce)').matches) this.blinkTimer = setInterval(() => { this.blinkOther = !this.blinkOther; this.requestUpdate(); this.redraw(); }, BLINK_MS);
    }
    this.#measureStage();
    this.#tell('mode-change', {mode});
    this.redraw();
  }

  /** Do what a key stands for. phase: press, or down and up of what is held. */
  action(name, phase = 'press') {
    if (this.leads && this.linked?.scan && !VIEWPORT.test(name) && !WINDOW.test(name)) this.linked.action(name, phase);
    if (HELD.includes(name)) {
      if (phase === 'up') this.#release(name);
      else if (!this.held.has(name) && this.scan?.energies.length) { this.held.set(name, performance.now()); this.requestUpdate(); this.redraw(); }
      return;
    }
    if (!this.scan?.energies.length || phase === 'up') return;
    const preset = /^preset-([1-4])$/.exec(name);
    if (preset) { this.#usePreset(preset[1] - 1); return; }
    const {port} = this;
    const deeds = {
      fit: () => port.fit(port.fitted === 'whole' ? 'filled' : 'whole'), reset: () => { port.fit('whole'); this.#moved(); this.#setMode('grey'); this.energy = this.scan.default_energy; this.#usePreset(0); this.reduce = 'mean'; this.measures = []; },
      'one-to-one': () => port.zoomTo(1, ...this.#anchor()), 'zoom-in': () => port.zoomTo(port.scale * 1.5, ...this.#anchor()), 'zoom-out': () => port.zoomTo(port.scale / 1.5, ...this.#anchor()),
      'pan-left': () => port.pan(PAN_PX * this.ratio, 0), 'pan-right': () => port.pan(-PAN_PX * this.ratio, 0), 'pan-up': () => port.pan(0, PAN_PX * this.ratio), 'pan-down': () => port.pan(0, -PAN_PX * this.ratio),
      overlays: () => { this.overlays = !this.overlays; }, material: () => this.#setMode('material'), blink: () => this.#setMode('blink'), 'side-by-side': () => this.#setMode('side-by-side'),
      'width-down': () => this.#stepWindow(1 / 1.15, 0), 'width-up': () => this.#stepWindow(1.15, 0), 'level-down': () => this.#stepWindow(1, -0.02), 'level-up': () => this.#stepWindow(1, 0.02),
      'auto-window': () => this.#autoWindow(), reduce: () => { this.reduce = this.reduce === 'min' ? 'mean' : 'min'; },
    };
    if (!deeds[name]) throw new Error(`scan-view: no action ${name}`);
    deeds[name]();
    if (VIEWPORT.test(name)) this.#moved(); else { this.requestUpdate(); this.redraw(); }
  }

  #anchor() { if (!this.pointer) return []; const pane = this.#paneAt(this.pointer); return [this.pointer.x - pane.x, this.pointer.y - pane.y]; }

  #release(name) {
    const since = this.held.get(name);
    if (since == null) return;
    this.held.delete(name);
    if (name !== 'pan') this.#tell('enhancement-used', {name, ms: Math.round(performance.now() - since)});
    this.requestUpdate();
    this.redraw();
  }

  /** After a change of the viewport: draw, lead a linked picture along, and look closer once it rests. */
  #moved(lead = true) {
    this.moving = true;
    clearTimeout(this.restTimer);
    this.restTimer = setTimeout(() => this.#rested(), REST_MS);
    if (lead && this.linked?.scan) this.linked.follow(this);
    this.redraw();
  }

  #rested() {
    const {port} = this;
    this.moving = false;
    this.lastFrame = 0;
    this.#tell('view-range', {x0: Math.max(0, port.left), x1: Math.min(port.columns, port.left + port.w / port.scale)});
    this.redraw();
  }

  #frame() { return this.scan.container ?? {x0: 0, y0: 0, x1: this.scan.columns, y1: this.scan.rows}; }

  /** The pixel of this container where another picture has `place` in its own; null beside the picture. */
  samePlace(place, other) {
    const [from, to] = [other.#frame(), this.#frame()];
    const x = Math.floor(to.x0 + ((place.x + 0.5 - from.x0) * (to.x1 - to.x0)) / Math.max(1, from.x1 - from.x0));
    const y = Math.floor(to.y0 + ((place.y + 0.5 - from.y0) * (to.y1 - to.y0)) / Math.max(1, from.y1 - from.y0));
    return x >= 0 && y >= 0 && x < this.scan.columns && y < this.scan.rows ? {x, y} : null;
  }

  /** Show the same part of this container as another picture shows of its own. */
  follow(other) {
    if (!this.scan || !other.scan) return;
    const [from, to] = [other.#frame(), this.#frame()];
    if (other.port.fitted === 'whole') this.port.fit('whole');
    else {
      const ratio = (from.x1 - from.x0) / Math.max(1, to.x1 - to.x0);
      this.port.centre(to.x0 + (other.port.cx - from.x0) / ratio, to.y0 + ((other.port.cy - from.y0) * (to.y1 - to.y0)) / Math.max(1, from.y1 - from.y0), other.port.scale * ratio);
    }
    this.#moved(false);
  }

  /** Bring a box into the middle, closer where it is small. */
  centreOn(box) {
    const {port} = this;
    const [w, h] = [Math.max(1, box.x1 - box.x0), Math.max(1, box.y1 - box.y0)];
    const close = Math.max(port.whole, Math.min(2 * this.ratio, (0.35 * port.w) / w, (0.45 * port.h) / h));
    port.centre((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, port.scale > 0.5 * close && port.scale < 2 * close ? port.scale : close);
    this.#moved();
  }

  /** The picture as it is on the screen, without boxes and measures. Returns a PNG. */
  async screenshot() {
    this.draw();
    const image = this.surface.read();
    const canvas = new OffscreenCanvas(image.width, image.height);
    canvas.getContext('2d').putImageData(image, 0, 0);
    return canvas.convertToBlob({type: 'image/png'});
  }

  /** The drawn pixels as ImageData, row 0 on top. */
  pixels() { this.draw(); return this.surface.read(); }

  #tell(name, detail) { this.dispatchEvent(new CustomEvent(name, {detail, bubbles: true, composed: true})); }

  // ------------------------------------------------------------------------------------------------------- by hand

  #point(event) {
    const {left, top} = this.stage.getBoundingClientRect();
    return {x: (event.clientX - left) * this.ratio, y: (event.clientY - top) * this.ratio};
  }

  #imagePoint(point, clamp = true) {
    const pane = this.gesture?.pane ?? this.#paneAt(point);
    let [x, y] = this.port.toImage(point.x - pane.x, point.y - pane.y);
    if (clamp) { x = Math.max(0, Math.min(this.scan.columns, x)); y = Math.max(0, Math.min(this.scan.rows, y)); }
    return {x, y};
  }

  #wheel(event) {
    if (!this.scan?.energies.length) return;
    event.preventDefault();
    const point = this.#point(event);
    const pane = this.#paneAt(point);
    const lines = event.deltaMode === 1 ? event.deltaY * 30 : event.deltaY;
    this.port.zoomTo(this.port.scale * 2 ** (-Math.max(-240, Math.min(240, lines)) / 240), point.x - pane.x, point.y - pane.y);
    this.#moved();
  }

  #down(event) {
    if (!this.scan?.energies.length) return;
    const point = this.#point(event);
    this.stage.focus({preventScroll: true});
    this.stage.setPointerCapture(event.pointerId);
    const mini = this.#miniPane();
    const pane = this.#paneAt(point);
    let kind = this.tool === 'pan' || event.button === 1 || this.held.has('pan') ? 'pan' : this.tool;
    if (event.button === 2 || (event.shiftKey && kind === 'pan')) kind = 'window';
    if (mini && point.x >= mini.x && point.x < mini.x + mini.w && point.y >= mini.y && point.y < mini.y + mini.h) kind = 'mini';
    this.gesture = {kind, pane, mini, at: point, from: this.#imagePoint(point), low: this.low, high: this.high};
    if (kind === 'mini') this.#miniTo(point);
    this.stage.classList.toggle('drags', kind === 'pan');
  }

  #miniTo(point) {
    const {mini} = this.gesture;
    this.port.centre(((point.x - mini.x) / mini.w) * this.port.columns, ((point.y - mini.y) / mini.h) * this.port.rows);
    this.#moved();
  }

  #drag(event) {
    const point = this.#point(event);
    const g = this.gesture;
    if (!g || !this.scan) { this.#moveCursor(point); return; }
    if (g.kind === 'pan') {
      this.port.pan(point.x - g.at.x, point.y - g.at.y);
      g.at = point;
      this.#moved();
    } else if (g.kind === 'mini') this.#miniTo(point);
    else if (g.kind === 'window') {
      const white = this.scan.value.white;
      const half = Math.max(1, ((g.high - g.low) / 2) * 2 ** ((point.x - g.at.x) / (200 * this.ratio)));
      const middle = (g.high + g.low) / 2 + ((point.y - g.at.y) / (600 * this.ratio)) * white;
      this.setWindow(Math.round(middle - half), Math.round(middle + half));
    } else { this.#drawTo(g.kind, g.from, this.#imagePoint(point)); this.#moveCursor(point); }
  }

  #drawTo(kind, a, b) {
    if (kind === 'measure') {
      const line = {x0: a.x, y0: a.y, x1: b.x, y1: b.y};
      const mm = this.mm(b.x - a.x, b.y - a.y);
      this.drawing = {kind, ...line, px: Math.hypot(b.x - a.x, b.y - a.y), mm: mm && Math.hypot(mm.x, mm.y)};
    } else {
      const box = {x0: Math.floor(Math.min(a.x, b.x)), y0: Math.floor(Math.min(a.y, b.y)), x1: Math.ceil(Math.max(a.x, b.x)), y1: Math.ceil(Math.max(a.y, b.y))};
      this.drawing = {kind, box, mm: this.#boxMm(box)};
    }
    this.redraw();
  }

  #up() {
    const g = this.gesture;
    this.gesture = null;
    this.stage.classList.remove('drags');
    if (g) this.#finish();
  }

  #finish() {
    const d = this.drawing;
    this.drawing = null;
    if (d?.kind === 'measure' && d.px >= 2) {
      const {kind, ...measured} = d;
      this.measures = [...this.measures.slice(-9), measured];
      this.#tell('measured', measured);
      this.#say(measured.mm == null ? `${Math.round(measured.px)} px` : `${Math.round(measured.mm)} mm`);
    } else if (d?.box && d.box.x1 - d.box.x0 > 1 && d.box.y1 - d.box.y0 > 1) {
      if (d.kind === 'region') this.#tell('region-drawn', {box: d.box, mm: d.mm});
      else { this.#roiWindow(d.box); this.ask('roi-window'); }
    }
    this.redraw();
  }

  #say(text) { this.renderRoot.querySelector('.said').textContent = text; }

  /** Arrows pan; with a tool they move a cross, Enter sets a corner, Escape leaves it. */
  #key(event) {
    const arrow = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!this.scan?.energies.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const draws = this.tool !== 'pan';
    if (arrow && !draws) {
      this.port.pan(-arrow[0] * PAN_PX * this.ratio, -arrow[1] * PAN_PX * this.ratio);
      this.#moved();
    } else if (arrow) {
      const step = (event.shiftKey ? 20 : 2) * Math.max(1, this.ratio / this.port.scale);
      const from = this.cross ?? {x: this.port.cx, y: this.port.cy};
      this.cross = {x: Math.max(0, Math.min(this.scan.columns, from.x + arrow[0] * step)), y: Math.max(0, Math.min(this.scan.rows, from.y + arrow[1] * step))};
      if (this.anchor) this.#drawTo(this.tool, this.anchor, this.cross);
      this.redraw();
    } else if (event.key === 'Enter' && draws) {
      this.cross ??= {x: this.port.cx, y: this.port.cy};
      if (this.anchor) { this.anchor = null; this.#finish(); this.cross = null; } else { this.anchor = {...this.cross}; this.#say(t('view.said_corner')); }
      this.redraw();
    } else if (event.key === 'Escape' && (this.drawing || this.anchor)) { this.drawing = this.anchor = null; this.redraw(); } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  updated(changed) {
    if (changed.has('palette') && this.leads && this.linked) this.linked.palette = this.palette;
    if (changed.has('tool')) { this.cross = this.anchor = this.drawing = null; }
    if (['energy', 'overlays', 'overlayOpacity', 'reduce', 'palette', 'regions', 'selectedFinding', 'mode', 'name', 'tool'].some((p) => changed.has(p))) this.redraw();
  }

  render() {
    const {scan} = this;
    const described = scan ? t('view.picture', {scan: scan.scan_id, w: scan.columns, h: scan.rows}) : t('view.no_scan');
    return html`${scan && !this.led ? barView(this) : nothing}
      <div class="stage ${this.tool === 'pan' ? '' : 'draws'}" tabindex="0" role="application" aria-label=${described} aria-describedby="how"
        @wheel=${{handleEvent: (e) => this.#wheel(e), passive: false}} @pointerdown=${this.#down} @pointermove=${this.#drag} @pointerup=${this.#up} @pointercancel=${this.#up}
        @pointerleave=${() => { if (!this.gesture) this.#moveCursor(null); }} @contextmenu=${(e) => e.preventDefault()} @keydown=${this.#key} @dblclick=${() => this.action('fit')}>
        <canvas class="gl" hidden></canvas><canvas class="soft" hidden></canvas>
        <svg class="marks" aria-hidden="true"></svg>
        <div class="why" hidden></div>
        ${this.refusedText ? html`<div class="empty bad" role="alert"><b>${t('view.not_painted')}</b><span>${this.refusedText}</span></div>` : nothing}
      </div>
      ${scan && this.mode === 'material' ? legendView(scan.material) : nothing}
      ${scan?.energies.length ? html`<div class="status"><b class="at fixed"></b><span class="spacer"></span><span class="wait"></span>${this.overlays && !this.compact && scan.value.opaque_below ? opaqueKey() : nothing}<span class="shown"></span></div>` : nothing}
      <span id="how" class="hidden-text">${t('view.how')}</span><span class="said hidden-text" role="status"></span>`;
  }
}
customElements.define('scan-view', ScanView);

