// <scan-compare>: two scans, the same part of each, side by side or blinking in one place.
import {css, html, LitElement} from '/static/vendor/lit.js';
import {dayAndClock, t} from '/static/shell/i18n.js';
import './scan-view.js';

const BLINK_MS = 900;

export class ScanCompare extends LitElement {
  static properties = {left: {attribute: false}, right: {attribute: false}, palette: {}, linked: {type: Boolean}, blinking: {type: Boolean, state: true}, front: {state: true}};
  static styles = css`
    :host { display: flex; flex-direction: column; min-height: 0; min-width: 0; }
    .bar { display: flex; gap: 6px; padding: 4px 8px; align-items: center; background: var(--panel); border-bottom: 1px solid var(--line); }
    button { font: inherit; font-size: 12px; color: var(--text); background: var(--panel-2); border: 1px solid #4a4a4a; border-radius: 4px; height: 24px; padding: 0 8px; cursor: pointer; }
    button[aria-pressed="true"] { background: #4a4a4a; border-color: #b9b9b9; box-shadow: inset 0 -2px 0 var(--accent); } :focus-visible { outline: 2px solid var(--focus); }
    .pair { flex: 1; display: flex; flex-direction: column; gap: 2px; min-height: 0; position: relative; background: var(--line); } .pair.beside { flex-direction: row; }
    figure { margin: 0; flex: 1; display: flex; flex-direction: column; min-height: 0; min-width: 0; } figcaption { font-size: 12px; padding: 2px 8px; background: var(--panel); color: var(--text-dim); } figcaption b { color: var(--text); }
    scan-view { flex: 1; } .blinking figure { position: absolute; inset: 0; } .blinking figure:not(.front) { visibility: hidden; }
  `;

  constructor() {
    super();
    Object.assign(this, {left: null, right: null, palette: 'grey', linked: true, blinking: false, front: 0});
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    clearInterval(this.timer);
  }

  /** The pictures, the left or upper one first. */
  get views() { return [...this.renderRoot.querySelectorAll('scan-view')]; }

  /** A key of the page goes to the first, which leads the second. */
  action(name, phase) {
    if (name !== 'blink') this.views[0]?.action(name, phase);
    else if (phase !== 'up') this.#blink();
  }

  #blink() {
    this.blinking = !this.blinking;
    this.front = this.blinking ? 1 : 0;
    clearInterval(this.timer);
    if (this.blinking && !matchMedia('(prefers-reduced-motion: reduce)').matches) this.timer = setInterval(() => { this.front = 1 - this.front; }, BLINK_MS);
  }

  #link() {
    const [first, second] = this.views;
    if (!first || !second) return;
    first.linked = this.linked ? second : null;
    second.linked = this.linked ? first : null;
  }

  updated(changed) {
    if (changed.has('linked') || changed.has('left') || changed.has('right')) this.#link();
  }

  render() {
    const part = (scan, which, n) => html`<figure class=${this.front === n ? 'front' : ''}><figcaption><b>${t(`view.compare.${which}`)}</b> ${scan ? `${scan.declaration?.container_numbers?.join(' ') ?? ''} ${scan.lane} · ${dayAndClock(Number(BigInt(scan.start_utc_ns) / 1000000n))}` : ''}</figcaption>
      <scan-view compact ?leads=${n === 0} ?led=${n === 1} .scan=${scan} .palette=${this.palette} .regions=${scan?.regions ?? []}></scan-view></figure>`;
    const wide = (this.left?.columns ?? 1) > 1.4 * (this.left?.rows ?? 1);
    return html`<div class="bar"><button aria-pressed=${this.linked} @click=${() => { this.linked = !this.linked; }}>${t('view.compare.linked')}</button>
      <button aria-pressed=${this.blinking} @click=${() => this.#blink()}>${t('view.compare.blink')}</button></div>
      <div class="pair ${wide ? '' : 'beside'} ${this.blinking ? 'blinking' : ''}">${part(this.left, 'left', 0)}${part(this.right, 'right', 1)}</div>`;
  }
}
customElements.define('scan-compare', ScanCompare);
