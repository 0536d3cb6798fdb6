// Texts by key, one flat JSON file per language; what a language lacks is said in English.

export const LANGUAGES = {en: 'English', es: 'Español'};
let english = {};
let texts = {};
let current = 'en';

const load = async (code) => (await fetch(`/static/i18n/${code}.json`)).json();

export async function setLanguage(code) {
  if (!(code in LANGUAGES)) code = 'en';
  if (!Object.keys(english).length) english = await load('en');
  texts = code === 'en' ? english : await load(code);
  current = code;
  document.documentElement.lang = code;
  window.dispatchEvent(new CustomEvent('scanlane-language', {detail: {code}}));
}

export const language = () => current;

/** The text of a key with {names} filled in; the key itself where nobody wrote one. */
export function t(key, values = {}) {
  const text = texts[key] ?? english[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
}

/** The text of a key that may not exist: a finding's kind, a cargo class. */
export const tOr = (key, other) => texts[key] ?? english[key] ?? other;

export const clock = (ms) => new Date(ms).toLocaleTimeString(current, {hour12: false});
export const dayAndClock = (ms) => new Date(ms).toLocaleString(current, {hour12: false, dateStyle: 'short', timeStyle: 'medium'});
export const number = (value, digits = 0) => value.toLocaleString(current, {maximumFractionDigits: digits, minimumFractionDigits: digits});

/** 75 -> 1:15, 3700 -> 1:01:40 */
export function age(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, '0');
  if (s >= 86400) return t('age.days', {n: Math.floor(s / 86400)});
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor((s % 3600) / 60))}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
}
