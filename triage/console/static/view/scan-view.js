// <scan-view>: a radiograph, 16 bits deep, tile by tile; never a pixel of another scan.
import {html, LitElement, nothing, render} from '/static/vendor/lit.js';
import {t} from '/static/shell/i18n.js';
import {barView} from './bar.js';
import {ByHand} from './by-hand.js';
import {GlRenderer} from './gl.js';
import {palettes} from './look.js';
import {legendView, opaqueKey} from './marks.js';
import {Moving} from './moving.js';
import {Painting, SURROUND} from './painting.js';
import {Panes} from './panes.js';
import {Reading} from './reading.js';
import {CanvasRenderer, PngRenderer} from './soft.js';
import {viewStyles} from './styles.js';
import {TileStore} from './tiles.js';
import {Viewport} from './viewport.js';
import {Windowing} from './windowing.js';

const HELD = ['invert', 'log', 'edge', 'magnifier', 'pan'];
const BLINK_MS = 700;
const PAN_PX = 80;
const VIEWPORT = /^(zoom-|pan-|fit$|one-to-one$)/; // actions that move what is seen
const WINDOW = /^(preset-|width-|level-|auto-window$)/;

/** The element: its scan, what draws it and what keys do; each other task is in a module of its own. */
export class ScanView extends ByHand(Moving(Reading(Windowing(Painting(Panes(LitElement)))))) {
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
    this._forget();
    if (scan) this._begin(scan);
    this.requestUpdate('scan', before);
  }

  _forget() {
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

  _begin(scan) {
    this.since = performance.now();
    this.energy = scan.default_energy;
    this._usePreset(0, false);
    this.port.of(scan.columns, scan.rows);
    this.port.fitted = 'whole';
    if (scan.energies.length && this.surface) this._openStores();
    this._measureStage();
    this.redraw();
  }

  _openStores() {
    const {scan} = this;
    const told = {
      onDrop: (entry) => this.surface?.drop(entry),
      onTile: () => { this.failedText = ''; this._readCursor(); this._tryRoi(); this.redraw(); },
      onRefused: ({tile, reason}) => { this.refusedText = reason; this.requestUpdate(); this._tell('tile-refused', {scan_id: scan.scan_id, sha256: scan.sha256, tile, reason}); },
      onError: ({tile, status, text, count}) => { this.failedText = text; if (count === 1) this._tell('tile-error', {tile, status, text}); this._showStatus(); },
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

  get cursor() { return this._cursor ?? null; }

  /** Set from outside: a column, marked by a line. */
  set cursor(c) { this._cursor = c; this.foreign = Boolean(c); this.readAt = null; this._readCursor(); this.redraw(); }

  // ------------------------------------------------------------------------------------------------------- drawing by

  firstUpdated() {
    this.stage = this.renderRoot.querySelector('.stage');
    this.marks = this.renderRoot.querySelector('svg.marks');
    this._chooseRenderer();
    this.observer = new ResizeObserver(() => { this._measureStage(); this.draw(); });
    this.observer.observe(this.stage);
    this._measureStage();
    this._loadPalettes();
    if (this.scan?.energies.length) this._openStores();
    this.redraw();
  }

  connectedCallback() {
    super.connectedCallback();
    this.onLanguage = () => this.requestUpdate();
    window.addEventListener('scanlane-language', this.onLanguage);
    if (this.observer) { this.observer.observe(this.stage); if (this.scan?.energies.length && !this.store) this._openStores(); this.redraw(); }
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

  async _loadPalettes() {
    try { this.colours = await palettes(); } catch (error) { this._tell('tile-error', {tile: 'palettes', status: 0, text: error.message}); }
    this.redraw();
  }

  _canvas(which) { return this.renderRoot.querySelector(`canvas.${which}`); }

  _chooseRenderer() {
    let reason = '';
    if (this.prefer !== 'canvas' && this.prefer !== 'png') {
      const canvas = this._canvas('gl');
      try {
        this.surface = new GlRenderer(canvas);
        canvas.addEventListener('webglcontextlost', (event) => { event.preventDefault(); this._use(this.soft ??= new CanvasRenderer(this._canvas('soft')), t('view.context_lost')); });
        canvas.addEventListener('webglcontextrestored', () => { this.graphic.prepare(); this._use(this.graphic, t('view.context_restored')); });
        this.graphic = this.surface;
        this._tell('renderer-change', {renderer: 'webgl2', reason: ''});
        return;
      } catch (error) { reason = error.message; }
    } else reason = t('view.preferred');
    this.surface = this.soft = new (this.prefer === 'canvas' ? CanvasRenderer : PngRenderer)(this._canvas('soft'));
    this._tell('renderer-change', {renderer: this.surface.name, reason});
  }

  _use(surface, reason) {
    const other = this.surface === surface ? null : this.surface;
    this.surface = surface;
    if (other) other.canvas.hidden = true;
    this._tell('renderer-change', {renderer: surface.name, reason});
    this._measureStage();
    this.draw();
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
    this._setMode('grey');
    this.energy = energy;
    this.redraw();
  }

  _setMode(mode) {
    if (mode === this.mode) mode = 'grey';
    if ((mode === 'material' && !this.scan.material) || (mode !== 'grey' && mode !== 'material' && this.scan.energies.length < 2)) return;
    clearInterval(this.blinkTimer);
    this.blinkOther = false;
    this.mode = mode;
    if (mode === 'blink') {
      this.blinkOther = true;
      if (!matchMedia('(prefers-reduced-motion: reduce)').matches) this.blinkTimer = setInterval(() => { this.blinkOther = !this.blinkOther; this.requestUpdate(); this.redraw(); }, BLINK_MS);
    }
    this._measureStage();
    this._tell('mode-change', {mode});
    this.redraw();
  }

  /** Do what a key stands for. phase: press, or down and up of what is held. */
  action(name, phase = 'press') {
    if (this.leads && this.linked?.scan && !VIEWPORT.test(name) && !WINDOW.test(name)) this.linked.action(name, phase);
    if (HELD.includes(name)) {
      if (phase === 'up') this._release(name);
      else if (!this.held.has(name) && this.scan?.energies.length) { this.held.set(name, performance.now()); this.requestUpdate(); this.redraw(); }
      return;
    }
    if (!this.scan?.energies.length || phase === 'up') return;
    const preset = /^preset-([1-4])$/.exec(name);
    if (preset) { this._usePreset(preset[1] - 1); return; }
    const {port} = this;
    const deeds = {
      fit: () => port.fit(port.fitted === 'whole' ? 'filled' : 'whole'), reset: () => { port.fit('whole'); this._moved(); this._setMode('grey'); this.energy = this.scan.default_energy; this._usePreset(0); this.reduce = 'mean'; this.measures = []; },
      'one-to-one': () => port.zoomTo(1, ...this._anchor()), 'zoom-in': () => port.zoomTo(port.scale * 1.5, ...this._anchor()), 'zoom-out': () => port.zoomTo(port.scale / 1.5, ...this._anchor()),
      'pan-left': () => port.pan(PAN_PX * this.ratio, 0), 'pan-right': () => port.pan(-PAN_PX * this.ratio, 0), 'pan-up': () => port.pan(0, PAN_PX * this.ratio), 'pan-down': () => port.pan(0, -PAN_PX * this.ratio),
      overlays: () => { this.overlays = !this.overlays; }, material: () => this._setMode('material'), blink: () => this._setMode('blink'), 'side-by-side': () => this._setMode('side-by-side'),
      'width-down': () => this._stepWindow(1 / 1.15, 0), 'width-up': () => this._stepWindow(1.15, 0), 'level-down': () => this._stepWindow(1, -0.02), 'level-up': () => this._stepWindow(1, 0.02),
      'auto-window': () => this._autoWindow(), reduce: () => { this.reduce = this.reduce === 'min' ? 'mean' : 'min'; },
    };
    if (!deeds[name]) throw new Error(`scan-view: no action ${name}`);
    deeds[name]();
    if (VIEWPORT.test(name)) this._moved(); else { this.requestUpdate(); this.redraw(); }
  }

  _release(name) {
    const since = this.held.get(name);
    if (since == null) return;
    this.held.delete(name);
    if (name !== 'pan') this._tell('enhancement-used', {name, ms: Math.round(performance.now() - since)});
    this.requestUpdate();
    this.redraw();
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

  _tell(name, detail) { this.dispatchEvent(new CustomEvent(name, {detail, bubbles: true, composed: true})); }

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
        @wheel=${{handleEvent: (e) => this._wheel(e), passive: false}} @pointerdown=${this._down} @pointermove=${this._drag} @pointerup=${this._up} @pointercancel=${this._up}
        @pointerleave=${() => { if (!this.gesture) this._moveCursor(null); }} @contextmenu=${(e) => e.preventDefault()} @keydown=${this._key} @dblclick=${() => this.action('fit')}>
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
