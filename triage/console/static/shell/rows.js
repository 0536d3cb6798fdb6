// The rows of a long queue: all of one height, and only those near the part that is seen are in the page.
import {html, nothing, repeat} from '/static/vendor/lit.js';
import {age, t} from './i18n.js';
import {changed, state} from './store.js';

const OVER = 16; // rows ready above and below what is seen
const ROW_PX = 89; // until one has been measured
const MOVED = 8; // rows by which the list may be scrolled before it is rendered anew

export const SHAPES = {ALARM: '▲', UNUSABLE: '✕', REVIEW: '◆', CLEAR: '●'};
export const secondsSince = (utcNs) => Date.now() / 1000 - Number(BigInt(utcNs) / 1000000n) / 1000;
/** north-20260131T094501.250000Z-0f3a9c1e -> north 09:45:01 …9c1e */
export function short(scanId) {
  const parts = /^(.*)-\d{8}T(\d\d)(\d\d)(\d\d)\.\d+Z-[0-9a-f]{4}([0-9a-f]{4})$/.exec(scanId);
  return parts ? `${parts[1]} ${parts[2]}:${parts[3]}:${parts[4]} …${parts[5]}` : scanId;
}

const scroller = () => document.querySelector('.lists');
const rowPx = () => document.querySelector('.lists .row')?.offsetHeight || ROW_PX;
let kept = ''; // this row is in the page wherever it stands: the keyboard is on it, or is about to be
let inOrder = []; // all rows as they stand, of all groups
let renderedAt = 0;

/** Which of the rows are to be in the page. top : pixels of what stands above them in the list */
export function near(count, top = 0) {
  const list = scroller();
  const from = (list?.scrollTop ?? 0) - top;
  const high = list?.clientHeight || window.innerHeight;
  renderedAt = list?.scrollTop ?? 0;
  const px = rowPx();
  return [Math.min(count, Math.max(0, Math.floor(from / px) - OVER)), Math.max(0, Math.min(count, Math.ceil((from + high) / px) + OVER))];
}

export function scrolled(event) {
  if (Math.abs(event.currentTarget.scrollTop - renderedAt) >= MOVED * rowPx()) changed();
}

export function begin() { inOrder = []; }

let rendering = false;
/** Render with the keyboard left where it is: a row that is moved in the page loses it. */
export function keepingFocus(render) {
  rendering = true;
  try { render(); } finally { rendering = false; }
  if (kept && document.activeElement === document.body) buttonOf(kept)?.focus({preventScroll: true});
}
export const isRendering = () => rendering;
const buttonOf = (scanId) => document.querySelector(`.row-button[data-scan="${CSS.escape(scanId)}"]`);


/** The rows of one list. more : how many follow that have not come yet */
export function rowsView(rows, open, {top = 0, more = 0} = {}) {
  const before = inOrder.length;
  inOrder = [...inOrder, ...rows];
  const [first, end] = near(rows.length, top);
  const at = rows.findIndex((row) => row.scan_id === kept);
  const shown = Array.from({length: Math.max(0, end - first)}, (_, n) => first + n);
  if (at >= 0 && (at < first || at >= end)) { shown.push(at); shown.sort((a, b) => a - b); }
  const items = [];
  let next = 0;
  for (const n of [...shown, rows.length + more]) {
    if (n > next) items.push({key: `gap ${items.length}`, gap: n - next});
    if (n < rows.length) items.push({key: rows[n].scan_id, row: rows[n], n});
    next = n + 1;
  }
  const px = rowPx();
  return html`<ol class="rows">${repeat(items, (item) => item.key, (item) => (item.row ? rowView(item.row, open, before + item.n) : html`<li class="gap" aria-hidden="true" .style=${`height:${item.gap * px}px`}></li>`))}</ol>`;
}

function owner(row) {
  if (row.gone) return t('queue.gone');
  if (row.mine) return row.scan_id === state.current ? t('queue.open_here') : t('queue.yours');
  if (row.state === 'leased') return t('queue.with', {name: row.analyst});
  if (row.state === 'held') return t('queue.held');
  if (row.given_on) return t('opinion.given_on');
  return '';
}

function rowView(row, open, n) {
  const current = row.scan_id === state.current;
  const decision = state.decisions.findLast((d) => d.scan_id === row.scan_id && d.address === row.address && d.state !== 'undone');
  const says = decision ? t(row.apart && decision.state === 'acknowledged' ? `delivery.${row.apart}` : `delivery.${decision.state}`) : owner(row);
  return html`
    <li class="row ${row.gone ? 'gone' : ''} ${current ? 'current' : ''}" data-outcome=${row.outcome} aria-posinset=${n + 1} aria-setsize=${Math.max(n + 1, inOrder.length)}>
      <button class="row-button ${says ? 'owned' : ''}" data-scan=${row.scan_id} aria-current=${current ? 'true' : nothing} ?disabled=${row.gone}
        @click=${() => open(row.scan_id)} @keydown=${step} @focus=${() => { kept = row.scan_id; }} @blur=${() => { if (!rendering) kept = ''; }}>
        <span class="row-top">
          ${row.apart ? html`<span class="outcome">${t(`apart.${row.apart}`)}</span>` : html`<span class="outcome outcome-${row.outcome}"><span aria-hidden="true">${SHAPES[row.outcome] ?? '?'}</span> ${t(`outcome.${row.outcome}`)}</span>`}
          <span class="row-lane">${row.lane}</span>
          ${row.apart ? nothing : html`<span class="age" data-since=${row.start_utc_ns} .textContent=${age(secondsSince(row.start_utc_ns))}></span>`}
        </span>
        <span class="row-middle">${row.apart ? short(row.scan_id) : row.containers?.length ? row.containers.join(' ') : t('queue.no_number')}${row.simulated ? html` <span class="tag">${t('simulated.short')}</span>` : nothing}${row.opinions && !row.apart ? html` <span class="tag strong">${t('opinion.tag')}</span>` : nothing}</span>
        <span class="row-reason">${row.reasons?.[0] ?? ''}</span>
        ${says ? html`<span class="row-owner">${says}</span>` : nothing}
      </button>
    </li>`;
}

/** Move the keyboard along the rows, those too that are not in the page yet. */
function step(event) {
  const page = Math.max(1, Math.floor((scroller()?.clientHeight ?? 0) / rowPx()) - 1);
  const move = {ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity}[event.key];
  if (move === undefined) return;
  event.preventDefault();
  const rows = inOrder.filter((row) => !row.gone);
  const at = rows.findIndex((row) => row.scan_id === event.currentTarget.dataset.scan);
  const to = rows[Math.min(rows.length - 1, Math.max(0, at + move))];
  if (!to) return;
  kept = to.scan_id;
  changed();
  queueMicrotask(() => buttonOf(to.scan_id)?.focus());
}
