// The page without a server: in the place of api.js, the same functions by ONNX Runtime Web in this browser.
import { encodePng } from "./png.js";

export const ALONE = true;
const MOST_PIXELS = 2 ** 21; // of an image that is segmented whole
const SAME = 0.999; // of the labels, for WebGPU to be right
const state = { models: [], runtimes: new Map(), tried: new Map(), queue: Promise.resolve() };

export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setToken() {}

export async function readModels() {
  state.models = (await json("models.json")).models;
  return state.models;
}

export async function readSamples() {
  return (await json("page/samples.json")).samples;
}

async function json(path) {
  const answer = await fetch(path).catch(() => null);
  if (!answer?.ok) throw new Problem(answer?.status ?? 0, `${path} can't be read: open this page from a web server, such as python -m http.server.`);
  return answer.json();
}

// Segment the bytes of an image file; one image after the other.
export async function segment(file, options, signal) {
  const turn = state.queue.then(() => segmentNow(file, options, signal));
  state.queue = turn.catch(() => {});
  return turn;
}

async function segmentNow(file, { model: name }, signal) {
  signal?.throwIfAborted();
  const model = state.models.find((one) => one.name === name), begin = performance.now();
  const image = await decode(file), decoded = performance.now();
  const { labels, took } = await run(model, image);
  signal?.throwIfAborted();
  const counts = new Uint32Array(256);
  for (const label of labels) counts[label]++;
  const classes = model.classes.map(({ label, name: title }) => ({ label, name: title, pixels: counts[label], fraction: counts[label] / labels.length }))
    .filter((one) => one.pixels).sort((a, b) => b.pixels - a.pixels);
  const { width, height, notes } = image;
  const mask = await encodePng(labels, width, height, model.classes.map((one) => one.color));
  return {
    model: model.name, width, height, classes, labels, label_set: model.classes, mask: base64(mask), notes: [...notes, state.tried.get(model.name)].filter(Boolean),
    timings: { decode: decoded - begin, queue: 0, compute: took }, elapsed: performance.now() - begin };
}

// The pixels of an image file as Atrous reads it: upright, without colour profile, over white, RGB row by row.
async function decode(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => null);
  if (!bitmap) throw new Problem(415, "This browser can't read the image: expected JPEG, PNG, WebP or AVIF.");
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * scale)));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height), pixels = new Uint8Array(3 * width * height);
  for (let at = 0, from = 0; at < pixels.length; from += 4) for (let part = 0; part < 3; part++) pixels[at++] = data[from + part];
  const notes = scale < 1 ? [`made smaller for this browser: ${width}×${height} of ${bitmap.width}×${bitmap.height} pixels`] : [];
  return { width, height, pixels, notes };
}

function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

// ---- runtimes: WASM, and WebGPU where it was seen to be right and faster on the first image --------------------------

async function run(model, image) {
  const chosen = state.runtimes.get(model.name);
  if (chosen) {
    try {
      return await chosen.run(image);
    } catch (error) {
      if (chosen.kind === "wasm") throw new Problem(0, `ONNX Runtime failed: ${error.message}`);
      state.tried.set(model.name, `Computed with WASM: WebGPU failed (${error.message}).`); // a GPU may be lost at any time
      state.runtimes.set(model.name, new Runtime("wasm", model));
      return run(model, image);
    }
  }
  const wasm = new Runtime("wasm", model);
  state.runtimes.set(model.name, wasm);
  const found = await wasm.run(image).catch((error) => { throw new Problem(0, `ONNX Runtime failed: ${error.message}`); });
  await tryGpu(model, image, wasm, found.labels).catch((error) => { state.tried.set(model.name, `Computed with WASM: WebGPU failed (${error.message}).`); });
  return found;
}

async function tryGpu(model, image, wasm, expected) {
  const threads = wasm.threads > 1 ? `in ${wasm.threads} threads` : "in one thread";
  state.tried.set(model.name, `Computed with WASM ${threads}; this browser has no WebGPU.`);
  if (!model.webgpu || !(await navigator.gpu?.requestAdapter())) return;
  const gpu = new Runtime("webgpu", model);
  try {
    await gpu.run(image); // shaders are compiled
    const other = await gpu.run(image), own = await wasm.run(image);
    let equal = 0;
    for (let at = 0; at < expected.length; at++) equal += expected[at] === other.labels[at];
    const share = equal / expected.length, times = `${Math.round(own.took)} ms with WASM ${threads}, ${Math.round(other.took)} ms with WebGPU`;
    const better = share >= SAME && other.took < own.took;
    state.tried.set(model.name, better ? `Computed with WebGPU: ${times}, and the same labels.` : `Computed with WASM: ${times}${share < SAME ? `, of whose labels ${(100 * (1 - share)).toFixed(1)} % were wrong` : ""}.`);
    if (better) state.runtimes.set(model.name, gpu);
    (better ? wasm : gpu).end();
  } catch (error) {
    gpu.end();
    throw error;
  }
}

// A model in a worker of its own, so that the page never waits.
class Runtime {
  #worker; #ready;

  constructor(kind, model) {
    this.kind = kind;
    this.threads = 1;
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#ready = this.#ask({ kind, model: new URL(model.file, location.href).href }).then(({ threads }) => { this.threads = threads; });
  }

  async run({ pixels, width, height }) {
    await this.#ready;
    return this.#ask({ pixels, width, height });
  }

  end() { this.#worker.terminate(); }

  #ask(message) {
    return new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
      this.#worker.onerror = (event) => reject(new Error(event.message || "its files can't be loaded"));
      this.#worker.postMessage(message);
    });
  }
}
