// What hands do on a picture: wheel, drag, tools; the arrow keys do the same.
import {t} from '/static/shell/i18n.js';

const PAN_PX = 80;

export const ByHand = (Base) => class extends Base {
  _point(event) {
    const {left, top} = this.stage.getBoundingClientRect();
    return {x: (event.clientX - left) * this.ratio, y: (event.clientY - top) * this.ratio};
  }

  _imagePoint(point, clamp = true) {
    const pane = this.gesture?.pane ?? this._paneAt(point);
    let [x, y] = this.port.toImage(point.x - pane.x, point.y - pane.y);
    if (clamp) { x = Math.max(0, Math.min(this.scan.columns, x)); y = Math.max(0, Math.min(this.scan.rows, y)); }
    return {x, y};
  }

  _wheel(event) {
    if (!this.scan?.energies.length) return;
    event.preventDefault();
    const point = this._point(event);
    const pane = this._paneAt(point);
    const lines = event.deltaMode === 1 ? event.deltaY * 30 : event.deltaY;
    this.port.zoomTo(this.port.scale * 2 ** (-Math.max(-240, Math.min(240, lines)) / 240), point.x - pane.x, point.y - pane.y);
    this._moved();
  }

  _down(event) {
    if (!this.scan?.energies.length) return;
    const point = this._point(event);
    this.stage.focus({preventScroll: true});
    this.stage.setPointerCapture(event.pointerId);
    const mini = this._miniPane();
    const pane = this._paneAt(point);
    let kind = this.tool === 'pan' || event.button === 1 || this.held.has('pan') ? 'pan' : this.tool;
    if (event.button === 2 || (event.shiftKey && kind === 'pan')) kind = 'window';
    if (mini && point.x >= mini.x && point.x < mini.x + mini.w && point.y >= mini.y && point.y < mini.y + mini.h) kind = 'mini';
    this.gesture = {kind, pane, mini, at: point, from: this._imagePoint(point), low: this.low, high: this.high};
    if (kind === 'mini') this._miniTo(point);
    this.stage.classList.toggle('drags', kind === 'pan');
  }

  _miniTo(point) {
    const {mini} = this.gesture;
    this.port.centre(((point.x - mini.x) / mini.w) * this.port.columns, ((point.y - mini.y) / mini.h) * this.port.rows);
    this._moved();
  }

  _drag(event) {
    const point = this._point(event);
    const g = this.gesture;
    if (!g || !this.scan) { this._moveCursor(point); return; }
    if (g.kind === 'pan') {
      this.port.pan(point.x - g.at.x, point.y - g.at.y);
      g.at = point;
      this._moved();
    } else if (g.kind === 'mini') this._miniTo(point);
    else if (g.kind === 'window') {
      const white = this.scan.value.white;
      const half = Math.max(1, ((g.high - g.low) / 2) * 2 ** ((point.x - g.at.x) / (200 * this.ratio)));
      const middle = (g.high + g.low) / 2 + ((point.y - g.at.y) / (600 * this.ratio)) * white;
      this.setWindow(Math.round(middle - half), Math.round(middle + half));
    } else { this._drawTo(g.kind, g.from, this._imagePoint(point)); this._moveCursor(point); }
  }

  _drawTo(kind, a, b) {
    if (kind === 'measure') {
      const line = {x0: a.x, y0: a.y, x1: b.x, y1: b.y};
      const mm = this.mm(b.x - a.x, b.y - a.y);
      this.drawing = {kind, ...line, px: Math.hypot(b.x - a.x, b.y - a.y), mm: mm && Math.hypot(mm.x, mm.y)};
    } else {
      const box = {x0: Math.floor(Math.min(a.x, b.x)), y0: Math.floor(Math.min(a.y, b.y)), x1: Math.ceil(Math.max(a.x, b.x)), y1: Math.ceil(Math.max(a.y, b.y))};
      this.drawing = {kind, box, mm: this._boxMm(box)};
    }
    this.redraw();
  }

  _up() {
    const g = this.gesture;
    this.gesture = null;
    this.stage.classList.remove('drags');
    if (g) this._finish();
  }

  _finish() {
    const d = this.drawing;
    this.drawing = null;
    if (d?.kind === 'measure' && d.px >= 2) {
      const {kind, ...measured} = d;
      this.measures = [...this.measures.slice(-9), measured];
      this._tell('measured', measured);
      this._say(measured.mm == null ? `${Math.round(measured.px)} px` : `${Math.round(measured.mm)} mm`);
    } else if (d?.box && d.box.x1 - d.box.x0 > 1 && d.box.y1 - d.box.y0 > 1) {
      if (d.kind === 'region') this._tell('region-drawn', {box: d.box, mm: d.mm});
      else { this._roiWindow(d.box); this.ask('roi-window'); }
    }
    this.redraw();
  }

  _say(text) { this.renderRoot.querySelector('.said').textContent = text; }

  /** Arrows pan; with a tool they move a cross, Enter sets a corner, Escape leaves it. */
  _key(event) {
    const arrow = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!this.scan?.energies.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const draws = this.tool !== 'pan';
    if (arrow && !draws) {
      this.port.pan(-arrow[0] * PAN_PX * this.ratio, -arrow[1] * PAN_PX * this.ratio);
      this._moved();
    } else if (arrow) {
      const step = (event.shiftKey ? 20 : 2) * Math.max(1, this.ratio / this.port.scale);
      const from = this.cross ?? {x: this.port.cx, y: this.port.cy};
      this.cross = {x: Math.max(0, Math.min(this.scan.columns, from.x + arrow[0] * step)), y: Math.max(0, Math.min(this.scan.rows, from.y + arrow[1] * step))};
      if (this.anchor) this._drawTo(this.tool, this.anchor, this.cross);
      this.redraw();
    } else if (event.key === 'Enter' && draws) {
      this.cross ??= {x: this.port.cx, y: this.port.cy};
      if (this.anchor) { this.anchor = null; this._finish(); this.cross = null; } else { this.anchor = {...this.cross}; this._say(t('view.said_corner')); }
      this.redraw();
    } else if (event.key === 'Escape' && (this.drawing || this.anchor)) { this.drawing = this.anchor = null; this.redraw(); } else return;
    event.preventDefault();
    event.stopPropagation();
  }
};
