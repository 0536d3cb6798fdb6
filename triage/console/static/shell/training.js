// Training: a queue of its own, the truth after each decision, and how the analyst does over time.
import {html, nothing, svg} from '/static/vendor/lit.js';
import {dayAndClock, number, t, tOr} from './i18n.js';
import {changed, get, notice, state} from './store.js';
import {ms} from './panels.js';

let told = null;
let loading = false;
async function load() {
  loading = true;
  try { told = await get('/api/training'); } catch (error) { notice('warning', error.message); }
  loading = false;
  changed();
}
export const forget = () => { told = null; };

/** After the lane of a training scan has "acknowledged": what it really carried, and where. */
export async function showTruth(scanId) {
  try {
    const truth = await get(`/api/training/${scanId}`);
    if (state.meta?.scan_id !== scanId) return;
    state.truth = truth;
    if (truth.box) state.meta = {...state.meta, regions: [...state.meta.regions.filter((r) => r.id !== 'truth'), {id: 'truth', label: t('training.was_here', {threat: threatName(truth.threat)}), box: truth.box, mm: null}]};
  } catch (error) { notice('warning', error.message); }
  changed();
}
const threatName = (kind) => tOr(`threat.${kind}`, kind.replaceAll('_', ' '));

export function truthView() {
  const {truth} = state;
  if (!truth || truth.scan_id !== state.meta?.scan_id) return nothing;
  return html`<p class="truth truth-${truth.result}" role="status"><b>${t(`training.result.${truth.result}`)}</b> ${truth.threat ? t('training.carried', {threat: threatName(truth.threat)}) : t('training.carried_nothing')}</p>`;
}

const rate = (value) => (value ? html`<b>${number(100 * value[0])} %</b> <span class="dim">${t('training.between', {low: number(100 * value[1]), high: number(100 * value[2])})}</span>` : '–');

function weeksChart(weeks) {
  if (weeks.length < 2) return nothing;
  const x = (i) => 30 + (i * 440) / (weeks.length - 1);
  const y = (v) => 110 - 100 * v;
  const line = (key) => weeks.map((w, i) => (w[key] ? `${x(i)},${y(w[key][0])}` : '')).filter(Boolean).join(' ');
  return html`<figure class="weeks"><svg viewBox="0 0 500 130" role="img" aria-label=${t('training.weeks')}>
    ${[0, 0.5, 1].map((v) => svg`<line class="grid" x1="30" x2="470" y1=${y(v)} y2=${y(v)}></line><text x="26" y=${y(v) + 4}>${100 * v}</text>`)}
    <polyline class="hits" points=${line('hit_rate')}></polyline><polyline class="alarms" points=${line('false_alarm_rate')}></polyline></svg>
    <figcaption class="dim">${t('training.weeks')}</figcaption></figure>`;
}

export function trainingView({start}) {
  if (!told && !loading) load();
  if (!told) return html`<main class="page" id="work"><p class="dim">${t('page.loading')}</p></main>`;
  const all = told.all;
  return html`<main class="page" id="work"><header class="page-head"><h1>${t('pages.training')}</h1>
      ${told.here ? html`<button class="primary" @click=${start}>${t('training.start')}</button>` : nothing}</header>
    ${told.here ? html`<p class="dim">${t('training.note')}</p>` : html`<p>${t('training.none')}</p><p class="mono">scanlane simulate --threats 0.5 --vehicles 40 --out training --truth training/truth.json<br>scanlane console --training training</p>`}
    <section><h2 class="section">${t('training.yours', {name: state.analyst})}</h2>
      <table class="wide"><thead><tr>${['what', 'scans', 'hits', 'misses', 'hit_rate', 'false_alarms', 'false_alarm_rate', 'd_prime'].map((c) => html`<th scope="col" class=${c === 'what' ? '' : 'num'}>${t(`training.${c}`)}</th>`)}</tr></thead>
      <tbody>${row(t('training.all'), all)}${told.kinds.map((k) => row(threatName(k.kind), k))}${told.weeks.slice(-8).reverse().map((w) => row(t('training.week', {date: dayAndClock(ms(w.from_utc_ns)).split(/[ ,]/)[0]}), w))}</tbody></table></section>
    ${weeksChart(told.weeks)}<p class="dim">${t('training.figures_note')}</p></main>`;
}
const row = (name, r) => html`<tr><th scope="row">${name}</th><td class="num">${r.scans}</td><td class="num">${r.hits}</td><td class="num">${r.misses}</td><td class="num">${rate(r.hit_rate)}</td><td class="num">${r.false_alarms}</td><td class="num">${rate(r.false_alarm_rate)}</td><td class="num">${r.d_prime ?? '–'}</td></tr>`;
