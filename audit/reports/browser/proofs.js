"use strict";
/* The published formats: zip, RFC 6962 hashing, C2SP signed notes, checkpoints and cosignatures.
   Everything here fails with a Failed whose words are those of `bedside audit verify`. */

class Failed extends Error {}

function fail(message) {
  throw new Failed(message);
}

const utf8 = new TextEncoder();
const HEX = Array.from({ length: 256 }, (_, n) => n.toString(16).padStart(2, "0"));
const UNPACKED_MAX_BYTES = 2 ** 30;
const NOTE_MAX_BYTES = 1000000;

function hex(bytes) {
  let text = "";
  for (const byte of bytes) text += HEX[byte];
  return text;
}

function base64(bytes) {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/* Strict, as Python's b64decode(validate=True): null for what is none. */
function unbase64(text) {
  if (text.length % 4 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return null;
  const binary = atob(text);
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

function same(one, other) {
  return one.length === other.length && one.every((byte, n) => byte === other[n]);
}

function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

/* ---- zip: what a report's file uses of APPNOTE.TXT, and nothing more ---- */

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit += 1) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function directory(view, bytes) {
  const damaged = "the zip file is damaged";
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end -= 1;
  if (end < 0) fail(damaged);
  const members = [];
  let place = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left -= 1) {
    if (place + 46 > end || view.getUint32(place, true) !== 0x02014b50) fail(damaged);
    const [name, extra, comment] = [28, 30, 32].map((field) => view.getUint16(place + field, true));
    members.push({
      flags: view.getUint16(place + 8, true),
      method: view.getUint16(place + 10, true),
      crc: view.getUint32(place + 16, true),
      packed: view.getUint32(place + 20, true),
      size: view.getUint32(place + 24, true),
      header: view.getUint32(place + 42, true),
      name: new TextDecoder().decode(bytes.subarray(place + 46, place + 46 + name)),
    });
    place += 46 + name + extra + comment;
  }
  return members;
}

async function unpackMember(view, bytes, member) {
  const damaged = "the zip file is damaged";
  const { header } = member;
  if (member.flags & 1 || header + 30 > bytes.length) fail(damaged);
  if (view.getUint32(header, true) !== 0x04034b50) fail(damaged);
  const start = header + 30 + view.getUint16(header + 26, true) + view.getUint16(header + 28, true);
  if (start + member.packed > bytes.length) fail(damaged);
  const packed = bytes.subarray(start, start + member.packed);
  let data = packed;
  if (member.method === 8) {
    try {
      const inflated = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
      data = await atMost(inflated, member.size);
    } catch {
      fail(damaged);
    }
  } else if (member.method !== 0) fail(damaged);
  if (data.length !== member.size || crc32(data) !== member.crc) fail(damaged);
  return data;
}

/* A member that grows past the size it states is an attack: it is not read on. */
async function atMost(stream, size) {
  const data = new Uint8Array(size);
  let place = 0;
  const reader = stream.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (place + part.value.length > size) {
      await reader.cancel();
      throw new RangeError();
    }
    data.set(part.value, place);
    place += part.value.length;
  }
  return data.subarray(0, place);
}

async function unzip(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const members = directory(view, bytes);
  if (members.reduce((size, member) => size + member.size, 0) > UNPACKED_MAX_BYTES) {
    fail("the zip file holds more than any report");
  }
  const files = new Map();
  for (const member of members) files.set(member.name, await unpackMember(view, bytes, member));
  if (files.size !== members.length) fail("the zip file holds two files of one name");
  return files;
}

/* ---- RFC 6962: leaves are hashed with 0x00 before them, inner nodes with 0x01 ---- */

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

async function verifyInclusion(leaf, index, size, proof, root) {
  if (!(index >= 0 && index < size)) fail(`record ${index} lies outside a tree of ${size}`);
  let fn = BigInt(index);
  let sn = BigInt(size) - 1n;
  let result = await sha256(concat(LEAF, leaf));
  for (const hash of proof) {
    if (sn === 0n) fail(`record ${index}: the proof is too long`);
    if (fn & 1n || fn === sn) {
      result = await sha256(concat(NODE, hash, result));
      while (!(fn & 1n) && fn !== 0n) [fn, sn] = [fn >> 1n, sn >> 1n];
    } else result = await sha256(concat(NODE, result, hash));
    [fn, sn] = [fn >> 1n, sn >> 1n];
  }
  if (sn !== 0n || !same(result, root)) {
    fail(`record ${index} is not what the log's root commits to`);
  }
}

/* ---- signed notes: a text, and lines that say who signed it ---- */

function isName(name) {
  return name !== "" && !name.includes("+") && !/\s/u.test(name);
}

/* A verifier key, name+hash+key; kind 1 signs logs, kind 4 cosigns as a witness. */
async function readKey(text, kind) {
  const parts = text.split("+");
  const [name, stated] = parts;
  const raw = parts.length < 3 ? null : unbase64(parts.slice(2).join("+"));
  if (raw === null) fail("a verifier key reads `name+hash+key`");
  if (!isName(name)) fail("a verifier key's name is empty or has spaces");
  if (raw[0] !== kind) {
    fail(`the verifier key is not ${kind === 1 ? "an Ed25519 key" : "a key of type 0x04"}`);
  }
  if (raw.length !== 33) fail("a verifier key reads `name+hash+key`");
  const id = (await sha256(concat(utf8.encode(`${name}\n`), raw))).subarray(0, 4);
  if (hex(id) !== stated) fail("the verifier key's hash does not match its key");
  const key = await crypto.subtle.importKey("raw", raw.subarray(1), "Ed25519", false, ["verify"]);
  return { name, id, key, text: `${name}+${stated}+${base64(raw)}` };
}

function splitNote(note) {
  if (utf8.encode(note).length > NOTE_MAX_BYTES) {
    fail(`the note is longer than ${NOTE_MAX_BYTES} bytes`);
  }
  for (const character of note) {
    if (character < " " && character !== "\n") {
      fail("the note has control characters other than newlines");
    }
  }
  const end = note.lastIndexOf("\n\n");
  if (end < 0 || !note.endsWith("\n")) fail("the note has no signature block");
  const lines = note.slice(end + 2, -1).split("\n").map((line) => {
    const [dash, name = "", ...rest] = line.split(" ");
    const raw = unbase64(rest.join(" "));
    if (dash !== "\u2014" || raw === null || raw.length <= 4 || !isName(name)) {
      fail("a signature line is malformed");
    }
    return { name, id: raw.subarray(0, 4), signature: raw.subarray(4) };
  });
  return { text: note.slice(0, end + 1), lines };
}

async function isSignedBy(key, signature, message) {
  return crypto.subtle.verify("Ed25519", key, signature, utf8.encode(message));
}

async function openCheckpoint(note, verifier) {
  const { text, lines } = splitNote(note);
  const signatures = lines.filter((line) => line.name === verifier.name && same(line.id, verifier.id));
  for (const { name, signature } of signatures) {
    if (!(await isSignedBy(verifier.key, signature, text))) {
      fail(`the signature of ${name} does not verify`);
    }
  }
  if (!signatures.length) fail("no trusted key signed the note");
  const parts = text.slice(0, -1).split("\n");
  if (parts.length < 3 || parts.includes("")) {
    fail("a checkpoint has an origin, a size, a root hash and no empty line");
  }
  const [origin, size, encoded] = parts;
  if (!/^(0|[1-9][0-9]{0,17})$/.test(size)) fail("the checkpoint's size is not a number of records");
  const root = unbase64(encoded);
  if (root === null) fail("the checkpoint's root is not base64");
  if (root.length !== 32 || base64(root) !== encoded) {
    fail("the checkpoint's root is not a SHA-256 hash in base64");
  }
  if (origin !== verifier.name) fail("the checkpoint is not signed by its own log");
  return { origin, size: Number(size), root, note };
}

/* Cosignatures (C2SP tlog-cosignature): eight bytes of time, and a signature over time and checkpoint. */
async function cosignatures(note, witnesses) {
  const { text, lines } = splitNote(note);
  const found = new Map();
  for (const { name, id, signature } of lines) {
    const witness = witnesses.find((one) => one.name === name && same(one.id, id));
    if (!witness) continue;
    const failed = `the cosignature of ${name} does not verify`;
    if (signature.length !== 72) fail(failed);
    const time = new DataView(signature.buffer, signature.byteOffset).getBigUint64(0);
    if (time <= 0n || time >= 2n ** 63n) fail(failed);
    const message = `cosignature/v1\ntime ${time}\n${text}`;
    if (!(await isSignedBy(witness.key, signature.subarray(8), message))) fail(failed);
    const before = found.get(witness.text);
    if (!before || before.time < time) found.set(witness.text, { name, time });
  }
  return [...found.values()];
}
