// Two recorded decodings side by side on one slider, with the exact KL of each step where it is known.
"use strict";

const STATE = { n: "noise", w: "written now", r: "revised now", s: "settled" };
const PAUSE = 650; // milliseconds of a step while playing

/** All settings with recorded decodings of a world ("sudoku", "sentences"), each once. */
function settingsOf(world) {
  const found = new Map();
  for (const plot of DATA.plots.filter((each) => each.world === world)) {
    for (const point of plot.points) {
      if (point.items && !found.has(point.items)) found.set(point.items, { plot, point, series: seriesOf(plot, point) });
    }
  }
  return found;
}

/** The view of two decodings; `set(a, b, item)` changes what it shows. */
class SideBySide {
  constructor(place) {
    this.place = place;
    this.step = 0;
    this.item = 0;
    this.timer = null;
  }

  /** Show the settings with the names `a` and `b` (null: keep, or choose one that differs) on one item. */
  set(a, b = null, item = this.item) {
    this.stop();
    const world = DATA.plots.flatMap((plot) => plot.points.map((point) => [point.items, plot.world])).find(([name]) => name === a)[1];
    const changed = world !== this.world;
    this.world = world;
    this.settings = settingsOf(world);
    this.a = a;
    this.b = b || (changed || this.b === a ? this.other(a) : this.b);
    this.item = changed ? 0 : Math.min(item, DATA.items[a].length - 1);
    this.build();
    this.go(1, false);
  }

  /** A setting to compare with: one of the same model with four tokens per step, else the first that differs. */
  other(a) {
    const names = [...this.settings.keys()].filter((name) => name !== a);
    const model = this.settings.get(a).series.recipe;
    const same = names.filter((name) => this.settings.get(name).series.recipe === model);
    return same.findLast((name) => this.settings.get(name).point.setting.startsWith("4 tokens")) || same[0] || names[0];
  }

  build() {
    const noun = this.world === "sudoku" ? "Puzzle" : "Sentence";
    const items = DATA.items[this.a];
    const option = (each, i) => make("option", { value: i, selected: i === this.item }, `${noun} ${each.item + 1}`);
    const chooser = make("select", { id: "item", onchange: (event) => this.set(this.a, this.b, Number(event.target.value)) }, items.map(option));
    this.slider = make("input", { type: "range", id: "step", "aria-label": "Step", min: 0, max: this.last(), value: 0, oninput: () => this.go(Number(this.slider.value), true) });
    this.play = make("button", { type: "button", onclick: () => this.toggle() }, "Play");
    const move = (by, label, text) => make("button", { type: "button", "aria-label": label, onclick: () => { this.stop(); this.go(this.step + by, true); } }, text);
    this.count = make("output", { for: "step", class: "count" });
    this.live = make("p", { class: "hidden", "aria-live": "polite" });
    this.sides = [this.side("a"), this.side("b")];
    show(this.place,
      this.intro(),
      make("div", { class: "row" }, make("label", { for: "item" }, `${noun}:`), chooser),
      make("div", { class: "sides" }, this.sides.map((side) => side.element)),
      make("div", { class: "row controls" }, move(-1, "One step back", "◀"), this.play, move(1, "One step on", "▶"),
        make("span", { class: "slider-label", "aria-hidden": "true" }, "Step"), this.slider, this.count),
      legend(), this.note(), this.live);
  }

  intro() {
    const texts = {
      sudoku: "The clues (small digits in tinted cells) are given; the model writes all 16 cells. KL: how far the network's independent probabilities " +
        "for the cells of this step are from their true joint distribution, which is known because all boards can be listed. " +
        "It is 0 where nothing is lost, and grows where cells are written together that depend on each other.",
      sentences: "Sentences of three letters, whose 27 probabilities are known, decoded with the exact denoiser. KL: what a step loses " +
        "because its positions are drawn independently of each other. Letters before they settle are noise.",
    };
    return make("p", {}, texts[this.world]);
  }

  note() {
    if (this.world !== "sudoku") return make("p", { class: "note" }, "Decoded with random streams 0 to 3: the first texts, not chosen ones.");
    return make("p", { class: "note" }, "The first puzzles of the evaluation, with its random streams. The networks were trained again from the same " +
      "recipe and seed, so that single puzzles may end otherwise than in the record: compare the two lines below each board.");
  }

  /** One of the two sides, `which` being "a" or "b". */
  side(which) {
    const name = this[which];
    const { series, point } = this.settings.get(name);
    const groups = new Map();
    for (const [key, each] of this.settings) {
      if (!groups.has(each.series.model)) groups.set(each.series.model, []);
      groups.get(each.series.model).push(make("option", { value: key, selected: key === name }, `${each.point.preset}, ${each.point.setting}`));
    }
    const choose = (event) => (which === "a" ? this.set(event.target.value, this.b) : this.set(this.a, event.target.value));
    const label = which === "a" ? "Left" : "Right";
    const select = make("select", { id: `side-${which}`, "aria-label": `${label}: model and sampler`, onchange: choose },
      [...groups].map(([model, options]) => make("optgroup", { label: model }, options)));
    const board = make("div", { class: `board ${this.world}`, role: "img" });
    const facts = make("div", { class: "facts" });
    const chart = make("div", { class: "kl" });
    const heading = make("h3", {}, marksOf(series), series.model.split(" (")[0]);
    const setting = make("p", { class: "setting" }, make("code", {}, point.preset), `, ${point.setting}`);
    const element = make("div", { class: "side", "data-side": which }, heading, select, setting, board, facts, chart, this.outcome(name, point));
    return { name, element, board, facts, chart };
  }

  outcome(name, point) {
    const item = DATA.items[name][this.item];
    if (item.right === null) return make("p", { class: "note" }, `Ends as “${item.text}”.`);
    const record = point.outcomes[point.recorded].digits[item.item] === "1";
    return make("p", { class: "note" }, "Here: ", verdictWord(item.right), make("br"), "In the record: ", verdictWord(record));
  }

  last() {
    return Math.max(...[this.a, this.b].map((name) => DATA.items[name][this.item].frames.length)) - 1;
  }

  /** Show a step; `tell`: whether to announce it. */
  go(step, tell) {
    this.step = Math.max(0, Math.min(this.last(), step));
    this.slider.value = this.step;
    const text = this.step === 0 ? "start" : `${this.step} of ${this.last() - 1}`;
    show(this.count, this.step === this.last() ? "end" : text);
    this.slider.setAttribute("aria-valuetext", this.count.textContent);
    const told = this.sides.map((side) => this.showSide(side));
    if (tell && this.timer === null) show(this.live, `Left: ${told[0]} Right: ${told[1]}`);
  }

  showSide({ name, board, facts, chart }) {
    const item = DATA.items[name][this.item];
    const at = Math.min(this.step, item.frames.length - 1);
    const frame = item.frames[at];
    const done = at === item.frames.length - 1;
    show(board, [...frame.t].map((token, i) => cell(token, frame, i, item.prompt)));
    const counts = Object.entries(STATE).map(([letter, word]) => [[...frame.s].filter((each) => each === letter).length, word]);
    const inWords = counts.filter(([n]) => n).map(([n, word]) => `${n} ${word}`).join(", ");
    board.setAttribute("aria-label", `Text ${[...frame.t].join(" ").replaceAll("·", "blank")}: ${inWords}`);
    const sum = item.frames.slice(0, at + 1).reduce((total, each) => total + (each.k || 0), 0);
    const known = item.frames.some((each) => each.k !== null);
    const step = done || at === 0 ? "–" : frame.k === null ? "– (nothing fits)" : `${short(frame.k)} nats`;
    const lines = [
      ["forward passes", String(frame.f)],
      ["KL of this step", known ? step : "not known here"],
      ["KL so far", known ? `${short(sum)} nats` : "–"],
    ];
    if (frame.b !== null) lines.push(["boards that still fit", String(frame.b)]);
    else if (this.world === "sudoku") lines.push(["boards that still fit", "–"]);
    show(facts, make("dl", {}, lines.map(([key, value]) => make("div", {}, make("dt", {}, key), make("dd", {}, value)))));
    show(chart, known ? this.bars(item, at) : make("p", { class: "note" }, "This rule changes tokens again, and the exact law of such a step is not listed."));
    return `${done ? "done" : inWords}.`;
  }

  /** Bars of the KL of each step, on one scale for both sides; a click goes to the step. */
  bars(item, at) {
    const top = Math.max(0.005, ...[this.a, this.b].flatMap((name) => DATA.items[name][this.item].frames.map((each) => each.k || 0)));
    const steps = item.frames.length - 2;
    const width = 180, height = 46, each = Math.min(16, width / Math.max(1, steps));
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height + 4}`, role: "img", "aria-label": `KL of each step in nats: ${item.frames.slice(1, -1).map((f) => short(f.k)).join(", ")}` });
    item.frames.slice(1, -1).forEach((frame, i) => {
      const tall = Math.max(1.5, (height * (frame.k || 0)) / top);
      const kind = `klbar${i + 1 === at ? " now" : ""}${i + 1 > at ? " later" : ""}`;
      const rect = draw("rect", { class: kind, x: i * each + 0.5, y: height - tall, width: Math.max(1, each - 1.5), height: tall });
      const target = draw("rect", { class: "target", x: i * each, y: 0, width: each, height, onclick: () => this.go(i + 1, true) });
      svg.append(rect, target);
    });
    svg.append(draw("path", { class: "grid", d: `M0 ${height + 0.5}H${width}` }));
    return [svg, make("p", { class: "note" }, `KL by step, up to ${short(top)} nats`)];
  }

  toggle() {
    if (this.timer !== null) return this.stop();
    if (this.step >= this.last()) this.go(0, false);
    show(this.play, "Pause");
    this.timer = setInterval(() => {
      this.go(this.step + 1, false);
      if (this.step >= this.last()) this.stop();
    }, PAUSE);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    if (this.play) show(this.play, "Play");
  }
}

/** A cell of a board; its title says the state and how sure the network was. */
function cell(token, frame, place, prompt) {
  const clue = prompt && prompt[place] !== "." ? prompt[place] : null;
  const given = clue ? " clue" : "";
  const line = place % 4 === 1 ? " rule-right" : "";
  const box = Math.floor(place / 4) === 1 && prompt ? " rule-below" : "";
  const sure = frame.p[place];
  const title = STATE[frame.s[place]] + (sure === undefined ? "" : `, probability ${short(sure)}`);
  return make("span", { class: `cell ${frame.s[place]}${given}${line}${box}`, title, "data-clue": clue }, token);
}

function legend() {
  const words = Object.entries(STATE).map(([letter, word]) => make("span", { class: "key" }, make("span", { class: `cell ${letter}` }, letter === "n" ? "·" : "3"), ` ${word}`));
  return make("p", { class: "keys" }, words);
}

function verdictWord(right) {
  return make("strong", { class: right ? "good" : "bad" }, right ? "✓ solved" : "✗ not solved");
}

/** The marker of a series as a small picture. */
function marksOf(series) {
  return draw("svg", { class: "swatch", viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true" }, marker(series, 0, 0));
}
