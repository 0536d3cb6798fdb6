// Pictures without WebGL: by the processor from the same 16-bit tiles, or from tiles that the server has drawn.
import {hatchNumber, onHatch, OPAQUE_RGB} from './look.js';

const rgba = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

class Canvas {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d', {alpha: false, willReadFrequently: true});
    if (!this.context) throw new Error('the browser gives no canvas');
  }

  get lost() { return false; }
  has() { return true; }
  take() {}
  drop() {}
  clear(rgb) {
    this.context.fillStyle = `rgb(${rgb.join()})`;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  read() { return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height); }
}

/** The shader's arithmetic on the processor: the same pixels. */
export class CanvasRenderer extends Canvas {
  name = 'canvas';
  form = 'u16';

  draw(panes, look, surround) {
    const {width, height} = this.canvas;
    if (this.image?.width !== width || this.image?.height !== height) {
      this.image = this.context.createImageData(width, height);
      this.out = new Uint32Array(this.image.data.buffer);
    }
    this.out.fill(rgba(surround));
    for (const pane of panes) {
      for (let y = Math.max(0, pane.y); y < Math.min(height, pane.y + pane.h); y += 1) this.out.fill(rgba(surround), y * width + pane.x, y * width + pane.x + pane.w);
      for (const item of pane.items) this.#quad(pane, item, look);
    }
    this.context.putImageData(this.image, 0, 0);
  }

  #quad(pane, item, look) {
    const {rect, shown, low} = item;
    const columns = samples(rect.x0, rect.x1, pane.x, item.start[0], item.per[0], item.taps, shown.width);
    const rows = samples(rect.y0, rect.y1, pane.y, item.start[1], item.per[1], item.taps, shown.height);
    const value = look.edge ? edged(look.white) : item.taps === 1 ? single : look.reduce === 'min' ? smallest : mean;
    const {lut} = look;
    const centres = low ? samples(rect.x0, rect.x1, pane.x, item.start[0], item.per[0], 1, shown.width).filter((_, n) => n % 2 === 0) : null;
    const centreRows = low ? samples(rect.y0, rect.y1, pane.y, item.start[1], item.per[1], 1, shown.height) : null;
    const {width} = this.canvas;
    const plain = !low && !look.opaque;
    const paint = low ? materialOf(look) : null;
    const hatch = rgba(OPAQUE_RGB);
    const [wx0, wy0, wx1, wy1] = pane.within;
    for (let y = rect.y0; y < rect.y1; y += 1) {
      const r = 2 * (y - rect.y0);
      const r0 = rows[r] * shown.width;
      const r1 = rows[r + 1] * shown.width;
      const centreRow = low ? centreRows[r] * shown.width : 0;
      let o = y * width + rect.x0;
      if (plain && value === single) {
        for (let c = 0; c < columns.length; c += 2) { this.out[o] = lut[shown.data[r0 + columns[c]]]; o += 1; }
        continue;
      }
      for (let x = rect.x0, c = 0; x < rect.x1; x += 1, c += 2, o += 1) {
        const v = value(shown, r0, r1, columns[c], columns[c + 1]);
        if (v < look.opaque && x + 0.5 > wx0 && x + 0.5 < wx1 && y + 0.5 > wy0 && y + 0.5 < wy1 && onHatch(1, x, y)) this.out[o] = hatch;
        else this.out[o] = paint ? paint(around(shown, centreRow, centres[x - rect.x0]), around(low, centreRow, centres[x - rect.x0]), lut[v], x, y) : lut[v];
      }
    }
  }
}

/** Pairs of the tile's pixels that the samples of every device pixel from `from` to `to` fall on. */
function samples(from, to, pane, start, per, taps, size) {
  const found = new Int32Array(2 * (to - from));
  const f = Math.fround; // as the shader reckons
  const off = taps === 1 ? 0 : f(0.25 * f(per));
  for (let n = from; n < to; n += 1) {
    const p = f(f(start) + f(f(n + 0.5 - pane) * f(per)));
    found[2 * (n - from)] = Math.max(0, Math.min(size - 1, Math.floor(f(p - off))));
    found[2 * (n - from) + 1] = Math.max(0, Math.min(size - 1, Math.floor(f(p + off))));
  }
  return found;
}

const single = ({data}, r0, r1, c0) => data[r0 + c0];
const mean = ({data}, r0, r1, c0, c1) => (data[r0 + c0] + data[r0 + c1] + data[r1 + c0] + data[r1 + c1] + 2) >> 2;
const smallest = ({data}, r0, r1, c0, c1) => Math.min(data[r0 + c0], data[r0 + c1], data[r1 + c0], data[r1 + c1]);
/** Sum of 3 x 3; beyond the tile's edge, the edge again. */
function summed({data, width, height}, r0, c0) {
  let sum = 0;
  for (let dy = -1; dy <= 1; dy += 1) {
    const row = Math.max(0, Math.min(r0 + dy * width, (height - 1) * width));
    for (let dx = -1; dx <= 1; dx += 1) sum += data[row + Math.max(0, Math.min(width - 1, c0 + dx))];
  }
  return sum;
}
const around = (tile, r0, c0) => summed(tile, r0, c0) / 9;
const edged = (white) => (tile, r0, r1, c0) => Math.min(white, Math.floor(Math.max(0, 36 * tile.data[r0 + c0] - 2 * summed(tile, r0, c0) + 9) / 18));

function materialOf({material, white}) {
  const {t_min: from, t_max: to} = material;
  const classes = material.classes.map((c) => ({...c, kind: hatchNumber(c.hatch)}));
  return (high, low, grey, x, y) => {
    const th = Math.min(1, Math.max(1e-6, high / white));
    if (th < from || th > to) return grey;
    const ratio = Math.log(Math.min(1, Math.max(1e-6, low / white))) / Math.min(Math.log(th), -1e-9);
    const found = classes.findLast((c) => ratio >= c.ratio_from && ratio < c.ratio_to);
    if (!found) return grey;
    let light = 0.35 + (0.65 * (grey & 255)) / 255;
    if (onHatch(found.kind, x, y)) light *= 0.72;
    return rgba(found.rgb.map((c) => Math.floor(c * light + 0.5)));
  };
}

/** Tiles drawn by the server, put where they belong. */
export class PngRenderer extends Canvas {
  name = 'png';
  form = 'png';

  draw(panes, look, surround) {
    const {context} = this;
    this.clear(surround);
    for (const pane of panes) {
      context.save();
      context.beginPath();
      context.rect(pane.x, pane.y, pane.w, pane.h);
      context.clip();
      context.fillStyle = `rgb(${surround.join()})`;
      context.fillRect(pane.x, pane.y, pane.w, pane.h);
      for (const {rect, start, per, taps, shown} of pane.items) {
        context.imageSmoothingEnabled = taps !== 1;
        const from = [start[0] + (rect.x0 - pane.x) * per[0], start[1] + (rect.y0 - pane.y) * per[1]];
        const size = [(rect.x1 - rect.x0) * per[0], (rect.y1 - rect.y0) * per[1]];
        context.drawImage(shown.bitmap, from[0], from[1], size[0], size[1], rect.x0, rect.y0, rect.x1 - rect.x0, rect.y1 - rect.y0);
      }
      context.restore();
    }
  }
}
