// The page of endpoints, drawn from the server's OpenAPI description.
import { setUpTheme } from "./theme.js";

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function table(title, rows) {
  const found = make("table");
  found.append(make("caption", title));
  for (const [name, text] of rows) {
    const row = make("tr");
    const head = make("th", "", { scope: "row" });
    head.append(make("code", name));
    row.append(head, make("td", text));
    found.append(row);
  }
  return found;
}

function range(schema) {
  const words = [schema.type ?? ""];
  if (schema.minimum !== undefined) words.push(`${schema.minimum} to ${schema.maximum}`);
  return words.filter(Boolean).join(", ");
}

function describe(path, verb, operation) {
  const box = make("details", "", { class: "path" });
  const summary = make("summary");
  summary.append(make("span", verb.toUpperCase(), { class: "verb" }), make("code", path), make("span", operation.summary));
  box.append(summary);
  const parameters = (operation.parameters ?? []).map((one) => [
    one.name, `${one.in === "path" ? "In the path. " : ""}${one.description ?? ""} (${range(one.schema)})`]);
  if (parameters.length) box.append(table("Options", parameters));
  const kinds = Object.keys(operation.requestBody?.content ?? {});
  if (kinds.length) box.append(table("Body", kinds.map((kind) => [kind, ""])));
  box.append(table("Answers", Object.entries(operation.responses).map(([status, one]) => [
    status, `${one.description} ${Object.keys(one.content ?? {}).join(" or ")}`])));
  return box;
}

setUpTheme(document.getElementById("theme"));
const description = await (await fetch("openapi.json")).json();
document.getElementById("lead").prepend(`${description.info.description} `);
const paths = document.getElementById("paths");
for (const [path, operations] of Object.entries(description.paths))
  for (const [verb, operation] of Object.entries(operations)) paths.append(describe(path, verb, operation));
paths.firstElementChild.open = true;
