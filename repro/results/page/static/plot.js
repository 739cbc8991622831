// The frontier plots: points with markers, lines, intervals and axes in SVG, by mouse, touch and keyboard.
"use strict";

const MARGIN = { left: 56, right: 18, top: 34, bottom: 46 };
const REACH = 26; // pixels from a point within which the pointer selects it

/** Markers around (0, 0), about 10 pixels wide. */
const SHAPES = {
  circle: "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z",
  square: "M-4.5-4.5h9v9h-9Z",
  diamond: "M0-6L6 0L0 6L-6 0Z",
  triangle: "M0-5.6L5.4 4.2H-5.4Z",
  down: "M0 5.6L5.4-4.2H-5.4Z",
  cross: "M-5-2h3v-3h4v3h3v4h-3v3h-4v-3h-3Z",
  ring: "M-5-5h10v10h-10ZM-2-2v4h4v-4Z",
};

/** A marker of a series as an SVG path; hollow where the rule is adaptive. */
function marker(series, x, y) {
  const kind = `marker c-${series.colour}${series.adaptive ? " hollow" : ""}`;
  return draw("path", { class: kind, d: SHAPES[series.shape] || SHAPES.circle, transform: `translate(${x} ${y})` });
}

/** Position of a value along an axis of `length` pixels, as a function. */
function scale(axis, values, length) {
  const map = axis.log ? Math.log : (value) => value;
  let [low, high] = [Math.min(...values), Math.max(...values)].map(map);
  const pad = (high - low || 1) * 0.05;
  [low, high] = [low - pad, high + pad];
  if (axis.percent) [low, high] = [Math.max(0, low), Math.min(1.015, high)];
  else if (!axis.log && low < 0.2 * high) low = Math.min(low + pad, 0) - pad / 2;
  const at = (value) => ((map(value) - low) / (high - low)) * length;
  at.ticks = axis.log ? logTicks(Math.exp(low), Math.exp(high), axis.base) : linearTicks(low, high);
  return at;
}

function logTicks(low, high, base) {
  const found = [];
  const grid = base === 2 ? Array.from({ length: 24 }, (_, i) => 2 ** (i - 8)) : decades();
  for (const value of grid) if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
  return found;
}

function decades() {
  const found = [];
  for (let power = -6; power < 8; power++) for (const digit of [1, 2, 5]) found.push(digit * 10 ** power);
  return found;
}

function linearTicks(low, high) {
  const raw = (high - low) / 7;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * unit).find((each) => each >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + 1e-9; value += step) found.push(Number(value.toPrecision(6)));
  return found;
}

/** The text of a tick. */
function tickText(value, axis) {
  if (axis.percent) return `${Math.round(100 * value)} %`;
  return value >= 1000 ? `${value / 1000}k` : String(Number(value.toPrecision(3)));
}

/** The points that no other point beats on both axes, from left to right. */
function frontier(plot, points) {
  const sideways = plot.x.better === "left" ? 1 : -1;
  const upwards = plot.y.better === "up" ? 1 : -1;
  const cost = (point) => sideways * point.x.v;
  const gain = (point) => upwards * point.y.v;
  return points
    .filter((p) => !points.some((q) => cost(q) <= cost(p) && gain(q) >= gain(p) && (cost(q) < cost(p) || gain(q) > gain(p))))
    .sort((a, b) => a.x.v - b.x.v);
}

/** What a point is, in one line. */
function pointText(plot, point) {
  const series = seriesOf(plot, point);
  const y = plot.y.percent ? `${said(point.y.v, true)} ${plot.y.unit}` : `${plot.y.unit} ${short(point.y.v)}`;
  return `${series.model}, ${point.preset}, ${point.setting}: ${y} with ${short(point.x.v)} ${plot.x.unit}`.replace(/ 1 steps$/, " 1 step");
}

function seriesOf(plot, point) {
  return plot.series.find((series) => series.id === point.series);
}

/**
 * Draw a plot into `place`. `hidden`: ids of series that are not shown; `selected`: id of the selected point;
 * `choose(point)` is called for a click, Enter or Space; `tell(point)` for hover and focus.
 */
function drawPlot(place, plot, { hidden, selected, choose, tell }) {
  const width = Math.max(280, place.clientWidth);
  const height = Math.round(Math.min(460, Math.max(300, width * 0.6)));
  const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  const points = plot.points.filter((point) => !hidden.has(point.series));
  const ends = plot.points.flatMap((point) => [point.y, point.low, point.high].filter(Boolean).map((each) => each.v));
  const across = scale(plot.x, plot.points.map((point) => point.x.v), inner.width);
  const along = scale(plot.y, ends, inner.height);
  const x = (value) => MARGIN.left + across(value);
  const y = (value) => MARGIN.top + inner.height - along(value);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": `${plot.title}: ${points.length} points` });
  svg.append(axes(plot, { x, y, across, along }, { width, height, inner }), better(plot));
  if (plot.frontier && points.length) svg.append(polyline(frontier(plot, points), x, y, "frontier"));
  for (const series of plot.series) {
    const own = points.filter((point) => point.series === series.id);
    if (own.length > 1) svg.append(polyline([...own].sort(byCost(plot)), x, y, `line c-${series.colour} d-${dashOf(series)}`));
    own.filter((point) => point.low).forEach((point) => svg.append(bar(point, series, x, y)));
  }
  const marks = points.map((point) => mark(plot, point, x, y, point.id === selected));
  if (width > 600) svg.append(names(plot, points, x, y, { width, height }));
  svg.append(...marks);
  listen(svg, points, marks, { x, y, choose, tell });
  show(place, svg);
}

/** Order of the points along a line: by cost, for sweeps over temperature by temperature. */
function byCost(plot) {
  return plot.frontier ? (a, b) => a.x.v - b.x.v : (a, b) => parseFloat(a.setting.slice(12)) - parseFloat(b.setting.slice(12));
}

function dashOf(series) {
  return { "4 per step": "dashed", "8 per step": "dotted" }[series.dash] || "solid";
}

function axes(plot, at, size) {
  const bottom = MARGIN.top + size.inner.height;
  const right = MARGIN.left + size.inner.width;
  const group = draw("g", { class: "axes", "aria-hidden": "true" });
  for (const value of at.across.ticks) {
    group.append(draw("path", { class: "grid", d: `M${at.x(value)} ${MARGIN.top}V${bottom}` }));
    group.append(draw("text", { x: at.x(value), y: bottom + 17, class: "middle" }, tickText(value, plot.x)));
  }
  for (const value of at.along.ticks) {
    group.append(draw("path", { class: "grid", d: `M${MARGIN.left} ${at.y(value)}H${right}` }));
    group.append(draw("text", { x: MARGIN.left - 7, y: at.y(value) + 4, class: "end" }, tickText(value, plot.y)));
  }
  group.append(draw("text", { x: MARGIN.left + size.inner.width / 2, y: size.height - 8, class: "middle name" }, plot.x.label));
  const middle = MARGIN.top + size.inner.height / 2;
  group.append(draw("text", { transform: `translate(13 ${middle}) rotate(-90)`, class: "middle name" }, plot.y.label));
  return group;
}

/** An arrow above the plot, towards the corner where both axes are best. */
function better(plot) {
  if (!plot.frontier) return draw("g");
  const up = plot.y.better === "up";
  const [x, y] = [MARGIN.left + 2, up ? 8 : 24];
  const down = up ? 1 : -1;
  const arrow = `M${x + 16} ${y + 16 * down}L${x} ${y}m8 0H${x}v${8 * down}`;
  return draw("g", { "aria-hidden": "true" }, draw("path", { class: "better-arrow", d: arrow }), draw("text", { x: x + 24, y: 20, class: "better" }, "better: faster and " + (up ? "more solved" : "closer")));
}

/** Names beside the lines, each where it covers no marker and no other name; left out where there is no such place. */
function names(plot, points, x, y, size) {
  const group = draw("g", { class: "names", "aria-hidden": "true" });
  const taken = points.map((point) => ({ x: x(point.x.v) - 7, y: y(point.y.v) - 7, w: 14, h: 14 }));
  for (const series of plot.series) {
    const own = points.filter((point) => point.series === series.id).sort((a, b) => b.x.v - a.x.v);
    const text = lineName(plot, series);
    const box = { w: 6.9 * text.length + 4, h: 15 };
    const places = own.flatMap((point) => {
      const [px, py] = [x(point.x.v), y(point.y.v)];
      return [[px + 13, py - 7], [px - box.w - 13, py - 7], [px + 4, py + 8], [px + 4, py - 24], [px - box.w - 4, py + 8], [px - box.w - 4, py - 24]];
    }).map(([left, top]) => ({ x: left, y: top, ...box }));
    const free = places.find((each) => each.x > MARGIN.left && each.x + each.w < size.width - 4 && each.y > MARGIN.top - 6 &&
      each.y + each.h < size.height - MARGIN.bottom && !taken.some((other) => overlap(each, other)));
    if (!free) continue;
    taken.push(free);
    group.append(draw("text", { x: free.x + 2, y: free.y + 12 }, text));
  }
  return group;
}

function overlap(a, b) {
  return a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
}

/** The short name of a series: its rule, with the model where the plot has several. */
function lineName(plot, series) {
  if (series.colour === "reference") return series.model;
  return plot.world === "sentences" ? series.rule : `${series.model.split(" (")[0]}, ${series.rule}`;
}

function polyline(points, x, y, kind) {
  return draw("path", { class: kind, d: "M" + points.map((point) => `${x(point.x.v)} ${y(point.y.v)}`).join("L") });
}

function bar(point, series, x, y) {
  const [at, low, high] = [x(point.x.v), y(point.low.v), y(point.high.v)];
  return draw("path", { class: `bar c-${series.colour}`, d: `M${at} ${low}V${high}M${at - 3} ${low}h6M${at - 3} ${high}h6` });
}

function mark(plot, point, x, y, selected) {
  const series = seriesOf(plot, point);
  const at = [x(point.x.v), y(point.y.v)];
  const label = pointText(plot, point);
  const group = draw("g", { class: "point", "data-point": point.id, role: "button", tabindex: selected ? 0 : -1, "aria-label": label, "aria-pressed": String(selected) });
  group.append(draw("circle", { class: "halo", cx: at[0], cy: at[1], r: 11 }), marker(series, ...at));
  return group;
}

/** Pointer and keys of a plot: the nearest point within reach; arrows move the focus from point to point. */
function listen(svg, points, marks, { x, y, choose, tell }) {
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const away = points.map((point) => Math.hypot(x(point.x.v) - (event.clientX - box.left), y(point.y.v) - (event.clientY - box.top)));
    const best = away.indexOf(Math.min(...away));
    return away[best] <= REACH ? best : -1;
  };
  const order = points.map((_, i) => i).sort((a, b) => points[a].x.v - points[b].x.v || points[a].y.v - points[b].y.v);
  if (points.length && !marks.some((each) => each.getAttribute("tabindex") === "0")) marks[order[0]].setAttribute("tabindex", 0);
  svg.addEventListener("pointermove", (event) => {
    const found = nearest(event);
    marks.forEach((each, i) => each.classList.toggle("near", i === found));
    svg.classList.toggle("pointing", found >= 0);
    tell(found >= 0 ? points[found] : null);
  });
  svg.addEventListener("pointerleave", () => {
    marks.forEach((each) => each.classList.remove("near"));
    tell(null);
  });
  svg.addEventListener("click", (event) => {
    const found = nearest(event);
    if (found >= 0) choose(points[found]);
  });
  marks.forEach((each, i) => {
    each.addEventListener("focus", () => tell(points[i]));
    each.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step) marks[order[(order.indexOf(i) + step + order.length) % order.length]].focus();
      else if (event.key === "Enter" || event.key === " ") choose(points[i]);
      else return;
      event.preventDefault();
    });
  });
}
