// The committed packets and downloads in JavaScript: `node vectors.mjs WIRE.mjs vectors.json rounds.json DAMAGED` in Node;
// `check` and `checkDownloads` in a page.

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The first 16 digits of a SHA-256. */
const digest = async (array) => {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes.slice()))).slice(0, 16);
};

const mixed = (index, key) => Number(((BigInt(index) * 2654435761n + BigInt(key) * 40503n) % (1n << 32n)) >> 7n);

const sizeOf = ([, shape]) => shape.reduce((all, length) => all * length, 1);

/** What `drawn.py` draws. */
const drawn = (wire, tensors, pattern, key) => {
  const size = tensors.reduce((all, tensor) => all + sizeOf(tensor), 0);
  const draws = wire.uniform(key, size);
  const x = new Float64Array(size);
  for (let i = 0; i < size; i++) {
    const v = 2 * draws[i] - 1;
    const zero = pattern === "sparse" ? mixed(i, key) % 97 !== 0 : mixed(i, key) % 3 === 0;
    x[i] = zero ? 0 : v * v * v;
  }
  let start = pattern === "rows and columns" ? 0 : size;
  for (const tensor of start < size ? tensors : []) {
    const columns = tensor[1].at(-1) ?? 1;
    for (let i = 0; i < sizeOf(tensor); i++) {
      const row = mixed(Math.floor(i / columns), key);
      const column = mixed(i % columns, key + 1);
      const value = column % 3 === 0 ? Math.abs(x[start + i]) : x[start + i];
      x[start + i] = row % 4 === 0 ? 0 : value * 2 ** -((row >> 4) % 9) * 2 ** -((column >> 4) % 5);
    }
    start += sizeOf(tensor);
  }
  const scale = { tiny: 1e-38, huge: 1e30 }[pattern] ?? 0.01;
  return Float32Array.from(x, (value) => value * scale);
};

/** Damages a packet in a way that its number decides, with a right checksum every second time. */
const damaged = (packet, number) => {
  const random = (n) => mixed(number * 7 + n, n) & 0xffff;
  const out = packet.slice(0, number % 5 === 0 ? random(1) % packet.length : packet.length);
  for (let i = 0; i < 1 + (number % 3); i++) out[random(2 + i) % Math.max(1, out.length)] ^= 1 << random(9 + i) % 8;
  if (number % 2 && out.length > 4) new DataView(out.buffer).setUint32(out.length - 4, crc32(out.subarray(0, -4)), true);
  return out;
};

const crc32 = (bytes) => {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte & 0xff;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ -1) >>> 0;
};

/** Returns how many packets were compared, what differs, and the reasons damaged ones were refused for. */
export const check = async (wire, shared, hostile) => {
  const cache = new Map();
  const update = (spec, pattern, key) => {
    const name = `${spec} ${pattern} ${key}`;
    if (!cache.has(name)) cache.set(name, drawn(wire, shared.specs[spec].tensors, pattern, key));
    return cache.get(name);
  };
  const wrong = [];
  for (const [spec, { patterns }] of Object.entries(shared.specs))
    for (const [pattern, expected] of Object.entries(patterns))
      if ((await digest(update(spec, pattern, 3))) !== expected) wrong.push(`${spec} ${pattern}: drawn otherwise`);
  const reasons = {};
  let damages = 0;
  for (const [codec, spec, pattern, key, sent, decoded, base64] of shared.packets) {
    const tensors = JSON.stringify(shared.specs[spec].tensors);
    const made = wire.pack(update(spec, pattern, key), tensors, codec, key, 60, 0.5, key);
    const packet = base64 ? Int8Array.from(atob(base64), (char) => char.charCodeAt(0)) : made;
    if ((await digest(packet)) !== sent) wrong.push(`${codec} ${spec} ${pattern} ${key}: other bytes`);
    else if ((await digest(wire.unpack(packet, tensors, codec))) !== decoded)
      wrong.push(`${codec} ${spec} ${pattern} ${key}: other values`);
    for (let i = 0; i < hostile; i++) {
      const reason = wire.whyNot(damaged(packet, damages++), tensors, codec);
      reasons[reason] = (reasons[reason] ?? 0) + 1;
    }
  }
  return { packets: shared.packets.length, wrong, damages, reasons };
};

const bytesOf = (base64) => Int8Array.from(atob(base64), (char) => char.charCodeAt(0));
const textBytes = (value) => Int8Array.from(new TextEncoder().encode(JSON.stringify(value)));

/** The coordinates of tensors that train, in model order. */
const trained = (tensors, point) => {
  const out = [];
  let start = 0;
  for (const tensor of tensors) {
    if (tensor[2]) out.push(...point.subarray(start, start + sizeOf(tensor)));
    start += sizeOf(tensor);
  }
  return Int32Array.from(out);
};

/** Returns how many downloads were compared, what differs, and the reasons damaged ones were refused for. */
export const checkDownloads = async (wire, shared, hostile) => {
  const wrong = [], reasons = {};
  let downloads = 0, damages = 0;
  for (const [name, { terms, rounds }] of Object.entries(shared)) {
    const told = textBytes(terms), first = new Int8Array(drawn(wire, terms.spec, "plain", 50).buffer);
    let held = 0, point = null;
    for (const { version, model, prediction, beside, digests } of rounds) {
      const parts = [model, prediction, beside].map(bytesOf);
      const read = wire.download(told, first, ...parts, version, held, point);
      const found = { weights: read.weights, point: read.point && trained(terms.spec, read.point), prediction: read.prediction,
        beside: read.beside };
      for (const [part, value] of Object.entries(found))
        if ((value ? await digest(value) : undefined) !== digests[part]) wrong.push(`${name} ${version}: another ${part}`);
      downloads++;
      for (let i = 0; i < hostile; i++) {
        const bad = damaged(parts[0], damages++);
        const reason = wire.whyNoDownload(told, first, bad, parts[1], parts[2], version, held, point);
        reasons[reason] = (reasons[reason] ?? 0) + 1;
      }
      [held, point] = [version, read.point];
    }
  }
  return { downloads, wrong, damages, reasons };
};

if (globalThis.process?.argv?.[2]) {
  const { readFileSync } = await import("node:fs");
  const { pathToFileURL } = await import("node:url");
  const [code, packets, rounds, hostile] = process.argv.slice(2);
  const wire = await import(pathToFileURL(code));
  const json = (path) => JSON.parse(readFileSync(path, "utf8"));
  const told = [await check(wire, json(packets), Number(hostile)), await checkDownloads(wire, json(rounds), Number(hostile))];
  console.log(JSON.stringify(told));
}
