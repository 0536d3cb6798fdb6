// The part of a picture that is seen, and another picture that follows it.
const REST_MS = 140; // after which a movement has ended

export const Moving = (Base) => class extends Base {
  _anchor() { if (!this.pointer) return []; const pane = this._paneAt(this.pointer); return [this.pointer.x - pane.x, this.pointer.y - pane.y]; }

  /** After a change of the viewport: draw, lead a linked picture along, and look closer once it rests. */
  _moved(lead = true) {
    this.moving = true;
    clearTimeout(this.restTimer);
    this.restTimer = setTimeout(() => this._rested(), REST_MS);
    if (lead && this.linked?.scan) this.linked.follow(this);
    this.redraw();
  }

  _rested() {
    const {port} = this;
    this.moving = false;
    this.lastFrame = 0;
    this._tell('view-range', {x0: Math.max(0, port.left), x1: Math.min(port.columns, port.left + port.w / port.scale)});
    this.redraw();
  }

  _frame() { return this.scan.container ?? {x0: 0, y0: 0, x1: this.scan.columns, y1: this.scan.rows}; }

  /** The pixel of this container where another picture has `place` in its own; null beside the picture. */
  samePlace(place, other) {
    const [from, to] = [other._frame(), this._frame()];
    const x = Math.floor(to.x0 + ((place.x + 0.5 - from.x0) * (to.x1 - to.x0)) / Math.max(1, from.x1 - from.x0));
    const y = Math.floor(to.y0 + ((place.y + 0.5 - from.y0) * (to.y1 - to.y0)) / Math.max(1, from.y1 - from.y0));
    return x >= 0 && y >= 0 && x < this.scan.columns && y < this.scan.rows ? {x, y} : null;
  }

  /** Show the same part of this container as another picture shows of its own. */
  follow(other) {
    if (!this.scan || !other.scan) return;
    const [from, to] = [other._frame(), this._frame()];
    if (other.port.fitted === 'whole') this.port.fit('whole');
    else {
      const ratio = (from.x1 - from.x0) / Math.max(1, to.x1 - to.x0);
      this.port.centre(to.x0 + (other.port.cx - from.x0) / ratio, to.y0 + ((other.port.cy - from.y0) * (to.y1 - to.y0)) / Math.max(1, from.y1 - from.y0), other.port.scale * ratio);
    }
    this._moved(false);
  }

  /** Bring a box into the middle, closer where it is small. */
  centreOn(box) {
    const {port} = this;
    const [w, h] = [Math.max(1, box.x1 - box.x0), Math.max(1, box.y1 - box.y0)];
    const close = Math.max(port.whole, Math.min(2 * this.ratio, (0.35 * port.w) / w, (0.45 * port.h) / h));
    port.centre((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, port.scale > 0.5 * close && port.scale < 2 * close ? port.scale : close);
    this._moved();
  }
};
