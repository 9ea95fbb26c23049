"use strict";
/* What makes a file a report of Bedside: receipt, manifest, records. In the order, and with the words, of
   `bedside audit verify`. What that command does beyond it is listed in UNREPEATED. */

const KINDS = "@@KINDS@@";

const UNREPEATED = [
  "That the figures, charts, tables, PDF and CSV follow from the records. The log says that the site made " +
    "them as they are; bedside audit verify works all but the PDF out again and compares.",
  "That every record passes the report's filters, and that each is of a type that Bedside knows. " +
    "The command bedside audit verify checks both.",
];

/* The types that JSON values must have; a trailing ? allows null, ! forbids other members. */
const SHAPES = {
  manifest: { "!": true, format: "string", kind: "string", site: "string", created: "time", files: "object" },
  receipt: { "!": true, format: "string", log: "head", entry: "entry" },
  report: {
    format: "string", made_by: "string", kind: "string", site: "string", created: "time",
    filters: "filters", hours: "object", logs: ["head"], entries: ["entry"],
  },
  head: { origin: "string", verifier: "string", size: "integer", root: "string", checkpoint: "string" },
  entry: { origin: "string", index: "integer", record: "object", leaf: "string", proof: ["string"] },
  filters: {
    "!": true, since: "time?", until: "time?", subject: "string?", principal: "string?", outcome: "string?",
  },
};

function fits(value, shape) {
  if (Array.isArray(shape)) return Array.isArray(value) && value.every((one) => fits(one, shape[0]));
  if (shape.endsWith("?")) return value == null || fits(value, shape.slice(0, -1));
  if (shape === "string") return typeof value === "string";
  if (shape === "integer") return Number.isSafeInteger(value);
  if (shape === "time") return typeof value === "string" && timeOf(value) !== null;
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const members = SHAPES[shape];
  if (!members) return true;
  if (members["!"] && Object.keys(value).some((name) => !Object.hasOwn(members, name))) return false;
  return Object.entries(members).every(
    ([name, inner]) =>
      name === "!" || (Object.hasOwn(value, name) ? fits(value[name], inner) : String(inner).endsWith("?")),
  );
}

function parse(bytes, shape, message) {
  try {
    const value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (fits(value, shape)) return value;
  } catch {
    /* It is no JSON: as malformed as JSON of another shape. */
  }
  return fail(message);
}

/* Microseconds since 1970, which Date does not count. */
function timeOf(text) {
  const parts = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (!parts) return null;
  const seconds = Date.parse(parts[1] + parts[3]);
  if (Number.isNaN(seconds)) return null;
  return BigInt(seconds) * 1000n + BigInt((parts[2] ?? "").padEnd(6, "0").slice(0, 6));
}

function equal(one, other) {
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) {
    return one === other;
  }
  const names = Object.keys(one);
  return (
    Array.isArray(one) === Array.isArray(other) &&
    names.length === Object.keys(other).length &&
    names.every((name) => Object.hasOwn(other, name) && equal(one[name], other[name]))
  );
}

async function verifyHead(head, verifiers) {
  const verifier = verifiers.find((one) => one.name === head.origin);
  if (!verifier) fail("the report draws on a log whose key was not given");
  const checkpoint = await openCheckpoint(head.checkpoint, verifier);
  const shown = [head.origin, head.verifier, head.size, head.root];
  const signed = [checkpoint.origin, verifier.text, checkpoint.size, hex(checkpoint.root)];
  if (!equal(shown, signed)) fail(`what the report says of ${verifier.name} is not what was signed`);
  return checkpoint;
}

async function verifyEntry(entry, checkpoints) {
  const checkpoint = checkpoints.get(entry.origin);
  if (!checkpoint) fail(`record ${entry.index} is of a log that the report does not name`);
  const leaf = unbase64(entry.leaf);
  const proof = entry.proof.map(unbase64);
  if (leaf === null || proof.includes(null)) fail(`record ${entry.index}: its proof is not base64`);
  await verifyInclusion(leaf, entry.index, checkpoint.size, proof, checkpoint.root);
  const record = parse(leaf, "object", `record ${entry.index} is not a valid record`);
  const time = typeof record.time === "string" ? timeOf(record.time) : null;
  if (time === null || typeof record.type !== "string") {
    fail(`record ${entry.index} is not a valid record`);
  }
  if (!equal(record, entry.record)) fail(`record ${entry.index} was changed in the report`);
  return { origin: entry.origin, index: entry.index, time, record };
}

function checkNumbers(entries) {
  const seen = new Set();
  for (const { origin, index } of entries) {
    const place = `${index} ${origin}`;
    if (seen.has(place)) fail(`record ${index} of ${origin} is there twice`);
    seen.add(place);
  }
  entries.slice(1).forEach((after, n) => {
    const before = entries[n];
    const ordered =
      before.time !== after.time
        ? before.time < after.time
        : before.origin !== after.origin
          ? before.origin < after.origin
          : before.index < after.index;
    if (!ordered) fail("the report's records are not in order of time");
  });
}

function checkComplete(entries, checkpoints) {
  for (const { origin, size } of checkpoints.values()) {
    const shown = new Set(entries.filter((one) => one.origin === origin).map((one) => one.index));
    for (let index = 0; index < size; index += 1) {
      if (!shown.has(index)) fail(`record ${index} of ${origin} is missing from the report`);
    }
  }
}

async function verifyReceipt(files, verifiers) {
  const receipt = parse(files.get("receipt.json"), "receipt", "receipt.json is malformed");
  if (receipt.format !== "bedside-receipt/1") {
    fail("receipt.json has another format than bedside-receipt/1");
  }
  const checkpoint = await verifyHead(receipt.log, verifiers);
  const entry = await verifyEntry(receipt.entry, new Map([[checkpoint.origin, checkpoint]]));
  const digest = hex(await sha256(files.get("manifest.json")));
  const { type, step } = entry.record;
  if (type !== "report" || step !== undefined || entry.record.digest !== digest) {
    fail("manifest.json is not the one that the site's log recorded");
  }
  return { kind: entry.record.kind, place: `${entry.origin}#${entry.index}`, record: entry.record };
}

async function verifyManifest(files) {
  const manifest = parse(files.get("manifest.json"), "manifest", "manifest.json is malformed");
  if (manifest.format !== "bedside-manifest/1") {
    fail("manifest.json has another format than bedside-manifest/1");
  }
  const present = new Set([...files.keys()].filter((name) => !/^(manifest|receipt)\.json$/.test(name)));
  const stated = new Set(Object.keys(manifest.files));
  for (const name of [...new Set([...present, ...stated])].sort()) {
    if (!present.has(name) || !stated.has(name)) {
      fail(`${name} is in only one of the zip file and its manifest`);
    }
  }
  for (const [name, digest] of Object.entries(manifest.files)) {
    if (hex(await sha256(files.get(name))) !== digest) {
      fail(`${name} was changed: it has another digest than the manifest says`);
    }
  }
  return manifest;
}

async function verifyRecords(bytes, name, verifiers, progress) {
  const report = parse(bytes, "report", `${name} is not a report in JSON form`);
  if (report.format !== "bedside-report/1") fail(`${name} has another format than bedside-report/1`);
  if (!KINDS.includes(report.kind)) fail(`${name} is of a kind that this version does not know`);
  const checkpoints = new Map();
  for (const head of report.logs) checkpoints.set(head.origin, await verifyHead(head, verifiers));
  if (checkpoints.size !== report.logs.length) fail("the report names a log twice");
  const entries = [];
  for (const entry of report.entries) {
    entries.push(await verifyEntry(entry, checkpoints));
    if (entries.length % 200 === 0) await progress(entries.length, report.entries.length);
  }
  checkNumbers(entries);
  const whole = report.kind === "access" && Object.values(report.filters).every((one) => one == null);
  if (whole) checkComplete(entries, checkpoints);
  return { report, checkpoints, entries, whole };
}

/* Verify a report's file, a zip or its JSON; `keys` and `witnesses` come from whoever verifies. */
async function verifyReport(bytes, name, { verifiers, witnesses, quorum, progress }) {
  let receipt = null;
  let files = new Map();
  let proved;
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) {
    files = await unzip(bytes);
    for (const needed of ["manifest.json", "receipt.json", "report.json"]) {
      if (!files.has(needed)) fail(`the zip file has no ${needed}`);
    }
    receipt = await verifyReceipt(files, verifiers);
    const manifest = await verifyManifest(files);
    proved = await verifyRecords(files.get("report.json"), "report.json", verifiers, progress);
    const { report } = proved;
    const stated = [manifest.kind, manifest.site, timeOf(manifest.created), receipt.kind];
    if (!equal(stated, [report.kind, report.site, timeOf(report.created), report.kind])) {
      fail("manifest.json is of another report");
    }
  } else proved = await verifyRecords(bytes, name, verifiers, progress);
  const cosigned = new Map();
  for (const checkpoint of proved.checkpoints.values()) {
    const found = await cosignatures(checkpoint.note, witnesses);
    if (found.length < quorum) {
      fail(
        `${found.length} of the ${witnesses.length} witnesses cosigned the checkpoint of ${checkpoint.origin}; ` +
          `${quorum} are required`,
      );
    }
    cosigned.set(checkpoint.origin, found);
  }
  return { ...proved, receipt, files, cosigned };
}
