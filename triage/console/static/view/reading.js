// What is under the cursor: values, counts, millimetres, the reason of a box; and the line that tells of it.
import {html, render} from '/static/vendor/lit.js';
import {t} from '/static/shell/i18n.js';
import {shownText, statusText} from './bar.js';
import {kindName, TIER_SHAPE} from './marks.js';
import {TileStore} from './tiles.js';

const READ_MS = 120; // a cursor at rest for so long is read exactly

export const Reading = (Base) => class extends Base {
  /** Values of a pixel of level 0 by energy, null where its tile is not here. */
  pixel(x, y) {
    if (!this.probe || !(x >= 0 && y >= 0 && x < this.scan.columns && y < this.scan.rows)) return null;
    const values = {};
    for (const {name} of this.scan.energies) {
      const v = this._valueAt(name, 0, x, y, this.reduce) ?? this._valueAt(name, 0, x, y, 'mean');
      if (v == null) return null;
      values[name] = v;
    }
    return values;
  }

  _valueAt(energy, level, x, y, reduce) {
    const {tile} = this.scan;
    const [px, py] = [x >> level, y >> level];
    const entry = this.probe?.get(TileStore.nameOf(energy, level, Math.floor(px / tile), Math.floor(py / tile), reduce), true);
    return entry ? entry.data[(py % tile) * entry.width + (px % tile)] : null;
  }

  _probeWishes() {
    const list = this._roiTiles();
    if (this.readAt) {
      const {tile} = this.scan;
      for (const {name} of this.scan.energies) list.push({energy: name, level: 0, tx: Math.floor(this.readAt.x / tile), ty: Math.floor(this.readAt.y / tile), reduce: this.probe === this.store ? this.reduce : 'mean'});
    }
    return list;
  }

  /** Values under the cursor: exact where level 0 is here, else those of the tile that is shown. */
  _readCursor() {
    const c = this.cursor;
    if (!c || c.y == null || !this.scan) { this.reading = null; return; }
    const exact = this.pixel(c.x, c.y);
    if (exact) { this.reading = {values: exact, exact: true}; return; }
    const values = {};
    for (const {name} of this.scan.energies) {
      for (let level = 1; level < this.scan.levels; level += 1) { const v = this._valueAt(name, level, c.x, c.y, this.reduce); if (v != null) { values[name] = v; break; } }
    }
    this.reading = {values, exact: false};
  }

  /** What the detector itself gave for the pixel under a cursor at rest. */
  async _askCounts(c) {
    const {scan} = this;
    if (scan.value.kind !== 'transmission') return;
    try {
      const answer = await fetch(`/api/scan/${encodeURIComponent(scan.scan_id)}/${scan.sha256}/counts/${c.x}/${c.y}`);
      const told = await answer.json();
      if (!answer.ok) throw Object.assign(new Error(told.error), {status: answer.status});
      if (told.scan_id !== scan.scan_id || told.sha256 !== scan.sha256 || this.scan !== scan || this.cursor?.x !== told.x || this.cursor?.y !== told.y) return;
      this.counts = told.counts;
      this._showStatus();
    } catch (error) { this._tell('tile-error', {tile: 'counts', status: error.status ?? 0, text: error.message}); }
  }

  /** Millimetres from the picture's left and bottom edge; null where the pitch is not known. */
  mm(x, y) {
    const {column_pitch_mm: across, channel_pitch_mm: up} = this.scan;
    return across && up ? {x: x * across, y: y * up} : null;
  }

  _boxMm(box) {
    const size = this.mm(box.x1 - box.x0, box.y1 - box.y0);
    return size && {w: Math.round(size.x), h: Math.round(size.y)};
  }

  _moveCursor(point) {
    const {scan} = this;
    this.pointer = point;
    let c = null;
    if (point && scan?.energies.length) {
      const pane = this._paneAt(point);
      const [x, y] = this.port.toImage(point.x - pane.x, point.y - pane.y).map(Math.floor);
      if (x >= 0 && y >= 0 && x < scan.columns && y < scan.rows) c = {x, y};
    }
    const same = c?.x === this._cursor?.x && c?.y === this._cursor?.y && !this.foreign;
    this._cursor = c;
    this.foreign = false;
    this.readAt = null;
    clearTimeout(this.readTimer);
    this.counts = null;
    if (c) this.readTimer = setTimeout(() => { this.readAt = c; this.draw(); this._readCursor(); this._showStatus(); this._askCounts(c); }, READ_MS);
    this._readCursor();
    if (!same) this._tell('scan-cursor', c && {...c, values: this.reading?.values ?? {}, mm: this.mm(c.x + 0.5, scan.rows - c.y - 0.5)});
    if (this.linked?.scan) this.linked.cursor = c && this.linked.samePlace(c, this);
    this._hover(c);
    if (this.held.has('magnifier') || this.mode === 'side-by-side') this.redraw(); else this._showStatus();
  }

  _hover(c) {
    const within = (f) => f.box && c.x >= f.box.x0 && c.x < f.box.x1 && c.y >= f.box.y0 && c.y < f.box.y1;
    const area = (f) => (f.box.x1 - f.box.x0) * (f.box.y1 - f.box.y0);
    const found = c && this.overlays ? this.scan.findings.filter(within).sort((a, b) => area(a) - area(b))[0] : null;
    if (found?.index !== this.hovered) { this.hovered = found?.index ?? null; this._showWhy(); }
  }

  /** The reason of the box that is pointed at, beside it; that of a selected one stands in the list. */
  _showWhy() {
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

  _showStatus() {
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
};
