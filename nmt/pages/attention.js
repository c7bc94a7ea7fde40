"use strict";
// Data: {about, kinds: {kind: title}, state, sentences}. A sentence: {line, source, target, sides: {name: {tokens, words}},
// maps: {kind: {rows, columns, shape: [L, H, Q, K], weights}}}; weights are thousandths, 16 bits, deflated, in base64.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const state = { s: 0, kind: "", layer: 0, head: 0, words: false, row: 0, column: 0, ...data.state };
let shown = null; // {weights, rows, columns, layers: [[...]]} of what is on the page
const unpacked = new Map();

// ---- data

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new DataView(await new Response(stream).arrayBuffer());
  return Float32Array.from({ length: bytes.byteLength / 2 }, (_, i) => bytes.getUint16(2 * i, true) / 1000);
}

async function weightsOf(sentence, kind) {
  const key = `${sentence} ${kind}`;
  if (!unpacked.has(key)) {
    if (unpacked.size > 8) unpacked.clear();
    unpacked.set(key, unpack(data.sentences[sentence].maps[kind].weights));
  }
  return unpacked.get(key);
}

// Characters that are not seen, or that turn the text round, by their number.
function visible(token) {
  const text = token.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}]/gu, (c) => `⟨${c.codePointAt(0).toString(16).toUpperCase()}⟩`);
  return text.trim() === "" ? "␣" : text;
}

function labels(sentence, name) {
  const side = data.sentences[sentence].sides[name];
  return (state.words ? side.words.map((word) => word[0]) : side.tokens).map(visible);
}

// From tokens to words: of those that look the mean, of those looked at the sum.
function merged(weights, rows, columns, queries, keys) {
  const result = new Float32Array(rows.length * columns.length);
  let q = 0;
  rows.forEach(([, height], r) => {
    for (const end = q + height; q < end; q++) {
      let k = 0;
      columns.forEach(([, width], c) => {
        for (const last = k + width; k < last; k++) result[r * columns.length + c] += weights[q * keys + k] / height;
      });
    }
  });
  return result;
}

function mean(maps) {
  const result = new Float32Array(maps[0].length);
  for (const map of maps) map.forEach((weight, i) => { result[i] += weight / maps.length; });
  return result;
}

async function collect() {
  const sentence = data.sentences[state.s], map = sentence.maps[state.kind];
  const [L, H, Q, K] = map.shape, all = await weightsOf(state.s, state.kind);
  const rows = sentence.sides[map.rows].words, columns = sentence.sides[map.columns].words;
  const one = (layer, head) => {
    const start = (layer * H + head) * Q * K, part = all.subarray(start, start + Q * K);
    return state.words ? merged(part, rows, columns, Q, K) : part;
  };
  const layers = state.layer ? [state.layer - 1] : [...Array(L).keys()];
  const byHead = [...Array(H).keys()].map((head) => mean(layers.map((layer) => one(layer, head))));
  return {
    byHead, weights: state.head ? byHead[state.head - 1] : mean(byHead),
    rows: labels(state.s, map.rows), columns: labels(state.s, map.columns), L, H,
  };
}

// ---- drawing

const dark = matchMedia("(prefers-color-scheme: dark)");
const printing = matchMedia("print");

// From paper to dark: white to blue, or in the dark black to light blue; the root makes small weights seen.
function palette() {
  const light = !dark.matches || printing.matches;
  const [from, to] = light ? [[255, 255, 255], [8, 48, 107]] : [[28, 32, 38], [190, 222, 255]];
  return Array.from({ length: 256 }, (_, step) => from.map((low, i) => Math.round(low + (to[i] - low) * Math.sqrt(step / 255))));
}

const step = (weight) => Math.round(255 * Math.min(weight, 1));

function drawThumb(canvas, colours, weights, rows, columns) {
  canvas.width = columns;
  canvas.height = rows;
  const image = new ImageData(columns, rows);
  weights.forEach((weight, i) => {
    const [red, green, blue] = colours[step(weight)], at = 4 * i;
    image.data[at] = red;
    image.data[at + 1] = green;
    image.data[at + 2] = blue;
    image.data[at + 3] = 255;
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const CELL = 26, LABEL_FONT = "13px system-ui, sans-serif", MOST_LABEL = 120;
let place = { left: 0, top: 0, cell: CELL };

function shortened(context, text, width) {
  const characters = [...text.slice(0, 200)];
  if (text.length <= 200 && context.measureText(text).width <= width) return text;
  while (characters.length > 1 && context.measureText(characters.join("") + "…").width > width) {
    characters.length = Math.min(characters.length - 1, 40);
  }
  return characters.join("") + "…";
}

// The canvas is as large as the box and stays in place; `room` is as large as the whole map, and scrolls.
function drawMap() {
  const box = $("box"), canvas = $("map"), context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement), { rows, columns, weights } = shown;
  context.font = LABEL_FONT;
  const widest = (names) => Math.max(...names.slice(0, 200).map((name) => context.measureText(name.slice(0, 40)).width));
  const most = Math.min(MOST_LABEL, box.clientWidth * 0.35 || MOST_LABEL);
  const left = Math.ceil(Math.min(widest(rows), most)) + 10, top = Math.ceil(Math.min(widest(columns), MOST_LABEL) * 0.87) + 16;
  const slant = 12 + Math.ceil(Math.min(widest(columns), MOST_LABEL) * 0.5);
  place = { left, top, cell: CELL };
  const whole = { width: left + columns.length * CELL + slant, height: top + rows.length * CELL + 4 };
  $("room").style.width = `${whole.width}px`;
  $("room").style.height = `${whole.height}px`;
  const width = printing.matches ? Math.min(whole.width, 8000) : Math.min(whole.width, box.clientWidth || 320);
  const height = printing.matches ? Math.min(whole.height, 8000) : Math.min(whole.height, Math.round(innerHeight * 0.75));
  const scale = Math.min(devicePixelRatio || 1, 2);
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.fillStyle = style.getPropertyValue("--paper");
  context.fillRect(0, 0, width, height);
  context.font = LABEL_FONT;
  context.textBaseline = "middle";
  const x0 = left - box.scrollLeft, y0 = top - box.scrollTop;
  const first = (at, edge) => Math.max(0, Math.floor((edge - at) / CELL));
  const last = (at, edge, count) => Math.min(count, Math.ceil((edge - at) / CELL));
  const rowFrom = first(y0, top), rowTo = last(y0, height, rows.length);
  const columnFrom = first(x0, left), columnTo = last(x0, width, columns.length);
  const colours = palette();
  context.save();
  context.beginPath();
  context.rect(left, top, width - left, height - top);
  context.clip();
  for (let row = rowFrom; row < rowTo; row++) {
    for (let column = columnFrom; column < columnTo; column++) {
      context.fillStyle = `rgb(${colours[step(weights[row * columns.length + column])]})`;
      context.fillRect(x0 + column * CELL, y0 + row * CELL, CELL - 1, CELL - 1);
    }
  }
  context.strokeStyle = style.getPropertyValue("--mark");
  context.lineWidth = 3;
  context.strokeRect(x0 + state.column * CELL + 1, y0 + state.row * CELL + 1, CELL - 3, CELL - 3);
  context.restore();
  const ink = style.getPropertyValue("--ink"), mark = style.getPropertyValue("--mark");
  context.save();
  context.beginPath();
  context.rect(0, top, left, height - top);
  context.clip();
  context.textAlign = "right";
  for (let row = rowFrom; row < rowTo; row++) {
    context.fillStyle = row === state.row ? mark : ink;
    context.fillText(shortened(context, rows[row], left - 10), left - 6, y0 + (row + 0.5) * CELL);
  }
  context.restore();
  context.save();
  context.beginPath();
  context.rect(left - 4, 0, width - left + 4, top);
  context.clip();
  context.textAlign = "left";
  for (let column = columnFrom; column < columnTo; column++) {
    context.save();
    context.translate(x0 + (column + 0.5) * CELL, top - 6);
    context.rotate(-Math.PI / 3);
    context.fillStyle = column === state.column ? mark : ink;
    context.fillText(shortened(context, columns[column], MOST_LABEL), 0, 0);
    context.restore();
  }
  context.restore();
}

// ---- what is said

const number = (weight) => weight.toFixed(3);

function bdi(text) {
  const element = document.createElement("bdi");
  element.textContent = text;
  return element;
}

function say() {
  const { rows, columns, weights } = shown, { row, column } = state;
  const weight = weights[row * columns.length + column];
  $("readout").replaceChildren(bdi(rows[row]), " looks at ", bdi(columns[column]), `: ${number(weight)} `);
  const about = document.createElement("span");
  about.className = "faint";
  about.textContent = `(row ${row + 1} of ${rows.length}, column ${column + 1} of ${columns.length})`;
  $("readout").append(about);
  $("row-title").replaceChildren("Where ", bdi(rows[row]), " looks most");
  const order = columns.map((_, i) => i).sort((a, b) => weights[row * columns.length + b] - weights[row * columns.length + a]);
  $("row").replaceChildren(...order.slice(0, 5).map((i) => {
    const line = document.createElement("tr"), value = weights[row * columns.length + i], bar = document.createElement("meter");
    const [name, figure, cell] = ["th", "td", "td"].map((tag) => line.appendChild(document.createElement(tag)));
    name.scope = "row";
    name.append(bdi(columns[i]));
    figure.textContent = number(value);
    bar.value = value;
    bar.setAttribute("aria-hidden", "true");
    cell.append(bar);
    return line;
  }));
}

function fill(select, names, chosen, values = names.map((_, i) => i)) {
  select.replaceChildren(...names.map((name, i) => new Option(name, values[i], false, String(values[i]) === String(chosen))));
}

function title() {
  const layer = state.layer ? `layer ${state.layer}` : "mean of layers", head = state.head ? `head ${state.head}` : "mean of heads";
  return `${data.kinds[state.kind]}, ${layer}, ${head}`;
}

let turn = 0;
async function show() {
  const mine = ++turn, sentence = data.sentences[state.s];
  let found;
  try {
    found = await collect();
  } catch (error) {
    $("readout").textContent = `The weights cannot be unpacked (${error.message}); use a browser of 2023 or later.`;
    return;
  }
  if (mine !== turn) return; // something else was chosen in the meantime
  shown = found;
  state.row = Math.min(state.row, shown.rows.length - 1);
  state.column = Math.min(state.column, shown.columns.length - 1);
  $("sentence").value = state.s;
  $("kind").value = state.kind;
  const upTo = (count) => [...Array(count).keys()].map((i) => i + 1);
  fill($("layer"), ["mean", ...upTo(shown.L)], state.layer, [0, ...upTo(shown.L)]);
  fill($("head"), ["mean", ...upTo(shown.H)], state.head, [0, ...upTo(shown.H)]);
  $("words").checked = state.words;
  $("source").textContent = sentence.source;
  $("target").textContent = sentence.target;
  const of = state.layer ? `layer ${state.layer}` : "the mean of layers";
  $("thumbs-title").textContent = `Heads of ${of}`;
  const colours = palette(), focused = $("thumbs").contains(document.activeElement);
  $("thumbs").replaceChildren(...[...shown.byHead.keys()].map((head) => {
    const button = document.createElement("button"), canvas = document.createElement("canvas");
    drawThumb(canvas, colours, shown.byHead[head], shown.rows.length, shown.columns.length);
    canvas.setAttribute("aria-hidden", "true");
    button.type = "button";
    button.dataset.head = head + 1;
    button.setAttribute("aria-label", `head ${head + 1} of ${of}`);
    button.setAttribute("aria-pressed", String(state.head === head + 1));
    button.append(canvas, String(head + 1));
    return button;
  }));
  if (focused) ($("thumbs").querySelector('[aria-pressed="true"]') ?? $("map")).focus({ preventScroll: true });
  $("map-title").textContent = title();
  drawMap();
  say();
  const hash = new URLSearchParams({ line: sentence.line, type: state.kind, layer: state.layer, head: state.head, words: Number(state.words) });
  history.replaceState(null, "", `#${hash}`);
  document.body.dataset.ready = "yes";
}

// ---- what is done

const turned = (value, by, count) => (value + by + count) % count;

function change(name, by) {
  const kinds = Object.keys(data.sentences[state.s].maps);
  const [L, H] = data.sentences[state.s].maps[state.kind].shape;
  if (name === "s") {
    state.s = turned(state.s, by, data.sentences.length);
    state.row = state.column = 0;
  }
  if (name === "kind") choose("kind", kinds[turned(kinds.indexOf(state.kind), by, kinds.length)]);
  if (name === "layer") choose("layer", turned(state.layer, by, L + 1));
  if (name === "head") choose("head", turned(state.head, by, H + 1));
  if (name === "words") choose("words", !state.words);
  return show();
}

function choose(name, value) {
  if (name !== "layer" && name !== "head") state.row = state.column = 0;
  state[name] = value;
  const [L, H] = data.sentences[state.s].maps[state.kind].shape;
  state.layer = Math.min(state.layer, L);
  state.head = Math.min(state.head, H);
}

function move(row, column) {
  if (!shown) return;
  state.row = Math.max(0, Math.min(row, shown.rows.length - 1));
  state.column = Math.max(0, Math.min(column, shown.columns.length - 1));
  const box = $("box"), x = state.column * CELL, y = state.row * CELL;
  const width = box.clientWidth - place.left, height = box.clientHeight - place.top;
  box.scrollLeft = Math.max(Math.min(box.scrollLeft, x), x + CELL - width);
  box.scrollTop = Math.max(Math.min(box.scrollTop, y), y + CELL - height);
  drawMap();
  say();
}

const KEYS = {
  n: ["s", 1], p: ["s", -1], t: ["kind", 1], T: ["kind", -1], l: ["layer", 1], L: ["layer", -1], w: ["words", 1],
  h: ["head", 1], H: ["head", -1], "]": ["head", 1], "[": ["head", -1],
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey && !event.altKey || event.metaKey || event.target.tagName === "SELECT") return;
  const cell = {
    ArrowUp: [state.row - 1, state.column], ArrowDown: [state.row + 1, state.column],
    ArrowLeft: [state.row, state.column - 1], ArrowRight: [state.row, state.column + 1],
    Home: [state.row, 0], End: [state.row, Infinity],
  }[event.key];
  if (cell && event.target === $("map")) move(...cell);
  else if (event.key in KEYS) change(...KEYS[event.key]);
  else return;
  event.preventDefault();
});

function point(event) {
  const at = $("map").getBoundingClientRect(), box = $("box");
  const x = event.clientX - at.left - place.left, y = event.clientY - at.top - place.top;
  if (!shown || x < 0 || y < 0) return;
  const column = Math.floor((x + box.scrollLeft) / CELL), row = Math.floor((y + box.scrollTop) / CELL);
  if (row >= shown.rows.length || column >= shown.columns.length || (row === state.row && column === state.column)) return;
  state.row = row;
  state.column = column;
  drawMap();
  say();
}

$("map").addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") point(event); });
$("map").addEventListener("click", point);
$("box").addEventListener("scroll", () => { if (shown) drawMap(); });
$("sentence").addEventListener("change", (event) => { choose("s", Number(event.target.value)); show(); });
$("kind").addEventListener("change", (event) => { choose("kind", event.target.value); show(); });
$("layer").addEventListener("change", (event) => { choose("layer", Number(event.target.value)); show(); });
$("head").addEventListener("change", (event) => { choose("head", Number(event.target.value)); show(); });
$("words").addEventListener("change", (event) => { choose("words", event.target.checked); show(); });
$("thumbs").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  choose("head", Number(button.dataset.head));
  show();
});
addEventListener("resize", () => { if (shown) drawMap(); });
dark.addEventListener("change", () => { if (shown) show(); });
printing.addEventListener("change", () => { if (shown) drawMap(); }); // before paper is laid out

// An address that was copied shows what it showed.
function fromAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const place = data.sentences.findIndex((sentence) => String(sentence.line) === asked.get("line"));
  if (place >= 0) state.s = place;
  const maps = data.sentences[state.s].maps;
  if (Object.hasOwn(maps, asked.get("type") ?? "")) state.kind = asked.get("type");
  if (!Object.hasOwn(maps, state.kind)) state.kind = Object.keys(maps).at(-1);
  for (const name of ["layer", "head"]) {
    if (/^\d{1,4}$/.test(asked.get(name) ?? "")) choose(name, Number(asked.get(name)));
  }
  choose("head", state.head);
  if (asked.has("words")) state.words = asked.get("words") === "1";
}

$("about").textContent = data.about;
fill($("sentence"), data.sentences.map(({ line, source }) => `${line}: ${[...visible(source)].slice(0, 80).join("")}`), state.s);
const kinds = Object.keys(data.sentences[0].maps);
fill($("kind"), kinds.map((kind) => data.kinds[kind]), state.kind, kinds);
fromAddress();
show();
addEventListener("hashchange", () => { fromAddress(); show(); });
