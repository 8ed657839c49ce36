// What can be taken along: the mask, the overlay, JSON, outlines, and a link to the settings.
import { save } from "./dom.js";

// Outlines as GeoJSON in pixels, which `atrous data` reads as geojson:.
function geojson(answer) {
  const closed = (ring) => [...ring, ring[0]];
  return {
    type: "FeatureCollection",
    features: answer.polygons.map(({ label, outer, holes }) => ({
      type: "Feature",
      properties: { label: answer.label_set[label].name, value: label },
      geometry: { type: "Polygon", coordinates: [outer, ...holes].map(closed) } })) };
}

export function setUpDownloads(box, state, { fetchWith, link, fail, bytesOf, alone }) {
  const name = (ending) => `${state.name}.${ending}`;
  const actions = {
    "Mask (PNG)": () => save(bytesOf(state.results[0].answer.mask), "image/png", name("mask.png")),
    "Overlay (JPEG)": async () => save(bytesOf((await fetchWith("overlay")).overlay), "image/jpeg", name("overlay.jpg")),
    "Areas (JSON)": () => {
      const { elapsed: _, confidence: __, attention: ___, labels: ____, ...answer } = state.results[0].answer;
      save(JSON.stringify(answer, null, 2), "application/json", name("json"));
    },
    "Outlines (GeoJSON)": async () => save(JSON.stringify(geojson(await fetchWith("polygons"))), "application/geo+json", name("geojson")),
  };
  if (alone) for (const title of ["Overlay (JPEG)", "Outlines (GeoJSON)"]) delete actions[title]; // a server makes them
  for (const [title, act] of Object.entries(actions)) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "button", textContent: title });
    button.addEventListener("click", async () => {
      if (!state.results[0]) return;
      try { await act(); } catch (error) { fail(error); }
    });
    box.append(button);
  }
  const copy = document.createElement("button");
  Object.assign(copy, { type: "button", className: "button", textContent: "Copy link to settings" });
  copy.style.gridColumn = "1 / -1";
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(link());
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "It is in the address bar";
    }
    setTimeout(() => { copy.textContent = "Copy link to settings"; }, 2000);
  });
  box.append(copy);
}
