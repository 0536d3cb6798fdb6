// The other pages and the dialogs: key sheet, history, settings.
import {html, nothing} from '/static/vendor/lit.js';
import {dayAndClock, LANGUAGES, language, setLanguage, t, tOr} from './i18n.js';
import {changed, closeDialog, get, notice, openDialog, setSetting, setting, state} from './store.js';
import {ACTIONS, GROUPS, keyName, keysOf, takenBy} from './keys.js';
import {ms} from './panels.js';
import {figuresView, forget as forgetFigures} from './figures.js';
import {opinionDialog} from './opinion.js';
import {settle, shelveDialog} from './queue.js';
import {short} from './rows.js';
import {shiftDialog} from './shift.js';
import {forget as forgetTraining, trainingView} from './training.js';

export const openHelp = () => openDialog('help', 'button');

export const keyCaps = (action) => keysOf(action).map((key) => html`<kbd>${keyName(key)}</kbd>`);

function trap(event) {
  if (event.key !== 'Tab') return;
  const inside = [...event.currentTarget.querySelectorAll('button, a, input, select, textarea, [tabindex="0"]')];
  const first = inside[0], last = inside.at(-1);
  if (event.shiftKey && document.activeElement === first) { event.preventDefault(); last.focus(); } else if (!event.shiftKey && document.activeElement === last) { event.preventDefault(); first.focus(); }
}

export function dialogView() {
  if (!state.dialog) return nothing;
  const inside = {help: helpDialog, shift: shiftDialog, opinion: opinionDialog, shelve: shelveDialog}[state.dialog](closeDialog);
  return html`<div class="veil" @click=${(e) => { if (e.target === e.currentTarget) closeDialog(); }}>
    <div class="dialog dialog-${state.dialog}" role="dialog" aria-modal="true" aria-labelledby="dialog-title" @keydown=${trap}>${inside}</div></div>`;
}

function helpDialog(close) {
  return html`
      <header><h2 id="dialog-title">${t('help.title')}</h2><button @click=${close}>${t('help.close')} <kbd>Esc</kbd></button></header>
      <div class="sheet">${GROUPS.map((group) => html`<section><h3>${t(`keys.group.${group}`)}</h3><dl>${Object.keys(ACTIONS).filter((a) => ACTIONS[a].group === group).map((action) => html`
        <div><dt>${keyCaps(action)}</dt><dd>${t(`keys.${action}`)}${ACTIONS[action].hold ? html` <span class="dim">${t('keys.hold')}</span>` : nothing}</dd></div>`)}</dl></section>`)}
        <section><h3>${t('keys.group.mouse')}</h3><dl><div><dt><kbd>${t('keys.wheel')}</kbd></dt><dd>${t('keys.wheel_does')}</dd></div>${['drag', 'right_drag', 'double_click'].map((name) => html`<div><dt><kbd>${t(`keys.${name}`)}</kbd></dt><dd>${t(`keys.${name}_does`)}</dd></div>`)}</dl></section></div>
      <p class="dim">${t('help.note')}</p>`;
}

// ------------------------------------------------------------------------------------------------------------ history

let history = null;
async function loadHistory() {
  try { history = (await get('/api/history')).lines; } catch (error) { history = []; notice('warning', error.message); }
  changed();
}
/** What a decision that goes to no lane ends with, as its desk says it. */
const NO_LANE = {training: 'delivery.training', 'second reading': 'delivery.second'};
function said(line) {
  const {said: s} = line;
  if (line.kind === 'decision') return `${t(`verdict.${s.new}`)}${s.note ? ` — ${s.note}` : ''}`;
  if (line.kind === 'delivery' && s.new === 'acknowledged' && NO_LANE[s.reason]) return t(NO_LANE[s.reason]);
  if (line.kind === 'delivery') return `${t(`delivery.${s.old}`)} → ${t(`delivery.${s.new}`)}${s.reason ? ` — ${s.reason}` : ''}`;
  if (s.page) return Object.entries(s.page).map(([k, v]) => `${k} ${typeof v === 'object' ? JSON.stringify(v) : v}`).join(', ');
  return [s.reason, s.address].filter(Boolean).join(' ');
}
function historyView() {
  if (history === null) { history = undefined; loadHistory(); }
  return html`<main class="page" id="work"><header class="page-head"><h1>${t('history.title')}</h1><button @click=${loadHistory}>${t('history.again')}</button></header>
    <p class="dim">${t('history.note')}</p>
    <div class="scroller" tabindex="0" role="region" aria-label=${t('history.title')}><table class="wide"><thead><tr>${['when', 'who', 'what', 'scan', 'said'].map((c) => html`<th scope="col">${t(`history.${c}`)}</th>`)}</tr></thead>
      <tbody>${(history ?? []).map((line) => html`<tr><td class="mono whole">${dayAndClock(ms(line.utc_ns))}</td><td>${line.who}</td><td class="whole">${tOr(`history.kind.${line.kind}`, line.kind)}</td><td class="mono whole" title=${line.scan_id}>${line.scan_id ? short(line.scan_id) : ''}</td><td>${said(line)}</td></tr>`)}</tbody></table></div></main>`;
}

// ----------------------------------------------------------------------------------------------------------- settings

const choice = (name, otherwise, values, label) => html`<label>${label}<select @change=${(e) => setSetting(name, e.target.value)}>${values.map(([value, text]) => html`<option value=${value} ?selected=${String(setting(name, otherwise)) === value}>${text}</option>`)}</select></label>`;
const tick = (name, otherwise, label) => html`<label class="tick"><input type="checkbox" .checked=${setting(name, otherwise)} @change=${(e) => setSetting(name, e.target.checked)}> ${label}</label>`;

let listening = null;
function takeKey(event, action) {
  if (listening !== action) return;
  event.preventDefault();
  event.stopPropagation();
  listening = null;
  if (event.key !== 'Escape') {
    const other = takenBy(event.key, action);
    if (other) notice('warning', t('keys.taken', {key: keyName(event.key), action: t(`keys.${other}`)}));
    else setSetting('keys', {...setting('keys', {}), [action]: [event.key]});
  }
  changed();
}

function settingsView() {
  return html`<main class="page" id="work"><header class="page-head"><h1>${t('settings.title')}</h1></header>
    <div class="cards">
      <section class="card"><h2>${t('settings.look')}</h2>
        <label>${t('settings.language')}<select @change=${(e) => { setSetting('language', e.target.value); setLanguage(e.target.value); }}>${Object.entries(LANGUAGES).map(([code, name]) => html`<option value=${code} ?selected=${language() === code}>${name}</option>`)}</select></label>
        ${choice('palette', 'grey', ['grey', 'inverted', 'cividis', 'viridis'].map((p) => [p, t(`palette.${p}`)]), t('settings.palette'))}
        ${choice('overlays', 'on', [['on', t('settings.overlays_on')], ['off', t('settings.overlays_off')]], t('settings.overlays'))}
        <label>${t('settings.opacity')}<input type="range" min="0.2" max="1" step="0.1" .value=${String(setting('overlayOpacity', 0.9))} @change=${(e) => setSetting('overlayOpacity', Number(e.target.value))}></label>
        ${tick('nsigma', false, t('settings.nsigma'))}
        <p class="dim">${t('settings.reset_note')}</p></section>
      <section class="card"><h2>${t('settings.work')}</h2>
        ${tick('ahead', true, t('settings.ahead'))}
        <label>${t('settings.budget')}<input type="number" min="10" max="3600" .value=${String(setting('budget_s', 120))} @change=${(e) => setSetting('budget_s', Number(e.target.value) || 120)}></label>
        ${tick('singleKeys', true, t('settings.single_keys'))}
        ${tick('sound', true, t('shift.sound'))}
        <label>${t('settings.flood')}<input type="number" min="2" max="500" .value=${String(setting('flood', 10))} @change=${(e) => setSetting('flood', Number(e.target.value) || 10)}></label></section>
      <section class="card wide-card"><h2>${t('settings.keys')}</h2><p class="dim">${t('settings.keys_note')}</p>
        <div class="key-editor">${Object.keys(ACTIONS).filter((a) => !ACTIONS[a].fixed).map((action) => html`<div class="key-row"><span>${t(`keys.${action}`)}</span>
          <button class="key-button" @click=${() => { listening = action; changed(); }} @keydown=${(e) => takeKey(e, action)} @blur=${() => { if (listening === action) { listening = null; changed(); } }}><span class="hidden-text">${t('keys.change', {action: t(`keys.${action}`)})}</span>${listening === action ? t('keys.press') : keyCaps(action)}</button></div>`)}</div>
        <button @click=${() => setSetting('keys', {})}>${t('settings.keys_reset')}</button></section>
    </div></main>`;
}

export function pageView() {
  if (state.page === 'history') return historyView();
  if (state.page === 'metrics') return figuresView();
  if (state.page === 'training') return trainingView({start: () => startApart('training')});
  if (state.page === 'second') return secondView();
  return settingsView();
}

/** Cleared scans to be read again, by somebody who knows neither who cleared them nor why. */
function secondView() {
  const left = state.rows.filter((row) => row.apart === 'second').length;
  const read = state.decisions.filter((d) => d.apart === 'second' && d.state === 'acknowledged').length;
  return html`<main class="page" id="work"><header class="page-head"><h1>${t('pages.second')}</h1>
      ${left ? html`<button class="primary" @click=${() => startApart('second')}>${t('second.start')}</button>` : nothing}</header>
    ${state.second ? html`<p>${t('second.left', {n: left})} ${read ? t('second.read', {n: read}) : ''}</p><p class="dim">${t('second.note')}</p>`
      : html`<p>${t('second.none')}</p><p class="mono">scanlane quality sample STATE_DIR --record<br>scanlane console --second-reading STATE_DIR</p>`}</main>`;
}

/** Pages are read anew when they are opened. */
export function forget() { history = null; forgetFigures(); forgetTraining(); }

function startApart(mode) {
  Object.assign(state, {mode, current: null, meta: null, opening: null, draft: null, portal: null, truth: null, page: 'work'});
  settle();
  location.hash = '';
}
