// A ZIP archive of files as they are: images and masks are compressed already.
import { crc32 } from "./png.js";

const DAY = 1 << 5 | 1; // 1 January 1980, the format's first day

// Files are [name, bytes]; names are written in UTF-8.
export function zip(files) {
  const entries = [], directory = [];
  let offset = 0;
  for (const [name, content] of files) {
    const text = new TextEncoder().encode(name);
    // version, flags (UTF-8), method (stored), time, day, checksum, both sizes, length of the name, no extra field
    const facts = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, DAY], [4, crc32(content)], [4, content.length], [4, content.length], [2, text.length], [2, 0]];
    const entry = [numbers([[4, 0x04034b50], ...facts]), text, content];
    entries.push(...entry);
    // and in the directory: comment, disk, attributes, and where the entry begins
    directory.push(numbers([[4, 0x02014b50], [2, 20], ...facts, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]), text);
    offset += entry.reduce((sum, part) => sum + part.byteLength, 0);
  }
  const size = directory.reduce((sum, part) => sum + part.byteLength, 0);
  const end = numbers([[4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, offset], [2, 0]]);
  return new Blob([...entries, ...directory, end], { type: "application/zip" });
}

// Little-endian numbers of two or four bytes each.
function numbers(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [bytes]) => sum + bytes, 0)));
  let at = 0;
  for (const [bytes, value] of fields) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}
