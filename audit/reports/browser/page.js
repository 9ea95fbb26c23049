"use strict";
/* The page itself: takes keys and a file, shows what was verified and what was not. */

const $ = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function number(value) {
  return new Intl.NumberFormat("en").format(value);
}

function plural(count, word) {
  return `${number(count)} ${word}${count === 1 ? "" : "s"}`;
}

function when(microseconds) {
  return `${new Date(Number(microseconds / 1000n)).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/* Each line of a box is a key; an error names the line, not what it holds. */
async function keysOf(box, kind) {
  const keys = [];
  for (const [n, line] of $(box).value.split("\n").entries()) {
    if (!line.trim()) continue;
    try {
      keys.push(await readKey(line.trim(), kind));
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      fail(`line ${n + 1} of the ${kind === 1 ? "log" : "witness"} keys: ${error.message}`);
    }
  }
  return keys;
}

function item(list, state, text, detail) {
  const row = element("li", undefined, state);
  row.append(element("span", { ok: "Verified", no: "Not checked" }[state], "state"));
  const words = element("div");
  words.append(element("strong", text));
  if (detail) words.append(element("p", detail));
  row.append(words);
  list.append(row);
}

function table(headings, rows) {
  const made = element("table");
  const head = element("tr");
  for (const heading of headings) {
    const cell = element("th", heading);
    cell.scope = "col";
    head.append(cell);
  }
  made.append(element("thead"), element("tbody"));
  made.tHead.append(head);
  for (const row of rows) {
    const line = element("tr");
    row.forEach((text, n) => line.append(element("td", text, headings[n] === "root" ? "code" : "")));
    made.tBodies[0].append(line);
  }
  const frame = element("div", undefined, "scroll");
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", "Logs of this report");
  frame.append(made);
  return frame;
}

function verdict(ok, title, text) {
  const box = element("section", undefined, `verdict ${ok ? "good" : "bad"}`);
  const words = element("div");
  words.append(element("h2", title), element("p", text));
  box.append(element("span", ok ? "\u2713" : "\u2717", "mark"), words);
  box.firstChild.setAttribute("aria-hidden", "true");
  return box;
}

function showRefused(name, reason) {
  $("result").replaceChildren(
    verdict(false, "NOT verified", reason),
    element("p", `Nothing in ${name} is vouched for. If you expected it to verify, ask for the file again, ` +
      "and check with whoever gave you the keys that they are of this site.", "after"),
  );
}

function showVerified(name, found, asked) {
  const { report, checkpoints, entries, receipt, files, cosigned, whole } = found;
  const site = `site ${report.site}, made ${report.created.slice(0, 19).replace("T", " ")} UTC`;
  const about = element("section", undefined, "about");
  about.append(element("p", name, "file"), element("h2", report.title ?? report.kind), element("p", site));
  const figures = element("dl", undefined, "figures");
  for (const { label, value } of report.shown?.figures ?? []) {
    const figure = element("div");
    figure.append(element("dt", String(label)), element("dd", number(value)));
    figures.append(figure);
  }
  about.append(figures);

  const checks = element("ul", undefined, "checks");
  if (receipt) {
    item(checks, "ok", `The ${report.kind} report is whole, and is the one recorded as ${receipt.place}`,
      `Each of its ${number(files.size)} files has the digest that its manifest states, and the site's own ` +
      "log recorded that manifest when the report was made.");
  }
  item(checks, "ok", `${plural(entries.length, "record")}, each proved to stand in its log`,
    "A Merkle proof (RFC 6962) leads from each record to a root that the log's key signed.");
  item(checks, "ok", plural(checkpoints.size, "signed checkpoint"), "By the keys that you gave.");
  if (whole) item(checks, "ok", "No record is missing", "It carries every record of these logs.");
  const seen = [...cosigned.values()].flat().length;
  if (seen) {
    item(checks, "ok", `${plural(seen, "cosignature")} of your witnesses`,
      `They saw these checkpoints. You required ${asked.quorum} of ${asked.witnesses.length}.`);
  } else {
    item(checks, "no", "That everybody is shown the same log",
      asked.witnesses.length ? "None of your witnesses cosigned these checkpoints." :
        "Only witnesses can say so: give the key of one that you trust.");
  }
  if (!whole) {
    item(checks, "no", "That no record was left out when the report was made",
      "This kind of report carries a part of the logs. The whole log, or an access report without " +
      "filters, shows it.");
  }
  if (!receipt) item(checks, "no", "That the site recorded this report", "Only the zip file carries that.");
  for (const text of UNREPEATED) {
    const [first, ...rest] = text.split(". ");
    item(checks, "no", first, rest.join(". "));
  }
  item(checks, "no", "Whose keys these are",
    "This page believed the keys in the first box. Compare them with what the site publishes elsewhere.");

  const rows = [...checkpoints.values()].map(({ origin, size, root }) => [
    origin, number(size), hex(root),
    cosigned.get(origin).map((one) => `${one.name}, ${when(one.time * 1000000n)}`).join("; ") || "nobody",
  ]);
  const words = `${plural(entries.length, "record")} of ${[...checkpoints.keys()].join(", ")}`;
  $("result").replaceChildren(
    verdict(true, "Verified", words), about, element("h2", "What was checked"), checks,
    element("h2", "The logs it draws on"),
    table(["log", "records", "root", "cosigned by"], rows),
  );
}

async function run(file) {
  $("result").replaceChildren(element("p", `Reading ${file.name} \u2026`, "busy"));
  const progress = async (done, all) => {
    $("result").replaceChildren(element("p", `${number(done)} of ${number(all)} records`, "busy"));
    await new Promise((resolve) => setTimeout(resolve));
  };
  try {
    const verifiers = await keysOf("keys", 1);
    const witnesses = await keysOf("witnesses", 4);
    const quorum = Number($("quorum").value);
    const asked = { verifiers, witnesses, quorum, progress };
    const bytes = new Uint8Array(await file.arrayBuffer());
    showVerified(file.name, await verifyReport(bytes, file.name, asked), asked);
  } catch (error) {
    const reason = error instanceof Failed ? error.message : "the file cannot be read here";
    showRefused(file.name, reason);
  }
  $("result").setAttribute("data-done", file.name);
  $("result").focus();
}

async function start() {
  const able = window.isSecureContext && "DecompressionStream" in window;
  const key = new Uint8Array(32);
  const known = able && (await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]).then(
    () => true, () => false,
  ));
  $("unable").hidden = known;
  $("form").hidden = !known;
}

let chosen = null;

function choose(file) {
  chosen = file ?? null;
  $("chosen").textContent = chosen ? `${chosen.name}, ${number(chosen.size)} bytes` : "no file yet";
  $("verify").disabled = !chosen;
}

$("file").addEventListener("change", () => choose($("file").files[0]));
$("drop").addEventListener("dragover", (event) => event.preventDefault());
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  choose(event.dataTransfer.files[0]);
});
$("keyfile").addEventListener("change", async () => {
  const [file] = $("keyfile").files;
  if (file) $("keys").value = await file.text();
});
$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("verify").disabled = true;
  await run(chosen);
  $("verify").disabled = false;
});
start();
