// The controls above the picture and the line below it.
import {html, live, nothing, svg} from '/static/vendor/lit.js';
import {t} from '/static/shell/i18n.js';

const ICONS = {
  fit: svg`<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4"></path></svg>`,
  'one-to-one': svg`<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M3 5l2-1.5V13M11 5l2-1.5V13M8 6.5v.1M8 10.5v.1"></path></svg>`,
  invert: svg`<svg viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="6"></circle><path d="M8 2a6 6 0 0 1 0 12z" fill="currentColor"></path></svg>`,
  log: svg`<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M2 14V2M2 14h12M3 13C4 6 8 4 14 3.5"></path></svg>`,
  edge: svg`<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M2 12h5V4h7"></path></svg>`,
  magnifier: svg`<svg viewBox="0 0 16 16" aria-hidden="true"><circle cx="7" cy="7" r="4.5"></circle><path d="M10.5 10.5L14 14M5 7h4M7 5v4"></path></svg>`,
  measure: svg`<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M2 11L11 2l3 3-9 9zM5 8l1.5 1.5M7 6l1 1M9 4l1.5 1.5"></path></svg>`,
  region: svg`<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M2.5 3.5h11v9h-11z" stroke-dasharray="3 2"></path></svg>`,
  'roi-window': svg`<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M2.5 3.5h11v9h-11z" stroke-dasharray="3 2"></path><path d="M5.5 10.5v-2M8 10.5v-5M10.5 10.5v-3"></path></svg>`,
  overlays: svg`<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M2 2.5h7v7H2zM6 9.5v4h8v-8H9"></path></svg>`,
};

const name = (view, action) => t(`view.${action}`) + (view.keyName?.(action) ? `  (${view.keyName(action)})` : '');
const pressed = (on) => (on ? 'true' : 'false');

function heldButton(view, action) {
  const down = (event) => { if (event.button === 0) { event.currentTarget.setPointerCapture(event.pointerId); view.action(action, 'down'); } };
  const up = () => view.action(action, 'up');
  const key = (event) => { if (event.key === ' ' || event.key === 'Enter') { event.preventDefault(); event.stopPropagation(); if (!event.repeat) view.action(action, event.type === 'keydown' ? 'down' : 'up'); } };
  return html`<button class="icon" aria-label=${name(view, action)} title=${`${name(view, action)} – ${t('view.while_held')}`} aria-pressed=${pressed(view.holds(action))} @pointerdown=${down} @pointerup=${up} @pointercancel=${up} @keydown=${key} @keyup=${key} @blur=${up}>${ICONS[action]}</button>`;
}

const pressButton = (view, action, on = null) =>
  html`<button class="icon" aria-label=${name(view, action)} title=${name(view, action)} aria-pressed=${on == null ? nothing : pressed(on)} @click=${() => view.action(action, 'press')}>${ICONS[action]}</button>`;

const toolButton = (view, tool) =>
  html`<button class="icon" aria-label=${name(view, tool)} title=${name(view, tool)} aria-pressed=${pressed(view.tool === tool)} @click=${() => view.ask(tool)}>${ICONS[tool]}</button>`;

function energies(view) {
  const {scan} = view;
  const names = scan.energies.map((e) => ({...e, text: ['low', 'high'].includes(e.label) ? t(`view.${e.label}`) : e.label}));
  const shown = view.mode === 'grey' || view.mode === 'blink';
  const button = (text, on, click, title = text) => html`<button aria-pressed=${pressed(on)} title=${title} @click=${click}>${text}</button>`;
  if (names.length < 2) return nothing;
  return html`<div class="group joined" role="group" aria-label=${t('view.energies')}>
    ${[...names].reverse().map((e) => button(e.text, shown && view.shownEnergy === e.name, () => view.show(e.name), e.name))}
    ${scan.material ? button(t('view.material'), view.mode === 'material', () => view.action('material', 'press'), name(view, 'material')) : nothing}
    ${button(t('view.both'), view.mode === 'side-by-side', () => view.action('side-by-side', 'press'), name(view, 'side-by-side'))}
    ${button(t('view.blink'), view.mode === 'blink', () => view.action('blink', 'press'), name(view, 'blink'))}</div>`;
}

/** The share of pixels at each grey, as a line, with the window over it. */
function histogram(view) {
  const {scan} = view;
  const counts = (scan.energies.find((e) => e.name === view.shownEnergy) ?? scan.energies[0]).histogram ?? [];
  if (!counts.length) return nothing;
  const most = Math.log1p(Math.max(...counts));
  const path = counts.map((n, x) => `${x ? 'L' : 'M'}${x},${(30 - 29 * (Math.log1p(n) / most)).toFixed(1)}`).join('');
  const at = (v) => Math.max(0, Math.min(256, (256 * v) / scan.value.white));
  return html`<svg class="histogram" viewBox="0 0 256 30" preserveAspectRatio="none" role="img" aria-label=${t('view.histogram')} @pointerdown=${(e) => view.dragHistogram(e)} @pointermove=${(e) => { if (e.buttons & 1) view.dragHistogram(e); }}>
    <rect x=${at(view.low)} y="0" width=${Math.max(2, at(view.high) - at(view.low))} height="30" fill="#4a4a4a"></rect><path d=${`${path}L256,30L0,30Z`} fill="#b5b5b5"></path></svg>`;
}

function windowing(view) {
  const field = (which) => html`<input type="number" aria-label=${t(`view.window_${which}`)} title=${t(`view.window_${which}`)} min="0" max=${view.scan.value.white} step="1" .value=${live(String(Math.round(view[which])))}
    @change=${(e) => view.typed(which, e.target.valueAsNumber)} @keydown=${(e) => { if (e.key === 'Enter') { e.stopPropagation(); e.target.blur(); } }}>`;
  return html`<div class="group" role="group" aria-label=${t('view.window')}><span class="word">${t('view.window')}</span>${field('low')}<span aria-hidden="true">–</span>${field('high')}${histogram(view)}</div>
    <div class="group joined" role="group" aria-label=${t('view.presets')}>
    ${view.scan.presets.map((p, n) => html`<button aria-pressed=${pressed(view.preset === p.name)} title=${name(view, `preset-${n + 1}`)} @click=${() => view.action(`preset-${n + 1}`, 'press')}>${t(`view.preset.${p.name}`)}</button>`)}</div>`;
}

export function barView(view) {
  if (!view.scan?.energies.length) return nothing;
  const palettes = ['grey', 'inverted', 'cividis', 'viridis'];
  return html`<div class="bar" role="toolbar" aria-label=${t('view.toolbar')}>
    ${energies(view)}${windowing(view)}
    <div class="group" role="group" aria-label=${t('view.enhance')}>${heldButton(view, 'invert')}${heldButton(view, 'log')}${heldButton(view, 'edge')}${heldButton(view, 'magnifier')}</div>
    <div class="group" role="group" aria-label=${t('view.zoom')}>${pressButton(view, 'fit')}${pressButton(view, 'one-to-one')}</div>
    ${view.compact ? nothing : html`<div class="group" role="group" aria-label=${t('view.tools')}>${toolButton(view, 'region')}${toolButton(view, 'measure')}${toolButton(view, 'roi-window')}
      <button class="icon" aria-label=${name(view, 'overlays')} title=${name(view, 'overlays')} aria-pressed=${pressed(view.overlays)} @click=${() => view.ask('overlays')}>${ICONS.overlays}</button></div>`}
    <div class="group"><select aria-label=${t('view.palette')} title=${t('view.palette')} @change=${(e) => { view.palette = e.target.value; e.target.blur(); }}>${palettes.map((p) => html`<option value=${p} ?selected=${view.palette === p}>${t(`palette.${p}`)}</option>`)}</select>
      <button aria-pressed=${pressed(view.reduce === 'min')} title=${name(view, 'reduce')} @click=${() => view.action('reduce', 'press')}>${t('view.darkest')}</button></div>
  </div>`;
}

/** The line below: the cursor's place and values, what is drawn, what is missing. */
export function statusText(view) {
  const {scan, cursor, reading} = view;
  const {value} = scan;
  if (!cursor || cursor.y == null) return cursor ? t('view.column', {x: cursor.x}) : '';
  const mm = view.mm(cursor.x + 0.5, scan.rows - cursor.y - 0.5);
  const seen = Object.entries(reading?.values ?? {}).reverse().map(([energy, v]) => {
    const label = scan.energies.find((e) => e.name === energy)?.label ?? energy;
    const word = scan.energies.length > 1 ? `${['low', 'high'].includes(label) ? t(`view.${label}`) : label} ` : value.kind === 'grey' ? `${t('view.grey_value')} ` : '';
    const share = value.kind === 'transmission' ? ` T ${((100 * v) / value.white).toFixed(2)} %` : '';
    const raw = view.counts?.[energy];
    return `${word}${reading.exact ? '' : '≈'}${v}${share}${raw == null ? '' : ` (${t('view.raw', {n: raw})})`}`;
  });
  const where = `x ${cursor.x}  y ${cursor.y}`;
  return [where, mm && `${(mm.x / 1000).toFixed(2)} m, ${t('view.up', {m: (mm.y / 1000).toFixed(2)})}`, ...seen, scan.bad_rows.includes(cursor.y) ? t('view.bad_row') : ''].filter(Boolean).join('   ·   ');
}

export function shownText(view) {
  const {drawn} = view;
  if (!drawn) return '';
  const percent = 100 * drawn.scale;
  const zoom = `${percent >= 10 ? Math.round(percent) : percent.toPrecision(2)} %`;
  const level = drawn.worst === 0 && drawn.scale >= 0.999 ? t('view.every_pixel') : t(view.reduce === 'min' ? 'view.reduced_min' : 'view.reduced_mean', {n: Math.max(2, Math.round(1 / drawn.scale))});
  return `${zoom}   ·   ${level}${view.renderer === 'webgl2' ? '' : `   ·   ${t(`view.renderer.${view.renderer}`)}`}`;
}
