// Small helpers that all other files use: elements, numbers as text, buttons that lead to the source of a number.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id. */
function byId(id) {
  return document.getElementById(id);
}

/** A new HTML element: `make("p", {class: "note", onclick: f}, "text", child)`. Children that are null are left out. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replace what an element holds. */
function show(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
}

/** Three significant digits: 0.996, 12.8, 1.2e-5. */
function short(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value < 0) return "−" + short(-value);
  const size = Math.abs(value);
  if (size < 0.001) return value.toExponential(1).replace("e-", " × 10⁻").replace(/⁻(\d+)/, (_, n) => "⁻" + raised(n));
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
}

function raised(digits) {
  return [...digits].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
}

/** A share in per cent with one digit, any other number by `short`. */
function said(value, percent) {
  return percent ? `${(100 * value).toFixed(1)} %` : short(value);
}

/** The text of a number of the data as a button that opens its source. */
function numberButton(number, text, about = "") {
  const open = () => showSource(number, text, about);
  return make("button", { type: "button", class: "number", "aria-label": `${text}: show its source`, onclick: open }, text);
}

/** What a preset does, with the settings that its name changes: `random:temperature=1.0`. */
function aboutText(about, preset) {
  const [rule, ...processors] = preset.split("+");
  const changed = rule.split(":")[1];
  if (!about || !(changed || processors.length)) return about;
  const draws = changed === "temperature=1.0" ? ", so that tokens are drawn, not the most likely ones taken" : "";
  const parts = [changed ? changed + draws : null, ...processors.map((each) => `the processor ${each}`)];
  return `${about} Here with ${parts.filter(Boolean).join(" and ")}.`;
}

/** A table element; `rows` hold texts or elements, the first column is the row's header. Each other cell has its column's
 * header as an attribute, for narrow screens on which a row is a block, and roles, since a block has none by itself. */
function table(caption, header, rows) {
  const head = make("tr", { role: "row" }, header.map((cell) => make("th", { scope: "col", role: "columnheader" }, cell)));
  const cellOf = (cell, i) => (i ? make("td", { role: "cell", "data-label": header[i] }, cell) : make("th", { scope: "row", role: "rowheader" }, cell));
  const body = rows.map((row) => make("tr", { role: "row" }, row.map(cellOf)));
  return make("table", { role: "table" }, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, body));
}

/** The text `n word`, with the plural's s. */
function counted(n, word) {
  return `${n} ${word}${n === 1 ? "" : word.endsWith("s") ? "es" : "s"}`;
}
