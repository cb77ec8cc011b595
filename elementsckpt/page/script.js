"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const pictures = document.getElementById("pictures");
const tip = document.getElementById("tip");
const HUES = ["--a", "--b", "--c", "--d", "--e", "--f", "--g", "--h"];
const PALE = 0.3, NARROW = 640, FONT = '11px system-ui, "DejaVu Sans", sans-serif', BOLD = `600 ${FONT}`;
const ruler = document.createElement("canvas").getContext("2d");
const MOST_NODES = 3000, MOST_SAVES = 200; // Beyond these, a canvas.

function element(tag, text = "", kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function size(bytes) {
  if (bytes === null) return "-";
  for (const unit of ["B", "kB", "MB", "GB", "TB", "PB"]) {
    if (bytes < 999.5 || unit === "PB") {
      const digits = unit === "B" ? 0 : bytes < 9.995 ? 2 : bytes < 99.95 ? 1 : 0;
      return `${bytes.toFixed(digits)} ${unit}`;
    }
    bytes /= 1000;
  }
}

function figure(value) {
  if (value === null || value === undefined) return "-";
  if (typeof value === "string") return value; // "nan" and the infinities.
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
  const isLong = Math.abs(value) >= 1e3 && Math.abs(value) < 1e9;
  return isLong ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
}

function step(text) {
  return text === null ? "-" : text.replace(/\B(?=(\d{3})+$)/g, ",");
}

function short(text) { // A step below a picture.
  if (text === null) return "";
  const value = Number(text);
  if (Math.abs(value) < 1e4) return text;
  return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

function label(save) {
  const number = save.sequence === null ? save.name : `#${save.sequence}`;
  return save.step === null ? number : `${number}, step ${step(save.step)}`;
}

function hue(component) { // The same in all pictures.
  return HUES[data.components.indexOf(component)] ?? "--other";
}

function widthOf(text, font = FONT) {
  ruler.font = font;
  return ruler.measureText(text).width * 1.02;
}

// Cuts to what fits, with a sign that it is cut.
function cut(text, room, { keepsEnd = false, font = FONT } = {}) {
  if (widthOf(text, font) <= room) return text;
  const letters = [...text].slice(...(keepsEnd ? [-200] : [0, 200]));
  while (letters.length && widthOf(`…${letters.join("")}`, font) > room) keepsEnd ? letters.shift() : letters.pop();
  if (!letters.length) return "";
  return keepsEnd ? `…${letters.join("")}` : `${letters.join("")}…`;
}

// A picture of shapes, drawn as SVG, or on a canvas if there are very many.
class Picture {
  constructor(width, height, title) {
    Object.assign(this, { width, height, title, shapes: [] });
  }
  rect(x, y, width, height, color, hint = "", opacity = 1) {
    this.shapes.push({ kind: "rect", x, y, width, height, color, hint, opacity });
  }
  dot(x, y, radius, color, hint = "") {
    this.shapes.push({ kind: "dot", x, y, radius, color, hint, opacity: 1 });
  }
  line(points, color, width = 1.6) {
    this.shapes.push({ kind: "line", points, color, width, hint: "", opacity: 1 });
  }
  text(x, y, text, { anchor = "start", kind = "" } = {}) {
    if (text) this.shapes.push({ kind: "text", x, y, text, anchor, name: kind, hint: "" });
  }
  show(parent) {
    const many = this.shapes.length > MOST_NODES || data.saves.length > MOST_SAVES;
    const drawn = many ? this.canvas() : this.svg();
    parent.append(drawn);
  }
  svg() {
    const root = node("svg", { viewBox: `0 0 ${this.width} ${this.height}`, role: "img" });
    root.append(named("title", this.title));
    for (const shape of this.shapes) {
      const made = svgShape(shape);
      if (shape.hint) {
        made.append(named("title", shape.hint));
        hintOver(made, () => shape.hint);
      }
      root.append(made);
    }
    return root;
  }
  canvas() {
    const made = document.createElement("canvas");
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", this.title);
    const paint = () => this.paint(made);
    painters.push(paint);
    paint();
    hintOver(made, event => {
      const box = made.getBoundingClientRect();
      const x = (event.clientX - box.left) * this.width / box.width;
      const y = (event.clientY - box.top) * this.height / box.height;
      const found = this.shapes.findLast(shape => shape.hint && holds(shape, x, y));
      return found ? found.hint : "";
    });
    return made;
  }
  paint(canvas) {
    const scale = 2, style = getComputedStyle(document.documentElement);
    canvas.width = this.width * scale;
    canvas.height = this.height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    for (const shape of this.shapes) {
      const color = shape.kind === "text" ? (shape.name ? "--text" : "--dim") : shape.color;
      pen.fillStyle = pen.strokeStyle = style.getPropertyValue(color);
      pen.globalAlpha = shape.opacity ?? 1;
      if (shape.kind === "rect") {
        pen.fillRect(shape.x, shape.y, shape.width, shape.height);
      } else if (shape.kind === "dot") {
        pen.beginPath();
        pen.arc(shape.x, shape.y, shape.radius, 0, 7);
        pen.fill();
      } else if (shape.kind === "line") {
        pen.lineWidth = shape.width;
        pen.beginPath();
        shape.points.forEach(([x, y], place) => place ? pen.lineTo(x, y) : pen.moveTo(x, y));
        pen.stroke();
      } else {
        pen.font = shape.name === "title" ? BOLD : FONT;
        pen.textAlign = { start: "left", middle: "center", end: "right" }[shape.anchor];
        pen.fillText(shape.text, shape.x, shape.y);
      }
    }
  }
}

let painters = []; // Of the canvases on the page, which do not follow a style sheet.
for (const media of ["(prefers-color-scheme: dark)", "print"]) {
  matchMedia(media).addEventListener("change", () => painters.forEach(paint => paint()));
}

function node(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function named(tag, text) {
  const made = node(tag, {});
  made.textContent = text;
  return made;
}

function svgShape(shape) {
  const color = `var(${shape.color})`;
  if (shape.kind === "rect") {
    const { x, y, width, height, opacity } = shape;
    return node("rect", { x, y, width, height, fill: color, "fill-opacity": opacity });
  }
  if (shape.kind === "dot") return node("circle", { cx: shape.x, cy: shape.y, r: shape.radius, fill: color });
  if (shape.kind === "line") {
    const points = shape.points.map(point => point.map(x => x.toFixed(1)).join()).join(" ");
    return node("polyline", { points, fill: "none", stroke: color, "stroke-width": shape.width });
  }
  const made = node("text", { x: shape.x, y: shape.y, "text-anchor": shape.anchor });
  if (shape.name) made.setAttribute("class", shape.name);
  made.textContent = shape.text;
  return made;
}

function holds(shape, x, y) {
  if (shape.kind === "dot") return Math.hypot(shape.x - x, shape.y - y) <= shape.radius + 3;
  return x >= shape.x && y >= shape.y && x <= shape.x + shape.width && y <= shape.y + shape.height;
}

function hintOver(target, hint) {
  target.addEventListener("mousemove", event => {
    tip.textContent = hint(event);
    tip.style.setProperty("visibility", tip.textContent ? "visible" : "hidden");
    const left = Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8);
    const top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8);
    tip.style.setProperty("left", `${Math.max(0, left)}px`);
    tip.style.setProperty("top", `${Math.max(0, top)}px`);
  });
  target.addEventListener("mouseleave", () => tip.style.setProperty("visibility", "hidden"));
}

function section(title, words, parent = pictures) {
  const made = element("section");
  made.append(element("h2", title), element("p", words, "dim"));
  parent.append(made);
  return made;
}

function across(place, count, left, right) { // From the first save to the last.
  return count < 2 ? (left + right) / 2 : left + (right - left) * place / (count - 1);
}

function legend(parent, entries) { // Of [text, colour, opacity, whether it has a hole].
  const made = element("div", "", "legend");
  for (const [text, color, opacity = 1, hole = false] of entries) {
    const one = element("span"), box = node("svg", { viewBox: "0 0 11 11", "aria-hidden": "true" });
    box.append(node("rect", { width: 11, height: 11, fill: `var(${color})`, "fill-opacity": opacity }));
    if (hole) box.append(node("rect", { x: 4, y: 4, width: 3, height: 3, fill: "var(--page)" }));
    one.append(box, text);
    made.append(one);
  }
  parent.append(made);
}

function components(keys, words = () => "") { // For a legend; those without a colour of their own as one.
  const own = keys.filter(key => hue(key) !== "--other");
  const entries = own.map(key => [key + words([key]), hue(key)]);
  const others = keys.filter(key => hue(key) === "--other");
  if (others.length) entries.push([(others.length > 1 ? `${others.length} others` : others[0]) + words(others), "--other"]);
  return entries;
}

function scale(saves) { // The place of each save between 0 and 1, and whether steps say so.
  const steps = saves.map(save => save.step === null ? null : BigInt(save.step));
  const first = steps[0], last = steps[steps.length - 1];
  const isByStep = last > first && steps.every((one, place) => one !== null && (!place || one >= steps[place - 1]));
  if (!isByStep) return { isByStep, places: saves.map((_, place) => across(place, saves.length, 0, 1)) };
  return { isByStep, places: steps.map(one => Number(one - first) / Number(last - first)) };
}

function roundUp(count) { // To 1, 2, 5, 10, 20, 50 and so on.
  for (let power = 1; ; power *= 10) {
    const found = [1, 2, 5].find(x => x * power >= count - 1e-6);
    if (found) return found * power;
  }
}

function stepAxis(picture, saves, xs, y, title = 0) { // Where the title ends, if it has one.
  const full = saves.map(save => save.step === null ? (save.sequence === null ? "" : `#${save.sequence}`) : step(save.step));
  const brief = saves.map((save, place) => save.step === null ? full[place] : short(save.step));
  const isLong = full.some(text => text.length > 9);
  const labels = isLong && new Set(brief).size === new Set(full).size ? brief : full;
  if (title && saves.some(save => save.step !== null)) picture.text(title, y, "step", { anchor: "end" });
  const widest = labels.reduce((most, text) => Math.max(most, widthOf(text)), 0);
  const begin = title && title + 6, moved = Math.max(0, begin + widthOf(labels[0]) / 2 - xs[0]);
  const gap = widest + moved + 12, spacing = (xs[xs.length - 1] - xs[0]) / Math.max(1, xs.length - 1);
  const isEven = xs.every((x, place) => Math.abs(x - xs[0] - place * spacing) < 0.5);
  const every = isEven && spacing ? roundUp(gap / spacing) : 1;
  let last = -Infinity;
  xs.forEach((x, place) => {
    if (!labels[place] || place % every || x - last < gap - 0.5) return;
    const half = widthOf(labels[place]) / 2, at = Math.min(Math.max(x, begin + half), picture.width - half);
    picture.line([[x, y - 14], [x, y - 10]], "--dim", 1);
    picture.text(at, y, labels[place], { anchor: "middle" });
    last = x;
  });
}

// The pictures

function metrics(parent) {
  if (!data.metrics.length) return;
  const { isByStep, places } = scale(data.saves);
  const hasBest = data.best_by !== null && data.saves.some(save => save.marks.includes("best"));
  const words = [`Each metric over the ${isByStep ? "steps" : "saves, at equal distances"}; a gap is a save without it, and red one where it is not finite.`];
  if (hasBest) words.push("The large green dot is the best save.");
  const made = section("Metrics", words.join(" "), parent);
  const all = data.metrics.map(name => data.saves.map(save => save.metrics[name]));
  const bounds = all.map(values => {
    const finite = values.filter(value => typeof value === "number");
    return finite.length ? [finite.reduce((x, y) => Math.min(x, y)), finite.reduce((x, y) => Math.max(x, y))] : null;
  });
  const room = Math.max(widthOf("step"), ...bounds.flat().filter(value => value !== undefined && value !== null).map(value => widthOf(figure(value))));
  const width = made.clientWidth, left = room + 10, right = width - 8, top = 24, bottom = 86;
  const xs = places.map(place => left + 4 + (right - left - 8) * place);
  const radius = data.saves.length > 60 ? 1.6 : 3;
  data.metrics.forEach((name, number) => {
    const isLast = number === data.metrics.length - 1, values = all[number];
    const picture = new Picture(width, bottom + (isLast ? 22 : 10), `${name} over the ${isByStep ? "steps" : "saves"}`);
    const [least, most] = bounds[number] ?? [0, 0];
    const at = value => most > least ? bottom - (bottom - top) * ((value / 2 - least / 2) / (most / 2 - least / 2)) : (top + bottom) / 2;
    const known = values.filter(value => value !== undefined);
    const last = known.length ? `last ${figure(known[known.length - 1])}` : "";
    picture.text(left, 13, cut(name, right - left - widthOf(last) - 16, { font: BOLD }), { kind: "title" });
    picture.text(right, 13, last, { anchor: "end" });
    if (bounds[number]) {
      for (const value of most > least ? [most, least] : [most]) {
        picture.line([[left, at(value)], [right, at(value)]], "--line", 1);
        picture.text(left - 8, at(value) + 4, figure(value), { anchor: "end" });
      }
    }
    let points = [];
    const end = () => { if (points.length > 1) picture.line(points, "--ink"); points = []; };
    values.forEach((value, place) => {
      if (typeof value === "number") { points.push([xs[place], at(value)]); return; }
      end();
      if (value !== undefined) picture.rect(xs[place] - 3, top, 6, bottom - top, "--bad", "", 0.2);
    });
    end();
    values.forEach((value, place) => {
      if (value === undefined) return;
      const save = data.saves[place], isNumber = typeof value === "number";
      const isBest = name === data.best_by && save.marks.includes("best");
      const hint = [label(save), `${name} ${figure(value)}`, ...save.marks].join("\n");
      picture.dot(xs[place], isNumber ? at(value) : bottom, isBest ? 5 : radius, isBest ? "--good" : isNumber ? "--ink" : "--bad", hint);
    });
    if (isLast) stepAxis(picture, data.saves, xs, bottom + 20, left - 8);
    picture.show(made);
  });
}

function ticks(most) { // Round numbers of bytes up to the most, at most five.
  const power = 10 ** Math.floor(Math.log10(most));
  const every = [0.2, 0.5, 1, 2, 5].map(x => x * power).find(x => most / x <= 4.999) ?? power;
  const found = [];
  for (let value = 0; value <= most; value += Math.max(1, every)) found.push(value);
  return found;
}

function round(bytes) { // "2 MB" for a tick.
  return size(bytes).replace(/\.0+ /, " ").replace(/(\.\d*[1-9])0+ /, "$1 ");
}

function bytes(parent) {
  const totals = data.saves.map(save => Object.values(save.components).flat().reduce((x, y) => x + y, 0));
  const most = totals.reduce((x, y) => Math.max(x, y), 0);
  const isDamaged = save => save.marks.includes("damaged");
  const words = ["A bar for each save, as high as its blocks: solid what it wrote, pale what it links to in earlier saves."];
  if (data.saves.some(isDamaged)) words.push("Red above it if it is damaged.");
  if (!most) {
    section("What each save wrote", "Nothing is known: no manifest can be read, or no save holds bytes.", parent);
    return;
  }
  const made = section("What each save wrote", words.join(" "), parent);
  const keys = data.components.filter(key => data.saves.some(save => save.components[key]));
  legend(made, [...components(keys), ...(keys.some(key => data.saves.some(save => save.components[key]?.[1])) ? [["linked", "--dim", PALE]] : []), ...(data.saves.some(isDamaged) ? [["damaged", "--bad"]] : [])]);
  const width = made.clientWidth, base = 190, top = 14, lines = ticks(most);
  const left = Math.max(widthOf("step"), ...lines.map(value => widthOf(round(value)))) + 10;
  const picture = new Picture(width, base + 24, "bytes of each save, written and linked");
  for (const value of lines) {
    const y = base - (base - top) * value / most;
    picture.line([[left, y], [width, y]], "--line", 1);
    picture.text(left - 8, y + 4, round(value), { anchor: "end" });
  }
  const room = width - left, bar = Math.max(0.7, Math.min(34, 0.75 * room / data.saves.length));
  const xs = data.saves.map((_, place) => across(place, data.saves.length, left + 4 + bar / 2, width - 4 - bar / 2));
  data.saves.forEach((save, place) => {
    const x = xs[place] - bar / 2;
    let y = base;
    picture.rect(x, base - (base - top) * totals[place] / most, bar, (base - top) * totals[place] / most, "--page"); // Over the lines.
    const put = (key, amount, word, opacity) => {
      const high = (base - top) * amount / most;
      if (high < 0.3) return;
      y -= high;
      picture.rect(x, y, bar, Math.max(0.4, high - 0.5), hue(key), `${label(save)}\n${key}: ${size(amount)} ${word}`, opacity);
    };
    for (const [word, opacity] of [["written", 1], ["linked", PALE]]) {
      for (const key of keys) {
        const own = save.components[key];
        if (own) put(key, own[word === "written" ? 0 : 1], word, opacity);
      }
    }
    if (isDamaged(save)) picture.rect(x, y - 8, bar, 5, "--bad", `${label(save)}\ndamaged`);
  });
  stepAxis(picture, data.saves, xs, base + 20, left - 8);
  picture.show(made);
}

function blocks(parent) {
  if (!data.blocks.length) return;
  const made = section("What changed in the largest leaves", "From left to right the leaf, from its beginning to its end; a row for each save, or one for several in turn whose rows are the same. In the colour of its component where a block is new since the save before, from digests alone; nothing was read for it. Saves without the leaf have no row.", parent);
  const width = made.clientWidth;
  for (const leaf of data.blocks) {
    const rows = leaf.rows.filter(row => row[3] !== null), high = Math.min(15, Math.max(1.4, 420 / rows.length)), top = 20;
    const names = rows.map(([first, last]) => first === last ? `#${first}` : `#${first} to #${last}`);
    const left = Math.max(...names.map(widthOf)) + 10, bottom = top + rows.length * high;
    const picture = new Picture(width, bottom + 18, `changed blocks of ${leaf.name}`);
    picture.text(left, 13, cut(leaf.name, width - left, { keepsEnd: true, font: BOLD }), { kind: "title" });
    const every = Math.ceil(13 / high);
    rows.forEach(([first, last, count, row], place) => {
      const y = top + place * high;
      if (place % every === 0) picture.text(left - 8, y + Math.min(11, high + 3), names[place], { anchor: "end" });
      const cells = [...row].map(Number), cell = (width - left) / cells.length;
      for (const [start, stop, isNew] of runs(cells)) {
        const share = Math.round(100 * (stop - start) / cells.length);
        const hint = `${names[place]}${count > 1 ? ", each" : ""}: ${isNew ? "new" : "as before"}, ${share} % of the leaf`;
        picture.rect(left + start * cell, y, (stop - start) * cell, Math.max(0.6, high - 1), isNew ? hue(leaf.key) : "--line", hint);
      }
    });
    picture.text(left, bottom + 12, "0 B");
    picture.text(width, bottom + 12, size(leaf.size), { anchor: "end" });
    picture.show(made);
  }
}

function runs(row) { // [start, stop, value] of equal neighbours.
  const found = [];
  row.forEach((value, place) => {
    const last = found[found.length - 1];
    if (last && last[2] === value) last[1] = place + 1;
    else found.push([place, place + 1, value]);
  });
  return found;
}

const HEATS = [0.001, 0.01, 0.1, 1, 10, 100]; // Percent, from the weakest colour to the strongest.

function heat(change) {
  const place = (Math.log10(change * 100) + 3) / 5;
  return 0.25 + 0.75 * Math.min(1, Math.max(0, place));
}

function isUnchanged(row) {
  return row.change.some(change => change === 0) && row.change.every(change => !change) && row.bad.every(bad => !bad);
}

function changes() {
  const { columns, left_out: leftOut, hidden } = data.changes;
  const saves = columns.map(place => data.saves[place]);
  const rows = data.changes.rows.filter(row => !isUnchanged(row));
  const same = data.changes.rows.filter(isUnchanged).map(row => row.name);
  if (!rows.length && !leftOut.length && !hidden.length && !same.length) return;
  const words = [];
  if (saves.length < 2) words.push("There is nothing to compare with: only one save can be read.");
  else if (rows.length) words.push("A row for each leaf of floats, a column for each save. The stronger the colour, the larger the change since the save before, as a share of the leaf (the norms' ratio, on a logarithmic scale). A thin line where nothing is before it to compare with. On the right the root mean square (rms), in figures that of the newest save.");
  if (columns.length < data.saves.filter(save => save.time !== null).length) words.push(`${columns.length} saves at equal distances are shown.`);
  if (leftOut.length) words.push(`Not read: ${listed(leftOut)}.`);
  if (hidden.length) words.push(`Not shown, too many or too large: ${listed(hidden)}.`);
  if (same.length && saves.length > 1) words.push(`Never changed: ${listed(same)}.`);
  const bad = rows.filter(row => row.bad.some(Boolean)).map(row => {
    const places = row.bad.flatMap((count, place) => count ? [place] : []);
    const names = places.map(place => label(saves[place]).split(",")[0]);
    return `${row.name} in ${names.length > 3 ? `${names.length} saves from ${names[0]} to ${names[names.length - 1]}` : names.join(", ")}`;
  });
  if (bad.length) words.push(`NaN or infinities: ${listed(bad)}.`);
  const made = section("How much each leaf changed", words.join(" "));
  if (rows.length && saves.length > 1) heatMap(made, rows, saves);
}

function heatMap(made, rows, saves) {
  const used = rows.flatMap(row => row.change);
  const entries = HEATS.map((percent, place) => [`${place ? "" : "≤ "}${percent} %${percent === 100 ? " or more" : ""}`, "--heat", heat(percent / 100)]);
  if (used.includes("no ratio")) entries.push(["changed from zero or NaN, so without a ratio", "--heat", 1, true]);
  entries.push(["no change", "--line"]);
  if (rows.some(row => row.bad.some(Boolean))) entries.push(["NaN or infinities", "--bad"]);
  if (used.includes("damaged")) entries.push(["damaged", "--bad", PALE]);
  legend(made, entries);
  const width = made.clientWidth, isNarrow = width < NARROW; // Names are above their rows then.
  const names = isNarrow ? 0 : Math.min(330, Math.max(...rows.map(row => widthOf(row.name))) + 10);
  const high = isNarrow ? 34 : 17, top = isNarrow ? 4 : 18, offset = isNarrow ? 17 : 0;
  const left = names, right = isNarrow ? width : width - 150;
  const picture = new Picture(width, top + rows.length * high + 24, "relative change of each leaf in each save");
  const cell = (right - left) / saves.length;
  if (!isNarrow) picture.text(width, 10, "rms", { anchor: "end" });
  rows.forEach((row, place) => {
    const y = top + place * high + offset, last = figure(row.rms[row.rms.length - 1]);
    if (isNarrow) picture.text(0, y - 5, cut(row.name, width - 90, { keepsEnd: true }), { kind: "name" });
    else picture.text(left - 8, y + 12, cut(row.name, names - 10, { keepsEnd: true }), { anchor: "end", kind: "name" });
    row.change.forEach((change, number) => {
      const wide = Math.max(0.5, cell - (cell > 4 ? 1 : 0));
      cellOf(picture, left + number * cell, y, wide, 15, row, number, label(saves[number]));
    });
    if (!isNarrow) spark(picture, row.rms, right + 12, y + 3, 70, high - 8);
    picture.text(width, isNarrow ? y - 5 : y + 12, isNarrow ? `rms ${last}` : last, { anchor: "end" });
  });
  stepAxis(picture, saves, saves.map((_, place) => left + (place + 0.5) * cell), top + rows.length * high + 18);
  picture.show(made);
}

function cellOf(picture, x, y, wide, high, row, number, name) {
  const change = row.change[number], bad = row.bad[number];
  if (bad === null && change === null) return; // The save lacks the leaf.
  const percent = typeof change === "number" ? `changed by ${figure(100 * change)} %` : { "no ratio": "changed from zero or NaN" }[change] ?? change ?? "nothing to compare with";
  const hint = [name, row.name, bad ? `${bad.toLocaleString("en")} not finite` : "", percent, `rms ${figure(row.rms[number])}`].filter(Boolean).join("\n");
  if (bad) picture.rect(x, y, wide, high, "--bad", hint);
  else if (change === "damaged") picture.rect(x, y, wide, high, "--bad", hint, PALE);
  else if (change === null) picture.rect(x, y + high / 2 - 1, wide, 2, "--other", hint, 0.6);
  else if (change === 0) picture.rect(x, y, wide, high, "--line", hint);
  else if (change === "no ratio") {
    picture.rect(x, y, wide, high, "--heat", hint);
    const hole = Math.min(4, wide / 2);
    picture.rect(x + wide / 2 - hole / 2, y + high / 2 - 2, hole, 4, "--page", hint);
  } else picture.rect(x, y, wide, high, "--heat", hint, heat(change));
}

function spark(picture, values, x, y, width, height) {
  const finite = values.filter(value => value !== null);
  const least = Math.min(...finite), most = Math.max(...finite);
  let points = [];
  const end = () => { if (points.length > 1) picture.line(points, "--dim", 1); points = []; };
  values.forEach((value, place) => {
    if (value === null) { end(); return; }
    const up = most > least ? (value - least) / (most - least) : 0.5;
    points.push([across(place, values.length, x, x + width), y + height * (1 - up)]);
  });
  end();
}

function listed(names) {
  const some = names.slice(0, 8).join(", ");
  return names.length > 8 ? `${some} and ${names.length - 8} more` : some;
}

// Squarified treemap, after Bruls, Huizing and van Wijk (2000).
function treemap() {
  if (!data.boxes.length) return;
  const total = data.boxes.reduce((sum, box) => sum + box[2], 0);
  const share = amount => `${size(amount)}, ${Number((100 * amount / total).toPrecision(3))}\u00a0%`;
  const largest = data.boxes.slice(0, 3).map(([, name, amount]) => `${name.length > 80 ? `…${name.slice(-80)}` : name} (${share(amount)})`);
  const made = section("Where the bytes of the newest save are", `A box for each leaf, as large as it is in memory. The largest: ${largest.join(", ")}.`);
  const keys = data.components.filter(key => data.boxes.some(box => box[0] === key));
  const sum = names => data.boxes.reduce((so, box) => so + (names.includes(box[0]) ? box[2] : 0), 0);
  legend(made, components(keys, names => ` ${size(sum(names))}`));
  const width = made.clientWidth, height = width < NARROW ? 300 : 230;
  const picture = new Picture(width, height, "sizes of the leaves of the newest save");
  for (const [box, x, y, wide, high] of squarify(data.boxes, 0, 0, width, height, total)) {
    const [key, name, amount] = box;
    picture.rect(x, y, Math.max(0.5, wide - 1.5), Math.max(0.5, high - 1.5), hue(key), `${name}\n${share(amount)}`, 0.55);
    const shown = high > 18 ? cut(name, wide - 12, { keepsEnd: true }) : "";
    if (shown !== name && shown.length < 7) continue; // What is left would say nothing.
    picture.text(x + 6, y + 14, shown, { kind: "name" });
    if (high > 34 && widthOf(size(amount)) < wide - 12) picture.text(x + 6, y + 29, size(amount), { kind: "name" });
  }
  picture.show(made);
}

function squarify(boxes, x, y, width, height, total) {
  const found = [];
  let rest = boxes.slice(), left = total;
  while (rest.length && left > 0 && width > 0 && height > 0) {
    const isWide = width >= height, side = isWide ? height : width, scale = width * height / left;
    let row = [], sum = 0, worst = Infinity;
    while (row.length < rest.length) {
      const next = rest[row.length], more = sum + next[2];
      const length = more * scale / side;
      const sides = [...row, next].map(box => box[2] * scale / length);
      const ratio = Math.max(...sides.map(one => Math.max(one / length, length / one)));
      if (ratio > worst) break;
      row.push(next);
      [sum, worst] = [more, ratio];
    }
    const length = sum * scale / side;
    let place = isWide ? y : x;
    for (const box of row) {
      const own = box[2] * scale / length;
      found.push(isWide ? [box, x, place, length, own] : [box, place, y, own, length]);
      place += own;
    }
    if (isWide) { x += length; width -= length; } else { y += length; height -= length; }
    left -= sum;
    rest = rest.slice(row.length);
  }
  return found;
}

function lineage() {
  const runs = data.runs;
  if (!runs.length) return;
  const saves = runs.flatMap(run => run.saves), known = new Set(saves.map(save => save.path));
  const folder = run => run.directory.split("/").filter(Boolean).pop() || run.directory;
  const title = run => [`run ${run.run.slice(0, 8) || "without a name"}`, run.host && `on ${run.host}`].filter(Boolean).join(" ");
  const away = [...new Set(saves.map(save => save.from).filter(from => from && !known.has(from)))];
  const words = away.length ? [`Loaded from what is not there any more: ${listed(away)}.`] : [];
  if (runs.length === 1) {
    const isFresh = saves.every(save => !save.from);
    words.unshift(`All saves are of one ${title(runs[0])}${isFresh ? ", which began without another save" : ""}.`);
    section("Where the state comes from", words.join(" "));
    return;
  }
  words.unshift("A line for each run, its saves by step; a curve leads from the save that a run began with.");
  const made = section("Where the state comes from", words.join(" "));
  const width = made.clientWidth, isNarrow = width < NARROW, high = isNarrow ? 56 : 46;
  const left = isNarrow ? 6 : 260, right = width - 8, offset = isNarrow ? 40 : 24;
  const picture = new Picture(width, runs.length * high + 10, "runs, their saves, and the saves that they began with");
  const steps = saves.map(save => Number(save.step ?? 0));
  const least = steps.reduce((x, y) => Math.min(x, y)), most = steps.reduce((x, y) => Math.max(x, y));
  const at = save => most > least ? left + (right - left) * (Number(save.step ?? 0) - least) / (most - least) : (left + right) / 2;
  const places = new Map();
  runs.forEach((run, row) => {
    for (const save of run.saves) places.set(save.path, [at(save), row * high + offset]);
  });
  runs.forEach((run, row) => {
    const y = row * high + offset, xs = run.saves.map(at), room = isNarrow ? width : left - 20;
    picture.text(0, y - (isNarrow ? 26 : 2), cut(folder(run), room, { font: BOLD }), { kind: "title" });
    picture.text(0, y - (isNarrow ? 12 : -12), cut(title(run), room));
    picture.line([[Math.min(...xs), y], [Math.max(...xs), y]], "--line", 2);
    const first = run.saves.find(save => save.from && places.has(save.from) && places.get(save.from)[1] !== y);
    if (first) picture.line(curve(places.get(first.from), [Math.min(...xs), y]), "--dim", 1.4);
    run.saves.forEach(save => picture.dot(at(save), y, 4, "--ink", `${run.directory}\nstep ${step(save.step)}`));
  });
  picture.show(made);
}

function curve([x, y], [toX, toY]) {
  const points = [];
  for (let part = 0; part <= 20; part++) {
    const t = part / 20, ease = t * t * (3 - 2 * t);
    points.push([x + (toX - x) * t, y + (toY - y) * ease]);
  }
  return points;
}

function draw() {
  pictures.replaceChildren();
  painters = [];
  const columns = element("div", "", "columns"), first = element("div"), second = element("div");
  pictures.append(columns);
  columns.append(first, ...(data.metrics.length ? [second] : []));
  metrics(first);
  bytes(data.metrics.length ? second : first);
  const higher = first.offsetHeight - second.offsetHeight; // Room beside many metrics is filled.
  blocks(data.metrics.length && higher > 200 ? second : pictures);
  changes();
  treemap();
  lineage();
}

function hintAtSides() { // Says where a table goes on at the side.
  for (const box of document.querySelectorAll(".wide")) {
    const before = box.previousElementSibling;
    const hint = before?.className === "hint" ? before : element("p", "The table is wider than the screen: scroll it sideways.", "hint");
    if (hint !== before) box.before(hint);
    hint.hidden = box.scrollWidth <= box.clientWidth + 1;
    box.tabIndex = 0;
  }
}

let drawnWidth = 0;
function fit() {
  if (pictures.clientWidth === drawnWidth) return;
  drawnWidth = pictures.clientWidth;
  draw();
  hintAtSides();
}
fit();
addEventListener("resize", fit);
for (const one of document.querySelectorAll("details")) one.addEventListener("toggle", hintAtSides);
for (const box of document.querySelectorAll(".tall")) box.scrollTop = box.scrollHeight; // To the newest.
document.documentElement.dataset.drawn = "yes";
