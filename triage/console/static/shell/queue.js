// The queue in the order of its service; of several, most urgent first and oldest first within. Rows stay where they are while a hand or the keyboard is on them.
import {html, nothing, repeat} from '/static/vendor/lit.js';
import {age, clock, t} from './i18n.js';
import {announce, changed, logged, openDialog, setSetting, setting, state} from './store.js';
import {sound} from './shift.js';

const TIERS = {ALARM: 0, UNUSABLE: 1, REVIEW: 2, CLEAR: 3};
/** north-20260131T094501.250000Z-0f3a9c1e -> north 09:45:01 …9c1e */
export function short(scanId) {
  const parts = /^(.*)-\d{8}T(\d\d)(\d\d)(\d\d)\.\d+Z-[0-9a-f]{4}([0-9a-f]{4})$/.exec(scanId);
  return parts ? `${parts[1]} ${parts[2]}:${parts[3]}:${parts[4]} …${parts[5]}` : scanId;
}

export const SHAPES = {ALARM: '▲', UNUSABLE: '✕', REVIEW: '◆', CLEAR: '●'};
export const secondsSince = (utcNs) => Date.now() / 1000 - Number(BigInt(utcNs) / 1000000n) / 1000;

const order = (a, b) => (TIERS[a.outcome] ?? 9) - (TIERS[b.outcome] ?? 9) || (BigInt(a.start_utc_ns) < BigInt(b.start_utc_ns) ? -1 : 1);
const alerts = (row) => row.outcome === 'ALARM' || row.outcome === 'UNUSABLE';
const known = new Set();
const GUARD_MS = 600_000;

/** Take the queue as the service tells it. first: nothing in it is new to the person. */
export function takeQueue({rows, counts}, first = false) {
  state.rows = new Set(rows.map((row) => row.address)).size > 1 ? [...rows].sort(order) : rows;
  state.counts = counts;
  const fresh = state.rows.filter((row) => !known.has(row.scan_id));
  for (const row of fresh) known.add(row.scan_id);
  const now = Date.now();
  state.arrivals = [...state.arrivals, ...fresh.filter((row) => !row.training).map((row) => (first ? Number(BigInt(row.start_utc_ns) / 1000000n) : now))].filter((at) => now - at < GUARD_MS);
  const live = fresh.filter((row) => !row.training);
  if (!first && live.length) {
    const urgent = live.filter(alerts);
    if (urgent.length) sound();
    if (urgent.length) announce(t('queue.said_alert', {n: urgent.length, lane: urgent[0].lane, outcome: t(`outcome.${urgent[0].outcome}`)}), true);
    else announce(t('queue.said_review', {n: live.length}));
  }
  if (!state.frozen || first) settle();
  else {
    const current = new Map(state.rows.map((row) => [row.scan_id, row]));
    state.shownRows = state.shownRows.map((row) => current.get(row.scan_id) ?? {...row, gone: true});
  }
}

export function settle() { state.shownRows = visible(state.rows); changed(); }

function visible(rows) {
  const training = state.mode === 'training';
  return rows.filter((row) => row.training === training && (training || !shelf(row.lane) || row.outcome === 'ALARM' || row.mine));
}

/** A lane that is put aside for a while: its alarms come all the same. */
const shelf = (lane) => { const kept = setting('shelved', {})[lane]; return kept && kept.until > Date.now() ? kept : null; };
const flooded = () => state.arrivals.length >= setting('flood', 10);

const held = () => {
  const deciding = new Set(state.decisions.filter((d) => ['held', 'sending', 'acknowledged'].includes(d.state)).map((d) => d.scan_id));
  return (row) => deciding.has(row.scan_id);
};

/** The scan the `next` key opens: the first one that waits, nobody else has, and this analyst did not give on. */
export function nextScan() {
  const deciding = held();
  return visible(state.rows).find((row) => row.scan_id !== state.current && !deciding(row) && !row.given_on && (row.state === 'pending' || row.mine)) ?? null;
}

const waiting = () => { const shown = new Set(state.shownRows.map((r) => r.scan_id)); return visible(state.rows).filter((r) => !shown.has(r.scan_id)).length; };

function owner(row) {
  if (row.gone) return t('queue.gone');
  if (row.mine) return row.scan_id === state.current ? t('queue.open_here') : t('queue.yours');
  if (row.state === 'leased') return t('queue.with', {name: row.analyst});
  if (row.state === 'held') return t('queue.held');
  if (row.given_on) return t('opinion.given_on');
  return '';
}

function rowView(row, open) {
  const current = row.scan_id === state.current;
  const decision = state.decisions.findLast((d) => d.scan_id === row.scan_id && d.state !== 'undone');
  return html`
    <li class="row ${row.gone ? 'gone' : ''} ${current ? 'current' : ''}" data-outcome=${row.outcome}>
      <button class="row-button" data-scan=${row.scan_id} aria-current=${current ? 'true' : nothing} ?disabled=${row.gone}
        @click=${() => open(row.scan_id)} @keydown=${step}>
        <span class="row-top">
          ${row.training ? html`<span class="outcome">${t('training.tag')}</span>` : html`<span class="outcome outcome-${row.outcome}"><span aria-hidden="true">${SHAPES[row.outcome] ?? '?'}</span> ${t(`outcome.${row.outcome}`)}</span>`}
          <span class="row-lane">${row.lane}</span>
          ${row.training ? nothing : html`<span class="age" data-since=${row.start_utc_ns} .textContent=${age(secondsSince(row.start_utc_ns))}></span>`}
        </span>
        <span class="row-middle">${row.training ? short(row.scan_id) : row.containers?.length ? row.containers.join(' ') : t('queue.no_number')}${row.simulated ? html` <span class="tag">${t('simulated.short')}</span>` : nothing}${row.opinions && !row.training ? html` <span class="tag strong">${t('opinion.tag')}</span>` : nothing}</span>
        <span class="row-reason">${row.reasons?.[0] ?? ''}</span>
        ${owner(row) || decision ? html`<span class="row-owner">${decision ? t(row.training && decision.state === 'acknowledged' ? 'delivery.training' : `delivery.${decision.state}`) : owner(row)}</span>` : nothing}
      </button>
    </li>`;
}

function step(event) {
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
  const training = state.mode === 'training';
  const due = training ? state.shownRows.length : (counts.pending ?? 0) + (counts.leased ?? 0) + (counts.held ?? 0);
  const lanes = !training && flooded() ? [...new Set(state.shownRows.map((row) => row.lane))].sort() : [];
  const list = (rows) => html`<ol class="rows">${repeat(rows, (row) => row.scan_id, (row) => rowView(row, open))}</ol>`;
  return html`
    <nav class="queue" aria-label=${t('queue.title')} @pointerenter=${freeze} @pointerleave=${thaw} @focusin=${freeze} @focusout=${thaw}>
      <header class="panel-head"><h2>${t(training ? 'pages.training' : 'queue.title')}</h2><span class="count">${t('queue.count', {n: due})}</span></header>
      ${training ? html`<p class="mode"><button class="small" @click=${leaveTraining}>${t('training.end')}</button></p>` : html`<p class="rate ${flooded() ? 'flood' : ''}">${t('queue.rate', {n: state.arrivals.length})}${flooded() ? html` <b>${t('queue.flood')}</b>` : nothing}</p>`}
      ${training ? nothing : shelvesView()}
      ${fresh ? html`<button class="fresh" @click=${() => { settle(); }}>${t('queue.new', {n: fresh})}</button>` : nothing}
      ${state.shownRows.length
        ? html`<div class="lists">${lanes.length ? lanes.map((lane) => { const own = state.shownRows.filter((row) => row.lane === lane); return html`<section class="lane-group"><h3>${t('scan.lane', {lane})} <span class="count">${own.length}</span>
            <button class="small" @click=${() => { state.shelving = lane; openDialog('shelve', 'input'); }}>${t('shelf.put')}</button></h3>${list(own)}</section>`; }) : list(state.shownRows)}</div>`
        : html`<p class="empty">${state.services.some((s) => s.connected) ? t('queue.empty') : t('queue.unknown')}</p>`}
      ${!training && due > state.rows.filter((r) => !r.training).length ? html`<p class="more">${t('queue.more', {n: due - state.rows.filter((r) => !r.training).length})}</p>` : nothing}
    </nav>`;
}

export function leaveTraining() { state.mode = 'live'; Object.assign(state, {current: null, meta: null, opening: null, draft: null, portal: null, truth: null}); settle(); }

function shelvesView() {
  const kept = Object.entries(setting('shelved', {})).filter(([lane]) => shelf(lane));
  return kept.map(([lane, s]) => html`<p class="shelf"><b>${t('shelf.aside', {lane})}</b> ${t('shelf.until', {time: clock(s.until)})}: ${s.reason} <button class="small" @click=${() => unshelve(lane)}>${t('shelf.back')}</button></p>`);
}
function unshelve(lane) {
  const {[lane]: gone, ...rest} = setting('shelved', {});
  setSetting('shelved', rest);
  logged('shelved', {lane, ended: true, reason: gone.reason});
  settle();
}
export function shelveDialog(close) {
  const keep = (event) => {
    event.preventDefault();
    const minutes = Number(event.target.minutes.value), reason = event.target.reason.value.trim();
    setSetting('shelved', {...setting('shelved', {}), [state.shelving]: {until: Date.now() + minutes * 60000, reason}});
    logged('shelved', {lane: state.shelving, minutes, reason});
    close();
    settle();
  };
  return html`<header><h2 id="dialog-title">${t('shelf.title', {lane: state.shelving})}</h2><button @click=${close}>${t('help.close')} <kbd>Esc</kbd></button></header>
    <p class="dim">${t('shelf.note')}</p>
    <form class="stack" @submit=${keep}><label>${t('shelf.reason')}<input name="reason" required maxlength="200"></label>
      <label>${t('shelf.for')}<select name="minutes">${[10, 30, 60].map((n) => html`<option value=${n}>${t('shift.minutes', {n})}</option>`)}</select></label>
      <p class="dialog-end"><button class="primary" type="submit">${t('shelf.put')}</button></p></form>`;
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
