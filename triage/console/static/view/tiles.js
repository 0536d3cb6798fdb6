// Tiles of one scan: asked for in the order in which they are wanted, checked, kept within bounds, gone with the scan.
// A tile is handed on only if its scan, hash, place, size and CRC are those that were asked for.
import {crc32} from './crc32.js';

const AT_ONCE = 4; // a browser has six connections to one address, and the page's stream of events holds one
const BUDGET_BYTES = 192e6;
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

/** A tile that is not what was asked for; `reason` is for a person. */
export class TileRefused extends Error {}

/** Say why an answer is not the tile that was asked for; null if it is. `bytes` is its body. */
export function whyRefused(headers, bytes, asked) {
  const told = (name) => headers.get(name) ?? '';
  if (told('X-Scan-Id') !== asked.scanId) return `it is of scan ${told('X-Scan-Id') || '(none named)'}, not ${asked.scanId}`;
  if (told('X-Content-SHA256') !== asked.sha256) return `it was made from a recording with hash ${told('X-Content-SHA256').slice(0, 12) || '(none)'}…, not ${asked.sha256.slice(0, 12)}…`;
  if (told('X-Tile') !== asked.name) return `it is tile ${told('X-Tile') || '(none named)'}, not ${asked.name}`;
  if (told('X-Tile-Size') !== `${asked.width}x${asked.height}`) return `its size is ${told('X-Tile-Size') || '(none)'}, not ${asked.width}x${asked.height}`;
  if (asked.form === 'u16' && bytes.length !== 2 * asked.width * asked.height) return `it has ${bytes.length} bytes, not ${2 * asked.width * asked.height}`;
  const crc = crc32(bytes).toString(16).padStart(8, '0');
  if (told('X-Tile-CRC32') !== crc) return `its CRC-32 is ${crc}, not the ${told('X-Tile-CRC32') || '(none)'} it was sent with`;
  return null;
}

/** Width and height of a level, pixels. */
export function sizeOf(scan, level) {
  let {columns, rows} = scan;
  for (let n = 0; n < level; n += 1) { columns = Math.ceil(columns / 2); rows = Math.ceil(rows / 2); }
  return {columns, rows};
}

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
function words(bytes) {
  if (!LITTLE_ENDIAN) for (let i = 0; i < bytes.length; i += 2) [bytes[i], bytes[i + 1]] = [bytes[i + 1], bytes[i]];
  return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
}

/**
 * The tiles of one scan. `form`: 'u16' gives {data: Uint16Array}, 'png' {bitmap: ImageBitmap} drawn by the server.
 * onTile(entry), onDrop(entry), onRefused({tile, reason}), onError({tile, status, text})
 */
export class TileStore {
  constructor(scan, {form = 'u16', onTile, onDrop = () => {}, onRefused, onError, budget = BUDGET_BYTES}) {
    Object.assign(this, {scan, form, onTile, onDrop, onRefused, onError, budget});
    this.entries = new Map(); // name -> entry, least recently used first
    this.refused = new Map(); // name -> reason: never asked for again
    this.wanted = []; // requests, most wanted first
    this.running = new Map(); // name -> AbortController
    this.failures = new Map(); // name -> {count, until}
    this.bytes = 0;
    this.closed = false;
  }

  /** The name of a tile: the one its answer must carry. */
  static nameOf(energy, level, tx, ty, reduce) { return `${energy}/${level}/${tx}/${ty}/${reduce}`; }

  /** The tile if it is here. `quiet` leaves its age as it is. */
  get(name, quiet = false) {
    const entry = this.entries.get(name);
    if (entry && !quiet) { this.entries.delete(name); this.entries.set(name, entry); }
    return entry;
  }

  /** Say which tiles are wanted now, most wanted first: [{energy, level, tx, ty, reduce, query}]. Others under way are stopped. */
  want(requests) {
    if (this.closed) return;
    this.wanted = requests.map((r) => ({...r, name: TileStore.nameOf(r.energy, r.level, r.tx, r.ty, r.reduce), query: r.query ?? ''}));
    const names = new Set(this.wanted.map((r) => r.name + r.query));
    for (const [key, abort] of this.running) if (!names.has(key)) { abort.abort(); this.running.delete(key); }
    this.#start();
  }

  #missing(request) {
    if (this.refused.has(request.name) || this.running.has(request.name + request.query)) return false;
    const entry = this.entries.get(request.name);
    if (entry && entry.query === request.query) return false;
    return (this.failures.get(request.name)?.until ?? 0) <= performance.now();
  }

  #start() {
    if (this.closed) return;
    for (const request of this.wanted) {
      if (this.running.size >= AT_ONCE) return;
      if (this.#missing(request)) this.#fetch(request);
    }
  }

  async #fetch(request) {
    const {scan, form} = this;
    const key = request.name + request.query;
    const abort = new AbortController();
    this.running.set(key, abort);
    const level = sizeOf(scan, request.level);
    const asked = {
      scanId: scan.scan_id, sha256: scan.sha256, name: request.name, form,
      width: Math.min(scan.tile, level.columns - request.tx * scan.tile), height: Math.min(scan.tile, level.rows - request.ty * scan.tile),
    };
    const path = [scan.scan_id, scan.sha256, request.energy, request.level, request.tx, request.ty].map(encodeURIComponent).join('/');
    try {
      const answer = await fetch(`/tile/${path}.${form}?reduce=${request.reduce}${request.query}`, {signal: abort.signal, priority: request.low ? 'low' : 'high'});
      if (!answer.ok) {
        const text = (await answer.json().catch(() => ({}))).error ?? answer.statusText;
        if (answer.status >= 400 && answer.status < 500) this.refused.set(request.name, text);
        throw Object.assign(new Error(text), {status: answer.status});
      }
      const bytes = new Uint8Array(await answer.arrayBuffer());
      if (this.closed || abort.signal.aborted) return;
      const reason = whyRefused(answer.headers, bytes, asked);
      if (reason) throw new TileRefused(reason);
      const entry = {...request, width: asked.width, height: asked.height, bytes: bytes.length};
      if (form === 'u16') entry.data = words(bytes);
      else { entry.bitmap = await createImageBitmap(new Blob([bytes], {type: 'image/png'})); entry.bytes = 4 * asked.width * asked.height; }
      if (this.closed || abort.signal.aborted) { entry.bitmap?.close(); return; }
      this.failures.delete(request.name);
      this.#keep(entry);
      this.onTile(entry);
    } catch (error) {
      if (this.closed || abort.signal.aborted) return;
      if (error instanceof TileRefused) {
        this.refused.set(request.name, error.message);
        this.onRefused({tile: request.name, reason: error.message});
      } else this.#failed(request, error);
    } finally {
      if (this.running.get(key) === abort) this.running.delete(key);
      this.#start();
    }
  }

  #failed(request, error) {
    const count = (this.failures.get(request.name)?.count ?? 0) + 1;
    const wait = RETRY_MS[Math.min(count, RETRY_MS.length) - 1];
    this.failures.set(request.name, {count, until: performance.now() + wait});
    if (!this.refused.has(request.name)) setTimeout(() => this.#start(), wait + 5);
    this.onError({tile: request.name, status: error.status ?? 0, text: error.message, count});
  }

  #keep(entry) {
    const before = this.entries.get(entry.name);
    if (before) this.#drop(before);
    this.entries.set(entry.name, entry);
    this.bytes += entry.bytes;
    const needed = new Set(this.wanted.map((r) => r.name));
    for (const old of this.entries.values()) {
      if (this.bytes <= this.budget) break;
      if (!needed.has(old.name)) this.#drop(old);
    }
  }

  #drop(entry) {
    this.entries.delete(entry.name);
    this.bytes -= entry.bytes;
    this.onDrop(entry);
    entry.bitmap?.close();
  }

  /** Tiles that are wanted and not here, and of those the ones whose last try failed. */
  get state() {
    const missing = this.wanted.filter((r) => !this.refused.has(r.name) && this.entries.get(r.name)?.query !== r.query);
    return {missing: missing.length, failing: missing.filter((r) => this.failures.has(r.name)).length, refused: this.refused.size};
  }

  close() {
    this.closed = true;
    for (const abort of this.running.values()) abort.abort();
    this.running.clear();
    for (const entry of [...this.entries.values()]) this.#drop(entry);
    this.wanted = [];
  }
}
