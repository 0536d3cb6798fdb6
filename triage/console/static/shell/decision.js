// Deciding: a verdict is chosen by a key, confirmed by Enter, held for undo, sent, and done only when the lane says so.
import {html, nothing, live} from '/static/vendor/lit.js';
import {clock, t} from './i18n.js';
import {announce, changed, get, notice, post, state} from './store.js';
import {keyName, keysOf} from './keys.js';
import {short} from './rows.js';
import {openOpinion} from './opinion.js';
import {inOrder} from './panels.js';
import {showTruth, truthView} from './training.js';

export const VERDICTS = ['clear', 'inspect', 'rescan'];
const SHAPE = {clear: '●', inspect: '▲', rescan: '↻'};
const ACTIVE = new Set(['held', 'sending']);

/** The last decision on a scan in the queue it is open in: what was decided of it in another one is not told here. */
export const activeDecision = (scanId) => state.decisions.findLast((d) => d.scan_id === scanId && d.state !== 'undone'
  && (state.meta?.scan_id !== scanId || d.address === state.meta.address)) ?? null;
export const mayDecide = () => Boolean(state.meta && state.meta.lease.mine && !state.mismatch && !ACTIVE.has(activeDecision(state.meta.scan_id)?.state)
  && activeDecision(state.meta.scan_id)?.state !== 'acknowledged');

let keeping = 0;
let toKeep = null;
function keepDraft() {
  clearTimeout(keeping);
  const {meta, draft} = state;
  if (!meta) return;
  toKeep = {scan_id: meta.scan_id, draft};
  keeping = setTimeout(keepDraftNow, 250);
}
export function keepDraftNow() {
  clearTimeout(keeping);
  if (toKeep) post('/api/draft', toKeep).catch((error) => notice('warning', t('decide.draft_not_kept', {error: error.message})));
  toKeep = null;
}

/** What the note begins with: the strongest reason, as a proposal to be edited. */
function proposed(verdict) {
  const {meta} = state;
  if (verdict === 'clear') return '';
  if (verdict === 'rescan') { const q = meta.quality.find((one) => one.fatal) ?? meta.quality[0]; return q ? q.reason : ''; }
  const chosen = meta.findings.find((f) => f.index === state.selectedFinding) ?? inOrder(meta.findings)[0];
  return chosen ? `${chosen.index}: ${chosen.reason}` : '';
}

export function choose(verdict) {
  if (!state.meta) return;
  if (!mayDecide()) { notice('warning', whyNot()); return; }
  const kept = state.draft;
  const note = kept && (kept.edited || kept.verdict === verdict) ? kept.note : proposed(verdict);
  state.draft = {id: kept?.id ?? crypto.randomUUID(), verdict, note, code: kept?.verdict === verdict ? kept.code : 0, edited: kept?.edited ?? false};
  keepDraft();
  changed();
  requestAnimationFrame(() => {
    const note = document.querySelector('#note');
    if (verdict === 'clear') document.querySelector('#confirm')?.focus();
    else if (note) { note.focus(); note.select(); note.scrollTop = 0; }
  });
}

export function whyNot() {
  const {meta} = state;
  if (!meta) return t('decide.nothing_open');
  if (state.mismatch) return state.mismatch;
  const active = activeDecision(meta.scan_id);
  if (active && active.state !== 'not_applied' && active.state !== 'refused') return t('decide.already', {state: t(`delivery.${active.state}`)});
  if (!meta.lease.mine) return t('decide.not_yours');
  return '';
}

export function cancelDraft() {
  if (!state.draft) return false;
  state.draft = null;
  keepDraft();
  changed();
  document.querySelector('.verdicts button')?.focus();
  return true;
}

export async function confirm() {
  const {draft, meta} = state;
  if (!draft || !meta || draft.sending) return;
  if (draft.verdict !== 'clear' && !draft.note.trim()) {
    draft.problem = t('decide.note_needed');
    announce(draft.problem, true);
    changed();
    document.querySelector('#note')?.focus();
    return;
  }
  draft.sending = true;
  draft.problem = '';
  changed();
  clearTimeout(keeping);
  toKeep = null;
  try {
    const told = await post('/api/decide', {id: draft.id, scan_id: meta.scan_id, sha256: meta.sha256, verdict: draft.verdict, note: draft.note.trim(), codes: draft.code ? [Number(draft.code)] : []});
    state.draft = null;
    takeDecision(told);
    document.activeElement?.blur?.();
    announce(t('decide.said_held', {verdict: t(`verdict.${told.verdict}`), n: Math.ceil(state.hold_s)}));
  } catch (error) {
    draft.sending = false;
    draft.problem = t('decide.not_kept', {error: error.message});
    announce(draft.problem, true);
  }
  changed();
}

export function takeDecision(told) {
  const at = state.decisions.findIndex((d) => d.id === told.id);
  // an answer to a question can come after what happened since
  if (at >= 0 && state.decisions[at].changed_utc_us > told.changed_utc_us) return;
  const before = at >= 0 ? state.decisions[at].state : null;
  if (at >= 0) state.decisions[at] = told; else state.decisions = [...state.decisions, told];
  if (before !== told.state) {
    if (told.state === 'acknowledged' && told.apart === 'training') showTruth(told.scan_id);
    else if (told.state === 'acknowledged') announce(t('decide.said_acknowledged', {scan: short(told.scan_id)}));
    if (told.state === 'not_applied' || told.state === 'refused') notice('alarm', t('decide.said_failed', {scan: short(told.scan_id), reason: told.reason}));
    if (told.state === 'undone' && told.scan_id === state.meta?.scan_id) state.draft = {id: crypto.randomUUID(), verdict: told.verdict, note: told.note, code: told.codes[0] ?? 0, edited: true};
    if (told.scan_id === state.meta?.scan_id && (told.state === 'acknowledged' || told.state === 'not_applied')) {
      get(`/api/scan/${told.scan_id}`).then((meta) => { if (state.meta?.scan_id === meta.scan_id) { state.meta = {...state.meta, lease: meta.lease}; changed(); } }).catch((error) => notice('warning', error.message));
    }
  }
  changed();
}

export async function undo(id) {
  const decision = id ? state.decisions.find((d) => d.id === id) : state.decisions.findLast((d) => d.state === 'held');
  if (!decision) { notice('info', t('decide.nothing_to_undo')); return; }
  try { takeDecision(await post(`/api/decision/${decision.id}/undo`)); announce(t('decide.said_undone')); } catch (error) { notice('warning', error.message); }
}
async function giveUp(id) {
  try { takeDecision(await post(`/api/decision/${id}/give_up`)); } catch (error) { notice('warning', error.message); }
}

const connected = (address) => state.services.find((s) => s.address === address)?.connected ?? false;

export function deliveryText(d) {
  if (d.state === 'held') return t('delivery.held_for', {n: Math.max(0, Math.ceil((d.due_utc_ms - Date.now()) / 1000))});
  if (d.apart && d.state === 'acknowledged') return t(`delivery.${d.apart}`);
  if (d.state === 'sending' && !d.apart && !connected(d.address)) return t('delivery.kept_disconnected');
  if (d.state === 'sending' && d.reason) return t('delivery.refused_again', {reason: d.reason});
  return t(`delivery.${d.state}`) + (d.reason ? `: ${d.reason}` : '');
}
const MARK = {held: '…', sending: '→', acknowledged: '✓', not_applied: '!', refused: '!', undone: '↶'};

export function deliveryView() {
  // a second reader is not told what was decided of the same scans before
  const told = state.decisions.filter((d) => d.state !== 'undone' && (state.mode !== 'second' || d.apart === 'second' || ACTIVE.has(d.state)));
  const last = new Set(told.slice(-3));
  const shown = told.filter((d) => last.has(d) || d.state !== 'acknowledged').slice(-12).reverse();
  const pending = told.filter((d) => ACTIVE.has(d.state)).length;
  return html`
    <section class="deliveries" aria-label=${t('delivery.title')}>
      <header class="panel-head"><h2>${t('delivery.title')}</h2><span class="count">${pending ? t('delivery.count', {n: pending}) : t('delivery.none_pending')}</span></header>
      ${shown.length ? html`<ul>${shown.map((d) => html`
        <li class="delivery delivery-${d.state}">
          <span class="mark" aria-hidden="true">${MARK[d.state]}</span>
          <span class="what"><b>${t(`verdict.${d.verdict}`)}</b> ${short(d.scan_id)}<br><span class="how" data-decision=${d.id} .textContent=${deliveryText(d)}></span></span>
          ${d.state === 'held' ? html`<button class="small" @click=${() => undo(d.id)}>${t('decide.undo')} <kbd>${keyName(keysOf('undo')[0])}</kbd></button>` : nothing}
          ${d.state === 'sending' && d.reason ? html`<button class="small" @click=${() => giveUp(d.id)}>${t('decide.give_up')}</button>` : nothing}
          ${d.state === 'acknowledged' ? html`<time>${clock(d.made_utc_ms)}</time>` : nothing}
        </li>`)}</ul>` : html`<p class="empty">${t('delivery.empty')}</p>`}
    </section>`;
}

export function tickDeliveries() {
  for (const element of document.querySelectorAll('[data-decision]')) {
    const decision = state.decisions.find((d) => d.id === element.dataset.decision);
    if (decision) { const text = deliveryText(decision); if (element.textContent !== text) element.textContent = text; }
  }
}

function codeName(code) { return t(`code.${code}`); }

export function decisionView() {
  const {meta, draft} = state;
  if (!meta) return nothing;
  const active = activeDecision(meta.scan_id);
  const may = mayDecide();
  return html`
    ${truthView()}<section class="decide ${draft ? `choosing choosing-${draft.verdict}` : ''}" aria-label=${t('decide.title')}>
      ${active && !draft && active.state !== 'undone' ? html`
        <p class="decided decided-${active.state}"><span aria-hidden="true">${SHAPE[active.verdict]}</span> <b>${t(`verdict.${active.verdict}`)}</b>
          <span data-decision=${active.id} .textContent=${deliveryText(active)}></span>
          ${active.state === 'held' ? html`<button class="small" @click=${() => undo(active.id)}>${t('decide.undo')} <kbd>${keyName(keysOf('undo')[0])}</kbd></button>` : nothing}
          <span class="hint">${t('decide.next_hint')} <kbd>${keyName(keysOf('next')[0])}</kbd></span></p>` : nothing}
      ${!active || may ? html`
        <div class="verdicts" role="group" aria-label=${t('decide.title')}>
          ${VERDICTS.map((verdict) => html`
            <button class="verdict verdict-${verdict}" aria-pressed=${draft?.verdict === verdict ? 'true' : 'false'} ?disabled=${!may} @click=${() => choose(verdict)}>
              <span aria-hidden="true">${SHAPE[verdict]}</span> ${t(`verdict.${verdict}`)} <kbd>${keyName(keysOf(verdict)[0])}</kbd></button>`)}
          ${may && !draft && !meta.apart ? html`<button class="opinion" @click=${openOpinion}>${t('opinion.button')}</button>` : nothing}
          ${!may ? html`<span class="hint">${whyNot()}</span>` : !draft ? html`<span class="hint">${t('decide.hint')}</span>` : nothing}
        </div>` : nothing}
      ${draft ? html`
        <form class="draft" @submit=${(event) => { event.preventDefault(); confirm(); }}>
          <label class="code">${t('decide.code')}
            <select .value=${live(String(draft.code))} @change=${(event) => { draft.code = Number(event.target.value); keepDraft(); }}>
              <option value="0">${t('code.0')}</option>
              ${(state.codes.by_verdict[draft.verdict] ?? []).map((code) => html`<option value=${code} ?selected=${draft.code === code}>${code}  ${codeName(code)}</option>`)}
            </select></label>
          <label class="note">${draft.verdict === 'clear' ? t('decide.note_optional') : t('decide.note')}
            <textarea id="note" rows="2" maxlength="2000" .value=${live(draft.note)} aria-invalid=${draft.problem ? 'true' : 'false'} aria-describedby="note-problem"
              @input=${(event) => { draft.note = event.target.value; draft.edited = true; keepDraft(); }}
              @keydown=${(event) => { if (event.key === 'Enter' && !event.shiftKey) { event.preventDefault(); event.stopPropagation(); confirm(); } }}></textarea></label>
          <div class="draft-end">
            <button id="confirm" type="submit" class="primary" ?disabled=${draft.sending}>${t('decide.confirm', {verdict: t(`verdict.${draft.verdict}`)})} <kbd>Enter</kbd></button>
            <button type="button" @click=${cancelDraft}>${t('decide.cancel')} <kbd>Esc</kbd></button>
          </div>
          <p id="note-problem" class="problem" role="alert">${draft.problem ?? ''}</p>
        </form>` : nothing}
    </section>`;
}
