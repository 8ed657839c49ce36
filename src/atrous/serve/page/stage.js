// An image with its mask over it, and a cursor that says what is under it.
const LARGEST = 1600; // longest side of what is drawn; labels are kept at the image's own size

export class Stage {
  #box; #photo; #paint; #cross; #line; #result = null; #at = null;

  constructor(box, onCursor) {
    this.#box = box;
    const sheet = document.createElement("div");
    sheet.className = "sheet";
    [this.#photo, this.#paint] = [document.createElement("canvas"), document.createElement("canvas")];
    [this.#line, this.#cross] = ["line", "cross"].map((name) => {
      const element = document.createElement("span");
      element.className = name;
      element.hidden = true;
      return element;
    });
    sheet.append(this.#photo, this.#paint, this.#line, this.#cross);
    box.append(sheet);
    this.cut = 0;
    const point = (event) => {
      const place = this.#photo.getBoundingClientRect();
      onCursor((event.clientX - place.left) / place.width, (event.clientY - place.top) / place.height);
    };
    sheet.addEventListener("pointermove", point);
    sheet.addEventListener("pointerdown", point);
    box.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.002 : 0.02;
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (!moves[event.key] || !this.#result) return;
      event.preventDefault();
      const [x, y] = this.#at ?? [0.5, 0.5];
      onCursor(x + moves[event.key][0], y + moves[event.key][1]);
    });
  }

  set opacity(value) { this.#box.style.setProperty("--opacity", value); }

  set cut(value) {
    this.#box.style.setProperty("--cut", `${100 * value}%`);
    this.#line.hidden = value <= 0 || value >= 1;
  }

  // Show a photo (an ImageBitmap, or null where the browser can't decode it) of a size in pixels.
  showPhoto(bitmap, width, height) {
    const scale = Math.min(1, LARGEST / Math.max(width, height));
    for (const canvas of [this.#photo, this.#paint]) {
      canvas.width = Math.max(1, Math.round(width * scale));
      canvas.height = Math.max(1, Math.round(height * scale));
    }
    const context = this.#photo.getContext("2d");
    if (bitmap) context.drawImage(bitmap, 0, 0, this.#photo.width, this.#photo.height);
    this.#result = null;
    this.#cross.hidden = true;
    this.#at = null;
  }

  // Paint a result: its classes in their colours except hidden ones, or a map of weights as heat.
  paint(result, hidden, weights = null) {
    this.#result = result;
    const { width, height, labels, colors } = result;
    const canvas = this.#paint, context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const words = new Uint32Array(image.data.buffer);
    const table = weights ? HEAT : colors.map((color, label) => (hidden.has(label) ? 0 : word(color)));
    const values = weights ?? labels;
    for (let y = 0; y < canvas.height; y++) {
      const row = Math.floor(((y + 0.5) * height) / canvas.height) * width;
      for (let x = 0; x < canvas.width; x++)
        words[y * canvas.width + x] = table[values[row + Math.floor(((x + 0.5) * width) / canvas.width)]] ?? 0;
    }
    context.putImageData(image, 0, 0);
  }

  // Move the cursor to a place, 0 to 1 from the left and from the top; returns what is there.
  moveTo(x, y) {
    if (!this.#result) return null;
    const { width, height, labels, confidence } = this.#result;
    this.#at = [x, y] = [x, y].map((part) => Math.min(Math.max(part, 0), 1));
    this.#cross.hidden = false;
    this.#cross.style.left = `${100 * x}%`;
    this.#cross.style.top = `${100 * y}%`;
    const [column, row] = [Math.min(width - 1, Math.floor(x * width)), Math.min(height - 1, Math.floor(y * height))];
    const at = row * width + column;
    return { column, row, label: labels[at], confidence: confidence ? confidence[at] / 255 : null };
  }
}

// A colour as a pixel's word, little-endian; black (VOC's background) is not painted.
function word(color) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return r + g + b === 0 ? 0 : (255 << 24 | b << 16 | g << 8 | r) >>> 0;
}

// 256 colours from dark blue over green to yellow, lighter with the value.
const HEAT = Array.from({ length: 256 }, (_, i) => {
  const t = i / 255;
  const [r, g, b] = [255 * Math.min(1, Math.max(0, 1.9 * t - 0.75)), 255 * Math.min(1, 0.05 + 0.9 * t), 255 * (0.35 + 0.35 * Math.sin(Math.PI * (t + 0.12)) - 0.3 * t)];
  return (255 << 24 | Math.round(Math.max(0, b)) << 16 | Math.round(g) << 8 | Math.round(r)) >>> 0;
});
