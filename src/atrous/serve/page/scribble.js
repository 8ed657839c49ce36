// Scribble to mask: strokes on one's own images, completed by the server, and saved as a dataset.
import { Problem, complete, readModels, readSamples, setToken } from "./api.js";
import { Board, NONE, redraw } from "./board.js";
import { find, make, sampleButtons, save, setUpFiles } from "./dom.js";
import { labelsOf } from "./labels.js";
import { encodePng } from "./png.js";
import { setUpTheme } from "./theme.js";
import { zip } from "./zip.js";

const PIXELS = 2 ** 20; // larger images are made smaller, so that strokes are completed while one waits
const WIDTHS = [["sxy", "Appearance, px", 10, 200, 80], ["srgb", "Colour", 2, 40, 13], ["smoothness_sxy", "Smoothness, px", 1, 10, 3]];
const COLORS = ["#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e4c441", "#2bb3b1", "#d1495b", "#8c6d46", "#9ecae9", "#ff9da6"];
const state = { photos: [], photo: null, classes: [], label: 1, running: null, waiting: 0, saved: true };
const board = new Board(find("board"), { tool, ended: strokeEnded });
const colors = () => state.classes.map((one) => one.color);
const percent = (share) => (share > 0 && share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`);

function tool() {
  const erases = document.querySelector("[name=tool]:checked").value === "erase";
  return { label: erases ? NONE : state.label, width: Number(find("width").value) };
}

// ---- classes --------------------------------------------------------------------------------------------------------

function addClass(name) {
  if (state.classes.length === NONE) return;
  const used = colors();
  state.classes.push({ name, color: COLORS.find((color) => !used.includes(color)) ?? COLORS[state.classes.length % COLORS.length] });
  state.label = state.classes.length - 1;
  showClasses();
}

// Take a class away with its strokes; those after it move up. Masks that had it are completed again when they are needed.
function removeClass(label) {
  state.classes.splice(label, 1);
  state.label = Math.min(state.label, state.classes.length - 1);
  for (const photo of state.photos) {
    photo.strokes = photo.strokes.filter((stroke) => stroke.label !== label);
    for (const stroke of photo.strokes) if (stroke.label > label && stroke.label !== NONE) stroke.label--;
    photo.ink = redraw(photo);
    photo.mask = null;
  }
  showClasses();
  strokeEnded();
}

function showClasses() {
  find("classes").replaceChildren(...state.classes.map((one, label) => {
    const color = make("input", { type: "color", value: one.color, "aria-label": `Colour of ${one.name}` });
    color.addEventListener("input", () => { one.color = color.value; showPalette(); });
    const name = make("input", { type: "text", value: one.name, maxLength: 60, "aria-label": `Name of class ${label + 1}` });
    name.addEventListener("change", () => rename(label, name));
    name.addEventListener("focus", () => chooseClass(label));
    const remove = make("button", { type: "button", class: "remove", "aria-label": `Remove ${one.name}`, title: `Remove ${one.name}`, disabled: state.classes.length < 3 }, "×");
    remove.addEventListener("click", () => removeClass(label));
    return make("li", {}, color, name, make("span", { "data-share": `${label}` }), remove);
  }));
  showPalette();
  showShares();
}

function showPalette() {
  if (state.photo) board.paint(colors());
  find("palette").querySelectorAll("label").forEach((one) => one.remove());
  find("palette").append(...state.classes.map((one, label) => {
    const choose = make("input", { type: "radio", name: "class", value: `${label}`, checked: label === state.label });
    choose.addEventListener("change", () => chooseClass(label));
    const swatch = make("i", { "aria-hidden": "true" });
    swatch.style.background = one.color;
    return make("label", {}, choose, make("span", {}, swatch, one.name));
  }));
}

function rename(label, input) {
  const name = input.value.trim();
  if (!name || state.classes.some((other, at) => at !== label && other.name === name)) {
    say(name ? `There is a class “${name}” already: names must differ.` : "A class needs a name.");
    input.value = state.classes[label].name;
    return;
  }
  say(null);
  state.classes[label].name = name;
  showClasses();
}

function chooseClass(label) {
  if (label >= state.classes.length) return;
  state.label = label;
  find("tool").querySelector("[value=draw]").checked = true;
  find("palette").querySelectorAll("input")[label].checked = true;
}

function showShares() {
  const { photo } = state;
  for (const place of find("classes").querySelectorAll("[data-share]")) {
    const count = photo?.counts?.[place.dataset.share];
    place.textContent = photo?.mask && count !== undefined ? percent(count / photo.mask.length) : "";
  }
}

// ---- strokes to masks -----------------------------------------------------------------------------------------------

function strokeEnded() {
  state.saved = false;
  showButtons();
  clearTimeout(state.waiting);
  state.waiting = setTimeout(() => run(state.photo), 60);
}

// The strokes of a photo completed to a mask; null if they are of one class or none.
async function completed(photo, signal) {
  const drawn = new Set(photo.ink);
  drawn.delete(NONE);
  if (drawn.size < 2) return null;
  const options = { ...(find("start").value ? { model: find("start").value } : {}) };
  for (const [key] of WIDTHS) options[key] = find(key).value;
  const answer = await complete(photo.file, await encodePng(photo.ink, photo.width, photo.height, colors()), options, signal);
  return { mask: labelsOf(answer), counts: Object.fromEntries(answer.classes.map(({ label, pixels }) => [label, pixels])), answer };
}

async function run(photo) {
  if (!photo) return;
  state.running?.abort();
  const here = (state.running = new AbortController());
  busy("completing");
  try {
    const found = await completed(photo, here.signal);
    Object.assign(photo, { mask: found?.mask ?? null, counts: found?.counts });
    if (photo === state.photo) board.paint(colors());
    busy(null, found ? `${Math.round(found.answer.elapsed)} ms` : photo.strokes.length ? "Now a stroke on another class." : "");
    say(null);
    showShares();
    showPhotos();
  } catch (error) {
    if (error.name !== "AbortError") { busy(null); fail(error); }
  }
}

function undo() {
  const { photo } = state;
  if (!photo?.strokes.length) return;
  photo.strokes.pop();
  photo.ink = redraw(photo);
  board.paint(colors());
  strokeEnded();
}

function clear() {
  const { photo } = state;
  Object.assign(photo, { strokes: [], mask: null });
  photo.ink = redraw(photo);
  board.paint(colors());
  strokeEnded();
}

// ---- photos ---------------------------------------------------------------------------------------------------------

async function take(files) {
  for (const file of files) {
    const whole = await createImageBitmap(file).catch(() => null);
    if (!whole) { say(`${file.name}: this browser can't read it. It reads JPEG, PNG, WebP and AVIF.`); continue; }
    add(whole, file.name || "pasted");
  }
}

// The image as it is drawn on, sent and saved: upright, at most PIXELS large, as a PNG.
async function add(whole, name) {
  const scale = Math.min(1, Math.sqrt(PIXELS / (whole.width * whole.height)));
  const [width, height] = [whole.width, whole.height].map((side) => Math.max(1, Math.floor(side * scale)));
  const canvas = make("canvas", { width, height }), context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // under transparent parts, as everywhere in Atrous
  context.fillRect(0, 0, width, height);
  context.drawImage(whole, 0, 0, width, height);
  const file = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  const photo = { name: unique(name), bitmap: canvas, file, width, height, reduced: scale < 1, strokes: [], mask: null, ink: new Uint8Array(width * height).fill(NONE) };
  state.photos.push(photo);
  open(photo);
}

function unique(name) {
  const plain = name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}_-]+/gu, "_").slice(0, 80) || "image";
  const taken = new Set(state.photos.map((photo) => photo.name.toLowerCase())); // some disks do not tell cases apart
  let found = plain;
  for (let number = 2; taken.has(found.toLowerCase()); number++) found = `${plain}-${number}`;
  return found;
}

function open(photo) {
  state.photo = photo;
  board.show(photo, colors());
  find("board").classList.add("filled");
  busy(null, photo.reduced ? `made smaller: ${photo.width}×${photo.height}` : "");
  showPhotos();
  showShares();
  showButtons();
  if (photo.strokes.length && !photo.mask) run(photo);
}

function removePhoto(photo) {
  state.photos = state.photos.filter((other) => other !== photo);
  if (state.photo !== photo) { showPhotos(); return; }
  if (state.photos.length) { open(state.photos.at(-1)); return; }
  state.photo = null;
  location.reload();
}

function showPhotos() {
  find("photos").replaceChildren(...(state.photos.length < 2 ? [] : state.photos).map((photo) => {
    const small = make("canvas", { width: 134, height: 102 }), context = small.getContext("2d");
    const scale = Math.max(134 / photo.width, 102 / photo.height), [w, h] = [photo.width * scale, photo.height * scale];
    context.drawImage(photo.bitmap, (134 - w) / 2, (102 - h) / 2, w, h);
    const button = make("button", { type: "button", class: `photo${photo.mask ? " done" : ""}`, "aria-pressed": `${photo === state.photo}`, "aria-label": `${photo.name}${photo.mask ? ", with a mask" : ""}` }, small);
    button.addEventListener("click", () => open(photo));
    const remove = make("button", { type: "button", class: "remove", "aria-label": `Remove image ${photo.name}` }, "×");
    remove.addEventListener("click", () => removePhoto(photo));
    return make("div", {}, button, remove);
  }));
  const done = state.photos.filter((photo) => photo.mask).length;
  find("collected").textContent = state.photos.length ? `${done} of ${state.photos.length} image${state.photos.length > 1 ? "s" : ""} with a mask.` : "No images yet.";
  find("save").disabled = !done;
}

// ---- the dataset ----------------------------------------------------------------------------------------------------

async function saveDataset() {
  try {
    for (const photo of state.photos) if (photo.strokes.length && !photo.mask) await run(photo);
    const done = state.photos.filter((photo) => photo.mask), folder = "scribbles", files = [];
    for (const photo of done) {
      files.push([`${folder}/images/${photo.name}.png`, new Uint8Array(await photo.file.arrayBuffer())]);
      files.push([`${folder}/masks/${photo.name}.png`, await encodePng(photo.mask, photo.width, photo.height, colors())]);
    }
    const triples = colors().map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
    const toml = `names = ${JSON.stringify(state.classes.map((one) => one.name))}\ncolors = ${JSON.stringify(triples)}\n`;
    files.push([`${folder}/labels.toml`, new TextEncoder().encode(toml)]);
    save(zip(files), "application/zip", `${folder}.zip`);
    state.saved = true;
  } catch (error) {
    fail(error);
  }
}

// ---- the page -------------------------------------------------------------------------------------------------------

function showButtons() {
  find("undo").disabled = find("clear").disabled = !state.photo?.strokes.length;
}

function busy(what, done = "") {
  find("busy").classList.toggle("on", Boolean(what));
  find("busy").textContent = what ? `${what} …` : done;
}

function say(text) {
  find("problem").hidden = !text;
  find("problem").textContent = text ?? "";
}

function fail(error) {
  if (error.status === 401) find("ask").hidden = false;
  say(error instanceof Problem ? error.message : `${error}`);
  if (!(error instanceof Problem)) console.error(error);
}

function listenToKeys(event) {
  if (event.target.matches("input[type=text], input[type=password], select")) return;
  const width = find("width");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") { event.preventDefault(); undo(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^[1-9]$/.test(event.key)) chooseClass(Number(event.key) - 1);
  else if (event.key === "e") find("tool").querySelector("[value=erase]").checked = true;
  else if (event.key === "d") find("tool").querySelector("[value=draw]").checked = true;
  else if (event.key === "[") width.value = Number(width.value) - 2;
  else if (event.key === "]") width.value = Number(width.value) + 2;
}

async function start() {
  try {
    const models = await readModels();
    find("ask").hidden = true;
    say(null);
    if (find("start").options.length < 2)
      find("start").append(...models.filter((model) => model.probabilities).map((model) => make("option", { value: model.name }, `the network ${model.name}`)));
    const samples = await readSamples();
    find("samples").replaceChildren(...sampleButtons(samples, async ({ name, url }) => {
      const answer = await (await fetch(url)).blob();
      take([new File([answer], `${name}.jpg`)]);
    }));
  } catch (error) {
    fail(error);
  }
}

for (const [key, name, low, high, preset] of WIDTHS) {
  const input = make("input", { type: "range", id: key, min: `${low}`, max: `${high}`, value: `${preset}` });
  const output = make("output", { for: key }, `${preset}`);
  input.addEventListener("input", () => { output.textContent = input.value; });
  input.addEventListener("change", () => run(state.photo));
  find("widths").append(make("label", {}, name, input, output));
}
setUpTheme(find("theme"));
setUpFiles(find("file"), take);
addClass("background");
addClass("object");
showPhotos();
find("add").addEventListener("click", () => {
  let number = state.classes.length;
  while (state.classes.some((one) => one.name === `class ${number}`)) number++;
  addClass(`class ${number}`);
  find("classes").lastElementChild.querySelector("[type=text]").select();
});
find("undo").addEventListener("click", undo);
find("clear").addEventListener("click", clear);
find("save").addEventListener("click", saveDataset);
find("start").addEventListener("change", () => run(state.photo));
const fade = () => { board.opacity = find("opacity").value / 100; };
find("opacity").addEventListener("input", fade);
fade();
find("ask").addEventListener("submit", (event) => { event.preventDefault(); setToken(find("token").value); start(); });
addEventListener("keydown", listenToKeys);
addEventListener("beforeunload", (event) => { if (!state.saved && state.photos.some((photo) => photo.mask)) event.preventDefault(); });
start();
