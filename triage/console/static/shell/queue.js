// The queue in the order of its service; of several, most urgent first and oldest first within. Rows stay where they are while a hand or the keyboard is on them.
import {html, nothing} from '/static/vendor/lit.js';
import {age, clock, t} from './i18n.js';
import {announce, changed, logged, openDialog, post, setSetting, setting, state} from './store.js';
import {begin, isRendering, near, rowsView, scrolled, secondsSince} from './rows.js';
import {sound} from './shift.js';

const TIERS = {ALARM: 0, UNUSABLE: 1, REVIEW: 2, CLEAR: 3};
const order = (a, b) => (TIERS[a.outcome] ?? 9) - (TIERS[b.outcome] ?? 9) || (BigInt(a.start_utc_ns) < BigInt(b.start_utc_ns) ? -1 : 1);
const alerts = (row) => row.outcome === 'ALARM' || row.outcome === 'UNUSABLE';
const known = new Set();
const GUARD_MS = 600_000;

/** Take the queue as the services tell it. first: nothing in it is new to the person. */
export function takeQueue({rows, counts}, first = false) {
  const hadAll = state.rows.filter((row) => !row.apart).length >= due();
  const came = flagged(counts) - flagged(state.counts);
  state.rows = new Set(rows.map((row) => row.address)).size > 1 ? [...rows].sort(order) : rows;
  state.counts = counts;
  const fresh = state.rows.filter((row) => !known.has(row.scan_id));
  for (const row of fresh) known.add(row.scan_id);
  const startMs = (row) => Number(BigInt(row.start_utc_ns) / 1000000n);
  const live = fresh.filter((row) => !row.apart);
  // where not all that wait are told, a row may be here because one before it went
  const arrived = first ? [] : hadAll ? live : [...live].sort((a, b) => startMs(b) - startMs(a)).slice(0, Math.max(0, came));
  const now = Date.now();
  state.arrivals = [...state.arrivals, ...(first ? live.map(startMs) : arrived.map(() => now))].filter((at) => now - at < GUARD_MS);
  if (arrived.length) {
    const urgent = arrived.filter(alerts);
    if (urgent.length) sound();
    if (urgent.length) announce(t('queue.said_alert', {n: urgent.length, lane: urgent[0].lane, outcome: t(`outcome.${urgent[0].outcome}`)}), true);
    else announce(t('queue.said_review', {n: arrived.length}));
  }
  if (!state.frozen || first) settle();
  else {
    const current = new Map(state.rows.map((row) => [row.scan_id, row]));
    state.shownRows = state.shownRows.map((row) => current.get(row.scan_id) ?? {...row, gone: true});
    const shown = new Set(state.shownRows.map((row) => row.scan_id));
    const all = visible(state.rows);
    const last = all.findLastIndex((row) => shown.has(row.scan_id));
    // what follows moves nothing
    if (last >= 0) state.shownRows = [...state.shownRows, ...all.slice(last + 1)];
    changed();
  }
}

/** Scans that were ever flagged, and those of them that wait; a page of them is told, and more where somebody looks. */
const flagged = (counts) => (counts.recorded ?? 0) - (counts.filed ?? 0);
const due = () => (state.counts.pending ?? 0) + (state.counts.leased ?? 0) + (state.counts.held ?? 0);
const untold = () => Math.max(0, due() - state.rows.filter((row) => !row.apart).length);
const STEP = 100;
let wanted = 0;

/** Ask for as many rows as somebody may be looking at. */
function want(rows) {
  const asked = Math.ceil(rows / STEP) * STEP;
  if (asked === wanted || (asked < wanted && state.frozen)) return;
  wanted = asked;
  post('/api/want', {rows: asked}).catch((error) => { wanted = -1; console.warn('no more rows:', error.message); });
}

function wantNear(shown, more) {
  const [, end] = near(shown.length + more);
  const at = end < shown.length ? state.rows.indexOf(shown[end]) : state.rows.length + end - shown.length;
  want(Math.min(at + STEP, state.rows.length + untold()));
}

export function settle() { state.shownRows = visible(state.rows); changed(); }

function visible(rows) {
  const apart = state.mode;
  return rows.filter((row) => row.apart === apart && (apart || !shelf(row.lane) || row.outcome === 'ALARM' || row.mine));
}

/** A lane that is put aside for a while: its alarms come all the same. */
const shelf = (lane) => { const kept = setting('shelved', {})[lane]; return kept && kept.until > Date.now() ? kept : null; };
const flooded = () => state.arrivals.length >= setting('flood', 10);

const held = () => {
  const deciding = new Set(state.decisions.filter((d) => ['held', 'sending', 'acknowledged'].includes(d.state)).map((d) => `${d.address} ${d.scan_id}`));
  return (row) => deciding.has(`${row.address} ${row.scan_id}`);
};

/** The scan the `next` key opens: the first one that waits, nobody else has, and this analyst did not give on. */
export function nextScan() {
  const deciding = held();
  const found = visible(state.rows).find((row) => row.scan_id !== state.current && !deciding(row) && !row.given_on && (row.state === 'pending' || row.mine));
  if (!found && untold()) want(state.rows.length + STEP);
  return found ?? null;
}

const waiting = () => { const shown = new Set(state.shownRows.map((r) => r.scan_id)); return visible(state.rows).filter((r) => !shown.has(r.scan_id)).length; };

const freeze = () => { state.frozen = true; };
function thaw(event) {
  const list = event.currentTarget;
  if (isRendering()) return;
  if (list.matches(':hover') || (event.type === 'focusout' && list.contains(event.relatedTarget)) || (event.type !== 'focusout' && list.contains(document.activeElement))) return;
  state.frozen = false;
  settle();
}

export function queueView({open}) {
  const fresh = waiting();
  const apart = state.mode;
  const count = apart ? state.shownRows.length : due();
  const more = apart ? 0 : untold();
  begin();
  if (!apart) queueMicrotask(() => wantNear(state.shownRows, more));
  return html`
    <nav class="queue" aria-label=${t('queue.title')} @pointerenter=${freeze} @pointerleave=${thaw} @focusin=${freeze} @focusout=${thaw}>
      <header class="panel-head"><h2>${t(apart ? `pages.${apart}` : 'queue.title')}</h2><span class="count">${t('queue.count', {n: count})}</span></header>
      ${apart ? html`<p class="mode"><button class="small" @click=${leaveApart}>${t('apart.end')}</button></p>` : html`<p class="rate ${flooded() ? 'flood' : ''}">${t('queue.rate', {n: state.arrivals.length})}${flooded() ? html` <b>${t('queue.flood')}</b>` : nothing}</p>`}
      ${apart ? nothing : shelvesView()}
      ${fresh ? html`<button class="fresh" @click=${() => { settle(); }}>${t('queue.new', {n: fresh})}</button>` : nothing}
      ${state.shownRows.length || more
        ? html`<div class="lists ${apart ? 'apart' : ''}" @scroll=${scrolled}>${!apart && flooded() ? lanesView(open, more) : rowsView(state.shownRows, open, {more})}</div>`
        : html`<p class="empty">${state.services.some((s) => s.connected) ? t('queue.empty') : t('queue.unknown')}</p>`}
      ${more ? html`<p class="more" role="status">${t('queue.more', {n: more})}</p>` : nothing}
    </nav>`;
}

const HEAD_PX = 34;
function lanesView(open, more) {
  const lanes = Map.groupBy(state.shownRows, (row) => row.lane);
  const head = document.querySelector('.lane-group h3')?.offsetHeight || HEAD_PX;
  const row = document.querySelector('.lists .row')?.offsetHeight || 89;
  let top = 0;
  return [...lanes.keys()].sort().map((lane, number) => {
    const own = lanes.get(lane);
    top += head;
    const shown = rowsView(own, open, {top, more: number === lanes.size - 1 ? more : 0});
    top += own.length * row;
    return html`<section class="lane-group"><h3>${t('scan.lane', {lane})} <span class="count">${own.length}</span>
      <button class="small" @click=${() => { state.shelving = lane; openDialog('shelve', 'input'); }}>${t('shelf.put')}</button></h3>${shown}</section>`;
  });
}

export function leaveApart() { state.mode = ''; Object.assign(state, {current: null, meta: null, opening: null, draft: null, portal: null, truth: null}); settle(); }

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
