// The settings of the page, in the address behind #, so that a link restores them; the image is never in it.
const DEFAULTS = { model: "", with: "", stride: "", crf: false, sxy: "", srgb: "", smoothness_sxy: "", scales: "1", flip: false };

export function readSettings() {
  const given = new URLSearchParams(location.hash.slice(1));
  const settings = { ...DEFAULTS };
  for (const key of Object.keys(DEFAULTS))
    if (given.has(key)) settings[key] = typeof DEFAULTS[key] === "boolean" ? given.get(key) === "1" : given.get(key);
  return settings;
}

export function linkTo(settings) {
  const kept = new URLSearchParams();
  for (const [key, value] of Object.entries(settings))
    if (value !== DEFAULTS[key]) kept.set(key, value === true ? "1" : value);
  return `${location.pathname}${kept.size ? `#${kept}` : ""}`;
}

// The options of /segment that the settings stand for.
export function optionsOf(settings, model) {
  const options = { model };
  if (settings.stride) options.output_stride = settings.stride;
  if (settings.scales !== "1") options.scales = settings.scales;
  if (settings.flip) options.flip = "true";
  if (settings.crf) {
    options.crf = "true";
    for (const width of ["sxy", "srgb", "smoothness_sxy"]) if (settings[width]) options[width] = settings[width];
  }
  return options;
}
