// Talking to the server: models, segmentations, and its errors in words.
export const ALONE = false; // whether there is no server (alone/api.js)
let token = null;

try { token = sessionStorage.getItem("atrous-token"); } catch { /* a browser without storage */ }

export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setToken(value) {
  token = value;
  try { sessionStorage.setItem("atrous-token", value); } catch { /* it is asked for again after a reload */ }
}

async function call(path, options = {}) {
  const headers = { Accept: "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}), ...options.headers };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server can't be reached: is it running?");
  }
  if (answer.ok) return answer.json();
  const told = await answer.json().catch(() => ({}));
  throw new Problem(answer.status, told.detail ?? `The server answered ${answer.status}.`);
}

export async function readModels() {
  return (await call("models")).models;
}

export async function readSamples() {
  return (await call("page/samples.json")).samples;
}

// Segment the bytes of an image file.
export async function segment(file, options, signal) {
  const body = file.type.startsWith("image/") ? file : file.slice(0, file.size, "application/octet-stream");
  return post(`segment?${new URLSearchParams(options)}`, body, signal);
}

// Complete the strokes on an image, whose PNG has classes, and 255 where there is none.
export async function complete(file, scribbles, options, signal) {
  const form = new FormData();
  form.append("image", file, "image.png");
  form.append("scribbles", new Blob([scribbles], { type: "image/png" }), "scribbles.png");
  return post(`scribbles?${new URLSearchParams(options)}`, form, signal);
}

// A full queue is waited for.
async function post(path, body, signal) {
  const begin = performance.now();
  for (let tries = 0; ; tries++) {
    try {
      const found = await call(path, { method: "POST", body, signal });
      return { ...found, elapsed: performance.now() - begin };
    } catch (error) {
      if (error.status !== 429 || tries === 5) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
      signal?.throwIfAborted();
    }
  }
}
