// The page: loads what is known, listens to what changes, renders, and gives every key to whoever it is for.
import {html, nothing, render} from '/static/vendor/lit.js';
import {age, language, setLanguage, t} from '/static/shell/i18n.js';
import {announce, changed, closeDialog, get, listen, loadAll, logged, notice, onChange, onEvent, post, setSetting, setting, state} from '/static/shell/store.js';
import {ACTIONS, keyName, keysOf, listenKeys, VIEW_ACTIONS} from '/static/shell/keys.js';
import {nextScan, queueView, takeQueue, tickAges} from '/static/shell/queue.js';
import {keepingFocus, secondsSince, SHAPES, short} from '/static/shell/rows.js';
import {activeDecision, cancelDraft, choose, confirm, decisionView, deliveryView, keepDraftNow, takeDecision, tickDeliveries, undo} from '/static/shell/decision.js';
import {nextFinding, panelsView, selectFinding} from '/static/shell/panels.js';
import {dialogView, forget, openHelp, pageView} from '/static/shell/pages.js';
import {breakView, shiftButton, tickShift} from '/static/shell/shift.js';

const GONE_MS = 2000;
const root = document.getElementById('app');
const keyOf = (action) => (ACTIONS[action] ? keysOf(action).map(keyName).join(' ') : '');
const viewer = () => document.querySelector('scan-compare') ?? document.querySelector('scan-view#main');

// ------------------------------------------------------------------------------------------------------------ opening

async function open(scanId) {
  if (scanId !== state.current) {
    keepDraftNow(); // what was begun on another scan is there when that one is opened again
    Object.assign(state, {current: scanId, meta: null, portal: null, selectedFinding: null, mismatch: '', draft: null, compare: null, drawing: null, truth: null});
  }
  state.page = 'work';
  state.opening = {scan_id: scanId, state: 'claiming', have: 0, size: 0, error: ''};
  changed();
  try {
    const told = await post('/api/open', {scan_id: scanId});
    await takeOpening(told);
  } catch (error) {
    if (state.current === scanId) state.opening = {scan_id: scanId, state: 'failed', error: error.message, have: 0, size: 0};
    announce(error.message, true);
    changed();
  }
}

async function takeOpening(told) {
  if (told.scan_id !== state.current) return;
  state.opening = told;
  if (told.state === 'ready' && state.meta?.scan_id !== told.scan_id) await showOnce(told.scan_id);
  else if (told.state === 'ready' && state.meta && state.meta.lease.mine !== told.mine) { state.meta = {...state.meta, lease: {...state.meta.lease, mine: told.mine}}; }
  else if (told.state === 'lost' && state.meta) { state.meta = {...state.meta, lease: {...state.meta.lease, mine: false}}; announce(t('banner.lost', {reason: told.error}), true); }
  else if (told.state === 'failed') announce(t('opening.failed', {error: told.error}), true);
  changed();
}

let showing = null; // told twice that a scan is ready, by the answer and by the stream, the page asks for it once
async function showOnce(scanId) {
  if (showing === scanId) return;
  showing = scanId;
  try { await show(scanId); } finally { showing = null; }
}

async function show(scanId) {
  try {
    const meta = await get(`/api/scan/${scanId}`);
    if (state.current !== scanId) return;
    state.meta = meta;
    state.draft = meta.draft;
    state.overlays = setting('overlays', 'on') === 'on';
    state.portal = null;
    changed();
    announce(t('opening.said_ready', {scan: short(scanId), outcome: t(`outcome.${meta.outcome}`), n: meta.findings.length}));
    if (meta.portal) {
      const portal = await get(`/api/scan/${scanId}/portal`);
      if (state.current === scanId && portal.sha256 === meta.sha256) state.portal = portal;
    }
  } catch (error) { notice('alarm', error.message); }
  changed();
  fetchAhead();
}

let ahead = '';
/** Have the scan that the next key opens fetched, the first of a shift too: it stays in the queue for everybody, and what is on its way to the screen goes first. */
function fetchAhead() {
  const busy = state.current && !state.meta && state.opening?.state !== 'failed';
  const next = busy || !setting('ahead', true) ? null : nextScan();
  if (!next || next.scan_id === ahead) return;
  ahead = next.scan_id;
  post('/api/open', {scan_id: ahead, ahead: true}).catch((error) => console.warn('next scan not fetched ahead:', error.message));
}

function openNext() {
  const next = nextScan();
  if (next) open(next.scan_id); else notice('info', t('queue.none_waiting'));
}

const seen = [];
function openPrevious() {
  const at = seen.indexOf(state.current);
  const before = at > 0 ? seen[at - 1] : null;
  if (before) open(before); else notice('info', t('queue.no_previous'));
}

// --------------------------------------------------------------------------------------------------------------- keys

function act(action, phase, event) {
  if (state.dialog) {
    if (action === 'cancel') { closeDialog(); return true; }
    return action === 'help' ? (closeDialog(), true) : false;
  }
  if (state.page !== 'work' && !['help', 'next', 'cancel', 'undo'].includes(action)) return false;
  if (VIEW_ACTIONS.has(action)) {
    if (action === 'overlays') { state.overlays = !state.overlays; logged('overlay', {on: state.overlays}); changed(); return true; }
    viewer()?.action?.(action, phase);
    return Boolean(viewer());
  }
  switch (action) {
    case 'next': openNext(); return true;
    case 'previous': openPrevious(); return true;
    case 'clear': case 'inspect': case 'rescan': choose(action); return true;
    case 'confirm': if (!state.draft) return false; confirm(); return true;
    case 'cancel':
      if (state.drawing) { state.drawing = null; changed(); return true; }
      if (state.page !== 'work') { location.hash = ''; return true; }
      return cancelDraft();
    case 'undo': undo(); return true;
    case 'next-finding': nextFinding(); return true;
    case 'region': case 'measure': state.drawing = state.drawing === action ? null : action; announce(t(state.drawing ? `draw.said_${action}` : 'draw.said_off')); changed(); return true;
    case 'compare': state.compare = null; changed(); return true;
    case 'help': openHelp(event); return true;
    default: return false;
  }
}

// ------------------------------------------------------------------------------------------------------------ regions

async function keepRegions(regions) {
  const {scan_id, sha256} = state.meta;
  regions = regions.filter((r) => r.id !== 'truth');
  state.meta = {...state.meta, regions};
  changed();
  try { await post('/api/regions', {scan_id, sha256, regions}); } catch (error) { notice('alarm', t('regions.not_kept', {error: error.message})); }
}
const actions = {
  removeRegion: (id) => keepRegions(state.meta.regions.filter((r) => r.id !== id)),
  labelRegion: (id, label) => keepRegions(state.meta.regions.map((r) => (r.id === id ? {...r, label} : r))),
  openEarlier: async (scanId) => {
    try { state.compare = await get(`/api/earlier/${scanId}`); changed(); } catch (error) { notice('warning', error.message); }
  },
};
function regionDrawn(event) {
  const region = {id: crypto.randomUUID(), label: '', box: event.detail.box, mm: event.detail.mm};
  state.drawing = null;
  keepRegions([...state.meta.regions, region]);
  requestAnimationFrame(() => document.querySelector('.regions li:last-child input')?.focus());
}

// ------------------------------------------------------------------------------------------------------------ the view

function mismatch(detail) {
  state.mismatch = t('banner.mismatch', {reason: detail.reason ?? ''});
  logged('tile_refused', {tile: detail.tile, reason: detail.reason});
  announce(state.mismatch, true);
  changed();
}

function banners() {
  const shown = [];
  const silent = (Date.now() - state.heardMs) / 1000;
  if (!state.streamOpen && silent > GONE_MS / 1000) shown.push(html`<p class="banner alarm" role="alert"><b>${t('banner.console_gone')}</b> ${t('banner.last', {n: Math.round(silent)})}</p>`);
  for (const service of state.services) {
    if (!service.connected) shown.push(html`<p class="banner alarm"><b>${t('banner.disconnected', {address: service.address})}</b>
      ${service.silent_s > 1e6 || service.refused ? service.refused || t('banner.never') : t('banner.last', {n: Math.round(service.silent_s)})} ${t('banner.kept')}</p>`);
    else if (service.alarm) shown.push(html`<p class="banner alarm" role="alert"><b>${service.alarm}</b></p>`);
    else if (service.silent_s > 10) shown.push(html`<p class="banner warning"><b>${t('banner.stale', {address: service.address})}</b> ${t('banner.last', {n: Math.round(service.silent_s)})}</p>`);
  }
  if (state.mismatch) shown.push(html`<p class="banner alarm" role="alert"><b>${state.mismatch}</b> ${t('banner.mismatch_blocked')}</p>`);
  const lost = state.meta && !state.meta.lease.mine && !activeDecision(state.meta.scan_id);
  if (lost) shown.push(html`<p class="banner warning"><b>${t('banner.lost', {reason: state.opening?.error || t('banner.given_back')})}</b>
    ${state.rows.some((r) => r.scan_id === state.current && r.state === 'pending') ? html`<button class="small" @click=${() => { const id = state.current; state.meta = null; open(id); }}>${t('banner.take_again')}</button>` : nothing}</p>`);
  return html`<div class="banners">${shown}${breakView()}</div>`;
}

function openingView() {
  const {opening} = state;
  if (!opening) return html`<div class="welcome"><p class="big">${t('welcome.title')}</p><p>${t('welcome.hint')} <kbd>n</kbd></p><p class="dim">${t('welcome.more')} <kbd>?</kbd></p></div>`;
  if (opening.state === 'failed') return html`<div class="welcome failed" role="alert"><p class="big">${t('opening.failed_title')}</p><p>${opening.error}</p>
    <p><button @click=${() => open(opening.scan_id)}>${t('opening.again')}</button></p></div>`;
  const share = opening.size ? opening.have / opening.size : 0;
  return html`<div class="welcome" role="status"><p class="big">${t(`opening.${opening.state}`)}</p>
    <progress max="1" .value=${share} aria-label=${t('opening.progress')}></progress>
    <p class="dim">${opening.size ? t('opening.bytes', {have: (opening.have / 1e6).toFixed(1), size: (opening.size / 1e6).toFixed(1)}) : ''}</p></div>`;
}

function scanHead(meta) {
  const numbers = meta.container_numbers.join(' ');
  return html`<header class="scan-head">
    ${meta.apart && !state.truth ? html`<span class="outcome-badge">${t(`apart.${meta.apart}`)}</span>` : html`<span class="outcome-badge outcome-${meta.outcome}"><span aria-hidden="true">${SHAPES[meta.outcome]}</span> ${t(`outcome.${meta.outcome}`)}</span>`}
    <h1>${numbers || short(meta.scan_id)}</h1>
    <span class="dim">${t('scan.lane', {lane: meta.lane})} · ${new Date(Number(BigInt(meta.start_utc_ns) / 1000000n)).toLocaleTimeString(language(), {hour12: false})}</span>
    ${meta.simulated ? html`<span class="tag strong">${t('simulated.long')}</span>` : nothing}
    ${meta.apart && state.truth ? html`<span class="tag strong">${t(`apart.${meta.apart}`)}</span>` : nothing}
    <span class="spacer"></span>
    <span class="alarms">${alarm('gamma', meta.gamma_alarm)} ${alarm('neutron', meta.neutron_alarm)}</span>
    <span class="clock ${meta.apart ? 'hidden-text' : ''}"><span class="dim">${t('scan.age')}</span> <b class="age" data-since=${meta.start_utc_ns} .textContent=${age(secondsSince(meta.start_utc_ns))}></b></span>
  </header>`;
}
const alarm = (kind, value) => html`<span class="portal-alarm ${value ? 'on' : ''}">${t(`portal.${kind}`)}: <b>${value == null ? t('portal.not_measured') : value ? t('portal.alarm') : t('portal.no_alarm')}</b></span>`;

function workView() {
  const {meta} = state;
  return html`
    <main class="work ${state.current ? 'opened' : ''}" id="work">
      ${queueView({open})}
      <div class="centre" @region-drawn=${regionDrawn} @tile-refused=${(e) => mismatch(e.detail)}
        @scan-cursor=${(e) => { state.cursor = e.detail; const chart = document.querySelector('portal-chart'); const view = viewer(); const x = e.detail; if (chart && e.target !== chart) chart.cursor = x; if (view && e.target !== view) view.cursor = x ? {x: x.x, y: null} : null; }}
        @view-ask=${(e) => { if (['region', 'measure', 'overlays'].includes(e.detail.what)) { e.preventDefault(); act(e.detail.what, 'press', e); } }}
        @view-range=${(e) => { const chart = document.querySelector('portal-chart'); if (chart) chart.range = e.detail; }}
        @nsigma-change=${(e) => setSetting('nsigma', e.detail.on)}
        @finding-click=${(e) => selectFinding(e.detail.index)}
        @scan-first-paint=${(e) => logged('first_paint', {ms: Math.round(e.detail.ms), renderer: e.detail.renderer})}
        @renderer-change=${(e) => { logged('renderer', e.detail); if (e.detail.renderer !== 'webgl2' || e.detail.reason) notice('info', t(`view.renderer.${e.detail.renderer}`)); }}
        @enhancement-used=${(e) => logged('enhancement', e.detail)} @tile-error=${(e) => logged('tile_error', e.detail)}>
        ${meta ? scanHead(meta) : nothing}
        <div class="picture">
          ${state.compare && meta ? nothing : html`<scan-view id="main" class=${meta?.energies.length ? '' : 'waits'} .scan=${meta?.energies.length ? meta : null} .overlays=${state.overlays} .regions=${meta?.regions ?? []} .selectedFinding=${state.selectedFinding}
            .tool=${state.drawing ?? 'pan'} .palette=${setting('palette', 'grey')} .overlayOpacity=${setting('overlayOpacity', 0.9)} .keyName=${keyOf}></scan-view>`}
          ${state.compare && meta ? html`<div class="compare"><button class="small close" @click=${() => { state.compare = null; changed(); }}>${t('compare.close')} <kbd>v</kbd></button><scan-compare .left=${meta} .right=${state.compare}></scan-compare></div>`
            : meta?.energies.length && !customElements.get('scan-view') ? html`<img class="plain" alt=${t('scan.picture')} src=${plainPicture(meta)}>`
            : meta?.energies.length ? nothing : meta ? html`<div class="welcome"><p class="big">${t('scan.no_image')}</p></div>` : openingView()}
        </div>
        ${meta && state.portal ? html`<portal-chart .series=${state.portal} .columnSeconds=${meta.column_seconds} .nsigma=${setting('nsigma', false)}></portal-chart>`
          : meta ? html`<p class="no-portal">${t(meta.portal ? 'portal.loading' : 'portal.none')}</p>` : nothing}
        ${decisionView()}
      </div>
      <div class="right">${panelsView(actions)}${deliveryView()}</div>
    </main>`;
}

/** The whole picture as the server draws it, for a browser in which the viewer could not be loaded. */
const plainPicture = (meta) => `/tile/${meta.scan_id}/${meta.sha256}/${meta.default_energy}/${meta.levels - 1}/0/0.png?low=${meta.presets[1].low}&high=${meta.presets[1].high}`;

/** What was last told of a service says nothing of it once the console's own program is silent. */
const heard = (service) => service.connected && (state.streamOpen || Date.now() - state.heardMs < GONE_MS);
const PAGES = ['work', 'second', 'training', 'metrics', 'history', 'settings'];
function topBar() {
  return html`<header class="top">
    <a class="brand" href="#" @click=${(e) => { e.preventDefault(); location.hash = ''; }}><img src="/static/icon.svg" alt="" width="22" height="22"> <span class="word">scanlane</span></a>
    <nav class="pages" aria-label=${t('pages.title')}>${PAGES.filter((page) => page !== 'second' || state.second).map((page) => html`<a href=${page === 'work' ? '#' : `#${page}`} aria-current=${state.page === page ? 'page' : nothing}>${t(`pages.${page}`)}</a>`)}</nav>
    <span class="spacer"></span>
    ${state.services.map((s) => html`<span class="link ${heard(s) ? 'up' : 'down'}" title=${s.address}><span aria-hidden="true">${heard(s) ? '●' : '✕'}</span> ${t(heard(s) ? 'link.up' : 'link.down')} <span class="dim">${s.address.replace('tcp://', '')}</span></span>`)}
    <span class="who">${state.analyst}</span>
    ${shiftButton()}
    <button class="small" @click=${openHelp}>${t('help.button')} <kbd>?</kbd></button>
  </header>`;
}

function view() {
  if (!state.ready) return html`<div class="welcome"><p class="big">${t('page.loading')}</p></div>`;
  return html`<a class="skip" href="#work" @click=${(e) => { e.preventDefault(); document.querySelector('.rows button')?.focus(); }}>${t('page.skip')}</a>
    ${topBar()}${banners()}${state.page === 'work' ? workView() : pageView()}
    <div class="notices">${state.notices.map((n) => html`<p class="notice ${n.level}">${n.text}</p>`)}</div>${dialogView()}`;
}

// ------------------------------------------------------------------------------------------------------------- begin

function takeHash() {
  const page = location.hash.slice(1);
  state.page = PAGES.includes(page) ? page : 'work';
  forget();
  changed();
}

const HERE_MS = 10000;
let toldHere = 0;

/** Tell the workstation that somebody is here: scans go back from a page that hangs or that everybody has left. */
function here() {
  if (Date.now() - toldHere < HERE_MS) return;
  toldHere = Date.now();
  post('/api/here').catch((error) => console.warn('not told that somebody is here:', error.message));
}

async function begin() {
  await setLanguage('en');
  onChange(() => keepingFocus(() => render(view(), root)));
  for (const name of ['scan-view', 'portal-chart', 'scan-compare']) await import(`/static/view/${name}.js`).catch((error) => console.warn(`${name}: ${error.message}`));
  onEvent('queue', (told, first) => { takeQueue(told, first); fetchAhead(); });
  onEvent('services', ({services}) => { state.services = services; });
  onEvent('opening', takeOpening);
  onEvent('decision', takeDecision);
  onEvent('opinions', ({scan_id, opinions}) => { if (state.meta?.scan_id === scan_id) state.meta = {...state.meta, opinions}; });
  onEvent('notice', ({level, key, text}) => notice(level, t(key, {error: text})));
  const told = await loadAll();
  await setLanguage(setting('language', navigator.language.slice(0, 2)));
  listen();
  listenKeys(act);
  for (const sign of ['pointermove', 'pointerdown', 'wheel', 'keydown']) window.addEventListener(sign, here, {passive: true, capture: true});
  window.addEventListener('hashchange', takeHash);
  window.addEventListener('scanlane-language', changed);
  takeHash();
  if (told.open && told.opening) { state.current = told.open; await takeOpening(told.opening); }
  fetchAhead();
  onChange(() => { if (state.current && seen.at(-1) !== state.current && !seen.includes(state.current)) seen.push(state.current); });
  setInterval(() => { tickAges(); tickDeliveries(); tickShift(); }, 500);
  setInterval(() => { if (!state.streamOpen || state.services.some((s) => !s.connected)) changed(); }, 1000);
}

begin().catch((error) => { root.textContent = `scanlane console: ${error.message}`; });
