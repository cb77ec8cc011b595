"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const pictures = document.getElementById("pictures");
const tip = document.getElementById("tip");
const HUES = ["--a", "--b", "--c", "--d", "--e", "--f"];
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
    this.shapes.push({ kind: "text", x, y, text, anchor, name: kind === "name", hint: "" });
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
    const draw = () => this.paint(made);
    for (const media of ["(prefers-color-scheme: dark)", "print"]) {
      matchMedia(media).addEventListener("change", draw);
    }
    draw();
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
        pen.font = '11px system-ui, "DejaVu Sans", sans-serif';
        pen.textAlign = { start: "left", middle: "center", end: "right" }[shape.anchor];
        pen.fillText(shape.text, shape.x, shape.y);
      }
    }
  }
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
  if (shape.name) made.setAttribute("class", "name");
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

function shownSteps(picture, saves, left, right, y) {
  const every = Math.ceil(saves.length / 10);
  saves.forEach((save, place) => {
    if (place % every === 0) {
      picture.text(across(place, saves.length, left, right), y, short(save.step), { anchor: "middle" });
    }
  });
}

// The pictures

function metrics(parent) {
  if (!data.metrics.length) return;
  const made = section("Metrics", "Each metric over the saves; a gap is a save without it, and red one where it is not a number.", parent);
  data.metrics.forEach((name, place) => {
    const isLast = place === data.metrics.length - 1; // Has the steps below it.
    const width = 540, height = 96, left = 62, right = width - 12, top = 22, bottom = height - 8;
    const picture = new Picture(width, height + (isLast ? 14 : 0), `${name} over the saves`);
    const values = data.saves.map(save => save.metrics[name]);
    const finite = values.filter(value => typeof value === "number");
    const least = Math.min(...finite), most = Math.max(...finite);
    const at = value => most > least ? bottom - (bottom - top) * (value - least) / (most - least) : (top + bottom) / 2;
    picture.text(left, 12, name, { kind: "name" });
    if (finite.length) {
      picture.text(left - 8, at(most) + 4, figure(most), { anchor: "end" });
      if (most > least) picture.text(left - 8, at(least) + 4, figure(least), { anchor: "end" });
    }
    const color = HUES[place % HUES.length];
    let points = [];
    const end = () => { if (points.length > 1) picture.line(points, color); points = []; };
    values.forEach((value, number) => {
      const x = across(number, values.length, left, right);
      if (typeof value === "number") { points.push([x, at(value)]); return; }
      end();
      if (value !== undefined) picture.rect(x - 3, top, 6, bottom - top, "--bad", "", 0.2);
    });
    end();
    values.forEach((value, number) => {
      if (value === undefined) return;
      const save = data.saves[number], x = across(number, values.length, left, right);
      const isBest = save.marks.includes("best") && name === data.metrics[0];
      const hint = [label(save), `${name} ${figure(value)}`, ...save.marks].join("\n");
      const isNumber = typeof value === "number";
      picture.dot(x, isNumber ? at(value) : bottom, isBest ? 5 : 3, isNumber ? color : "--bad", hint);
    });
    if (isLast) shownSteps(picture, data.saves, left, right, height + 10);
    picture.show(made);
  });
}

function bytes(parent) {
  const made = section("What each save wrote", "A bar for each save, as high as its files: in colour what it wrote, by component, and pale what it links to in earlier saves; red above it if it is damaged.", parent);
  const keys = [...new Set(data.saves.flatMap(save => Object.keys(save.components)))];
  const legend = element("div", "", "legend");
  const entry = (name, color) => {
    const one = element("span"), box = node("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" });
    box.append(node("rect", { width: 1, height: 1, fill: `var(${color})` }));
    one.append(box, name);
    legend.append(one);
  };
  keys.forEach((key, place) => entry(key, HUES[place % HUES.length]));
  entry("linked", "--soft");
  made.append(legend);
  const width = 540, height = 180, base = height - 20;
  const picture = new Picture(width, height, "bytes of each save, written and linked");
  const totals = data.saves.map(save => Object.values(save.components).flat().reduce((x, y) => x + y, 0));
  const most = Math.max(...totals, 1);
  const bar = Math.max(0.7, Math.min(34, 0.75 * width / data.saves.length));
  const left = 14 + bar / 2, right = width - 14 - bar / 2;
  data.saves.forEach((save, place) => {
    const x = across(place, data.saves.length, left, right) - bar / 2;
    let y = base;
    const put = (amount, color, hint) => {
      const high = (base - 16) * amount / most;
      if (high < 0.3) return;
      y -= high;
      picture.rect(x, y, bar, Math.max(0.4, high - 0.5), color, `${label(save)}\n${hint}`);
    };
    keys.forEach((key, number) => {
      const own = save.components[key];
      if (own) put(own[0], HUES[number % HUES.length], `${key}: ${size(own[0])} written`);
    });
    const linked = Object.values(save.components).reduce((sum, own) => sum + own[1], 0);
    put(linked, "--soft", `${size(linked)} linked`);
    if (save.marks.includes("damaged")) picture.rect(x, y - 8, bar, 5, "--bad", `${label(save)}\ndamaged`);
  });
  shownSteps(picture, data.saves, left, right, height - 5);
  picture.show(made);
}

function blocks(parent) {
  if (!data.blocks.length) return;
  const made = section("What changed in the largest leaves", "A row for each save: blue where a block is new, from digests alone; nothing was read. From the beginning of the leaf on the left to its end.", parent);
  for (const leaf of data.blocks) {
    const rows = leaf.rows, high = Math.min(14, 420 / rows.length);
    const width = 540, left = 48, right = width - 14, top = 18;
    const picture = new Picture(width, top + rows.length * high + 6, `changed blocks of ${leaf.name}`);
    picture.text(0, 11, `${leaf.name}, ${size(leaf.size)}`, { kind: "name" });
    const every = Math.ceil(13 / high);
    rows.forEach((row, place) => {
      const y = top + place * high, number = leaf.sequences[place];
      if (place % every === 0) picture.text(left - 8, y + Math.min(10, high + 3), `#${number}`, { anchor: "end" });
      const cells = [...row ?? ""].map(Number), cell = (right - left) / cells.length;
      for (const [start, stop, isNew] of runs(cells)) {
        const share = Math.round(100 * (stop - start) / cells.length);
        const hint = isNew ? `#${number}: new, ${share} % of the leaf` : "";
        picture.rect(left + start * cell, y, (stop - start) * cell, Math.max(0.6, high - 1), isNew ? "--a" : "--line", hint);
      }
    });
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

function changes() {
  const { rows, columns, left_out: leftOut, damaged } = data.changes;
  if (!rows.length && !leftOut.length) return;
  const words = ["A row for each leaf of floats, a column for each save: the darker, the larger the change since the save before, beside the leaf itself, on a logarithmic scale; red where there are NaN or infinities. On the right its root mean square."];
  if (columns.length < data.saves.filter(save => !save.marks.includes("damaged")).length) words.push(`${columns.length} saves at equal distances are shown.`);
  if (leftOut.length) words.push(`Not read: ${listed(leftOut)}.`);
  if (damaged.length) words.push(`Damaged: ${listed(damaged)}.`);
  const made = section("How much each leaf changed", words.join(" "));
  if (!rows.length) return;
  const good = data.saves.filter(save => save.sequence !== null);
  const saves = columns.map(place => good[place]);
  const high = 17, width = 1080, left = 330, right = width - 170, top = 4;
  const picture = new Picture(width, top + rows.length * high + 22, "relative change of each leaf in each save");
  const cell = (right - left) / saves.length;
  rows.forEach((row, place) => {
    const y = top + place * high;
    const name = row.name.length > 46 ? `…${row.name.slice(-45)}` : row.name;
    picture.text(left - 8, y + 12, name, { anchor: "end", kind: "name" });
    row.change.forEach((change, number) => {
      const bad = row.bad[number], save = saves[number];
      if (!save || bad === null) return;
      const hint = [label(save), row.name, bad ? `${bad.toLocaleString("en")} not finite` : "", `change ${figure(change)}`, `rms ${figure(row.rms[number])}`].filter(Boolean).join("\n");
      const x = left + number * cell, wide = Math.max(0.5, cell - (cell > 4 ? 1 : 0));
      if (bad) picture.rect(x, y, wide, high - 2, "--bad", hint);
      else if (!change) picture.rect(x, y, wide, high - 2, "--line", hint, 0.6);
      else picture.rect(x, y, wide, high - 2, "--a", hint, Math.min(1, Math.max(0.12, 1 + Math.log10(change) / 6)));
    });
    spark(picture, row.rms, right + 12, y + 3, 80, high - 8);
    const last = row.rms[row.rms.length - 1];
    picture.text(right + 100, y + 12, figure(last));
  });
  shownSteps(picture, saves, left + cell / 2, right - cell / 2, top + rows.length * high + 13);
  showWide(picture, made);
}

function showWide(picture, parent) { // On a narrow screen one scrolls.
  const box = element("div", "", "wide");
  box.tabIndex = 0;
  picture.show(box);
  parent.append(box);
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
  const made = section("Where the bytes of the newest save are", "A box for each leaf, as large as it is in memory; leaves of one component have one colour.");
  const width = 1080, height = 220;
  const picture = new Picture(width, height, "sizes of the leaves of the newest save");
  const total = data.boxes.reduce((sum, box) => sum + box[1], 0);
  const keys = [...new Set(data.boxes.map(([name]) => name.split("/")[0]))];
  for (const [box, x, y, wide, high] of squarify(data.boxes, 0, 0, width, height, total)) {
    const [name, amount] = box, color = HUES[keys.indexOf(name.split("/")[0]) % HUES.length];
    const hint = `${name}\n${size(amount)}, ${(100 * amount / total).toPrecision(3)} %`;
    picture.rect(x, y, Math.max(0.5, wide - 1.5), Math.max(0.5, high - 1.5), color, hint, 0.55);
    const room = Math.floor((wide - 12) / 6.4);
    if (high > 18 && room >= 4) picture.text(x + 6, y + 14, name.length > room ? `…${name.slice(1 - room)}` : name, { kind: "name" });
  }
  showWide(picture, made);
}

function squarify(boxes, x, y, width, height, total) {
  const found = [];
  let rest = boxes.slice(), left = total;
  while (rest.length && left > 0 && width > 0 && height > 0) {
    const isWide = width >= height, side = isWide ? height : width, scale = width * height / left;
    let row = [], sum = 0, worst = Infinity;
    while (row.length < rest.length) {
      const next = rest[row.length], more = sum + next[1];
      const length = more * scale / side;
      const sides = [...row, next].map(box => box[1] * scale / length);
      const ratio = Math.max(...sides.map(one => Math.max(one / length, length / one)));
      if (ratio > worst) break;
      row.push(next);
      [sum, worst] = [more, ratio];
    }
    const length = sum * scale / side;
    let place = isWide ? y : x;
    for (const box of row) {
      const own = box[1] * scale / length;
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
  const made = section("Where the state comes from", "A line for each run, its saves by step; a curve leads from the save that a run began with.");
  const width = 1080, left = 250, right = width - 20, high = 44;
  const picture = new Picture(width, runs.length * high + 10, "runs, their saves, and the saves that they began with");
  const steps = runs.flatMap(run => run.saves.map(save => Number(save.step ?? 0)));
  const least = Math.min(...steps), most = Math.max(...steps);
  const at = save => most > least ? left + (right - left) * (Number(save.step ?? 0) - least) / (most - least) : (left + right) / 2;
  const places = new Map();
  runs.forEach((run, row) => {
    const y = row * high + 24;
    run.saves.forEach(save => places.set(save.path, [at(save), y]));
  });
  runs.forEach((run, row) => {
    const y = row * high + 24, xs = run.saves.map(at);
    const folder = run.directory.split("/").filter(Boolean).pop() || run.directory;
    picture.text(0, y - 2, folder.length > 34 ? `…${folder.slice(-33)}` : folder, { kind: "name" });
    picture.text(0, y + 12, [run.run.slice(0, 8), run.host].filter(Boolean).join(" on "));
    picture.line([[Math.min(...xs), y], [Math.max(...xs), y]], "--line", 2);
    const first = run.saves.find(save => save.from && places.has(save.from) && places.get(save.from)[1] !== y);
    if (first) picture.line(curve(places.get(first.from), [Math.min(...xs), y]), "--b", 1.4);
    run.saves.forEach(save => picture.dot(at(save), y, 4, "--a", `${run.directory}\nstep ${step(save.step)}`));
  });
  showWide(picture, made);
}

function curve([x, y], [toX, toY]) {
  const points = [];
  for (let part = 0; part <= 20; part++) {
    const t = part / 20, ease = t * t * (3 - 2 * t);
    points.push([x + (toX - x) * t, y + (toY - y) * ease]);
  }
  return points;
}

const columns = element("div", "", "columns"), first = element("div"), second = element("div");
pictures.append(columns);
metrics(first);
bytes(data.metrics.length ? second : first);
blocks(data.metrics.length ? first : second);
columns.append(...[first, second].filter(column => column.hasChildNodes()));
changes();
treemap();
lineage();
document.documentElement.dataset.drawn = "yes";
