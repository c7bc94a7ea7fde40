"use strict";
// All text of the report reaches the page as text nodes: nothing in it is ever read as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const names = data.runs.map((run) => run.run);
const several = names.length > 1;
const COLOURS = 8, DASHES = ["", "7 4", "2 3", "9 3 2 3"];
const hidden = new Set(); // runs switched off in the legend
let axis = "step";

// Elements

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// Characters that are not seen, or that turn the text around them, as their numbers.
const UNSEEN = /[\p{Cc}\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff]/gu;
const visible = (text) => text.replace(UNSEEN, (c) => `‹U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`);
const sentence = (text) => {
  const long = [...text].length > 600 || text.length > 2000;
  return el("div", long ? { class: "text", tabindex: 0 } : { class: "text" }, el("bdi", { dir: "auto" }, visible(text)));
};
const runName = (name) => el("bdi", {}, visible(name));
const runNames = names.map(visible);

const number = (value, digits = 0) => value === null || value === undefined ? "–" :
  value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const short = (value) => {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size < 1e-3 || size >= 1e6 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
};
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${number(seconds, 1)} s`;
  const rest = Math.round(seconds), minutes = Math.floor(rest / 60), hours = Math.floor(minutes / 60);
  const two = (count) => String(count).padStart(2, "0");
  return hours ? `${hours}:${two(minutes % 60)}:${two(rest % 60)} h` : `${minutes}:${two(rest % 60)} min`;
}

const main = document.getElementById("main");
function section(id, title, ...children) {
  document.getElementById("sections").append(el("li", {}, el("a", { href: `#${id}` }, title)));
  const made = el("section", { "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), ...children);
  made.id = id;
  main.append(made);
}
const scrolling = (label, ...children) => el("div", { class: "scroll", role: "region", "aria-label": label, tabindex: 0 }, ...children);

// A cell is text, an element, or a number with its digits: {value, digits}.
function table(caption, header, rows, left = 1) {
  const numeric = (place) => (place >= left ? "number" : null);
  return scrolling(caption, el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, header.map((cell, place) => el("th", { scope: "col", class: numeric(place) }, cell)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, place) =>
      el(place ? "td" : "th", place ? { class: numeric(place) } : { scope: "row" }, cell)))))));
}
// One line for each fact, one column for each run.
const facts = (caption, rows) => scrolling(caption, el("table", {}, el("caption", {}, caption),
  el("thead", {}, el("tr", {}, el("th", { scope: "col" }, ""), names.map((name) => el("th", { scope: "col" }, runName(name))))),
  el("tbody", {}, rows.map(([name, of]) => el("tr", {}, el("th", { scope: "row" }, name),
    data.runs.map((run, place) => el("td", { class: "long" }, of(run, place))))))));
const note = (...text) => el("p", { class: "note" }, ...text);

// Scores

const digitsOf = (metric) => (metric === "AER" || metric === "COMET" ? 4 : 2);
const lessIsBetter = (metric) => ["TER", "AER", "perplexity"].includes(metric);

function scores() {
  const metrics = [...new Set(data.scores.map((row) => row.metric))];
  const of = (run, metric) => data.scores.find((row) => row.system === run && row.metric === metric);
  const baseline = names[0];
  function cell(run, metric) {
    const row = of(run, metric);
    if (!row) return "–";
    const digits = digitsOf(metric), parts = [number(row.score, digits)];
    if (row.confidence_low !== null) {
      parts.push(el("div", { class: "interval" }, `${number(row.confidence_low, digits - 1)}–${number(row.confidence_high, digits - 1)}`));
    }
    for (const found of row.comparisons) {
      const first = of(baseline, metric), change = row.score - first.score;
      const better = lessIsBetter(metric) ? change < 0 : change > 0;
      const significant = found.differs && found.p_value < 0.05;
      parts.push(el("div", { class: `interval ${significant ? (better ? "good" : "bad") : ""}` }, !found.differs ? "equal" :
        [`${change > 0 ? "+" : ""}${number(change, digits)}${significant ? (better ? " better" : " worse") : ""}`, el("br"), `p ${found.p_value.toFixed(4)}${significant ? " *" : ""}`]));
    }
    return el("div", {}, ...parts);
  }
  const title = `${data.test_set.name}, ${number(data.test_set.lines)} lines`;
  section("scores", "Scores",
    data.test_set.notes.map((text) => note(visible(text))),
    table(title, ["run", ...metrics.map((metric) => `${metric} ${lessIsBetter(metric) ? "↓" : "↑"}`)],
      names.map((name) => [runName(name), ...metrics.map((metric) => cell(name, metric))])),
    el("p", { class: "faint" }, "↑ more is better, ↓ less is. Below a score is its 95 % bootstrap interval.",
      several ? [" p: of so large a difference from ", runName(baseline), " by chance, by paired bootstrap; * below 0.05."] : ""),
    several && metrics.includes("perplexity") ? el("p", { class: "faint" }, "Perplexities compare only between runs with the same target vocabulary.") : null,
    el("details", {}, el("summary", {}, "Signatures and files"),
      el("ul", {}, [...new Set(data.scores.map((row) => `${row.metric} ${row.signature}`))].map((text) => el("li", {}, el("code", {}, text)))),
      el("ul", {}, [...new Set(data.test_set.files.map((row) => `${row.file} sha256 ${row.sha256}`))].map((text) => el("li", {}, el("code", {}, visible(text)))))));
}

// Curves

function ticks(low, high, most) {
  if (!(high > low)) return [low];
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) found.push(place * step);
  return found;
}
const tickText = (value) => Number(value.toPrecision(6)).toString().length > 7 ? value.toExponential(1) : Number(value.toPrecision(6)).toLocaleString("en-US", { maximumFractionDigits: 9 });
const timeText = (value) => (value >= 3600 ? `${Number((value / 3600).toFixed(2))} h` : value >= 120 ? `${Number((value / 60).toFixed(1))} min` : `${Number(value.toFixed(1))} s`);

function swatch(place) {
  return svg("svg", { class: "swatch", viewBox: "0 0 36 12", "aria-hidden": "true" },
    svg("line", { x1: 0, y1: 6, x2: 36, y2: 6, "stroke-width": 3, class: `s${place % COLOURS}`, "stroke-dasharray": DASHES[place % DASHES.length] }));
}

class Chart {
  constructor(curve) {
    this.curve = curve;
    this.at = -1;
    this.svg = svg("svg", { role: "slider", tabindex: 0, "aria-label": `${curve.title}: arrow keys read values` });
    this.readout = el("p", { class: "readout" });
    this.values = el("div");
    const details = el("details", { ontoggle: () => { if (details.open) this.list(); } }, el("summary", {}, "Values as a table"), this.values);
    this.details = details;
    const thinned = curve.runs.some((run) => run.measured > run.points.length);
    const left = curve.runs.reduce((sum, run) => sum + run.left_out, 0);
    this.box = el("div", { class: "chart" }, el("h3", {}, curve.title), this.svg, this.readout,
      left ? el("p", { class: "faint" }, `${number(left)} values that are no finite number are left out.`) : null,
      thinned ? el("p", { class: "faint" }, "Thinned for drawing; lows and highs are kept.") : null, details);
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
  }
  x(point) { return axis === "step" ? point[0] : point[1]; }
  shown() { return this.curve.runs.map((run, place) => ({ ...run, place })).filter((run) => run.points.length && !hidden.has(run.run)); }
  draw() {
    const width = Math.max(this.svg.clientWidth || 0, 260), height = Math.round(Math.min(260, 130 + width / 4));
    const runs = this.shown(), points = runs.flatMap((run) => run.points);
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.xs = [...new Set(points.map((point) => this.x(point)))].sort((a, b) => a - b);
    if (!points.length) {
      this.svg.append(svg("text", { x: 8, y: 24 }, "nothing to draw"));
      this.readout.textContent = "";
      this.say("nothing to draw");
      return;
    }
    const low = Math.min(...points.map((point) => point[2])), high = Math.max(...points.map((point) => point[2]));
    const room = (high - low) * 0.05 || Math.abs(high) * 0.1 || 1;
    const bottom = low >= 0 && low - room < 0 ? 0 : low - room, top = high + room;
    const first = Math.min(0, this.xs[0]), last = this.xs.at(-1) > first ? this.xs.at(-1) : first + 1;
    const ys = ticks(bottom, top, 5), texts = ys.map(tickText);
    const left = 12 + 7 * Math.max(...texts.map((text) => text.length)), right = width - 12, floor = height - 34;
    this.place = { x: (value) => left + (right - left) * (value - first) / (last - first), y: (value) => floor - (floor - 8) * (value - bottom) / (top - bottom), floor };
    ys.forEach((value, row) => this.svg.append(
      svg("line", { class: "grid", x1: left, x2: right, y1: this.place.y(value), y2: this.place.y(value) }),
      svg("text", { x: left - 5, y: this.place.y(value) + 4, "text-anchor": "end" }, texts[row])));
    for (const value of ticks(first, last, Math.max(2, Math.floor((right - left) / 80)))) {
      this.svg.append(svg("text", { x: this.place.x(value), y: floor + 15, "text-anchor": "middle" }, axis === "step" ? tickText(value) : timeText(value)));
    }
    this.svg.append(svg("text", { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, axis === "step" ? "step" : "time since the start"));
    for (const run of runs) {
      const path = run.points.map((point) => `${this.place.x(this.x(point)).toFixed(1)},${this.place.y(point[2]).toFixed(1)}`);
      this.svg.append(svg("polyline", { class: `line s${run.place % COLOURS}`, "stroke-dasharray": DASHES[run.place % DASHES.length], points: path.join(" ") }));
      if (run.points.length <= 40) {
        path.forEach((pair) => { const [x, y] = pair.split(","); this.svg.append(svg("circle", { class: `f${run.place % COLOURS}`, cx: x, cy: y, r: 2.5 })); });
      }
    }
    this.cursor = svg("line", { class: "cursor", y1: 8, y2: floor, visibility: "hidden" });
    this.svg.append(this.cursor);
    this.move(Math.min(this.at < 0 ? this.xs.length - 1 : this.at, this.xs.length - 1), this.at >= 0);
    if (this.details.open) this.list();
  }
  move(at, seen = true) {
    if (seen) this.at = at;
    const x = this.xs[at];
    const values = this.shown().map((run) => {
      const near = run.points.reduce((best, point) => Math.abs(this.x(point) - x) < Math.abs(this.x(best) - x) ? point : best);
      const known = Math.abs(this.x(near) - x) <= (this.xs.at(-1) - this.xs[0]) / 20;
      return known ? `${runNames[run.place]} ${short(near[2])}` : `${runNames[run.place]} –`;
    });
    const text = `${axis === "step" ? `step ${number(x)}` : timeText(x)}: ${values.join("; ")}`;
    this.readout.textContent = text;
    this.say(text, at);
    this.cursor.setAttribute("visibility", seen ? "visible" : "hidden");
    this.cursor.setAttribute("x1", this.place.x(x));
    this.cursor.setAttribute("x2", this.place.x(x));
  }
  say(text, at = 0) {
    for (const [name, value] of Object.entries({ valuemin: 0, valuemax: Math.max(this.xs.length - 1, 0), valuenow: at, valuetext: text })) {
      this.svg.setAttribute(`aria-${name}`, value);
    }
  }
  key(event) {
    const last = this.xs.length - 1, at = this.at < 0 ? last : this.at, page = Math.max(1, Math.round(last / 10));
    const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageDown: at - page, PageUp: at + page, Home: 0, End: last }[event.key];
    if (to === undefined || last < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.move(Math.max(0, Math.min(last, to)));
  }
  point(event) {
    if (!this.xs.length) return;
    const box = this.svg.getBoundingClientRect(), scale = this.svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale;
    let best = 0;
    this.xs.forEach((value, place) => { if (Math.abs(this.place.x(value) - x) < Math.abs(this.place.x(this.xs[best]) - x)) best = place; });
    this.move(best);
  }
  list() {
    const rows = this.shown().flatMap((run) => run.points.map((point) => [runName(run.run), number(point[0]), number(point[1], 1), short(point[2])]));
    this.values.replaceChildren(table(this.curve.title, ["run", "step", "seconds", "value"], rows));
  }
}

const charts = data.curves.filter((curve) => curve.runs.some((run) => run.points.length)).map((curve) => new Chart(curve));
const redraw = () => charts.forEach((chart) => chart.draw());

function curves() {
  const choice = (value, text) => el("label", {}, el("input", { type: "radio", name: "axis", value, checked: value === axis ? "" : null,
    onchange: () => { axis = value; charts.forEach((chart) => { chart.at = -1; }); redraw(); } }), text);
  const legend = names.map((name, place) => el("button", { type: "button", "aria-pressed": "true", onclick: (event) => {
    const button = event.currentTarget;
    if (!hidden.delete(name)) hidden.add(name);
    button.setAttribute("aria-pressed", String(!hidden.has(name)));
    redraw();
  } }, swatch(place), runName(name)));
  section("curves", "Curves",
    el("div", { class: "controls" }, el("fieldset", {}, el("legend", {}, "Against"), el("div", {}, choice("step", "steps"), choice("seconds", "time")))),
    el("div", { class: "legend", role: "group", "aria-label": "Runs that are drawn" }, legend),
    el("div", { class: "charts" }, charts.map((chart) => chart.box)));
  redraw();
}

// Configuration

function configuration() {
  const { rows, against, keys } = data.configuration;
  const shown = (value) => value === null || value === undefined ? "not set" : visible(value);
  if (against === "runs") {
    section("configuration", "Configuration", rows.length ?
      scrolling("Keys that differ", el("table", {}, el("caption", {}, `The ${number(rows.length)} of ${number(keys)} keys that differ`),
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "key"), names.map((name) => el("th", { scope: "col" }, runName(name))))),
        el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, row.key)),
          row.values.map((value) => el("td", { class: "long" }, el("code", {}, shown(value))))))))) :
      el("p", {}, "The runs have the same configuration."));
    return;
  }
  section("configuration", "Configuration",
    scrolling("Keys that are not the default", el("table", {},
      el("caption", {}, `What was chosen: ${number(rows.length)} of ${number(keys)} keys`),
      el("thead", {}, el("tr", {}, ["key", "value", "default"].map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, row.key)),
        el("td", { class: "long" }, el("code", {}, shown(row.values[0]))),
        el("td", { class: "long faint" }, row.default === null ? "" : el("code", {}, shown(row.default)))))))),
    el("p", { class: "faint" }, "Defaults are those of the architecture and the presets."));
}

// By length

function lengths() {
  const rows = data.scores.filter((row) => row.by_source_length);
  const metrics = [...new Set(rows.map((row) => row.metric))];
  if (!metrics.length) return;
  const holder = el("div");
  const choose = el("select", { onchange: () => draw() }, metrics.map((metric) => el("option", { value: metric }, metric)));
  function draw() {
    const metric = choose.value, of = rows.filter((row) => row.metric === metric);
    const buckets = of[0].by_source_length, digits = digitsOf(metric);
    const top = Math.max(1e-9, ...of.flatMap((row) => row.by_source_length.map((b) => Math.max(b.score, (b.mean ?? 0) + (b.half_width ?? 0)))));
    const group = Math.max(56, 16 * of.length + 24), left = 44, height = 210, floor = height - 40, width = left + group * buckets.length + 10;
    const y = (value) => floor - (floor - 10) * Math.max(0, value) / top;
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${metric} by words of the source; the table below has the numbers` });
    for (const value of ticks(0, top, 4)) {
      picture.append(svg("line", { class: "grid", x1: left, x2: width, y1: y(value), y2: y(value) }), svg("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, tickText(value)));
    }
    buckets.forEach((bucket, place) => {
      const from = left + group * place + 12, bar = (group - 24) / of.length;
      of.forEach((row, number_) => {
        const found = row.by_source_length[place], x = from + bar * number_, middle = x + bar / 2;
        picture.append(svg("rect", { class: `f${names.indexOf(row.system) % COLOURS}`, x: x + 1, y: y(found.score), width: Math.max(2, bar - 2), height: floor - y(found.score) },
          svg("title", {}, `${visible(row.system)}, ${found.name} words: ${number(found.score, digits)}`)));
        if (found.half_width !== null) {
          picture.append(svg("line", { class: "whisker", x1: middle, x2: middle, y1: y(found.mean - found.half_width), y2: y(found.mean + found.half_width) }));
        }
      });
      picture.append(svg("text", { x: from + (group - 24) / 2, y: floor + 16, "text-anchor": "middle" }, bucket.name),
        svg("text", { x: from + (group - 24) / 2, y: floor + 31, "text-anchor": "middle" }, `(${number(bucket.size)})`));
    });
    const cell = (found) => el("div", {}, number(found.score, digits),
      found.half_width === null ? null : el("div", { class: "interval" }, `${number(found.mean - found.half_width, 1)}–${number(found.mean + found.half_width, 1)}`));
    holder.replaceChildren(
      scrolling(`${metric} by length, drawn`, picture),
      table(`${metric} by words of the source`, ["words", "lines", ...of.map((row) => runName(row.system))],
        buckets.map((bucket, place) => [bucket.name, number(bucket.size), ...of.map((row) => cell(row.by_source_length[place]))])));
  }
  section("length", "By length",
    el("div", { class: "controls" }, el("label", {}, "Metric", choose)),
    el("div", { class: "legend", "aria-hidden": "true" }, names.map((name, place) => el("span", {},
      svg("svg", { class: "swatch", viewBox: "0 0 36 12" }, svg("rect", { width: 36, height: 12, class: `f${place % COLOURS}` })), " ", runName(name)))),
    holder, el("p", { class: "faint" }, "Lines of a bucket are scored as a test set of their own; whiskers are 95 % bootstrap intervals. Of few lines they are wide."));
  draw();
}

// Sentences

function sentences() {
  const { lists, rows, flags, counts, metric } = data.sentences;
  const list = el("select", {}, lists.map((found, place) => el("option", { value: place }, `${visible(found.title)} (${number(found.rows.length)} of ${number(found.of)})`)),
    el("option", { value: "all" }, `All of these lists (${number(rows.length)})`));
  const flag = el("select", {}, el("option", { value: "" }, "any or none"), Object.keys(flags).map((name) => el("option", { value: name }, name)));
  const filter = el("input", { type: "search", size: 18, autocomplete: "off", spellcheck: "false" });
  const status = el("p", { role: "status", class: "faint" }), holder = el("div");
  const texts = rows.map((row) => [row.source, row.reference, ...row.systems.map((of) => of.text)].join("\n").toLowerCase());
  function show() {
    const chosen = list.value === "all" ? rows.map((_, place) => place) : lists[list.value].rows;
    const wanted = filter.value.toLowerCase();
    const found = chosen.filter((place) => texts[place].includes(wanted) && (!flag.value || rows[place].systems.some((of) => of.flags.includes(flag.value))));
    status.textContent = `${number(found.length)} of ${number(chosen.length)} sentences`;
    holder.replaceChildren(...found.map((place) => card(rows[place])));
  }
  function card(row) {
    const change = (of, place) => !place ? "" : ` (${of.score >= row.systems[0].score ? "+" : ""}${number(of.score - row.systems[0].score, 1)})`;
    return el("article", { class: "sentence" }, el("h3", {}, `Line ${number(row.line)}`), el("dl", {},
      el("dt", {}, "source"), el("dd", {}, sentence(row.source)), el("dt", {}, "reference"), el("dd", {}, sentence(row.reference)),
      row.systems.map((of, place) => [el("dt", {}, runName(of.run), el("div", {}, `${metric} ${number(of.score, 1)}${change(of, place)}`)),
        el("dd", {}, of.text ? sentence(of.text) : el("span", { class: "faint" }, "nothing"),
          of.flags.map((name) => el("span", { class: "flag", title: flags[name] }, name)),
          of.parts > 1 ? el("span", { class: "faint" }, `translated in ${number(of.parts)} parts`) : null)])));
  }
  list.addEventListener("change", show);
  flag.addEventListener("change", show);
  filter.addEventListener("input", show);
  section("sentences", "Sentences",
    table("Flagged lines", ["flag", ...names.map(runName)], Object.keys(flags).map((name) => [
      el("span", {}, name, el("div", { class: "interval" }, flags[name])), ...names.map((run) => number(counts[run][name]))])),
    el("div", { class: "controls" }, el("label", {}, "List", list), el("label", {}, "With flag", flag), el("label", {}, "Containing", filter)),
    status, holder, el("p", { class: "faint" }, `${metric} of single sentences: ${data.sentences.signature}`));
  show();
}

// Attention

function heatmap(map, parts) {
  const cell = 15, rows = map.rows.map(visible), columns = map.columns.map(visible);
  const cut = (text) => [...text].length > 18 ? `${[...text].slice(0, 17).join("")}…` : text;
  const longest = (texts) => Math.max(...texts.map((text) => [...cut(text)].length));
  const left = 8 + 7 * longest(rows), top = 10 + Math.round(6.2 * longest(columns)), lean = Math.round(3.6 * longest(columns));
  const width = left + cell * columns.length + lean + 8, height = top + cell * rows.length + 2;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "Attention: a row for each target token, a column for each source token; the table below names the strongest" });
  columns.forEach((text, place) => {
    const x = left + cell * (place + 0.6);
    picture.append(svg("text", { x, y: top - 4, transform: `rotate(-60 ${x} ${top - 4})` }, cut(text)));
  });
  rows.forEach((text, row) => {
    picture.append(svg("text", { x: left - 4, y: top + cell * (row + 0.75), "text-anchor": "end" }, cut(text)));
    map.weights[row].forEach((weight, column) => {
      if (weight < 1) return;
      picture.append(svg("rect", { class: "cell", x: left + cell * column, y: top + cell * row, width: cell, height: cell, "fill-opacity": Math.min(1, weight / parts) },
        svg("title", {}, `${text} ← ${columns[column]} ${(weight / parts).toFixed(2)}`)));
    });
  });
  picture.append(svg("rect", { class: "frame", x: left, y: top, width: cell * columns.length, height: cell * rows.length }));
  const strongest = (weights) => weights.map((weight, column) => [weight, column]).sort((a, b) => b[0] - a[0]).slice(0, 3).filter(([weight]) => weight)
    .map(([weight, column]) => `${columns[column]} ${(weight / parts).toFixed(2)}`).join(", ");
  const values = el("div");
  const details = el("details", { ontoggle: () => {
    if (details.open && !values.firstChild) values.append(scrolling("Strongest attention", el("table", {}, el("caption", {}, "Strongest attention"),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "target token"), el("th", { scope: "col" }, "source tokens"))),
      el("tbody", {}, rows.map((text, row) => el("tr", {}, el("th", { scope: "row" }, el("bdi", {}, text)), el("td", {}, el("bdi", {}, strongest(map.weights[row])))))))));
  } }, el("summary", {}, "As a table"), values);
  return el("div", { class: "map" }, el("p", {}, runName(map.run), map.view ? `: ${map.view}` : ""), scrolling(`Attention of ${visible(map.run)}`, picture), details);
}

function attention() {
  const { sentences: drawn, without, parts } = data.attention;
  section("attention", "Attention",
    el("p", { class: "faint" }, "Over the source, of the layers and heads named, where a token is predicted. Darker is more, in the dark brighter."),
    without.length ? el("p", {}, "Without attention: ", without.flatMap((name, place) => [place ? ", " : "", runName(name)]), ".") : null,
    !drawn.length && without.length < names.length ? el("p", {}, "No sentence is short enough to be drawn.") : null,
    drawn.map((one, place) => {
      const holder = el("div", { class: "maps" });
      const open = () => { if (details.open && !holder.firstChild) holder.append(...one.maps.map((map) => heatmap(map, parts))); };
      const row = data.sentences.rows[one.row];
      const details = el("details", { open: place === 0 ? "" : null, ontoggle: open }, el("summary", {}, `Line ${number(one.line)}, ${visible(one.why).toLowerCase()}: `, el("bdi", {}, visible([...row.source].slice(0, 90).join("")))), holder);
      open();
      return details;
    }));
}

// Speed, cost, environment, commands

function costs() {
  const translation = new Map(data.translation.map((row) => [row.run, row]));
  const of = (run) => translation.get(run.run);
  section("cost", "Speed and cost", facts("What each run took", [
    ["steps", (run) => `${number(run.steps)} of ${number(run.max_steps)}, in epoch ${number(run.epochs + 1)}`],
    ["best checkpoint", (run) => `step ${number(run.best_step)}${run.best_train_seconds === null ? "" : `, after ${duration(run.best_train_seconds)}`}`],
    ["training", (run) => duration(run.train_seconds)],
    ["of which validation", (run) => duration(run.validation_seconds)],
    ["target tokens seen", (run) => run.target_tokens === null ? "–" : `about ${number(run.target_tokens)}`],
    ["target tokens a second", (run) => `${number(run.target_tokens_per_second)} (median)`],
    ["parameters", (run) => el("details", {}, el("summary", {}, number(run.parameters.total)), el("ul", {}, Object.entries(run.parameters).filter(([name]) => name !== "total").map(([name, count]) => el("li", {}, `${name} ${number(count)}`))))],
    ["device", (run) => [run.device, ...run.gpus].join(", ")],
    ["processor", (run) => `${run.processor ?? "not known"}, ${run.cores ?? "?"} cores`],
    ["processes and threads", (run) => `${number(run.processes)} of ${run.threads === 0 ? "a thread a core" : run.threads === 1 ? "1 thread" : `${number(run.threads)} threads`}`],
    ["precision", (run) => run.precision],
    ["translation", (run) => `${number(of(run).lines_per_second, 1)} lines a second: ${number(of(run).lines)} in ${duration(of(run).seconds)}, beam ${of(run).beam_size}, ${of(run).device}, ${of(run).threads} thread${of(run).threads === 1 ? "" : "s"}${of(run).reused ? " (measured when it was translated)" : ""}`],
    ["warnings", (run) => !run.warnings.count ? "none" : el("details", {}, el("summary", {}, number(run.warnings.count)), el("ul", {}, run.warnings.first.map((text) => el("li", {}, visible(text)))))],
  ]));
}

function environment() {
  const keys = [...new Set(data.runs.flatMap((run) => Object.keys(run.environment)))];
  section("environment", "Environment", facts("Versions and data", [
    ...keys.map((key) => [key, (run) => visible(String(run.environment[key] ?? "–"))]),
    ["seed", (run) => String(run.seed)],
    ["model", (run) => el("code", {}, run.model.slice(0, 12))],
    ["trained on", (run) => el("ul", {}, run.training_data.map((row) => el("li", {}, visible(String(row.file)), " ", el("code", {}, visible(String(row.sha256).slice(0, 12))))))],
  ]), el("p", { class: "faint" }, "The model's number is the beginning of the sha256 of its files' sha256; files' likewise."));
}

function commands() {
  const command = (text) => text ? el("pre", { tabindex: 0 }, visible(text)) : el("p", { class: "faint" }, "not known");
  section("commands", "Commands",
    data.commands.map((of) => [el("h3", {}, runName(of.run)), el("p", {}, "Trained by"), command(of.train),
      of.evaluate ? [el("p", {}, "Scored again by"), command(of.evaluate)] : null]),
    el("h3", {}, "This report"), command(data.command), el("p", { class: "faint" }, `nmt ${data.nmt}`));
}

const kinds = data.runs.map((run) => [runName(run.run), `: ${run.architecture}, ${visible(run.languages.join(" to "))}, ${number(run.parameters.total)} parameters, best at step ${number(run.best_step)}, trained ${duration(run.train_seconds)}`]);
if (several) document.getElementById("about").replaceWith(el("ul", { id: "about" }, kinds.map((kind) => el("li", {}, kind))));
else document.getElementById("about").append(...kinds[0]);
scores();
curves();
configuration();
lengths();
sentences();
attention();
costs();
environment();
commands();
addEventListener("resize", redraw);
document.body.dataset.ready = "yes";
