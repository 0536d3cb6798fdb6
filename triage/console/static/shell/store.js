// What the page knows, how it asks, and how it hears of changes. One event stream; everything is asked anew after a gap.
import {t} from './i18n.js';

export const state = {
  ready: false, page: 'work', analyst: '', version: '', services: [], rows: [], counts: {}, decisions: [], codes: {groups: {}, by_verdict: {}},
  settings: {}, hold_s: 5, current: null, meta: null, portal: null, opening: null, draft: null, notices: [], heardMs: Date.now(),
  streamOpen: false, selectedFinding: null, selectedRow: null, frozen: false, shownRows: [], mode: '', shift: null, handover: null, training: false, truth: null, breakDue: false, shelving: null, mismatch: '',
  overlays: true, drawing: null, compare: null, dialog: null, arrivals: [], lastError: '',
};

const listeners = new Set();
let scheduled = false;
export const onChange = (listener) => listeners.add(listener);
export function changed() {
  if (scheduled) return;
  scheduled = true;
  queueMicrotask(() => { scheduled = false; for (const listener of listeners) listener(); });
}

export class Refused extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

async function answered(response) {
  const value = await response.json().catch(() => ({error: response.statusText}));
  if (!response.ok) throw new Refused(response.status, value.error ?? response.statusText);
  return value;
}
export const get = async (path) => answered(await fetch(path, {cache: 'no-store'}));
export const post = async (path, value = {}) =>
  answered(await fetch(path, {method: 'POST', headers: {'X-Scanlane': '1', 'Content-Type': 'application/json'}, body: JSON.stringify(value)}));

const polite = (text) => { document.getElementById('polite').textContent = text; };
const assertive = (text) => { document.getElementById('alert').textContent = text; };
export function announce(text, urgent = false) { (urgent ? assertive : polite)(text); }

/** A line the person sees for a while, and a screen reader says. */
export function notice(level, text) {
  const item = {level, text, at: Date.now(), id: crypto.randomUUID()};
  state.notices = [...state.notices.slice(-3), item];
  announce(text, level !== 'info');
  changed();
  setTimeout(() => { state.notices = state.notices.filter((n) => n !== item); changed(); }, level === 'info' ? 5000 : 12000);
}

let returnTo = null;
/** Open a dialog and bring the keyboard to where its work begins; closed, it goes back to where it was. */
export function openDialog(name, begin) {
  returnTo = document.activeElement;
  state.dialog = name;
  changed();
  requestAnimationFrame(() => document.querySelector(`.dialog ${begin}`)?.focus());
}
export function closeDialog() {
  state.dialog = null;
  changed();
  returnTo?.focus?.();
}

export function logged(event, values = {}) {
  post('/api/log', {event, scan_id: state.meta?.scan_id ?? '', ...values}).catch((error) => console.warn('not written down:', event, error.message));
}

const settingsListeners = new Set();
export const onSettings = (listener) => settingsListeners.add(listener);
export function setSetting(name, value) {
  state.settings = {...state.settings, [name]: value};
  post('/api/settings', state.settings).catch((error) => notice('warning', t('settings.not_kept', {error: error.message})));
  for (const listener of settingsListeners) listener(name, value);
  changed();
}
export const setting = (name, otherwise) => state.settings[name] ?? otherwise;

// ------------------------------------------------------------------------------------------------------------- stream

const handlers = {};
export const onEvent = (name, handler) => { handlers[name] = handler; };

export async function loadAll() {
  const told = await get('/api/state');
  const first = !state.ready; // what came while nothing could be heard is new to the person
  Object.assign(state, {
    analyst: told.analyst, version: told.version, services: told.services, decisions: told.decisions, codes: told.codes,
    settings: told.settings, shift: told.shift, handover: told.handover, training: told.training, second: told.second, hold_s: told.hold_s, ready: true, heardMs: Date.now(),
  });
  handlers.queue?.({rows: told.rows, counts: told.counts}, first);
  return told;
}

let gap = false;
export function listen() {
  const stream = new EventSource('/events');
  const heard = () => { state.heardMs = Date.now(); };
  stream.onopen = async () => {
    heard();
    state.streamOpen = true;
    if (gap) { gap = false; await loadAll().catch(() => {}); }
    changed();
  };
  stream.onerror = () => { gap = true; state.streamOpen = false; changed(); };
  stream.addEventListener('ping', heard);
  stream.addEventListener('reload', () => location.reload());
  for (const name of Object.keys(handlers)) {
    stream.addEventListener(name, (event) => { heard(); handlers[name](JSON.parse(event.data)); changed(); });
  }
}
