// <portal-chart>: what the radiation portal counted while the vehicle passed, over the time in which the picture was made.
import {css, html, LitElement, nothing} from '/static/vendor/lit.js';
import uPlot from '/static/vendor/uplot.js';
import {t} from '/static/shell/i18n.js';

const AXIS_PX = 46;
const TIERS = {alarm: '▲', review: '◆'};
const LINE_PX = 16; // of the marks of one tier
const rounded = (n) => (n >= 100 ? Math.round(n) : Number(n.toPrecision(3)));

/** Seconds of a column between knots [[column, seconds], ...], ascending; null without knots. */
export function secondsOf(column, knots) { return between(column, knots, 0, 1); }
/** Column of an instant, null before the first and after the last column. */
export function columnOf(seconds, knots) {
  if (!knots?.length || seconds < knots[0][1] || seconds > knots.at(-1)[1]) return null;
  return Math.round(between(seconds, knots, 1, 0));
}
function between(value, knots, from, to) {
  if (!knots?.length) return null;
  if (knots.length === 1) return knots[0][to];
  let n = knots.findIndex((k) => k[from] >= value);
  n = n < 1 ? (n === 0 ? 1 : knots.length - 1) : n;
  const [a, b] = [knots[n - 1], knots[n]];
  const share = b[from] === a[from] ? 0 : (value - a[from]) / (b[from] - a[from]);
  return a[to] + share * (b[to] - a[to]);
}

export class PortalChart extends LitElement {
  static properties = {series: {attribute: false}, columnSeconds: {attribute: false}, nsigma: {type: Boolean}, cursor: {attribute: false}, range: {attribute: false}};
  static styles = css`
    :host { display: block; background: var(--panel); color: var(--text); font-size: 12px; line-height: 1.3; overflow: hidden; position: relative; }
    .all { display: flex; flex-direction: column; height: 100%; }
    .head { display: flex; gap: 4px 14px; align-items: center; padding: 3px 8px 0; flex-wrap: wrap; flex: none; } .head .spacer { flex: 1; } .head b { font-weight: 600; } .dim { color: var(--text-dim); }
    .key { display: inline-flex; gap: 5px; align-items: center; color: var(--text-dim); white-space: nowrap; } .key svg { width: 20px; height: 10px; }
    .alarm { color: var(--alarm); font-weight: 600; } button { font: inherit; color: var(--text); background: var(--panel-2); border: 1px solid #4a4a4a; border-radius: 4px; padding: 0 7px; height: 20px; cursor: pointer; }
    button[aria-pressed="true"] { background: #4a4a4a; border-color: #b9b9b9; box-shadow: inset 0 -2px 0 var(--accent); } :focus-visible { outline: 2px solid var(--focus); }
    .plots { flex: 1; min-height: 0; position: relative; display: flex; flex-direction: column; } .read { position: absolute; right: 12px; top: 4px; z-index: 2; background: rgb(28 28 28 / 85%); padding: 0 6px; border-radius: 3px; font-variant-numeric: tabular-nums; white-space: nowrap; } .read:empty { display: none; }
    .u-cursor-x { border-color: var(--focus) !important; } .hidden-text { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
    @media (min-width: 2000px) { :host { font-size: 14px; } }
    @media (forced-colors: active) { .plots { forced-color-adjust: none; background: #232323; } }
  `;

  constructor() {
    super();
    Object.assign(this, {series: null, columnSeconds: [], nsigma: false, cursor: null, range: null});
    this.plots = [];
  }

  connectedCallback() {
    super.connectedCallback();
    this.onLanguage = () => this.requestUpdate();
    window.addEventListener('scanlane-language', this.onLanguage);
    this.observer = new ResizeObserver(() => this.#size());
    this.updateComplete.then(() => this.observer?.observe(this.renderRoot.querySelector('.plots')));
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    window.removeEventListener('scanlane-language', this.onLanguage);
    this.observer.disconnect();
    this.#drop();
  }

  #drop() {
    for (const plot of this.plots) plot.destroy();
    this.plots = [];
  }

  updated(changed) {
    if (changed.has('series') || changed.has('nsigma') || changed.has('columnSeconds') || !this.plots.length) this.#make();
    else if (changed.has('cursor')) this.#showCursor();
    else if (changed.has('range')) for (const plot of this.plots) plot.redraw(false, false);
  }

  /** Counts of every gamma interval as they are shown: per interval, or in standard deviations above the background. */
  #shown(n) {
    const {background, background_sigma: sigma} = this.series;
    return this.inSigma ? (n - background) / sigma : n;
  }

  get inSigma() { return this.nsigma && this.series?.background > 0; }

  /** First and last second: of the portal's record and of the picture together. */
  #span() {
    const {series: s, columnSeconds: knots} = this;
    const ends = [s.start_s, s.start_s + s.gamma.length * s.interval_s];
    if (s.neutron) ends.push(s.neutron.start_s, s.neutron.start_s + s.neutron.counts.length * s.neutron.interval_s);
    if (knots?.length) ends.push(knots[0][1], knots.at(-1)[1]);
    return [Math.min(...ends), Math.max(...ends)];
  }

  #make() {
    this.#drop();
    const root = this.renderRoot.querySelector('.plots');
    if (!this.series || !root) return;
    const style = getComputedStyle(this);
    this.colour = (name) => style.getPropertyValue(name).trim();
    const {series: s} = this;
    const [from, to] = this.#span();
    const values = s.gamma.map((n) => this.#shown(n));
    const lines = [s.threshold == null ? null : this.#shown(s.threshold), s.background == null ? null : this.#shown(s.background)].filter((n) => n != null);
    const top = Math.max(...values, ...lines, this.inSigma ? 5 : 1);
    const low = Math.min(...values, ...lines);
    const bottom = this.inSigma ? Math.min(-3, low) : Math.max(0, low - (top - low));
    this.plots.push(this.#plot(root, {times: this.#times(s.start_s, s.interval_s, values), from, to, range: [bottom, top + [0.12, 0.35, 0.7][new Set(s.alarms.map((alarm) => alarm.tier ?? 'alarm')).size] * (top - bottom)], colour: '--series-2', last: !s.neutron, draw: (u) => this.#drawGamma(u)}));
    if (s.neutron) {
      const n = s.neutron;
      const most = Math.max(4, ...n.counts, n.threshold ?? 0);
      this.plots.push(this.#plot(root, {times: this.#times(n.start_s, n.interval_s, n.counts), from, to, range: [0, most * 1.1], colour: '--series-1', bars: true, last: true, draw: (u) => this.#drawNeutron(u)}));
    }
    this.#size();
    this.#showCursor();
  }

  #times(start, interval, values) {
    const x = values.map((_, n) => start + n * interval);
    return [[...x, start + values.length * interval], [...values, values.at(-1) ?? null]];
  }

  #plot(root, {times, from, to, range, colour, bars = false, last, draw}) {
    const axis = {stroke: this.colour('--text-dim'), font: '11px system-ui, sans-serif', grid: {stroke: '#343434', width: 1}, ticks: {stroke: '#4a4a4a', width: 1, size: 4}};
    const fill = `${this.colour(colour)}${bars ? '66' : '2e'}`;
    return new uPlot({
      width: Math.max(50, root.clientWidth), height: 60, legend: {show: false}, padding: [4, 10, last ? 0 : 2, 0],
      cursor: {x: true, y: false, points: {show: false}, drag: {x: false, y: false}},
      scales: {x: {time: false, range: () => [from, to]}, y: {range: () => range}},
      axes: [{...axis, show: last, size: 24, gap: 2, values: (u, ticks) => ticks.map((v) => `${v} s`)}, {...axis, size: AXIS_PX, gap: 3, space: bars ? 16 : 24, incrs: bars ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] : undefined}],
      series: [{}, {stroke: this.colour(colour), width: bars ? 1 : 1.5, fill, fillTo: bars ? 0 : range[0], paths: uPlot.paths.stepped({align: 1}), points: {show: false}}],
      hooks: {drawClear: [(u) => this.#drawPicture(u)], draw: [draw], setCursor: [(u) => this.#cursorMoved(u)]},
    }, times, root);
  }

  #size() {
    const root = this.renderRoot?.querySelector('.plots');
    if (!root || !this.plots.length) return;
    const width = Math.max(50, root.clientWidth);
    const height = Math.max(40, root.clientHeight);
    const second = this.plots.length > 1 ? Math.max(44, Math.round(height * 0.42)) : 0;
    this.plots[0].setSize({width, height: height - second});
    this.plots[1]?.setSize({width, height: second});
    this.#showCursor();
  }

  /** Under the counts: while which time the picture was made, and which part of it is seen. */
  #drawPicture(u) {
    const {ctx, bbox} = u;
    const knots = this.columnSeconds;
    if (!knots?.length) return;
    const at = (seconds) => Math.max(bbox.left, Math.min(bbox.left + bbox.width, u.valToPos(seconds, 'x', true)));
    ctx.save();
    ctx.fillStyle = '#2b2b2b';
    ctx.fillRect(at(knots[0][1]), bbox.top, at(knots.at(-1)[1]) - at(knots[0][1]), bbox.height);
    if (this.range) {
      const [a, b] = [at(secondsOf(this.range.x0, knots)), at(secondsOf(this.range.x1, knots))];
      ctx.fillStyle = '#363636';
      ctx.fillRect(Math.min(a, b), bbox.top, Math.abs(b - a), bbox.height);
    }
    ctx.restore();
  }

  #line(u, value, colour, dash) {
    const {ctx, bbox} = u;
    const y = Math.round(u.valToPos(value, 'y', true));
    ctx.save();
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash(dash.map((n) => n * devicePixelRatio));
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }

  #drawGamma(u) {
    const {series: s} = this;
    const {ctx, bbox} = u;
    if (s.background != null) {
      const [a, b] = [s.background - s.background_sigma, s.background + s.background_sigma].map((n) => u.valToPos(this.#shown(n), 'y', true));
      ctx.save();
      ctx.fillStyle = 'rgb(255 255 255 / 14%)';
      ctx.fillRect(bbox.left, Math.min(a, b), bbox.width, Math.max(1, Math.abs(a - b)));
      ctx.restore();
      this.#line(u, this.#shown(s.background), 'rgb(255 255 255 / 50%)', [1, 3]);
    }
    if (s.threshold != null) this.#line(u, this.#shown(s.threshold), this.colour('--series-1'), [6, 4]);
    this.#alarms(u, s.alarms, s.start_s, s.interval_s);
  }

  #drawNeutron(u) {
    const n = this.series.neutron;
    if (n.background != null) this.#line(u, n.background, 'rgb(255 255 255 / 50%)', [1, 3]);
    if (n.threshold != null) this.#line(u, n.threshold, this.colour('--series-1'), [6, 4]);
    this.#alarms(u, n.alarms, n.start_s, n.interval_s);
  }

  /** A bar along the top while an alarm lasted, with shape and word of who raised it; what only asks for a look lies below. */
  #alarms(u, alarms, start, interval) {
    const {ctx, bbox} = u;
    const r = devicePixelRatio;
    ctx.save();
    ctx.font = `600 ${11 * r}px system-ui, sans-serif`;
    ctx.textBaseline = 'top';
    ctx.textAlign = 'left';
    const tiers = Object.keys(TIERS).filter((tier) => alarms.some((alarm) => (alarm.tier ?? 'alarm') === tier));
    for (const [line, tier] of tiers.entries()) {
      const top = bbox.top + line * LINE_PX * r;
      ctx.fillStyle = this.colour(`--${tier}`);
      let end = -Infinity;
      for (const alarm of alarms.filter((one) => (one.tier ?? 'alarm') === tier)) {
        const x0 = u.valToPos(start + alarm.first * interval, 'x', true);
        const x1 = u.valToPos(start + alarm.end * interval, 'x', true);
        ctx.fillRect(x0, top, Math.max(2 * r, x1 - x0), 3 * r);
        if (x0 <= end) continue;
        const word = `${TIERS[tier]} ${t(`view.chart.${alarm.who}`)}: ${t(`tier.${tier}`)}`;
        ctx.fillText(word, x0, top + 4 * r);
        end = x0 + 8 * r + ctx.measureText(word).width;
      }
    }
    ctx.restore();
  }

  #cursorMoved(u) {
    if (this.silent) return;
    const {left} = u.cursor;
    const seconds = left == null || left < 0 ? null : u.posToVal(left, 'x');
    this.silent = true;
    for (const other of this.plots) if (other !== u) other.setCursor({left: left ?? -10, top: -10}, false);
    this.silent = false;
    this.#read(seconds);
    const column = seconds == null ? null : columnOf(seconds, this.columnSeconds);
    this.dispatchEvent(new CustomEvent('scan-cursor', {detail: column == null ? null : {x: column}, bubbles: true, composed: true}));
  }

  /** Show the line of a column that was pointed at elsewhere. */
  #showCursor() {
    const seconds = this.cursor ? secondsOf(this.cursor.x, this.columnSeconds) : null;
    this.silent = true;
    for (const plot of this.plots) plot.setCursor({left: seconds == null ? -10 : plot.valToPos(seconds, 'x'), top: -10}, false);
    this.silent = false;
    this.#read(seconds);
  }

  #read(seconds) {
    const element = this.renderRoot.querySelector('.read');
    const {series: s} = this;
    const at = (start, interval, values) => (seconds == null ? undefined : values[Math.floor((seconds - start) / interval)]);
    const n = s && at(s.start_s, s.interval_s, s.gamma);
    if (n === undefined) { element.textContent = ''; return; }
    const counts = [t('view.chart.counts', {n})];
    if (s.background > 0) counts.push(t('view.chart.sigmas', {n: ((n - s.background) / s.background_sigma).toFixed(1)}));
    const neutrons = s.neutron && at(s.neutron.start_s, s.neutron.interval_s, s.neutron.counts);
    if (neutrons != null) counts.push(t('view.chart.neutrons', {n: neutrons}));
    const column = columnOf(seconds, this.columnSeconds);
    element.textContent = t(column == null ? 'view.chart.at_time' : 'view.chart.at', {s: seconds.toFixed(1), x: column, n: counts.join(' · ')});
  }

  #toggle() {
    this.nsigma = !this.nsigma;
    this.dispatchEvent(new CustomEvent('nsigma-change', {detail: {on: this.nsigma}, bubbles: true, composed: true}));
  }

  render() {
    const {series: s} = this;
    if (!s) return nothing;
    const line = (colour, dash) => html`<svg viewBox="0 0 20 10" aria-hidden="true"><path d="M0,5h20" stroke=${colour} stroke-width="2" stroke-dasharray=${dash} fill="none"></path></svg>`;
    const alarms = [...s.alarms, ...(s.neutron?.alarms ?? [])];
    return html`<link rel="stylesheet" href="/static/vendor/uplot.css">
      <div class="all"><div class="head" role="group" aria-label=${t('view.chart')}><b>${this.inSigma ? t('view.chart.sigma') : t('view.chart.gamma', {s: s.interval_s})}</b>
        <span class="key">${line('var(--text-dim)', '1 3')}${s.background == null ? t('view.chart.no_background') : t('view.chart.background', {n: rounded(s.background)})}</span>
        ${s.threshold == null ? nothing : html`<span class="key" title=${`${s.nsigma} σ, ${s.window_intervals} × ${s.interval_s} s`}>${line('var(--series-1)', '6 3')}${t('view.chart.threshold', {n: rounded(s.threshold)})}</span>`}
        ${s.neutron ? html`<span class="key"><svg viewBox="0 0 20 10" aria-hidden="true"><path d="M2,10v-5h4v5M8,10v-9h4v9M14,10v-3h4v3" fill="var(--series-1)"></path></svg>${t('view.chart.neutron', {s: s.neutron.interval_s})}</span>` : nothing}
        ${s.assumed ? html`<span class="dim">${t('view.chart.assumed')}</span>` : nothing}
        <span class="spacer"></span>
        <button aria-pressed=${this.inSigma ? 'true' : 'false'} ?disabled=${!(s.background > 0)} @click=${() => this.#toggle()}>${t('view.chart.nsigma')}</button></div>
      <div class="plots" aria-hidden="true"><span class="read"></span></div></div>
      <div class="hidden-text">${alarms.length ? html`<ul>${alarms.map((a) => html`<li>${t(`view.chart.${a.who}`)}: ${t(`tier.${a.tier ?? 'alarm'}`)}, ${a.text}, ${a.first}–${a.end}</li>`)}</ul>` : nothing}
        <table><caption>${t('view.chart.table')}</caption><tbody>${s.gamma.slice(0, 400).map((n, i) => html`<tr><th scope="row">${(s.start_s + i * s.interval_s).toFixed(1)} s</th><td>${n}</td></tr>`)}</tbody></table></div>`;
  }
}
customElements.define('portal-chart', PortalChart);
