// The queue in the order of its service; of several, most urgent first and oldest first within. Rows stay where they are while a hand or the keyboard is on them.
import {html, nothing, repeat} from '/static/vendor/lit.js';
import {age, t, tOr} from './i18n.js';
import {announce, changed, setting, state} from './store.js';

const TIERS = {ALARM: 0, UNUSABLE: 1, REVIEW: 2, CLEAR: 3};
export const SHAPES = {ALARM: '▲', UNUSABLE: '✕', REVIEW: '◆', CLEAR: '●'};
export const secondsSince = (utcNs) => Date.now() / 1000 - Number(BigInt(utcNs) / 1000000n) / 1000;

const order = (a, b) => (TIERS[a.outcome] ?? 9) - (TIERS[b.outcome] ?? 9) || (BigInt(a.start_utc_ns) < BigInt(b.start_utc_ns) ? -1 : 1);
const alerts = (row) => row.outcome === 'ALARM' || row.outcome === 'UNUSABLE';
const known = new Set();
const arrivalListeners = new Set();
export const onArrival = (listener) => arrivalListeners.add(listener);

/** Take the queue as the service tells it. first: nothing in it is new to the person. */
export function takeQueue({rows, counts}, first = false) {
  state.rows = new Set(rows.map((row) => row.address)).size > 1 ? [...rows].sort(order) : rows;
  state.counts = counts;
  const fresh = state.rows.filter((row) => !known.has(row.scan_id));
  for (const row of fresh) known.add(row.scan_id);
  if (!first && fresh.length) {
    const urgent = fresh.filter(alerts);
    if (urgent.length) announce(t('queue.said_alert', {n: urgent.length, lane: urgent[0].lane, outcome: t(`outcome.${urgent[0].outcome}`)}), true);
    else announce(t('queue.said_review', {n: fresh.length}));
    for (const listener of arrivalListeners) listener(fresh);
  }
  if (!state.frozen || first) settle();
  else {
    const now = new Map(state.rows.map((row) => [row.scan_id, row]));
    state.shownRows = state.shownRows.map((row) => now.get(row.scan_id) ?? {...row, gone: true});
  }
}

export function settle() { state.shownRows = visible(state.rows); changed(); }

function visible(rows) {
  const shelved = setting('shelved', {});
  const now = Date.now();
  return rows.filter((row) => !(shelved[row.lane]?.until > now) || alerts(row) || row.mine);
}

const held = () => {
  const deciding = new Set(state.decisions.filter((d) => ['held', 'sending', 'acknowledged'].includes(d.state)).map((d) => d.scan_id));
  return (row) => deciding.has(row.scan_id);
};

/** The scan the `next` key opens: the first one that waits and nobody else has. */
export function nextScan() {
  const deciding = held();
  return visible(state.rows).find((row) => row.scan_id !== state.current && !deciding(row) && (row.state === 'pending' || row.mine)) ?? null;
}

const waiting = () => { const shown = new Set(state.shownRows.map((r) => r.scan_id)); return visible(state.rows).filter((r) => !shown.has(r.scan_id)).length; };

function owner(row) {
  if (row.gone) return t('queue.gone');
  if (row.mine) return row.scan_id === state.current ? t('queue.open_here') : t('queue.yours');
  if (row.state === 'leased') return t('queue.with', {name: row.analyst});
  if (row.state === 'held') return t('queue.held');
  return '';
}

function rowView(row, index, open) {
  const current = row.scan_id === state.current;
  const decision = state.decisions.findLast((d) => d.scan_id === row.scan_id && d.state !== 'undone');
  return html`
    <li class="row ${row.gone ? 'gone' : ''} ${current ? 'current' : ''}" data-outcome=${row.outcome}>
      <button class="row-button" data-scan=${row.scan_id} aria-current=${current ? 'true' : nothing} ?disabled=${row.gone}
        @click=${() => open(row.scan_id)} @keydown=${(event) => step(event, index)}>
        <span class="row-top">
          <span class="outcome outcome-${row.outcome}"><span aria-hidden="true">${SHAPES[row.outcome] ?? '?'}</span> ${t(`outcome.${row.outcome}`)}</span>
          <span class="row-lane">${row.lane}</span>
          <span class="age" data-since=${row.start_utc_ns} .textContent=${age(secondsSince(row.start_utc_ns))}></span>
        </span>
        <span class="row-middle">${row.containers?.length ? row.containers.join(' ') : t('queue.no_number')}${row.simulated ? html` <span class="tag">${t('simulated.short')}</span>` : nothing}</span>
        <span class="row-reason">${row.reasons?.[0] ?? ''}</span>
        ${owner(row) || decision ? html`<span class="row-owner">${decision ? t(`delivery.${decision.state}`) : owner(row)}</span>` : nothing}
      </button>
    </li>`;
}

function step(event, index) {
  const move = {ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity}[event.key];
  if (move === undefined) return;
  event.preventDefault();
  const buttons = [...document.querySelectorAll('.row-button:not(:disabled)')];
  const at = buttons.indexOf(event.currentTarget);
  buttons[Math.min(buttons.length - 1, Math.max(0, at + move))]?.focus();
}

const freeze = () => { state.frozen = true; };
function thaw(event) {
  const list = event.currentTarget;
  if (list.matches(':hover') || (event.type === 'focusout' && list.contains(event.relatedTarget)) || (event.type !== 'focusout' && list.contains(document.activeElement))) return;
  state.frozen = false;
  settle();
}

export function queueView({open}) {
  const fresh = waiting();
  const counts = state.counts;
  const due = (counts.pending ?? 0) + (counts.leased ?? 0) + (counts.held ?? 0);
  return html`
    <nav class="queue" aria-label=${t('queue.title')} @pointerenter=${freeze} @pointerleave=${thaw} @focusin=${freeze} @focusout=${thaw}>
      <header class="panel-head"><h2>${t('queue.title')}</h2><span class="count">${t('queue.count', {n: due})}</span></header>
      ${fresh ? html`<button class="fresh" @click=${() => { settle(); }}>${t('queue.new', {n: fresh})}</button>` : nothing}
      ${state.shownRows.length
        ? html`<ol class="rows" tabindex="-1">${repeat(state.shownRows, (row) => row.scan_id, (row, index) => rowView(row, index, open))}</ol>`
        : html`<p class="empty">${state.services.some((s) => s.connected) ? t('queue.empty') : t('queue.unknown')}</p>`}
      ${due > state.rows.length ? html`<p class="more">${t('queue.more', {n: due - state.rows.length})}</p>` : nothing}
    </nav>`;
}

/** Ages count on by themselves; the page is not rendered anew for them. */
export function tickAges() {
  for (const element of document.querySelectorAll('[data-since]')) {
    const seconds = secondsSince(element.dataset.since);
    const text = age(seconds);
    if (element.textContent !== text) element.textContent = text;
    element.classList.toggle('late', seconds > setting('budget_s', 120) && seconds < 86400);
  }
}
