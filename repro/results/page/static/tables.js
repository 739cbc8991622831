// Certificates and the ledger of claims.
"use strict";

const VERDICTS = {
  exact: ["exact", "good"], converges: ["converges", "good"], lossless: ["lossless", "good"],
  modes: ["likely texts", "plain"], biased: ["biased", "warn"], stuck: ["stuck", "bad"],
  "holds here": ["holds here", "good"], "fails here": ["fails here", "bad"],
  undecided: ["undecided", "plain"], "not measured": ["not measured", "plain"],
};
const NOISES = { absorbing: "masked", uniform: "uniform", left_to_right: "left to right" };
const COLUMNS = ["total variation, 27 sentences", "squared bigram distance, 32 tokens", "KL, nats per token"];

function chip(kind) {
  const [text, mood] = VERDICTS[kind] || [kind, "plain"];
  return make("span", { class: `chip ${mood}` }, text);
}

/** What a verdict says, without the words of its chip, and with numbers as everywhere on the page. */
function saysOf(entry) {
  const text = entry.says.replace(/^biased by construction: /, "")
    .replace(/[\d.]+e-\d+/, (number) => short(Number(number))).replace(/ -(?=\d)/, " −");
  const [before, power, after] = text.split(/N\^-([\d.]+)/);
  return power ? [`${before}N`, make("sup", {}, `−${power}`), after] : text;
}

/** The number of a column at one step per token, else at the finest number of steps. */
function chosen(entry, label) {
  const words = label === COLUMNS[2] ? [label, "path KL, nats per token"] : [label];
  const found = entry.numbers.filter((each) => words.includes(each.label));
  const tokens = label === COLUMNS[0] ? 3 : 32;
  return found.find((each) => each.steps === tokens) || found[found.length - 1];
}

function showCertificates(noise) {
  const rows = DATA.certificates.filter((entry) => noise === "all" || entry.noise === noise).map((entry) => [
    make("span", { title: aboutText(entry.about, entry.preset) }, make("code", {}, entry.preset)),
    NOISES[entry.noise], entry.claim, make("span", {}, chip(entry.stands ? entry.kind : "stuck"), make("br"), make("span", { class: "note" }, saysOf(entry))),
    ...COLUMNS.map((label) => {
      const number = chosen(entry, label);
      return number ? numberButton(number.number, short(number.number.v), `${entry.preset}, ${number.label}, steps: ${number.steps || "adaptive"}`) : "–";
    }),
  ]);
  const header = ["preset", "noise", "what it claims", "verdict", ...COLUMNS];
  show(byId("certificate-table"), table(`${rows.length} certificates`, header, rows));
}

function startCertificates() {
  const options = [["all", "all"], ...Object.entries(NOISES)].map(([value, text]) => make("option", { value }, text));
  const select = make("select", { id: "noise", onchange: (event) => showCertificates(event.target.value) }, options);
  show(byId("certificate-filter"), make("label", { for: "noise" }, "Noise process:"), select);
  showCertificates("all");
}

// --- claims --------------------------------------------------------------------------------------------------

function startClaims() {
  const { claims, untestable } = DATA.ledger;
  show(byId("claim-list"), claims.map(claimCard));
  show(byId("untestable"), untestable.map((each) => make("li", {}, make("strong", {}, each.says), " ", each.why, ` (${each.source})`)));
}

function claimCard(claim) {
  const text = claim.mean === null ? "not measured" : signed(claim.mean);
  const button = claim.mean === null ? text : make("button", { type: "button", class: "number", "aria-label": `${text}: show its source`, onclick: () => showClaim(claim) }, text);
  const interval = claim.interval ? ` [${claim.interval.map(signed).join(", ")}]` : "";
  return make("article", { class: "claim" },
    make("h3", {}, claim.says), make("p", {}, chip(claim.verdict), make("span", { class: "note" }, ` ${claim.source}`)),
    claim.interval ? intervalPicture(claim) : null,
    make("p", { class: "quantity" }, `${claim.quantity}: `, button, interval),
    make("p", { class: "note" }, `Holds if ${claim.direction} ${short(claim.margin)}; p ${claim.p === null ? "–" : short(claim.p)}, ${claim.n} train seeds, power ${claim.power}`));
}

function signed(value) {
  return (value > 0 ? "+" : "−") + short(Math.abs(value));
}

/** The interval of a claim on an axis, with the side tinted on which the claim holds. */
function intervalPicture(claim) {
  const [low, high] = claim.interval;
  const ends = [low, high, claim.margin, 0];
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const pad = 0.22 * (most - least || 1);
  const at = (value) => (300 * (value - least + pad)) / (most - least + 2 * pad);
  const margin = at(claim.margin);
  const side = claim.direction === "above" ? { x: margin, width: 300 - margin } : { x: 0, width: margin };
  const label = `interval ${signed(low)} to ${signed(high)}, mean ${signed(claim.mean)}; the claim holds ${claim.direction} ${short(claim.margin)}`;
  const word = claim.direction === "above" ? { x: margin + 5, y: 11 } : { x: margin - 5, y: 11, class: "end" };
  return draw("svg", { class: "interval", viewBox: "0 0 300 40", role: "img", "aria-label": label },
    draw("rect", { class: "side-holds", y: 0, height: 30, ...side }),
    draw("path", { class: "margin", d: `M${margin} 0V30` }),
    draw("path", { class: "zero", d: `M${at(0)} 26V34` }), draw("text", { x: at(0), y: 40, class: "middle small" }, "0"),
    draw("text", word, "holds"),
    draw("path", { class: "ci", d: `M${at(low)} 20H${at(high)}M${at(low)} 15v10M${at(high)} 15v10` }),
    draw("circle", { class: "mean", cx: at(claim.mean), cy: 20, r: 4 }));
}

/** The dialog of a claim: the quantity for each train seed, and the record of each part of it. */
function showClaim(claim) {
  const rows = claim.seeds.map((seed, i) => [
    `seed ${seed}`,
    ...claim.cells.map((cell) => {
      const value = look(JSON.parse(DATA.sources.records[cell.records[i]].text), cell.field);
      const number = { v: value, how: "equal to", field: cell.field, from: [cell.records[i]] };
      return numberButton(number, short(value), `${cell.label}, seed ${seed}`);
    }),
    signed(claim.values[i]),
  ]);
  const header = ["train seed", ...claim.cells.map((cell) => `${cell.sign > 0 ? "+" : "−"} ${cell.label}`), "quantity"];
  openDialog(`${signed(claim.mean)}: ${claim.quantity}`, [
    make("p", {}, "The mean over train seeds of the last column; its interval is Student's. Each number leads to its record."),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Values by seed" }, table(claim.says, header, rows)),
    make("p", { class: "note" }, "Registered in ", make("code", {}, "evals/claims.toml"), `, source ${claim.source}.`),
  ]);
}
