// From values to colours: the formulae that the shader, the canvas and the server share, and which pixels are looked at.

export const STANDARD = Object.freeze({invert: false, log: false, edge: false});
export const MAX_CLASSES = 8;

let tables = null;
/** The palettes, {name: [[r, g, b] * 256]}, asked for once. */
export async function palettes() {
  tables ??= fetch('/palettes.json').then((answer) => {
    if (!answer.ok) throw new Error(`palettes: ${answer.status}`);
    return answer.json();
  });
  try { return await tables; } catch (error) { tables = null; throw error; }
}
export const GREY = Array.from({length: 256}, (_, n) => [n, n, n]);

const logs = new Map();
function logarithms(white) {
  if (!logs.has(white)) {
    const table = new Float64Array(65536);
    const whole = Math.log(white);
    for (let v = 0; v < 65536; v += 1) table[v] = white * (1 - Math.min(1, Math.log(white / Math.max(v, 1)) / whole));
    logs.clear();
    logs.set(white, table);
  }
  return logs.get(white);
}

/** Fill `out` (Uint32Array of 65536, bytes R G B A) with the colour of every value. */
export function fillLut(out, {low, high, invert, log}, white, palette) {
  const colours = new Uint32Array(256);
  for (let n = 0; n < 256; n += 1) { const [r, g, b] = palette[n]; colours[n] = (255 << 24) | (b << 16) | (g << 8) | r; }
  const span = Math.max(high - low, 1e-9);
  const table = log ? logarithms(white) : null;
  for (let v = 0; v < 65536; v += 1) {
    let g = ((table ? table[v] : v) - low) / span;
    g = g < 0 ? 0 : g > 1 ? 1 : g;
    out[v] = colours[Math.floor((invert ? 1 - g : g) * 255 + 0.5)];
  }
  return out;
}

/**
 * The level to show at a scale of `s` device pixels per image pixel. Fine: its pixels are no larger than the screen's,
 * and four samples of them make one, so that nothing thin is missed. Coarse: no smaller, one sample.
 */
export function levelFor(s, levels, coarse) {
  const exact = Math.log2(1 / s);
  const level = Math.max(0, Math.min(levels - 1, coarse ? Math.ceil(exact - 1e-9) : Math.floor(exact + 1e-9)));
  return {level, taps: s * 2 ** level < 0.999 ? 4 : 1};
}

const HATCHES = {none: 0, diagonal: 1, cross: 2, dots: 3};
export const hatchNumber = (name) => HATCHES[name] ?? 0;

/** Tell whether a device pixel is on the line of a hatch: the shader's own rule. */
export function onHatch(kind, x, y) {
  if (kind === 1) return ((x + y) & 7) < 2;
  if (kind === 2) return ((x + y) & 7) < 1 || ((x - y) & 7) < 1;
  if (kind === 3) return (x & 7) < 2 && (y & 7) < 2;
  return false;
}
export const OPAQUE_RGB = [150, 112, 168];

/** The smallest and largest of the middle of some values: `percent` of them are left out at either end. */
export function middleOf(values, percent) {
  const sorted = values.slice().sort();
  const at = (share) => sorted[Math.max(0, Math.min(sorted.length - 1, Math.floor(share * sorted.length)))];
  return [at(percent / 100), at(1 - percent / 100)];
}
