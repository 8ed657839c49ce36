// The page's elements.
export const find = (id) => document.getElementById(id);

// A new element; attributes that are not strings are set as properties.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes))
    if (key in element && typeof value !== "string") element[key] = value;
    else element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Call `take` with the files that are chosen, dropped or pasted.
export function setUpFiles(input, take) {
  const takeAny = (files) => { if (files?.length) take([...files]); };
  input.addEventListener("change", () => { takeAny(input.files); input.value = ""; });
  addEventListener("paste", (event) => takeAny(event.clipboardData?.files));
  for (const name of ["dragover", "dragleave", "drop"])
    addEventListener(name, (event) => {
      event.preventDefault();
      document.body.classList.toggle("over", name === "dragover");
      if (name === "drop") takeAny(event.dataTransfer.files);
    });
}

// Buttons of the sample images, which open one each.
export function sampleButtons(samples, open) {
  return samples.map((sample) => {
    const button = make("button", { type: "button", title: sample.name, "aria-label": `Sample image: ${sample.name}`, "aria-pressed": "false" },
      make("img", { src: sample.url, alt: "" }));
    button.addEventListener("click", () => open(sample));
    return button;
  });
}

// Hand content to the browser as a file to keep.
export function save(content, type, name) {
  const link = make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
