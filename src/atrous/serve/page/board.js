// A photo to draw on: strokes of classes over the mask that they led to, by pointer, finger or keyboard.
export const NONE = 255; // the label of a pixel without a stroke

export class Board {
  #box; #sheet; #photo; #mask; #ink; #brush; #ended; #photoShown = null; #stroke = null; #at = [0.5, 0.5];

  // `tool` tells what is drawn with: { label, width }, the label NONE for erasing, the width in pixels of the screen.
  constructor(box, { tool, ended }) {
    [this.#box, this.tool, this.#ended] = [box, tool, ended];
    this.#sheet = document.createElement("div");
    this.#sheet.className = "sheet";
    [this.#photo, this.#mask, this.#ink] = ["photo", "mask", "ink"].map((name) => {
      const canvas = document.createElement("canvas");
      canvas.className = name;
      return canvas;
    });
    this.#brush = document.createElement("span");
    this.#brush.className = "brush";
    this.#brush.hidden = true;
    this.#sheet.append(this.#photo, this.#mask, this.#ink, this.#brush);
    box.append(this.#sheet);
    this.#listenToPointer();
    this.#listenToKeys();
  }

  set opacity(value) { this.#box.style.setProperty("--opacity", value); }

  // Show a photo: { bitmap, width, height, ink, mask }, ink and mask being labels row by row.
  show(photo, colors) {
    this.#photoShown = photo;
    for (const canvas of [this.#photo, this.#mask, this.#ink]) [canvas.width, canvas.height] = [photo.width, photo.height];
    this.#photo.getContext("2d").drawImage(photo.bitmap, 0, 0);
    this.#brush.hidden = true;
    this.paint(colors);
  }

  // Paint strokes and mask again, in the colours of the classes.
  paint(colors) {
    this.colors = colors;
    const { width, height, ink, mask } = this.#photoShown;
    paintInto(this.#ink, ink, width, [0, 0, width, height], colors);
    if (mask) paintInto(this.#mask, mask, width, [0, 0, width, height], colors);
    else this.#mask.getContext("2d").clearRect(0, 0, width, height);
  }

  // ---- drawing --------------------------------------------------------------------------------------------------------

  #begin(x, y) {
    if (!this.#photoShown) return;
    const { label, width } = this.tool();
    const radius = (0.5 * width * this.#photoShown.width) / this.#photo.getBoundingClientRect().width;
    this.#stroke = { label, radius: Math.max(radius, 0.7), points: [] };
    this.#extend(x, y);
  }

  #extend(x, y) {
    const { width, height, ink } = this.#photoShown, { points } = this.#stroke;
    const point = [x * width, y * height];
    points.push(point);
    const touched = stamp(ink, width, height, points.at(-2) ?? point, point, this.#stroke);
    paintInto(this.#ink, ink, width, touched, this.colors);
  }

  #end() {
    if (!this.#stroke) return;
    this.#photoShown.strokes.push(this.#stroke);
    this.#stroke = null;
    this.#brush.classList.remove("down");
    this.#ended();
  }

  #place(event) {
    const place = this.#photo.getBoundingClientRect();
    return [(event.clientX - place.left) / place.width, (event.clientY - place.top) / place.height];
  }

  #showBrush(x, y) {
    const { label, width } = this.tool(), size = `${Math.max(width, 4)}px`;
    this.#at = [x, y];
    Object.assign(this.#brush.style, { left: `${100 * x}%`, top: `${100 * y}%`, width: size, height: size, background: this.colors?.[label] ?? "none" });
    this.#brush.hidden = false;
  }

  #listenToPointer() {
    this.#sheet.addEventListener("pointerdown", (event) => {
      if (event.button || this.#stroke) return;
      event.preventDefault();
      this.#box.focus({ preventScroll: true });
      this.#sheet.setPointerCapture(event.pointerId);
      this.#begin(...this.#place(event));
    });
    this.#sheet.addEventListener("pointermove", (event) => {
      this.#showBrush(...this.#place(event));
      if (this.#stroke && this.#sheet.hasPointerCapture(event.pointerId))
        for (const one of event.getCoalescedEvents?.() ?? [event]) this.#extend(...this.#place(one));
    });
    for (const name of ["pointerup", "pointercancel"]) this.#sheet.addEventListener(name, () => this.#end());
    this.#sheet.addEventListener("pointerleave", () => { if (!this.#stroke) this.#brush.hidden = true; });
  }

  #listenToKeys() {
    this.#box.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.004 : 0.02;
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (event.key === " ") {
        event.preventDefault();
        this.#showBrush(...this.#at);
        if (this.#stroke) this.#end();
        else { this.#begin(...this.#at); this.#brush.classList.add("down"); }
      } else if (moves[event.key]) {
        event.preventDefault();
        this.#showBrush(...this.#at.map((part, axis) => Math.min(Math.max(part + moves[event.key][axis], 0), 0.9999)));
        if (this.#stroke) this.#extend(...this.#at);
      }
    });
    this.#box.addEventListener("blur", () => this.#end());
  }
}

// All strokes of a photo drawn again, into new labels.
export function redraw({ width, height, strokes }) {
  const ink = new Uint8Array(width * height).fill(NONE);
  for (const stroke of strokes)
    stroke.points.forEach((point, at) => stamp(ink, width, height, stroke.points[at - 1] ?? point, point, stroke));
  return ink;
}

// Give the pixels within a radius of the line between two points a label; returns the rectangle that may have changed.
function stamp(labels, width, height, [x0, y0], [x1, y1], { label, radius }) {
  const left = Math.max(0, Math.floor(Math.min(x0, x1) - radius)), right = Math.min(width, Math.ceil(Math.max(x0, x1) + radius) + 1);
  const top = Math.max(0, Math.floor(Math.min(y0, y1) - radius)), bottom = Math.min(height, Math.ceil(Math.max(y0, y1) + radius) + 1);
  const [dx, dy] = [x1 - x0, y1 - y0], length = dx * dx + dy * dy || 1;
  for (let y = top; y < bottom; y++)
    for (let x = left; x < right; x++) {
      const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
      const along = Math.min(Math.max((px * dx + py * dy) / length, 0), 1);
      if ((px - along * dx) ** 2 + (py - along * dy) ** 2 <= radius * radius) labels[y * width + x] = label;
    }
  return [left, top, Math.max(0, right - left), Math.max(0, bottom - top)];
}

// Paint a rectangle of labels into a canvas of their size; NONE is left clear.
function paintInto(canvas, labels, stride, [left, top, width, height], colors) {
  if (!width || !height) return;
  const image = new ImageData(width, height), words = new Uint32Array(image.data.buffer);
  const table = colors.map((color) => {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
    return (255 << 24 | b << 16 | g << 8 | r) >>> 0;
  });
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) words[y * width + x] = table[labels[(top + y) * stride + left + x]] ?? 0;
  canvas.getContext("2d").putImageData(image, left, top);
}
