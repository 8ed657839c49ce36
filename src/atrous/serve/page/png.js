// Writing masks as palette PNGs, and the checksum that PNG and ZIP share.
const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

export function crc32(...parts) {
  let crc = ~0;
  for (const bytes of parts) for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

// The bytes of a palette PNG: labels row by row, and the palette's colours as #rrggbb.
export async function encodePng(labels, width, height, colors) {
  const head = new Uint8Array(13), view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8, 3], 8); // eight bits, palette
  const palette = new Uint8Array(768);
  colors.forEach((color, label) => palette.set([1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)), 3 * label));
  const rows = new Uint8Array((width + 1) * height); // each row has its filter in front: none
  for (let y = 0; y < height; y++) rows.set(labels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const packed = new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate")));
  const chunks = [["IHDR", head], ["PLTE", palette], ["IDAT", new Uint8Array(await packed.arrayBuffer())], ["IEND", new Uint8Array()]];
  return new Uint8Array(await new Blob([new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]), ...chunks.flatMap(chunk)]).arrayBuffer());
}

function chunk([name, content]) {
  const kind = new TextEncoder().encode(name), frame = [new DataView(new ArrayBuffer(4)), new DataView(new ArrayBuffer(4))];
  frame[0].setUint32(0, content.length);
  frame[1].setUint32(0, crc32(kind, content));
  return [frame[0], kind, content, frame[1]];
}
