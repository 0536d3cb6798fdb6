// Everything drawn over the picture: boxes with their numbers, regions, measures, cursor, scale, mini-map.
import {html, nothing, svg} from '/static/vendor/lit.js';
import {t, tOr} from '/static/shell/i18n.js';
import {hatchNumber, OPAQUE_RGB} from './look.js';

export const TIER_SHAPE = {alarm: '▲', review: '◆', note: '·'};
export const kindName = (kind) => tOr(`finding.${kind}`, kind.replaceAll('_', ' '));

/** Millimetres as a person says them: 87 mm, 1.24 m. */
export const length = (mm) => (mm < 1000 ? `${Math.round(mm)} mm` : `${(mm / 1000).toFixed(2)} m`);

const rect = (b, name) => svg`<rect class=${name} x=${b.x} y=${b.y} width=${Math.max(1, b.w)} height=${Math.max(1, b.h)}></rect>`;
const framed = (b) => svg`${rect(b, 'halo')}${rect(b, 'box')}`;

/** Where the number of a box goes: at a corner, inside the pane, on no other number if that can be. */
function tagPlace(b, size, taken, w) {
  const x = (at) => Math.min(w - size.w - 1, Math.max(1, at));
  const y = (at) => Math.max(1, at);
  const places = [
    [b.x, b.y - size.h], [b.x + b.w - size.w, b.y - size.h], [b.x, b.y + b.h], [b.x + b.w - size.w, b.y + b.h], [b.x - size.w, b.y], [b.x + b.w, b.y], [b.x, b.y - 2 * size.h],
  ].map(([px, py]) => ({x: x(px), y: y(py), ...size}));
  const free = (p) => taken.every((o) => p.x + p.w <= o.x || o.x + o.w <= p.x || p.y + p.h <= o.y || o.y + o.h <= p.y);
  const place = places.find(free) ?? places[0];
  taken.push(place);
  return place;
}

function tag(f, b, taken, w, clicked) {
  const size = {w: f.index > 9 ? 22 : 17, h: 17};
  const p = tagPlace(b, size, taken, w);
  return svg`<g class="tag" data-index=${f.index} @pointerdown=${(e) => { e.stopPropagation(); clicked(f.index); }}><rect x=${p.x} y=${p.y} width=${p.w} height=${p.h} rx="2"></rect>
    <text x=${p.x + p.w / 2} y=${p.y + 12.5}>${f.index}</text></g>`;
}

/** A round length that fits in `px` CSS pixels. */
function scaleBar(mmPerPx, w, h) {
  const most = Math.min(160, w * 0.25) * mmPerPx;
  const power = 10 ** Math.floor(Math.log10(most));
  const mm = [5, 2, 1].map((n) => n * power).find((n) => n <= most) ?? power;
  const px = mm / mmPerPx;
  const [x1, y] = [w - 12, h - 12];
  const line = (name) => svg`<line class=${name} x1=${x1 - px} y1=${y} x2=${x1} y2=${y}></line>`;
  return svg`<g class="scale">${line('halo')}${line('')}<text x=${x1} y=${y - 7} text-anchor="end">${mm >= 1000 ? `${mm / 1000} m` : mm >= 10 ? `${mm / 10} cm` : `${mm} mm`}</text></g>`;
}

/**
 * The marks of one pane, in CSS pixels of that pane. `to(box)` places a box of image pixels.
 * view: {scan, overlays, opacity, selected, hovered, regions, drawing, measures, cursor, cross, name}
 */
export function paneMarks(view, pane, to) {
  const {scan} = view;
  const taken = [];
  const seen = (f) => { const b = f.box && to(f.box); return b && b.x < pane.w && b.y < pane.h && b.x + b.w > 0 && b.y + b.h > 0; };
  const order = scan.findings.filter(seen).sort((a, b) => (a.index === view.selected) - (b.index === view.selected));
  const boxes = !view.overlays ? nothing : svg`<g class="findings" stroke-opacity=${view.opacity}>
    ${scan.container ? rect(to(scan.container), 'container') : nothing}
    ${order.map((f) => { const b = to(f.box); return svg`<g class="finding tier-${f.tier} ${f.index === view.selected ? 'selected' : ''}">${framed(b)}${tag(f, b, taken, pane.w, view.clicked)}</g>`; })}</g>
    <g>${runs(scan.bad_rows).map(([a, b]) => { const r = to({x0: 0, y0: a, x1: scan.columns, y1: b}); const y = r.y + r.h / 2; return svg`<line class="badrow" x1=${Math.max(0, r.x)} x2=${Math.max(0, r.x) + 7} y1=${y} y2=${y}></line><line class="badrow" x1=${Math.min(pane.w, r.x + r.w) - 7} x2=${Math.min(pane.w, r.x + r.w)} y1=${y} y2=${y}></line>`; })}</g>`;
  const drawn = view.regions.map((r) => { const b = to(r.box); return svg`<g class="region">${framed(b)}<text x=${Math.max(3, b.x + 3)} y=${b.y + b.h + 14}>${[r.label, sizeText(r)].filter(Boolean).join(' · ')}</text></g>`; });
  return svg`<svg x=${pane.x} y=${pane.y} width=${pane.w} height=${pane.h}>
    ${boxes}${drawn}${view.measures.map((m) => measure(m, to))}${view.drawing ? drawing(view.drawing, to) : nothing}
    ${view.cursor ? cursorLine(view.cursor, pane, to) : nothing}${view.cross ? crossAt(view.cross, to) : nothing}
    ${view.name ? svg`<text class="name" x="8" y=${pane.h - 9}>${view.name}</text>` : nothing}
    ${view.mmPerPx ? scaleBar(view.mmPerPx, pane.w, pane.h) : nothing}</svg>`;
}

const sizeText = (r) => (r.mm ? `${length(r.mm.w)} × ${length(r.mm.h)}` : '');

/** Neighbouring numbers as half-open runs. */
export function runs(numbers) {
  const found = [];
  for (const n of numbers) { if (found.length && found.at(-1)[1] === n) found.at(-1)[1] = n + 1; else found.push([n, n + 1]); }
  return found;
}

function measure(m, to) {
  const [a, b] = [to({x0: m.x0, y0: m.y0, x1: m.x0, y1: m.y0}), to({x0: m.x1, y0: m.y1, x1: m.x1, y1: m.y1})];
  const line = (name) => svg`<line class=${name} x1=${a.x} y1=${a.y} x2=${b.x} y2=${b.y}></line>`;
  return svg`<g class="measure">${line('halo')}${line('box')}<text x=${(a.x + b.x) / 2 + 8} y=${(a.y + b.y) / 2 - 6}>${m.mm == null ? `${Math.round(m.px)} px` : length(m.mm)}</text></g>`;
}

function drawing(d, to) {
  if (d.kind === 'measure') return measure(d, to);
  const b = to(d.box);
  return svg`<g class="drawing">${framed(b)}<text x=${b.x + 3} y=${b.y + b.h + 14}>${sizeText(d)}</text></g>`;
}

function cursorLine(c, pane, to) {
  const b = to({x0: c.x, y0: c.y ?? 0, x1: c.x + 1, y1: (c.y ?? 0) + 1});
  const x = b.x + b.w / 2;
  return svg`<line class="cursor" x1=${x} x2=${x} y1="0" y2=${pane.h}></line>${c.y == null ? nothing : svg`<line class="cursor" y1=${b.y + b.h / 2} y2=${b.y + b.h / 2} x1="0" x2=${pane.w}></line>`}`;
}

function crossAt(c, to) {
  const b = to({x0: c.x, y0: c.y, x1: c.x, y1: c.y});
  return svg`<path class="cross" d="M${b.x - 12},${b.y}h24M${b.x},${b.y - 12}v24"></path>`;
}

export const miniMarks = (mini, seen) => svg`<g class="mini">${rect(mini, '')}${rect(seen, 'seen')}</g>`;
export const loupeMark = (b) => svg`<rect class="loupe" x=${b.x} y=${b.y} width=${b.w} height=${b.h}></rect>`;

const HATCH_PATH = {1: 'M-4,12 l12,-12 M2,12 l12,-12 M8,12 l12,-12 M14,12 l12,-12', 2: 'M-4,12 l12,-12 M4,12 l12,-12 M12,12 l12,-12 M-4,0 l12,12 M4,0 l12,12 M12,0 l12,12', 3: 'M3,3h2M9,3h2M15,3h2M3,8h2M9,8h2M15,8h2'};
const swatch = (fill, kind, stroke) => html`<svg class="swatch" viewBox="0 0 22 12" aria-hidden="true"><rect width="22" height="12" fill=${fill}></rect>
  ${kind ? svg`<path d=${HATCH_PATH[kind]} stroke=${stroke} stroke-width="1.5" fill="none"></path>` : nothing}</svg>`;

/** What the colours of the material view mean, and what they are worth. */
export const legendView = (material) => html`<div class="legend"><ul>${material.classes.map((c) => html`<li>${swatch(`rgb(${c.rgb.join()})`, hatchNumber(c.hatch), 'rgb(0 0 0 / 45%)')}${tOr(`material.${c.name}`, c.name)}</li>`)}</ul>
  <p>${material.calibrated ? material.note : t('view.material_note')}</p></div>`;

export const opaqueKey = () => html`<span class="key">${swatch('#111', 1, `rgb(${OPAQUE_RGB.join()})`)}${t('view.opaque')}</span>`;
