// Where a number comes from: a dialog with the formula, the records or the certificate, and a check of their SHA-256.
"use strict";

/** The field of plain JSON with a dotted path, undefined if there is none. */
function look(data, path) {
  return path.split(".").reduce((inner, name) => (inner === undefined || inner === null ? undefined : inner[name]), data);
}

/** Open the dialog about a number of the data, whose text on the page is `text`. */
function showSource(number, text, about) {
  const body = number.certificate ? certificateParts(number) : recordParts(number);
  openDialog(about ? `${text} (${about})` : text, [
    make("p", {}, "How it is computed: ", number.how, " ", make("code", {}, number.field), "."),
    ...body,
  ]);
}

const opened = []; // what the dialog shows, and before it what led there

/** Show a title and elements in the dialog; where it is open already, with a way back. */
function openDialog(title, parts) {
  const dialog = byId("provenance");
  if (!dialog.open) opened.length = 0;
  opened.push([title, parts]);
  const button = (text, act) => make("button", { type: "button", class: "plain", onclick: act }, text);
  const back = button("Back", () => openDialog(...opened.splice(-2)[0]));
  const close = button("Close", () => dialog.close());
  const heading = make("h2", { id: "provenance-title" }, title);
  show(byId("provenance-body"), make("div", { class: "dialog-head" }, heading, make("span", { class: "ways" }, opened.length > 1 ? back : null, close)), parts);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  close.focus();
}

function recordParts(number) {
  const many = number.from.length;
  const intro = many === 1 ? "One stored record:" : `${many} stored records:`;
  return [make("p", {}, intro), ...number.from.map((sha) => recordCard(sha, number.field))];
}

/** What a record says about itself, with the value of `field`. */
function recordCard(sha, field) {
  const stored = DATA.sources.records[sha];
  const record = JSON.parse(stored.text);
  const { checkpoint, seed } = record.question;
  const measured = record.measurements;
  const check = make("span", { class: "check" }, "checking …");
  checkHash(stored.text, sha).then((says) => show(check, says));
  const facts = [
    ["File", make("code", {}, `${stored.file}, line ${stored.line}`)],
    [field, make("strong", {}, fieldText(look(record, field)))],
    ["Network", `${record.labels.recipe}, train seed ${checkpoint.seed}, step ${checkpoint.step}, weights ${checkpoint.weights}`],
    ["Digest of the network", make("code", {}, checkpoint.digest.slice(0, 16) + "…")],
    ["Task and sampler", [record.labels.suite, record.labels.task, record.labels.preset, record.labels.tokens_per_step]
      .filter(Boolean).join(" / ") + `, sampling seed ${seed}`],
    ["Measured", `${measured.created.slice(0, 10)}, commit ${(measured.commit || "unknown").slice(0, 12)}, ` +
      `${measured.numerics.device} ${measured.numerics.dtype}, torch ${measured.numerics.torch}`],
    ["SHA-256 of the record", [make("code", {}, sha.slice(0, 16) + "… "), check]],
    ["In a terminal", make("code", {}, `python -m repro.results explain ${sha.slice(0, 12)} OTHER`)],
  ];
  return make("div", { class: "record" },
    make("dl", {}, facts.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    make("details", {}, make("summary", {}, "The whole record"), make("pre", { tabindex: "0" }, pretty(record))));
}

function fieldText(value) {
  if (typeof value === "number") return String(value);
  const text = JSON.stringify(value) || "not in this record";
  return text.length > 160 ? text.slice(0, 160) + " …" : text;
}

/** Indented JSON; long lists and strings end in dots. */
function pretty(data) {
  const cut = (_, value) => {
    if (Array.isArray(value) && value.length > 12) return [...value.slice(0, 12), `… ${value.length} in all`];
    return typeof value === "string" && value.length > 90 ? value.slice(0, 90) + `… ${value.length} characters in all` : value;
  };
  return JSON.stringify(data, cut, 1);
}

/** Whether the text of a record has the SHA-256 that it states: of the line without its last field. */
async function checkHash(text, sha) {
  if (!window.crypto || !crypto.subtle) return "(this browser cannot check it here)";
  const body = text.replace(/,"sha256":"[0-9a-f]{64}"\}$/, "}");
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(body));
  const hex = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex === sha ? "✓ computed again here: it matches" : "✗ does not match: the record was changed";
}

function certificateParts(number) {
  const stored = DATA.sources.certificates[number.certificate];
  const entry = stored.numbers[number.place];
  const facts = [
    ["File", make("code", {}, `results/certificates/${number.certificate}, numbers[${number.place}]`)],
    [number.field, make("strong", {}, String(look(entry, number.field)))],
    ["Preset", make("code", {}, JSON.stringify(stored.part))],
    ["Digest of the preset", make("code", {}, stored.digest.slice(0, 16) + "…")],
    ["Computed with", stored.machine ? Object.entries(stored.machine.versions).map((pair) => pair.join(" ")).join(", ") : "unknown"],
    ["In a terminal", make("code", {}, `python -m repro.certify --presets ${stored.preset}`)],
  ];
  return [
    make("p", {}, "One number of a certificate, exact or of 500 decodings:"),
    make("div", { class: "record" },
      make("dl", {}, facts.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
      make("details", { open: true }, make("summary", {}, "The whole entry"), make("pre", { tabindex: "0" }, pretty(entry)))),
  ];
}
