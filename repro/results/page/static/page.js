// Start of the page: tabs, the selected plot and point, and what they show.
"use strict";

const view = { plot: DATA.plots[0], point: null, hidden: new Set() };
const decodings = new SideBySide(byId("decodings"));

/** The cheapest point within one per cent of the best of a plot with shares, and the cheapest best one. */
function goodDeal(plot) {
  const best = Math.max(...plot.points.map((point) => point.y.v));
  const cheapest = (points) => points.reduce((a, b) => (b.x.v < a.x.v ? b : a));
  return { deal: cheapest(plot.points.filter((point) => point.y.v >= best - 0.01)), best: cheapest(plot.points.filter((point) => point.y.v === best)) };
}

function showPlot() {
  const { plot } = view;
  for (const tab of byId("tabs").children) {
    const own = tab.dataset.plot === plot.id;
    tab.setAttribute("aria-selected", String(own));
    tab.tabIndex = own ? 0 : -1;
  }
  byId("panel").setAttribute("aria-labelledby", `tab-${plot.id}`);
  show(byId("reading"), ...reading(plot));
  show(byId("best"), ...bestLine(plot));
  redraw();
  showLegend();
  showTable();
}

/** How to read the plot. */
function reading(plot) {
  if (!plot.frontier) return [plot.about];
  const where = plot.y.better === "up" ? "up and to the left is better" : "down and to the left is better";
  const hollow = plot.series.some((series) => series.adaptive) ? " Hollow markers are rules that decide by themselves how many tokens a step writes." : "";
  return ["Each point is a model with a sampler at one setting: ", make("strong", {}, where), ". The pale band is the ", make("em", {}, "frontier"),
    ": no other point is both faster and better. Click a point." + hollow + " ", make("span", { class: "note" }, plot.about + (plot.points[0].low ? "; bars: 95 % intervals." : ""))];
}

function bestLine(plot) {
  if (!plot.y.percent) return [];
  const { deal, best } = goodDeal(plot);
  const named = (point) => `${seriesOf(plot, point).model}, ${point.preset}`;
  const parts = ["In short: within one per cent of the best, the fastest setting is ", make("strong", {}, named(deal)), ": ", numberButton(deal.y, said(deal.y.v, true), named(deal)),
    " at ", numberButton(deal.x, short(deal.x.v), named(deal)), ` ${plot.x.unit}`];
  if (deal !== best) parts.push("; the best, ", make("strong", {}, `${best.preset}, ${best.setting}`), ", needs ", numberButton(best.x, short(best.x.v), named(best)), " for ", numberButton(best.y, said(best.y.v, true), named(best)));
  return [...parts, "."];
}

function redraw() {
  const { plot, hidden } = view;
  drawPlot(byId("plot"), plot, { hidden, selected: view.point && view.point.id, choose: (point) => selectPoint(point, true), tell });
}

function tell(point) {
  const shown = point || view.point;
  show(byId("readout"), shown ? pointText(view.plot, shown) : "");
}

function showLegend() {
  show(byId("legend"), view.plot.series.map((series) => {
    const flip = (event) => {
      view.hidden[view.hidden.has(series.id) ? "delete" : "add"](series.id);
      event.currentTarget.setAttribute("aria-pressed", String(!view.hidden.has(series.id)));
      redraw();
    };
    return make("button", { type: "button", class: "toggle", "aria-pressed": String(!view.hidden.has(series.id)), title: series.about, onclick: flip }, marksOf(series), lineName(view.plot, series));
  }));
}

function showTable() {
  const { plot } = view;
  const rows = plot.points.map((point) => {
    const series = seriesOf(plot, point);
    const name = `${point.preset}, ${point.setting}`;
    const ends = point.low ? make("span", {}, numberButton(point.low, said(point.low.v, plot.y.percent), name), " to ", numberButton(point.high, said(point.high.v, plot.y.percent), name)) : "–";
    return [make("button", { type: "button", class: "plain", onclick: () => selectPoint(point, true) }, name), series.model, numberButton(point.y, said(point.y.v, plot.y.percent), name), ends, numberButton(point.x, short(point.x.v), name)];
  });
  show(byId("plot-table"), table(plot.title, ["sampler and setting", "model", plot.y.label, "95 % interval", plot.x.label], rows));
}

/** Select a point; `asked`: by the reader, so that the decodings follow and the focus stays on the point. */
function selectPoint(point, asked) {
  view.point = point;
  redraw();
  tell(point);
  showPoint();
  if (asked) {
    const pressed = byId("plot").querySelector('[aria-pressed="true"]');
    if (pressed) pressed.focus({ preventScroll: true });
  }
  if (point.items) decodings.set(point.items);
}

/** The card of the selected point: its numbers, its items, and the way to its decodings. */
function showPoint() {
  const { plot, point } = view;
  const series = seriesOf(plot, point);
  const facts = [[plot.y.label, numberButton(point.y, said(point.y.v, plot.y.percent), point.preset)]];
  if (point.low) facts.push(["95 % interval", make("span", {}, numberButton(point.low, said(point.low.v, plot.y.percent), point.preset), " to ", numberButton(point.high, said(point.high.v, plot.y.percent), point.preset))]);
  if (!plot.frontier) facts.push([plot.x.label, numberButton(point.x, short(point.x.v), point.preset)]);
  facts.push(...point.extra.map(({ label, number }) => [label, numberButton(number, short(number.v), label)]));
  const about = series.about ? make("p", { class: "note" }, aboutText(series.about, point.preset), series.paper ? ` (arXiv ${series.paper})` : "") : null;
  show(byId("point"), make("h3", { id: "point-title" }, marksOf(series), `${series.model}`), make("p", { class: "setting" }, make("code", {}, point.preset), `, ${point.setting}`), about,
    make("dl", {}, facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))), itemParts(plot, point));
}

function itemParts(plot, point) {
  const parts = point.outcomes.map((each) => outcomeStrip(plot, each));
  if (point.items) {
    const noun = plot.world === "sudoku" ? "puzzle" : "sentence";
    const buttons = DATA.items[point.items].map((item, i) => {
      const mood = item.right === null ? "" : item.right ? " good" : " bad";
      const name = `${noun} ${item.item + 1}${item.right === null ? "" : item.right ? ", solved" : ", not solved"}: show step by step`;
      return make("button", { type: "button", class: `item${mood}`, "aria-label": name, onclick: () => openItem(point, i) }, String(item.item + 1), item.right === false ? " ✗" : "");
    });
    parts.push(make("p", { class: "items-label" }, `Watch a ${noun} being written:`), make("div", { class: "items" }, buttons));
  } else parts.push(make("p", { class: "note" }, "No decodings were recorded for this plot."));
  return parts;
}

function openItem(point, i) {
  decodings.set(point.items, null, i);
  byId("decoding").scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  decodings.slider.focus({ preventScroll: true });
}

/** A picture of all questions of a record: dark where one was not answered. */
function outcomeStrip(plot, { seed, digits, record }) {
  const across = 50, size = 6;
  const high = Math.ceil(digits.length / across) * size;
  const solved = [...digits].filter((digit) => digit === "1").length;
  const path = (wanted) => [...digits].map((digit, i) => (digit === wanted ? `M${(i % across) * size} ${Math.floor(i / across) * size}h5v5h-5z` : "")).join("");
  const label = `train seed ${seed}: ${solved} of ${digits.length} ${plot.what} solved`;
  const number = { v: solved, how: "number of digits 1 in", field: "answer.outcomes", from: [record] };
  return make("figure", { class: "strip" }, draw("svg", { viewBox: `0 0 ${across * size} ${high}`, role: "img", "aria-label": label }, draw("path", { class: "solved", d: path("1") }), draw("path", { class: "failed", d: path("0") })),
    make("figcaption", {}, `train seed ${seed}: `, numberButton(number, String(solved), label), ` of ${digits.length} solved`));
}

/** The point of the frontier with the second smallest cost. */
function secondOf(plot) {
  const found = frontier(plot, plot.points);
  return found.find((point) => point.x.v > found[0].x.v);
}

/** Series that a plot of more than eight lines hides at first: those between one and many tokens per step. */
function hiddenAtFirst(plot) {
  const many = plot.series.filter((series) => series.colour !== "reference").length > 8;
  return new Set(many ? plot.series.filter((series) => series.dash === "4 per step").map((series) => series.id) : []);
}

function startTabs() {
  const choose = (plot) => {
    view.plot = plot;
    view.hidden = hiddenAtFirst(plot);
    view.point = plot.y.percent ? goodDeal(plot).deal : (plot.frontier && secondOf(plot)) || plot.points[0];
    showPlot();
    showPoint();
    tell(null);
    if (view.point.items) decodings.set(view.point.items);
  };
  show(byId("tabs"), DATA.plots.map((plot) => make("button", { type: "button", role: "tab", id: `tab-${plot.id}`, "aria-controls": "panel", "data-plot": plot.id, onclick: () => choose(plot) }, plot.title)));
  byId("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const tabs = [...byId("tabs").children];
    const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  });
  choose(DATA.plots[0]);
}

/** Hide a section that has nothing to show, and its link. */
function hideIfEmpty(id, empty) {
  byId(id).hidden = empty;
  document.querySelector(`nav [href="#${id}"]`).hidden = empty;
}

startTabs();
startCertificates();
startClaims();
hideIfEmpty("decoding", !Object.keys(DATA.items).length);
hideIfEmpty("certificates", !DATA.certificates.length);
hideIfEmpty("claims", !DATA.ledger.claims.length);
byId("example").addEventListener("click", () => showSource(view.point.y, said(view.point.y.v, view.plot.y.percent), view.point.preset));
new ResizeObserver(redraw).observe(byId("plot"));
