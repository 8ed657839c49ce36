// From the server's answer to arrays: labels from run lengths, and grey PNGs.

// COCO's compressed runs, down the columns: five bits a character, from the third run on as differences.
function runs(text) {
  const found = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, bits;
    do {
      bits = text.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
    } while (bits & 32);
    if (bits & 16) value |= -1 << shift;
    found.push(found.length > 2 ? value + found[found.length - 2] : value);
  }
  return found;
}

// The labels of an answer, row by row; 255 where no class was found.
export function labelsOf(answer) {
  if (answer.labels) return answer.labels; // of the page without a server
  const { width, height } = answer;
  const labels = new Uint8Array(width * height).fill(255);
  for (const { label, rle } of answer.classes) {
    let at = 0, inside = false;
    for (const run of runs(rle.counts)) {
      if (inside) for (let i = at; i < at + run; i++) labels[(i % height) * width + Math.floor(i / height)] = label;
      at += run;
      inside = !inside;
    }
  }
  return labels;
}

// The values of a grey PNG in base64, 0 to 255, row by row.
export async function greyOf(text) {
  const image = await createImageBitmap(new Blob([bytesOf(text)], { type: "image/png" }), { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  const values = new Uint8Array(image.width * image.height);
  for (let i = 0; i < values.length; i++) values[i] = data[4 * i];
  return values;
}

export function bytesOf(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// The share of pixels on which two results differ, 0 to 1.
export function difference(a, b) {
  let other = 0;
  for (let i = 0; i < a.length; i++) other += a[i] !== b[i];
  return other / a.length;
}
