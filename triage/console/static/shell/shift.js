// A shift: begun with a click (which lets the page sound), ended with a note for whoever comes next; breaks called in time.
import {html, nothing} from '/static/vendor/lit.js';
import {age, dayAndClock, t} from './i18n.js';
import {announce, changed, closeDialog, logged, notice, openDialog, post, setting, setSetting, state} from './store.js';

let audio = null;
let soundedAt = 0;
let breakAt = 0;

/** Two short tones for an alert; at most one per 5 s, only after a shift was begun. */
export function sound() {
  if (!audio || !setting('sound', true) || Date.now() - soundedAt < 5000) return;
  soundedAt = Date.now();
  for (const [at, pitch] of [[0, 660], [0.16, 880]]) {
    const tone = audio.createOscillator();
    const volume = audio.createGain();
    tone.frequency.value = pitch;
    volume.gain.setValueAtTime(0.12, audio.currentTime + at);
    volume.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + at + 0.14);
    tone.connect(volume).connect(audio.destination);
    tone.start(audio.currentTime + at);
    tone.stop(audio.currentTime + at + 0.15);
  }
}

export const openShift = () => openDialog('shift', '.primary');

async function begin() {
  try {
    Object.assign(state, await post('/api/shift', {phase: 'begun'}));
    audio = new AudioContext();
    await audio.resume();
    logged('sound', {unlocked: true});
    nextBreak();
    closeDialog();
    announce(t('shift.said_begun'));
  } catch (error) { notice('warning', error.message); }
  changed();
}
async function end() {
  try {
    Object.assign(state, await post('/api/shift', {phase: 'ended', note: document.querySelector('#handover').value}));
    audio?.close();
    audio = null;
    closeDialog();
    announce(t('shift.said_ended'));
  } catch (error) { notice('warning', error.message); }
  changed();
}

const nextBreak = () => { breakAt = Date.now() + setting('break_min', 20) * 60000; };
export function tickShift() {
  const clock = document.querySelector('.shift-clock');
  if (clock && state.shift) clock.textContent = age((Date.now() - state.shift.since_ms) / 1000);
  if (state.shift && breakAt && setting('break_min', 20) && Date.now() > breakAt && !state.breakDue) { state.breakDue = true; announce(t('shift.break')); changed(); }
}
export function breakView() {
  if (!state.breakDue) return nothing;
  return html`<p class="banner warning" role="status"><b>${t('shift.break')}</b> ${t('shift.break_why', {n: setting('break_min', 20)})}
    <button class="small" @click=${() => { state.breakDue = false; breakAt = Date.now() + 5 * 60000; changed(); }}>${t('shift.snooze')}</button>
    <button class="small" @click=${() => { state.breakDue = false; nextBreak(); changed(); }}>${t('shift.took_it')}</button></p>`;
}

export function shiftButton() {
  return html`<button class="small" @click=${openShift}>${state.shift ? html`${t('shift.on')} <span class="shift-clock" .textContent=${age((Date.now() - state.shift.since_ms) / 1000)}></span>` : t('shift.begin')}</button>`;
}

export function shiftDialog(close) {
  const last = state.handover;
  const waiting = (state.counts.pending ?? 0) + (state.counts.leased ?? 0) + (state.counts.held ?? 0);
  return html`<header><h2 id="dialog-title">${state.shift ? t('shift.end_title') : t('shift.title', {name: state.analyst})}</h2><button @click=${close}>${t('help.close')} <kbd>Esc</kbd></button></header>
    ${state.shift ? html`<p>${t('shift.end_note', {n: waiting})}</p><label class="block">${t('shift.handover')}<textarea id="handover" rows="4" maxlength="5000"></textarea></label>
        <p class="dialog-end"><button class="primary" @click=${end}>${t('shift.end')}</button></p>`
      : html`${last ? html`<section class="handover"><h3>${t('shift.last', {name: last.who, when: dayAndClock(last.ms)})}</h3><p>${last.note || t('shift.no_note')}</p></section>` : nothing}
        <p>${t('shift.waiting', {n: waiting})}</p>
        <label class="tick"><input type="checkbox" .checked=${setting('sound', true)} @change=${(e) => setSetting('sound', e.target.checked)}> ${t('shift.sound')}</label>
        <label class="inline">${t('shift.break_after')} <select @change=${(e) => setSetting('break_min', Number(e.target.value))}>${[20, 30, 0].map((n) => html`<option value=${n} ?selected=${setting('break_min', 20) === n}>${n ? t('shift.minutes', {n}) : t('shift.never')}</option>`)}</select></label>
        <p class="dialog-end"><button class="primary" @click=${begin}>${t('shift.begin')}</button></p>`}`;
}
