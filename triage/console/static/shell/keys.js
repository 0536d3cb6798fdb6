// The key map: one action per key, keys held or pressed, remapped by the person, single keys switched off if wanted.
import {setting} from './store.js';

/** action -> default keys. `hold`: acts while the key is down and ends with it. */
export const ACTIONS = {
  next: {keys: ['n'], group: 'queue'}, previous: {keys: ['p'], group: 'queue'},
  clear: {keys: ['c'], group: 'decide'}, inspect: {keys: ['x'], group: 'decide'}, rescan: {keys: ['r'], group: 'decide'},
  confirm: {keys: ['Enter'], group: 'decide', fixed: true}, cancel: {keys: ['Escape'], group: 'decide', fixed: true}, undo: {keys: ['u'], group: 'decide'},
  overlays: {keys: ['o'], group: 'view'}, material: {keys: ['m'], group: 'view'}, blink: {keys: ['b'], group: 'view'},
  'side-by-side': {keys: ['s'], group: 'view'}, reduce: {keys: ['t'], group: 'view'},
  invert: {keys: ['i'], group: 'view', hold: true}, log: {keys: ['l'], group: 'view', hold: true}, edge: {keys: ['e'], group: 'view', hold: true}, magnifier: {keys: ['g'], group: 'view', hold: true},
  fit: {keys: ['='], group: 'view'}, reset: {keys: ['0'], group: 'view'}, 'one-to-one': {keys: ['9'], group: 'view'},
  'zoom-in': {keys: ['+'], group: 'view'}, 'zoom-out': {keys: ['-'], group: 'view'}, pan: {keys: [' '], group: 'view', hold: true},
  'width-down': {keys: ['['], group: 'window'}, 'width-up': {keys: [']'], group: 'window'},
  'level-down': {keys: [','], group: 'window'}, 'level-up': {keys: ['.'], group: 'window'},
  'preset-1': {keys: ['1'], group: 'window'}, 'preset-2': {keys: ['2'], group: 'window'},
  'preset-3': {keys: ['3'], group: 'window'}, 'preset-4': {keys: ['4'], group: 'window'}, 'auto-window': {keys: ['a'], group: 'window'},
  region: {keys: ['d'], group: 'mark'}, measure: {keys: ['k'], group: 'mark'}, 'next-finding': {keys: ['f'], group: 'mark'},
  compare: {keys: ['v'], group: 'mark'},
  help: {keys: ['?'], group: 'page'},
};
export const GROUPS = ['queue', 'decide', 'view', 'window', 'mark', 'page'];
export const VIEW_ACTIONS = new Set(Object.entries(ACTIONS).filter(([, a]) => a.group === 'view' || a.group === 'window').map(([name]) => name));

export const keysOf = (action) => setting('keys', {})[action] ?? ACTIONS[action].keys;
export const keyName = (key) => ({' ': 'Space', Escape: 'Esc'}[key] ?? (key.length === 1 ? key.toUpperCase() === key ? key : key : key));

/** The action of a pressed key, or null. */
export function actionOf(key) {
  for (const action of Object.keys(ACTIONS)) if (keysOf(action).includes(key)) return action;
  const lower = key.toLowerCase();
  if (lower !== key) for (const action of Object.keys(ACTIONS)) if (keysOf(action).includes(lower)) return action;
  return null;
}

/** The action that already has a key, other than `action`. */
export const takenBy = (key, action) => Object.keys(ACTIONS).find((a) => a !== action && keysOf(a).includes(key)) ?? null;

const typing = (target) => target instanceof HTMLElement && (target.isContentEditable || target.matches('input:not([type=checkbox]):not([type=radio]):not([type=button]):not([type=range]), textarea, select'));

/** act(action, phase, event) returns true where it took the key. Phases: press, down, up. */
export function listenKeys(act) {
  const held = new Map();
  const target = (event) => event.composedPath()[0];
  window.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    const action = actionOf(event.key);
    if (!action) return;
    const free = event.key === 'Escape' || event.key === 'Enter';
    if (typing(target(event)) && !free) return;
    if (!free && setting('singleKeys', true) === false && !event.altKey) return;
    // a button or link keeps Enter and Space for itself
    if ((event.key === 'Enter' || event.key === ' ') && target(event) instanceof HTMLElement && target(event).closest?.('button, a, summary, [role=option], input[type=checkbox], input[type=radio]')) return;
    if (ACTIONS[action].hold) {
      if (!held.has(event.code)) { held.set(event.code, action); act(action, 'down', event); }
      event.preventDefault();
    } else if (!event.repeat || ACTIONS[action].group === 'window' || action.startsWith('zoom')) {
      if (act(action, 'press', event)) event.preventDefault();
    }
  });
  const release = (code) => { const action = held.get(code); if (action) { held.delete(code); act(action, 'up'); } };
  window.addEventListener('keyup', (event) => release(event.code));
  window.addEventListener('blur', () => { for (const code of [...held.keys()]) release(code); });
}
