// What part of a picture is seen, and which tiles make it.
import {levelFor} from './look.js';
import {sizeOf, TileStore} from './tiles.js';

const MAX_SCALE = 32; // device pixels per image pixel

/** The middle of what is seen, in image pixels, and device pixels per image pixel; shared by all panes of a picture. */
export class Viewport {
  constructor() { Object.assign(this, {cx: 0, cy: 0, scale: 1, w: 1, h: 1, columns: 1, rows: 1, fitted: 'whole'}); }

  /** The picture's size, image pixels. */
  of(columns, rows) { Object.assign(this, {columns: Math.max(1, columns), rows: Math.max(1, rows)}); }

  /** A pane's size, device pixels; a picture that was fitted stays fitted. */
  resize(w, h) {
    Object.assign(this, {w: Math.max(1, w), h: Math.max(1, h)});
    if (this.fitted) this.fit(this.fitted); else this.#hold();
  }

  get whole() { return Math.min(this.w / this.columns, this.h / this.rows); }
  get filled() { return Math.max(this.w / this.columns, this.h / this.rows); }

  /** 'whole': all of it; 'filled': the pane without margin, from where it is. */
  fit(how = 'whole') {
    this.scale = Math.min(MAX_SCALE, how === 'whole' ? this.whole : this.filled);
    if (how === 'whole') Object.assign(this, {cx: this.columns / 2, cy: this.rows / 2});
    this.fitted = how;
    this.#hold();
  }

  zoomTo(scale, px = this.w / 2, py = this.h / 2) {
    const [x, y] = this.toImage(px, py);
    this.scale = Math.min(MAX_SCALE, Math.max(this.whole * 0.5, scale));
    this.cx = x - (px - this.w / 2) / this.scale;
    this.cy = y - (py - this.h / 2) / this.scale;
    this.fitted = null;
    this.#hold();
  }

  pan(dx, dy) {
    this.cx -= dx / this.scale;
    this.cy -= dy / this.scale;
    this.fitted = null;
    this.#hold();
  }

  centre(x, y, scale = this.scale) {
    Object.assign(this, {cx: x, cy: y, scale: Math.min(MAX_SCALE, Math.max(this.whole * 0.5, scale)), fitted: null});
    this.#hold();
  }

  /** A picture smaller than the pane stays in its middle; a larger one covers it. At 1:1 and above, whole device pixels. */
  #hold() {
    const hold = (c, size, pane) => {
      const half = pane / this.scale / 2;
      return size <= 2 * half ? size / 2 : Math.min(size - half, Math.max(half, c));
    };
    this.cx = hold(this.cx, this.columns, this.w);
    this.cy = hold(this.cy, this.rows, this.h);
  }

  get left() { return this.#snap(this.cx - this.w / 2 / this.scale); }
  get top() { return this.#snap(this.cy - this.h / 2 / this.scale); }
  #snap(edge) { return this.scale >= 1 ? Math.round(edge * this.scale) / this.scale : edge; }

  toImage(px, py) { return [this.left + px / this.scale, this.top + py / this.scale]; }
  toPane(x, y) { return [(x - this.left) * this.scale, (y - this.top) * this.scale]; }
}

const edge = (image, from, s, pane) => Math.ceil((image - from) * s + pane - 0.5);

/** The tiles of a level that a pane shows: {level, taps, tiles: [{tx, ty, rect}]}, rects in device pixels. */
export function visible(scan, pane, coarse, bounds) {
  const {level, taps} = levelFor(Math.min(pane.sx, pane.sy), scan.levels, coarse);
  const step = scan.tile * 2 ** level;
  const size = sizeOf(scan, level);
  const clip = {x0: Math.max(0, pane.x), y0: Math.max(0, pane.y), x1: Math.min(bounds.w, pane.x + pane.w), y1: Math.min(bounds.h, pane.y + pane.h)};
  const range = (from, s, length, n) => [Math.max(0, Math.floor(from / step)), Math.min(n - 1, Math.floor((from + length / s) / step))];
  const [x0, x1] = range(pane.left, pane.sx, pane.w, Math.ceil(size.columns / scan.tile));
  const [y0, y1] = range(pane.top, pane.sy, pane.h, Math.ceil(size.rows / scan.tile));
  const tiles = [];
  for (let ty = y0; ty <= y1; ty += 1) {
    for (let tx = x0; tx <= x1; tx += 1) {
      const rect = {
        x0: Math.max(clip.x0, edge(tx * step, pane.left, pane.sx, pane.x)), x1: Math.min(clip.x1, edge(Math.min((tx + 1) * step, scan.columns), pane.left, pane.sx, pane.x)),
        y0: Math.max(clip.y0, edge(ty * step, pane.top, pane.sy, pane.y)), y1: Math.min(clip.y1, edge(Math.min((ty + 1) * step, scan.rows), pane.top, pane.sy, pane.y)),
      };
      if (rect.x0 < rect.x1 && rect.y0 < rect.y1) tiles.push({tx, ty, rect});
    }
  }
  const middle = [(x0 + x1) / 2, (y0 + y1) / 2];
  tiles.sort((a, b) => Math.hypot(a.tx - middle[0], a.ty - middle[1]) - Math.hypot(b.tx - middle[0], b.ty - middle[1]));
  return {level, taps, tiles};
}

/**
 * What is drawn in a pane with the tiles that are here; a coarser tile stands in for one that is not.
 * `ready(entry)` tells whether a renderer can draw an entry now. Returns {items, holes, standIns, level}.
 */
export function plan(scan, store, pane, {shown, low, reduce, coarse, bounds, ready}) {
  const seen = visible(scan, pane, coarse, bounds);
  const items = [];
  let holes = 0;
  let standIns = 0;
  let worst = seen.level;
  for (const tile of seen.tiles) {
    let found = null;
    for (let level = seen.level; level < scan.levels && !found; level += 1) {
      const shift = level - seen.level;
      const [tx, ty] = [tile.tx >> shift, tile.ty >> shift];
      const entry = store.get(TileStore.nameOf(shown, level, tx, ty, reduce));
      const other = low ? store.get(TileStore.nameOf(low, level, tx, ty, reduce)) : null;
      if (entry && ready(entry) && (!low || (other && ready(other)))) found = {shown: entry, low: other, level, tx, ty};
    }
    if (!found) { holes += 1; continue; }
    if (found.level !== seen.level) { standIns += 1; worst = Math.max(worst, found.level); }
    const size = 2 ** found.level;
    items.push({
      shown: found.shown, low: found.low, rect: tile.rect, taps: found.level === seen.level ? seen.taps : 1,
      per: [1 / pane.sx / size, 1 / pane.sy / size], start: [pane.left / size - found.tx * scan.tile, pane.top / size - found.ty * scan.tile],
    });
  }
  return {items, holes, standIns, level: seen.level, worst};
}

/** The tiles to ask for, for one pane: the whole in one tile first (and only that, if `first`), then what stands in, then what is to be seen. */
export function wishes(scan, pane, {energies, reduce, bounds, query = '', coarse = false, first = false}) {
  const list = [];
  const add = (level, tx, ty) => { for (const energy of energies) list.push({energy, level, tx, ty, reduce, query}); };
  add(scan.levels - 1, 0, 0);
  if (first) return list;
  for (const how of coarse ? [true] : [true, false]) {
    const seen = visible(scan, pane, how, bounds);
    for (const {tx, ty} of seen.tiles) add(seen.level, tx, ty);
  }
  return list;
}
