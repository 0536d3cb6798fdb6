// Figures: what the services did, how the analysts decided, when nothing could be reached and why.
import {html, nothing, svg} from '/static/vendor/lit.js';
import {age, clock, dayAndClock, number, t, tOr} from './i18n.js';
import {changed, get, notice, post, state} from './store.js';
import {ms} from './panels.js';

let told = null;
let hours = 24;
let loading = false;

async function load() {
  loading = true;
  try { told = await get(`/api/figures?hours=${hours}`); } catch (error) { notice('warning', error.message); }
  loading = false;
  changed();
}
export const forget = () => { told = null; };

const card = (value, label, more = '') => html`<div class="figure"><b>${value}</b><span>${label}</span>${more ? html`<span class="dim">${more}</span>` : nothing}</div>`;
const seconds = (value) => (value == null ? '–' : age(value));

function hourBars(values) {
  const most = Math.max(1, ...values);
  const now = new Date();
  return html`<figure class="hours"><svg viewBox="0 -8 480 104" role="img" aria-label=${t('figures.hours_said', {values: values.join(', ')})}>
    ${values.map((n, i) => svg`<rect x=${i * 20 + 2} y=${80 - (70 * n) / most} width="16" height=${(70 * n) / most} rx="1"></rect>${n ? svg`<text x=${i * 20 + 10} y=${76 - (70 * n) / most}>${n}</text>` : nothing}`)}
    <line x1="0" x2="480" y1="80.5" y2="80.5"></line>${[23, 17, 11, 5].map((i) => svg`<text x=${i * 20 + 10} y="93">${clock(now.getTime() - (23 - i) * 3600000).slice(0, 5)}</text>`)}</svg><figcaption class="dim">${t('figures.hours')}</figcaption></figure>`;
}

async function giveReason(period, input) {
  if (!input.value.trim()) return;
  try { await post('/api/down', {address: period.address, from_utc_ns: period.from_utc_ns, reason: input.value.trim()}); await load(); } catch (error) { notice('warning', error.message); }
}

export function figuresView() {
  if (!told && !loading) load();
  const f = told;
  return html`<main class="page" id="work"><header class="page-head"><h1>${t('pages.metrics')}</h1>
      <label class="inline">${t('figures.since')} <select @change=${(e) => { hours = Number(e.target.value); load(); }}>${[8, 24, 168, 720].map((h) => html`<option value=${h} ?selected=${h === hours}>${t(`figures.hours_${h}`)}</option>`)}</select></label>
      <span class="spacer"></span><a class="button" href="/api/decisions.csv" download>${t('figures.csv')}</a></header>
    ${!f ? html`<p class="dim">${t('page.loading')}</p>` : html`
    <section><h2 class="section">${t('figures.services')}</h2><div class="figures">
      ${card(number(f.services.recorded), t('figures.recorded'))} ${card(number(f.services.flagged), t('figures.flagged'), share(f.services.flagged, f.services.recorded))}
      ${card(number(f.services.offered), t('figures.offered'))} ${card(number(f.services.decided), t('figures.decided'))} ${card(number(f.services.waiting), t('figures.waiting'))}</div></section>
    <section><h2 class="section">${t('figures.here')}</h2><div class="figures">
      ${card(number(f.decided), t('figures.decisions'))} ${['clear', 'inspect', 'rescan'].map((v) => card(number(f.by_verdict[v] ?? 0), t(`verdict.${v}`), share(f.by_verdict[v] ?? 0, f.decided)))}
      ${card(seconds(f.time_to_decision_s.p50), t('figures.p50'))} ${card(seconds(f.time_to_decision_s.p95), t('figures.p95'))}</div>${hourBars(f.hours)}</section>
    <div class="two"><section><h2 class="section">${t('figures.findings')}</h2><p class="dim">${t('figures.findings_note')}</p>
      <table class="wide"><thead><tr><th scope="col">${t('figures.finding')}</th>${['scans', 'inspect', 'clear', 'rescan'].map((c) => html`<th scope="col" class="num">${c === 'scans' ? t('figures.scans') : t(`verdict.${c}`)}</th>`)}</tr></thead>
      <tbody>${f.findings.map((r) => html`<tr><th scope="row">${r.kind === '(none)' ? t('figures.no_finding') : tOr(`finding.${r.kind}`, r.kind.replaceAll('_', ' '))}</th><td class="num">${r.scans}</td><td class="num">${r.inspect}</td><td class="num">${r.clear}</td><td class="num">${r.rescan}</td></tr>`)}</tbody></table></section>
    <section><h2 class="section">${t('figures.down')}</h2><p class="dim">${t('figures.down_note')}</p>
      <table class="wide"><thead><tr><th scope="col">${t('figures.down_from')}</th><th scope="col">${t('figures.down_service')}</th><th scope="col" class="num">${t('figures.down_for')}</th><th scope="col">${t('figures.down_reason')}</th></tr></thead>
      <tbody>${f.down.map((p) => html`<tr><td class="mono">${dayAndClock(ms(p.from_utc_ns))}</td><td class="mono">${p.address.replace('tcp://', '')}</td><td class="num">${age(p.seconds)}${p.to_utc_ns ? '' : ` ${t('figures.still')}`}</td>
        <td><form @submit=${(e) => { e.preventDefault(); giveReason(p, e.target.elements[0]); }}><input aria-label=${t('figures.down_reason')} .value=${p.reason} maxlength="200" placeholder=${t('figures.down_ask')}></form></td></tr>`)}</tbody></table>
      ${f.down.length ? nothing : html`<p class="empty">${t('figures.down_none')}</p>`}</section></div>`}
  </main>`;
}
const share = (n, of) => (of ? `${number((100 * n) / of, 0)} %` : '');
