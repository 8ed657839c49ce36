// The page: an image, its mask, and what the four ideas change about it.
import { ALONE, Problem, readModels, readSamples, segment, setToken } from "./api.js";
import { find, make, sampleButtons, setUpFiles } from "./dom.js";
import { setUpDownloads } from "./downloads.js";
import { bytesOf, difference, greyOf, labelsOf } from "./labels.js";
import { linkTo, optionsOf, readSettings } from "./settings.js";
import { Stage } from "./stage.js";
import { setUpTheme } from "./theme.js";

const WIDTHS = [
  ["sxy", "Appearance, px", 5, 160, 67], ["srgb", "Colour", 1, 40, 3], ["smoothness_sxy", "Smoothness, px", 1, 20, 3]];
const SCALES = ["0.5", "0.75", "1", "1.25", "1.5"];
const state = {
  models: [], settings: readSettings(), file: null, name: "image", bitmap: null, results: [null, null], hidden: new Set(),
  times: new Map(), before: null, running: null, wanted: 0 };
const stages = ["stage-a", "stage-b"].map((id) => new Stage(find(id), moveCursor));

const modelNamed = (name) => state.models.find((model) => model.name === name) ?? state.models[0];
const percent = (share) => (share > 0 && share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`);

// ---- settings -------------------------------------------------------------------------------------------------------

function change(key, value, wait = 0) {
  state.settings[key] = value;
  history.replaceState(null, "", linkTo(state.settings));
  showSettings();
  clearTimeout(state.wanted);
  state.wanted = setTimeout(run, wait);
}

function buildSettings() {
  for (const name of state.models.map((model) => model.name)) {
    find("model").append(make("option", { value: name }, name));
    find("with").append(make("option", { value: name }, name));
  }
  find("with").prepend(make("option", { value: "" }, "nothing"), make("option", { value: "kept" }, "the result of now"));
  find("model").addEventListener("change", (event) => { state.times.clear(); state.settings.stride = ""; change("model", event.target.value); });
  find("with").addEventListener("change", (event) => {
    const value = event.target.value;
    state.results[1] = value === "kept" ? { ...state.results[0], title: `${state.results[0]?.title ?? ""} (kept)` } : null;
    change("with", value);
  });
  for (const [key, name, low, high] of WIDTHS) {
    const input = make("input", { type: "range", min: `${low}`, max: `${high}`, id: key });
    const output = make("output", { for: key });
    input.addEventListener("input", () => { output.textContent = input.value; change(key, input.value, 250); });
    find("widths").append(make("label", {}, name, input, output));
  }
  find("crf").addEventListener("change", (event) => change("crf", event.target.checked));
  find("flip").addEventListener("change", (event) => change("flip", event.target.checked));
  for (const scale of SCALES) {
    const input = make("input", { type: "checkbox", value: scale });
    input.addEventListener("change", () => {
      const chosen = [...find("scales").querySelectorAll("input:checked")].map((box) => box.value);
      if (chosen.length) change("scales", chosen.join(","), 250);
      else input.checked = true; // an image is seen at one scale at least
    });
    find("scales").append(make("label", {}, input, make("span", {}, scale)));
  }
}

function buildDial() {
  const model = modelNamed(state.settings.model);
  find("dial").replaceChildren(...model.output_strides.map((stride) => {
    const input = make("input", { type: "radio", name: "stride", value: `${stride}`, "aria-label": `Output stride ${stride}` });
    input.addEventListener("change", () => change("stride", `${stride}`));
    return make("label", {}, input, make("b", {}, `${stride}`), make("small", {}, "–"));
  }));
  find("measure").hidden = model.output_strides.length < 2;
}

function showSettings() {
  const { settings } = state, model = modelNamed(settings.model), fixed = model.runtime !== "torch";
  find("model").value = model.name;
  find("with").value = settings.with;
  find("about").textContent = `${model.architecture}, ${model.classes.length} classes. ${model.description}`;
  if (find("dial").dataset.model !== model.name) { buildDial(); find("dial").dataset.model = model.name; }
  const stride = settings.stride || `${model.output_stride}`;
  for (const label of find("dial").children) {
    const input = label.querySelector("input"), took = state.times.get(input.value);
    input.checked = input.value === stride;
    label.querySelector("small").textContent = took === undefined ? "–" : `${took < 10 ? took.toFixed(1) : Math.round(took)} ms`;
  }
  find("crf").checked = settings.crf;
  for (const [key, , , , preset] of WIDTHS) {
    const input = find(key);
    input.disabled = !settings.crf;
    input.value = settings[key] || `${model.crf?.[key] ?? preset}`;
    input.nextElementSibling.textContent = input.value;
  }
  const scales = settings.scales.split(",");
  for (const box of find("scales").querySelectorAll("input")) {
    box.checked = scales.includes(box.value);
    box.disabled = fixed;
  }
  find("flip").checked = settings.flip;
  find("flip").disabled = fixed;
  find("crf").disabled = !model.probabilities;
}

// ---- segmenting -----------------------------------------------------------------------------------------------------

async function ask(model, settings, signal) {
  const include = [model.probabilities ? "confidence" : "", attends(model, settings) ? "attention" : ""].filter(Boolean).join(",");
  const answer = await segment(state.file, { ...optionsOf(settings, model.name), ...(include ? { include } : {}) }, signal);
  return {
    answer, width: answer.width, height: answer.height, labels: labelsOf(answer), names: model.classes.map((one) => one.name),
    colors: model.classes.map((one) => one.shown), confidence: answer.confidence ? await greyOf(answer.confidence) : null,
    attention: await Promise.all((answer.attention ?? []).map(async (map) => ({ ...map, values: await greyOf(map.png) }))),
    title: describe(model, settings) };
}

function attends(model, settings) {
  return model.attention && !settings.scales.includes(",") && !settings.flip;
}

function describe(model, settings) {
  const parts = [model.name, `stride ${settings.stride || model.output_stride}`];
  if (settings.crf) parts.push("CRF");
  if (settings.scales !== "1") parts.push(`scales ${settings.scales}`);
  if (settings.flip) parts.push("mirrored");
  return parts.join(", ");
}

async function run() {
  if (!state.file || !state.models.length) return;
  state.running?.abort();
  const here = (state.running = new AbortController()), { settings } = state, model = modelNamed(settings.model);
  busy("segmenting");
  try {
    const found = await ask(model, settings, here.signal);
    note(found, model, settings);
    state.results[0] = found;
    if (settings.with && settings.with !== "kept") state.results[1] = await ask(modelNamed(settings.with), { ...settings, stride: "" }, here.signal);
    show();
    say(null);
    busy(null, `${Math.round(found.answer.elapsed)} ms in all`);
  } catch (error) {
    if (error.name !== "AbortError") { fail(error); busy(null); }
  }
}

// What the dial and the sentence below it say of a result.
function note(found, model, settings) {
  const stride = settings.stride || `${model.output_stride}`;
  const key = JSON.stringify({ ...settings, stride: "", with: "" });
  if (state.timed !== key) { state.times.clear(); state.timed = key; }
  state.times.set(stride, found.answer.timings.compute);
  const last = state.results[0];
  if (last && last.labels.length === found.labels.length && last.title !== found.title) {
    const other = difference(last.labels, found.labels);
    find("change").textContent = other ? `${(100 * other).toFixed(other < 0.01 ? 2 : 1)} % of the pixels changed from “${last.title}”.` : `No pixel changed from “${last.title}”.`;
  }
  showSettings();
}

async function measureAll() {
  find("measure").disabled = true;
  const now = state.settings.stride;
  for (const input of [...find("dial").querySelectorAll("input")].reverse()) {
    state.settings.stride = input.value;
    for (let twice = 0; twice < 2; twice++) await run(); // the first run at a stride prepares it
  }
  state.settings.stride = now;
  await run();
  find("measure").disabled = false;
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

// ---- showing --------------------------------------------------------------------------------------------------------

function show() {
  const [found, other] = state.results;
  find("other").hidden = !other;
  for (const [place, result] of state.results.entries()) {
    if (!result) continue;
    if (result.shown !== stages[place] || result.file !== state.file) {
      stages[place].showPhoto(state.bitmap, result.width, result.height);
      [result.shown, result.file] = [stages[place], state.file];
    }
  }
  find("name-a").textContent = other ? found.title : "";
  find("name-b").textContent = other ? `${other.title}: ${(100 * difference(found.labels, other.labels)).toFixed(1)} % of the pixels differ` : "";
  const maps = found.attention.map((map, at) => [`${at}`, `attention at scale ${map.scale} (${percent(map.mean)})`]);
  const layers = [["", "classes"], ...(found.confidence ? [["confidence", "confidence"]] : []), ...maps];
  const chosen = find("layer").value;
  find("layer").replaceChildren(...layers.map(([value, name]) => make("option", { value }, name)));
  find("layer").value = layers.some(([value]) => value === chosen) ? chosen : "";
  find("layers").hidden = layers.length < 2;
  showLegend(found);
  paint();
}

function paint() {
  const layer = find("layer").value;
  for (const [place, result] of state.results.entries())
    if (result) stages[place].paint(result, state.hidden, layer === "confidence" ? result.confidence : layer ? result.attention[layer]?.values : null);
}

function showLegend(found) {
  find("legend").replaceChildren(...found.answer.classes.map((one) => {
    const box = make("input", { type: "checkbox", checked: !state.hidden.has(one.label) });
    box.addEventListener("change", () => { state.hidden[box.checked ? "delete" : "add"](one.label); paint(); });
    const bare = found.colors[one.label] === "#000000"; // which is not painted
    const swatch = make("i", { "aria-hidden": "true", class: bare ? "bare" : "" });
    swatch.style.background = found.colors[one.label];
    return make("li", { "data-label": `${one.label}` }, make("label", {}, box, swatch, make("b", {}, one.name), make("span", {}, percent(one.fraction))));
  }));
  const { decode, queue, compute } = found.answer.timings;
  find("facts").textContent = `${found.width}×${found.height} pixels. Network ${Math.round(compute)} ms, decoding ${Math.round(decode)} ms, waiting ${Math.round(queue)} ms.`;
  find("notes").replaceChildren(...found.answer.notes.map((text) => make("li", {}, text)));
}

function moveCursor(x, y) {
  const told = stages.map((stage, place) => (state.results[place] ? [stage.moveTo(x, y), state.results[place]] : null)).filter((one) => one?.[0]);
  if (!told.length) return;
  const parts = told.map(([at, result]) => {
    const swatch = make("i", { "aria-hidden": "true" });
    swatch.style.background = result.colors[at.label];
    const certain = at.confidence === null ? "" : `, ${Math.round(100 * at.confidence)} % sure`;
    return make("span", {}, swatch, `${result.names[at.label]}${certain}`);
  });
  const [at] = told[0];
  find("readout").replaceChildren(...parts.flatMap((part, place) => (place ? [" | ", part] : [part])), ` at ${at.column}, ${at.row}`);
  for (const item of find("legend").children) item.classList.toggle("here", item.dataset.label === `${at.label}`);
}

// ---- images ---------------------------------------------------------------------------------------------------------

async function take(file, name) {
  state.running?.abort();
  Object.assign(state, { file, name: name.replace(/\.[^.]*$/, ""), results: [null, null], timed: "" });
  if (state.settings.with === "kept") state.settings.with = "";
  find("change").textContent = "";
  for (const button of find("samples").children) button.setAttribute("aria-pressed", `${button.title === name}`);
  state.bitmap = await createImageBitmap(file).catch(() => null); // null: a kind that this browser does not know
  if (state.bitmap) stages[0].showPhoto(state.bitmap, state.bitmap.width, state.bitmap.height);
  await run();
}

async function setUpSamples() {
  const samples = await readSamples();
  const open = async ({ name, url }) => take(await (await fetch(url)).blob(), name);
  find("samples").replaceChildren(...sampleButtons(samples, open));
  if (samples.length && !state.file) await open(samples[0]);
}

async function start() {
  try {
    state.models = await readModels();
    find("ask").hidden = true;
    say(null);
    if (ALONE) Object.assign(state.settings, { stride: "", crf: false, scales: "1", flip: false });
    if (!find("model").options.length) buildSettings();
    if (state.settings.with === "kept") state.settings.with = "";
    showSettings();
    await setUpSamples();
  } catch (error) {
    fail(error);
  }
}

setUpTheme(find("theme"));
if (ALONE) {
  find("alone").hidden = false;
  find("sent").textContent = "Drop an image, paste one, or choose one. It stays in this browser.";
  document.querySelectorAll("nav a:not([aria-current]), .by-server").forEach((element) => { element.hidden = true; });
}
setUpFiles(find("file"), ([file]) => take(file, file.name || "pasted"));
setUpDownloads(find("downloads"), state, {
  fetchWith: (include) => segment(state.file, { ...optionsOf(state.settings, modelNamed(state.settings.model).name), include }),
  link: () => new URL(linkTo(state.settings), location.href).href,
  fail, bytesOf, alone: ALONE });
find("measure").addEventListener("click", measureAll);
find("layer").addEventListener("change", paint);
find("cut").addEventListener("input", (event) => stages.forEach((stage) => { stage.cut = event.target.value / 100; }));
const fade = () => stages.forEach((stage) => { stage.opacity = find("opacity").value / 100; });
find("opacity").addEventListener("input", fade);
fade();
find("ask").addEventListener("submit", (event) => { event.preventDefault(); setToken(find("token").value); start(); });
addEventListener("hashchange", () => { state.settings = readSettings(); showSettings(); run(); });
start();
