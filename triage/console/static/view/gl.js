// Pictures by WebGL2: 16-bit integer textures, one colour table of 65,536 entries, all arithmetic on whole numbers.
import {hatchNumber, MAX_CLASSES, OPAQUE_RGB} from './look.js';

const VERTEX = `#version 300 es
uniform vec4 u_rect; // x0, y0, x1, y1 of the quad, clip space
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  gl_Position = vec4(mix(u_rect.xy, u_rect.zw, corner), 0.0, 1.0);
}`;

/** The shader that does just what a look needs: a processor that stands in for a graphics card pays for every branch. */
const fragment = ({taps, min, edge, material, opaque}) => `#version 300 es
precision highp float; precision highp int; precision highp usampler2D; precision highp sampler2D;
uniform usampler2D u_shown, u_low;
uniform sampler2D u_lut;
uniform float u_height;      // of the canvas, device pixels
uniform vec2 u_pane;         // left, top of the pane, device pixels
uniform vec2 u_start, u_per; // pixel of the tile at the pane's corner; tile pixels per device pixel
uniform ivec2 u_last;        // of the tile
uniform uint u_opaque;
uniform vec4 u_within;       // device pixels in which what is too dark is hatched
uniform float u_white;
uniform vec2 u_t;                    // transmission between which a ratio means anything
uniform int u_classes;
uniform vec4 u_class[${MAX_CLASSES}]; // ratio from, to, hatch
uniform vec3 u_rgb[${MAX_CLASSES}];
uniform vec3 u_hatch_rgb;
out vec4 colour;

uint at(usampler2D tile, ivec2 p) { return texelFetch(tile, clamp(p, ivec2(0), u_last), 0).r; }
uint summed(usampler2D tile, vec2 p) { // 3 x 3
  ivec2 q = clamp(ivec2(floor(p)), ivec2(0), u_last);
  uint sum = 0u;
  for (int y = -1; y <= 1; y++) for (int x = -1; x <= 1; x++) sum += at(tile, q + ivec2(x, y));
  return sum;
}
uint value(usampler2D tile, vec2 p) {
  ${edge ? `int v = int(at(tile, ivec2(floor(p)))); // v + (v - mean), rounded
  return min(uint(max(0, 36 * v - 2 * int(summed(tile, p)) + 9)) / 18u, uint(u_white));`
    : taps === 1 ? 'return at(tile, ivec2(floor(p)));'
      : `vec2 d = 0.25 * u_per;
  ivec2 a = clamp(ivec2(floor(p - d)), ivec2(0), u_last), b = clamp(ivec2(floor(p + d)), ivec2(0), u_last);
  uint v0 = texelFetch(tile, a, 0).r, v1 = texelFetch(tile, ivec2(b.x, a.y), 0).r, v2 = texelFetch(tile, ivec2(a.x, b.y), 0).r, v3 = texelFetch(tile, b, 0).r;
  return ${min ? 'min(min(v0, v1), min(v2, v3))' : '(v0 + v1 + v2 + v3 + 2u) >> 2'};`}
}
// a ratio of single pixels is mostly noise
float around(usampler2D tile, vec2 p) { return clamp(float(summed(tile, p)) / 9.0 / u_white, 1e-6, 1.0); }
bool hatched(int kind, ivec2 p) {
  if (kind == 1) return ((p.x + p.y) & 7) < 2;
  if (kind == 2) return ((p.x + p.y) & 7) < 1 || ((p.x - p.y) & 7) < 1;
  return kind == 3 && (p.x & 7) < 2 && (p.y & 7) < 2;
}
void main() {
  vec2 frag = vec2(gl_FragCoord.x, u_height - gl_FragCoord.y);
  vec2 p = u_start + (frag - u_pane) * u_per;
  uint v = value(u_shown, p);
  vec3 c = texelFetch(u_lut, ivec2(int(v & 255u), int(v >> 8)), 0).rgb;
  ${material ? `float th = around(u_shown, p), tl = around(u_low, p);
  if (th >= u_t.x && th <= u_t.y) {
    float ratio = log(tl) / min(log(th), -1e-9);
    float light = 0.35 + 0.65 * c.r;
    for (int n = 0; n < u_classes; n++) {
      if (ratio >= u_class[n].x && ratio < u_class[n].y) {
        if (hatched(int(u_class[n].z), ivec2(floor(frag)))) light *= 0.72;
        c = floor(u_rgb[n] * light + 0.5) / 255.0;
      }
    }
  }` : ''}
  ${opaque ? `bool inside = all(greaterThan(frag, u_within.xy)) && all(lessThan(frag, u_within.zw));
  ivec2 pixel = ivec2(frag);
  c = v < u_opaque && inside && ((pixel.x + pixel.y) & 7) < 2 ? u_hatch_rgb : c;` : ''}
  colour = vec4(c, 1.0);
}`;

function compiled(gl, kind, source) {
  const shader = gl.createShader(kind);
  gl.shaderSource(shader, source);
  gl.compileShader(shader);
  if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost()) throw new Error(`shader: ${gl.getShaderInfoLog(shader)}`);
  return shader;
}

export class GlRenderer {
  /** Raises where there is no WebGL2. */
  constructor(canvas) {
    this.name = 'webgl2';
    this.form = 'u16';
    this.canvas = canvas;
    this.gl = canvas.getContext('webgl2', {alpha: false, antialias: false, depth: false, stencil: false, powerPreference: 'high-performance'});
    if (!this.gl) throw new Error('the browser gives no WebGL2');
    this.textures = new Map(); // entry -> texture
    this.prepare();
  }

  /** Make program and tables; again after a lost context came back. */
  prepare() {
    const {gl} = this;
    this.textures.clear();
    this.programs = new Map();
    for (const taps of [1, 4]) this.#program({taps, opaque: true}); // says at once if nothing can be drawn
    gl.bindVertexArray(gl.createVertexArray());
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 2);
    this.lut = gl.createTexture();
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_2D, this.lut);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, 256, 256);
    this.#nearest();
    this.lutVersion = -1;
  }

  #program(how) {
    const key = ['taps', 'min', 'edge', 'material', 'opaque'].map((name) => Number(how[name] ?? 0)).join();
    if (!this.programs.has(key)) {
      const {gl} = this;
      const program = gl.createProgram();
      gl.attachShader(program, compiled(gl, gl.VERTEX_SHADER, VERTEX));
      gl.attachShader(program, compiled(gl, gl.FRAGMENT_SHADER, fragment(how)));
      gl.linkProgram(program);
      if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(`shader: ${gl.getProgramInfoLog(program)}`);
      const places = {};
      const at = (name) => { if (!(name in places)) places[name] = gl.getUniformLocation(program, name); return places[name]; };
      this.programs.set(key, {program, at});
    }
    return this.programs.get(key);
  }

  get lost() { return this.gl.isContextLost(); }

  #nearest() {
    const {gl} = this;
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  }

  has(entry) { return this.textures.has(entry); }

  take(entry) {
    const {gl} = this;
    const texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.R16UI, entry.width, entry.height);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, entry.width, entry.height, gl.RED_INTEGER, gl.UNSIGNED_SHORT, entry.data);
    this.#nearest();
    this.textures.set(entry, texture);
  }

  drop(entry) {
    const texture = this.textures.get(entry);
    if (texture) { this.gl.deleteTexture(texture); this.textures.delete(entry); }
  }

  clear([r, g, b]) {
    const {gl} = this;
    gl.disable(gl.SCISSOR_TEST);
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(r / 255, g / 255, b / 255, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
  }

  /** Draw panes of {x, y, w, h, sx, sy, left, top, within, items}, device pixels; the look is of the whole picture. */
  draw(panes, look, surround) {
    const {gl} = this;
    this.clear(surround);
    if (this.lutVersion !== look.version) {
      gl.activeTexture(gl.TEXTURE2);
      gl.bindTexture(gl.TEXTURE_2D, this.lut);
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, 256, 256, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(look.lut.buffer));
      this.lutVersion = look.version;
    }
    this.used = null;
    for (const [n, pane] of panes.entries()) {
      if (n) this.#over(pane);
      for (const item of pane.items) this.#quad(pane, item, look);
    }
    gl.disable(gl.SCISSOR_TEST);
  }

  /** Clear what a later pane covers. */
  #over(pane) {
    const {gl, canvas} = this;
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(pane.x, canvas.height - pane.y - pane.h, pane.w, pane.h);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.disable(gl.SCISSOR_TEST);
  }

  /** Take a program into use, with what is the same for all quads. */
  #use(how, look) {
    const {gl} = this;
    const found = this.#program(how);
    if (this.used === found) return found.at;
    this.used = found;
    const {at} = found;
    gl.useProgram(found.program);
    gl.uniform1i(at('u_shown'), 0);
    gl.uniform1i(at('u_low'), 1);
    gl.uniform1i(at('u_lut'), 2);
    gl.uniform1f(at('u_height'), this.canvas.height);
    gl.uniform1f(at('u_white'), look.white);
    if (how.opaque) { gl.uniform1ui(at('u_opaque'), look.opaque); gl.uniform3f(at('u_hatch_rgb'), ...OPAQUE_RGB.map((c) => c / 255)); }
    if (how.material) {
      const {t_min: from, t_max: to, classes} = look.material;
      gl.uniform2f(at('u_t'), from, to);
      gl.uniform1i(at('u_classes'), classes.length);
      gl.uniform4fv(at('u_class'), classes.flatMap((c) => [c.ratio_from, c.ratio_to, hatchNumber(c.hatch), 0]));
      gl.uniform3fv(at('u_rgb'), classes.flatMap((c) => c.rgb));
    }
    return at;
  }

  #quad(pane, item, look) {
    const {gl, canvas} = this;
    const {rect, per, start, shown, low} = item;
    const at = this.#use({taps: item.taps, min: look.reduce === 'min', edge: look.edge, material: Boolean(low), opaque: look.opaque > 0}, look);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.textures.get(shown));
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.textures.get(low ?? shown));
    gl.uniform2f(at('u_pane'), pane.x, pane.y);
    gl.uniform4f(at('u_within'), ...pane.within);
    gl.uniform2f(at('u_start'), start[0], start[1]);
    gl.uniform2f(at('u_per'), per[0], per[1]);
    gl.uniform2i(at('u_last'), shown.width - 1, shown.height - 1);
    gl.uniform4f(at('u_rect'), (2 * rect.x0) / canvas.width - 1, 1 - (2 * rect.y0) / canvas.height, (2 * rect.x1) / canvas.width - 1, 1 - (2 * rect.y1) / canvas.height);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  /** The drawn pixels, (height, width, RGBA), row 0 on top: only in the task in which they were drawn. */
  read() {
    const {gl, canvas: {width, height}} = this;
    const flipped = new Uint8Array(4 * width * height);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, flipped);
    const out = new Uint8ClampedArray(flipped.length);
    for (let y = 0; y < height; y += 1) out.set(flipped.subarray(4 * width * (height - 1 - y), 4 * width * (height - y)), 4 * width * y);
    return new ImageData(out, width, height);
  }
}
