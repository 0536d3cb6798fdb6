// Beside the picture: what the machine found and why, the papers against the picture, what was drawn, earlier scans.
import {html, nothing} from '/static/vendor/lit.js';
import {dayAndClock, number, t, tOr} from './i18n.js';
import {changed, state} from './store.js';
import {opinionsView} from './opinion.js';

const URGENT = ['alarm', 'review', 'note'];
const TIER = {alarm: '▲', review: '◆', note: '·'};
export const ms = (utcNs) => Number(BigInt(utcNs) / 1000000n);
const kindName = (kind) => tOr(`finding.${kind}`, kind.replaceAll('_', ' '));

export function selectFinding(index) {
  state.selectedFinding = state.selectedFinding === index ? null : index;
  const finding = state.meta?.findings.find((f) => f.index === index);
  if (state.selectedFinding && finding?.box) document.querySelector('scan-view#main')?.centreOn?.(finding.box);
  changed();
  requestAnimationFrame(() => document.querySelector('.finding[aria-pressed="true"]')?.scrollIntoView({block: 'nearest'}));
}

/** Findings as they are listed: what asks for most first. */
export const inOrder = (findings) => [...findings].sort((a, b) => URGENT.indexOf(a.tier) - URGENT.indexOf(b.tier) || a.index - b.index);

export function nextFinding() {
  const found = inOrder(state.meta?.findings ?? []);
  if (!found.length) return;
  const at = found.findIndex((f) => f.index === state.selectedFinding);
  state.selectedFinding = null;
  selectFinding(found[(at + 1) % found.length].index);
}

function findingsView(meta) {
  return html`
    <section aria-labelledby="findings-title">
      <header class="panel-head"><h2 id="findings-title">${t('findings.title')}</h2><span class="count">${meta.findings.length}</span></header>
      ${meta.findings.length ? html`<ol class="findings">${inOrder(meta.findings).map((f) => html`
        <li><button class="finding tier-${f.tier}" aria-pressed=${state.selectedFinding === f.index ? 'true' : 'false'} @click=${() => selectFinding(f.index)}>
          <span class="finding-head"><span class="number">${f.index}</span><span class="tier"><span aria-hidden="true">${TIER[f.tier]}</span> ${t(`tier.${f.tier}`)}</span><span class="kind">${kindName(f.kind)}</span></span>
          <span class="reason">${f.reason}</span>
          ${f.box || f.intervals ? nothing : html`<span class="where">${t('findings.whole')}</span>`}
        </button></li>`)}</ol>` : nothing}
      <p class="caution">${meta.apart === 'second' ? t('second.withheld') : meta.findings.length ? t('findings.caution_some') : t('findings.caution')}</p>
    </section>`;
}

const STATE_MARK = {agrees: '=', differs: '≠', open: '?'};
function declaredView(meta) {
  const d = meta.declaration;
  return html`
    <section aria-labelledby="declared-title">
      <header class="panel-head"><h2 id="declared-title">${t('declared.title')}</h2>${d?.simulated ? html`<span class="tag">${t('simulated.short')}</span>` : nothing}</header>
      ${!d ? html`<p class="empty">${t('declared.none')}</p>` : html`
        <dl class="facts">
          ${fact('declared.container', d.container_numbers?.join(' '))}
          ${fact('declared.goods', d.goods)}
          ${fact('declared.hs', d.hs_codes?.join(', '))}
          ${fact('declared.weight', d.gross_weight_kg == null ? '' : `${number(d.gross_weight_kg)} kg`)}
          ${fact('declared.empty', d.declared_empty == null ? '' : t(d.declared_empty ? 'yes' : 'no'))}
          ${fact('declared.seals', d.seals?.join(' '))}
          ${fact('declared.origin', [d.origin, ...(d.route ?? [])].filter(Boolean).join(' → '))}
          ${fact('declared.consignor', d.consignor)}
          ${fact('declared.consignee', d.consignee)}
          ${fact('declared.trader', d.authorised_trader == null ? '' : t(d.authorised_trader ? 'declared.authorised' : 'declared.not_authorised'))}
          ${fact('declared.prior', d.prior_scans == null ? '' : String(d.prior_scans))}
        </dl>`}
      ${!meta.declared_vs_seen.length ? nothing : html`
        <table class="against"><caption class="hidden-text">${t('against.title')}</caption>
          <thead><tr><th scope="col"></th><th scope="col">${t('against.declared')}</th><th scope="col">${t('against.seen')}</th><th scope="col"><span class="hidden-text">${t('against.verdict')}</span></th></tr></thead>
          <tbody>${meta.declared_vs_seen.filter((line) => line.declared || line.seen).map((line) => html`
            <tr class="against-${line.state}"><th scope="row">${t(`against.${line.label}`)}</th><td>${value(line.declared)}</td><td>${value(line.seen)}</td>
              <td title=${t(`against.state.${line.state}`)}><span aria-hidden="true">${STATE_MARK[line.state]}</span><span class="hidden-text">${t(`against.state.${line.state}`)}</span></td></tr>
            ${line.text ? html`<tr class="against-${line.state}"><td colspan="4" class="against-text">${line.text}</td></tr>` : nothing}`)}</tbody></table>`}
    </section>`;
}
const value = (text) => (text ? tOr(`value.${text}`, text) : html`<span class="dim">–</span>`);
const fact = (key, text) => (text ? html`<div><dt>${t(key)}</dt><dd>${text}</dd></div>` : nothing);

function qualityView(meta) {
  if (!meta.quality.length) return nothing;
  return html`<section aria-labelledby="quality-title"><header class="panel-head"><h2 id="quality-title">${t('quality.title')}</h2></header>
    <ul class="quality">${meta.quality.map((q) => html`<li class=${q.fatal ? 'fatal' : ''}><b>${q.fatal ? t('quality.fatal') : t('quality.limits')}</b> ${q.reason}</li>`)}</ul></section>`;
}

function regionsView(meta, {removeRegion, labelRegion}) {
  const drawn = meta.regions.filter((r) => r.id !== 'truth');
  if (!drawn.length && state.drawing !== 'region') return nothing;
  return html`<section aria-labelledby="regions-title"><header class="panel-head"><h2 id="regions-title">${t('regions.title')}</h2><span class="count">${drawn.length}</span></header>
    <ul class="regions">${drawn.map((r) => html`<li>
      <label><span class="hidden-text">${t('regions.label')}</span><input .value=${r.label} maxlength="80" placeholder=${t('regions.label')} @change=${(event) => labelRegion(r.id, event.target.value)}></label>
      <span class="size">${r.mm ? `${number(r.mm.w)} × ${number(r.mm.h)} mm` : `${r.box.x1 - r.box.x0} × ${r.box.y1 - r.box.y0} px`}</span>
      <button class="small" @click=${() => removeRegion(r.id)} aria-label=${t('regions.remove', {label: r.label || r.id.slice(0, 4)})}>✕</button></li>`)}</ul></section>`;
}

function earlierView(meta, {openEarlier}) {
  return html`<section aria-labelledby="earlier-title"><header class="panel-head"><h2 id="earlier-title">${t('earlier.title')}</h2><span class="count">${meta.earlier.length}</span></header>
    ${meta.earlier.length ? html`<ul class="earlier">${meta.earlier.map((e) => html`<li><button class="earlier-button" @click=${() => openEarlier(e.scan_id)}>
        <span>${t(`earlier.${e.why}`)} <b>${e.text}</b></span><span class="dim">${dayAndClock(ms(e.start_utc_ns))} · ${e.lane} · ${t(`outcome.${e.outcome}`)}</span></button></li>`)}</ul>`
      : html`<p class="empty">${t('earlier.none')}</p>`}</section>`;
}

export function panelsView(actions) {
  const {meta} = state;
  if (!meta) return html`<aside class="panels" aria-label=${t('panels.title')}></aside>`;
  return html`<aside class="panels" aria-label=${t('panels.title')} tabindex="-1">
    ${opinionsView(meta)} ${findingsView(meta)} ${qualityView(meta)} ${declaredView(meta)} ${regionsView(meta, actions)} ${earlierView(meta, actions)}
    <section aria-labelledby="about-title"><header class="panel-head"><h2 id="about-title">${t('about.title')}</h2></header>
      <dl class="facts"><div><dt>${t('about.scan')}</dt><dd class="mono">${meta.scan_id}</dd></div><div><dt>SHA-256</dt><dd class="mono">${meta.sha256}</dd></div>
        <div><dt>${t('about.load')}</dt><dd>${t(`load.${meta.load}`)}</dd></div><div><dt>${t('about.profile')}</dt><dd>${meta.profile}</dd></div><div><dt>${t('about.code')}</dt><dd>${meta.code_version}</dd></div>
        ${meta.devices.map((d) => html`<div><dt>${t('about.device')}</dt><dd>${d.vendor} ${d.model}${d.simulated ? ` (${t('simulated.short')})` : ''}</dd></div>`)}</dl>
      ${meta.apart === 'second' ? nothing : html`<p class="evidence"><a class="button" href=${`/api/bundle/${meta.scan_id}.zip`} download>${t('about.bundle')}</a></p>`}</section>
  </aside>`;
}
