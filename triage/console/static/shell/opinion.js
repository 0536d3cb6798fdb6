// A second opinion: an undecided scan is given on with what one analyst thinks; blind, or open to the next.
import {html, nothing} from '/static/vendor/lit.js';
import {dayAndClock, t} from './i18n.js';
import {announce, changed, notice, openDialog, post, state} from './store.js';
import {activeDecision, VERDICTS} from './decision.js';
import {ms} from './panels.js';

export function openOpinion() { if (state.meta?.lease.mine) openDialog('opinion', 'select'); }

async function give(event) {
  event.preventDefault();
  const form = event.target;
  const {scan_id, sha256} = state.meta;
  try {
    await post('/api/opinion', {scan_id, sha256, verdict: form.verdict.value, note: form.note.value, blind: form.blind.checked});
    Object.assign(state, {dialog: null, meta: null, current: null, opening: null, draft: null, portal: null});
    announce(t('opinion.said_given'));
  } catch (error) { notice('warning', error.message); }
  changed();
}

export function opinionDialog(close) {
  return html`<header><h2 id="dialog-title">${t('opinion.title')}</h2><button @click=${close}>${t('help.close')} <kbd>Esc</kbd></button></header>
    <p class="dim">${t('opinion.note')}</p>
    <form class="stack" @submit=${give}>
      <label>${t('opinion.verdict')}<select name="verdict">${VERDICTS.map((v) => html`<option value=${v}>${t(`verdict.${v}`)}</option>`)}</select></label>
      <label>${t('opinion.doubt')}<textarea name="note" rows="3" maxlength="2000" required></textarea></label>
      <label class="tick"><input type="checkbox" name="blind" checked> ${t('opinion.blind')}</label>
      <p class="dialog-end"><button class="primary" type="submit">${t('opinion.give')}</button></p></form>`;
}

export function opinionsView(meta) {
  if (!meta.opinions?.length) return nothing;
  const own = activeDecision(meta.scan_id);
  return html`<section aria-labelledby="opinions-title"><header class="panel-head"><h2 id="opinions-title">${t('opinion.given')}</h2></header>
    <ul class="quality">${meta.opinions.map((o) => html`<li>${o.hidden ? html`<b>${o.who}</b> ${t('opinion.hidden')}`
      : html`<b>${o.who}: ${t(`verdict.${o.verdict}`)}</b> ${o.note} <span class="dim">${dayAndClock(ms(o.utc_ns))}</span>${own && own.verdict !== o.verdict ? html`<br><b>≠ ${t('opinion.disagree')}</b>` : nothing}`}</li>`)}</ul></section>`;
}
