// How the viewer looks: neutral and dark; a state is never told by colour alone.
import {css} from '/static/vendor/lit.js';

export const viewStyles = css`
  :host { display: flex; flex-direction: column; min-width: 0; min-height: 0; background: var(--image-surround); color: var(--text); font-size: 12px; line-height: 1.35; position: relative; }
  :host([hidden]) { display: none; }
  * { box-sizing: border-box; }
  :focus-visible { outline: 2px solid var(--focus); outline-offset: -1px; }
  button, input, select { font: inherit; color: var(--text); background: var(--panel-2); border: 1px solid #4a4a4a; border-radius: 4px; height: 24px; padding: 0 7px; white-space: nowrap; }
  button { cursor: pointer; } button:hover:not(:disabled) { background: #3a3a3a; } button:disabled { color: #777; cursor: default; }
  button[aria-pressed="true"] { background: #4a4a4a; border-color: #b9b9b9; box-shadow: inset 0 -2px 0 var(--accent); }
  .bar { display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: center; padding: 4px 8px; background: var(--panel); border-bottom: 1px solid var(--line); flex: none; }
  .group { display: flex; align-items: center; gap: 2px; }
  .joined > button { border-radius: 0; margin-left: -1px; } .joined > button:first-child { border-radius: 4px 0 0 4px; margin-left: 0; } .joined > button:last-child { border-radius: 0 4px 4px 0; }
  .joined > button[aria-pressed="true"] { z-index: 1; position: relative; }
  .group > .word { color: var(--text-dim); padding-right: 3px; }
  input[type="number"] { width: 62px; text-align: right; font-variant-numeric: tabular-nums; appearance: textfield; -moz-appearance: textfield; padding: 0 5px; }
  input[type="number"]::-webkit-inner-spin-button { appearance: none; margin: 0; }
  .histogram { width: 96px; height: 24px; background: #191919; border: 1px solid #4a4a4a; border-radius: 3px; display: block; }
  select { padding: 0 2px; width: 92px; }
  .spacer { flex: 1; }
  .icon { padding: 0; width: 26px; display: inline-grid; place-items: center; } .icon svg { width: 16px; height: 16px; fill: none; stroke: currentColor; stroke-width: 1.5; }
  .stage { flex: 1; position: relative; min-height: 60px; overflow: hidden; touch-action: none; cursor: grab; outline-offset: -2px; background: var(--image-surround); }
  .stage.draws { cursor: crosshair; } .stage.drags { cursor: grabbing; }
  canvas, svg.marks { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
  canvas[hidden] { display: none; }
  svg.marks { pointer-events: none; }
  .status { display: flex; gap: 14px; align-items: center; padding: 0 8px; height: 22px; background: var(--panel); border-top: 1px solid var(--line); color: var(--text-dim); font-variant-numeric: tabular-nums; white-space: nowrap; overflow: hidden; flex: none; }
  .status b { font-weight: 500; color: var(--text); } .status .wait { color: var(--review); } .status .bad { color: var(--alarm); font-weight: 600; }
  .status .fixed { overflow: hidden; text-overflow: ellipsis; }
  .hidden-text { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
  .empty { position: absolute; inset: 0; display: grid; place-content: center; color: var(--text-dim); text-align: center; gap: 4px; pointer-events: none; }
  .empty.bad { color: var(--alarm); font-size: 14px; background: var(--image-surround); }

  .legend { display: flex; flex-wrap: wrap; gap: 2px 16px; align-items: center; padding: 3px 8px; background: var(--panel); border-top: 1px solid var(--line); flex: none; }
  .legend ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 16px; } .legend li, .key { display: flex; gap: 6px; align-items: center; white-space: nowrap; } .legend p { margin: 0; color: var(--text-dim); } .status .key { flex: 0 1000 auto; min-width: 0; overflow: hidden; } .status:has(.at:not(:empty)) .key { display: none; } .status .at { flex: 0 1 auto; min-width: 0; } .status .spacer { flex: 1 0 0; min-width: 0; } .status .shown { flex: none; } .swatch { width: 22px; height: 12px; flex: none; }
  .why { position: absolute; max-width: min(340px, 60%); background: rgb(28 28 28 / 94%); border: 1px solid #6a6a6a; border-radius: 4px; padding: 6px 9px; font-size: 13px; pointer-events: none; z-index: 3; }
  .why b { display: block; } .why .tier-alarm { color: var(--alarm); } .why .tier-review { color: var(--review); } .why .tier-note { color: var(--text-dim); }

  .marks rect, .marks line, .marks path { fill: none; vector-effect: non-scaling-stroke; }
  .halo { stroke: rgb(0 0 0 / 65%); stroke-width: 4; } .box { stroke-width: 1.75; }
  .tier-alarm .box { stroke: var(--alarm); } .tier-review .box { stroke: var(--review); } .tier-note .box { stroke: #cfcfcf; stroke-dasharray: 5 4; stroke-width: 1.25; } .tier-note .halo { stroke-width: 2.5; }
  .selected .box { stroke-width: 3; stroke-dasharray: none; }
  .tag { pointer-events: auto; cursor: pointer; } .tag rect { fill: #1d1d1d; stroke-width: 1; } .tag text { font: 700 11px system-ui, "DejaVu Sans", sans-serif; text-anchor: middle; }
  .tier-alarm .tag rect { stroke: var(--alarm); } .tier-alarm .tag text { fill: var(--alarm); } .tier-review .tag rect { stroke: var(--review); } .tier-review .tag text { fill: var(--review); } .tier-note .tag rect { stroke: #cfcfcf; } .tier-note .tag text { fill: #e2e2e2; }
  .selected .tag rect { fill: #45494b; stroke-width: 2; }
  .container { stroke: #9db4bf; stroke-width: 1; stroke-dasharray: 1 4; stroke-linecap: round; }
  .region .box { stroke: var(--series-2); } .region text, .drawing text, .measure text, .scale text { font: 600 12px system-ui, "DejaVu Sans", sans-serif; fill: #fff; paint-order: stroke; stroke: rgb(0 0 0 / 80%); stroke-width: 3px; stroke-linejoin: round; }
  .measure .box, .drawing .box { stroke: #fff; } .drawing .box { stroke-dasharray: 6 3; }
  .cursor { stroke: var(--focus); stroke-width: 1; stroke-dasharray: 2 3; } .cross { stroke: var(--focus); stroke-width: 1.5; }
  .scale line { stroke: #fff; stroke-width: 2; } .scale .halo { stroke: rgb(0 0 0 / 80%); stroke-width: 4; }
  .mini rect { stroke: #6a6a6a; } .mini .seen { stroke: var(--focus); stroke-width: 1.5; } .loupe { stroke: var(--focus); stroke-width: 1.5; }
  .badrow { stroke: var(--unusable); stroke-width: 2; } .divide { stroke: var(--line); stroke-width: 1; } .marks .name { font: 600 11px system-ui, "DejaVu Sans", sans-serif; fill: #ddd; paint-order: stroke; stroke: rgb(0 0 0 / 80%); stroke-width: 3px; }
  @media (max-width: 1000px) { .bar { gap: 3px 8px; padding: 2px 6px; } .histogram, .group > .word { display: none; } .status { height: 18px; } }
  @media (min-width: 2000px) { :host { font-size: 14px; } button, input, select { height: 28px; } input[type="number"] { width: 76px; } .histogram { height: 28px; width: 140px; } .status { height: 26px; } .tag text { font-size: 12px; } }
  @media (forced-colors: active) { button[aria-pressed="true"] { outline: 2px solid Highlight; outline-offset: -2px; } .stage, canvas, .swatch { forced-color-adjust: none; } }
`;
