// The two ways to draw a matrix: with names at its sides, and as a strip of colour.

// Paints rows × columns cells, one pixel each; `value` in -1..1 (or 0..1 if not signed).
function paint(canvas, rows, columns, value, signed) {
  canvas.width = columns;
  canvas.height = rows;
  const draw = () => {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, columns, rows);
    const [heat, plus, minus] = ["heat", "plus", "minus"].map(colour);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        const v = value(i, j);
        context.globalAlpha = Math.min(1, Math.abs(v));
        context.fillStyle = signed ? (v < 0 ? minus : plus) : heat;
        context.fillRect(j, i, 1, 1);
      }
    }
  };
  painters.push(draw);
  draw();
  return canvas;
}

// A canvas of rows × columns numbers, each row `height` pixels, with hover. Empty names may be
// overlapped by those above them.
function strip(numbers, height, names, words) {
  const [rows, columns] = numbers.shape;
  const sorted = Float32Array.from(numbers.values, Math.abs).sort();
  const most = sorted[Math.floor(0.99 * (sorted.length - 1))] || 1;
  const canvas = paint(make("canvas"), rows, columns, (i, j) => numbers(i, j) / most, true);
  canvas.style.height = `${rows * height}px`;
  canvas.tip = (event) => {
    const box = canvas.getBoundingClientRect();
    const i = Math.min(rows - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * rows)));
    const j = Math.min(columns - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * columns)));
    return words(i, j, numbers(i, j));
  };
  const side = make("div", {class: "names"}, names.map((name) => {
    const line = make("div", {}, name);
    line.style.height = `${height}px`;
    line.style.lineHeight = `${Math.max(height, 14)}px`;
    return line;
  }));
  return make("div", {class: "strip"}, side, canvas);
}

const CROWDED = 21; // from so many columns on, a matrix has a line of the page to itself

// A matrix with names: rows ask, columns are asked.
//   rows, columns: names; value(i, j); most: what is painted in full colour; signed: two colours;
//   hidden(i, j): hatched; words(i, j): shown on hover.
function matrix({rows, columns, value, most, signed, hidden, words, label, axes}) {
  const room = columns.length > CROWDED ? 640 : 280;
  const cell = Math.max(14, Math.min(30, Math.floor(Math.min(room / columns.length, 1.5 * room / rows.length))));
  const upright = cell < 18, size = Math.min(12, upright ? cell : 12);
  const left = Math.max(...rows.map((r) => wide(clip(r), size))) + 26;
  const top = Math.max(...columns.map((c) => wide(clip(c), size))) * (upright ? 1 : 0.72) + 30;
  const [width, height] = [cell * columns.length, cell * rows.length];
  const slant = upright ? 0 : wide(clip(columns[columns.length - 1]), size) * 0.7;
  const parts = [`<rect class="back" x="${left - .5}" y="${top - .5}" width="${width + 1}" height="${height + 1}"/>`];
  rows.forEach((name, i) => parts.push(text(left - 6, top + cell * (i + .5) + size * .35, clip(name),
    `text-anchor="end" style="font-size:${size}px"`)));
  columns.forEach((name, j) => {
    const [x, y] = [left + cell * (j + .5) + size * (upright ? .35 : .25), top - 6];
    parts.push(text(x, y, clip(name), `transform="rotate(${upright ? -90 : -45} ${x} ${y})" style="font-size:${size}px"`));
  });
  parts.push(text(left, 11, `${axes[1]} →`, 'class="quiet"'));
  const middle = top + height / 2;
  parts.push(text(9, middle, `← ${axes[0]}`, `class="quiet" text-anchor="middle" transform="rotate(-90 9 ${middle})"`));
  rows.forEach((_, i) => columns.forEach((_, j) => {
    const [x, y] = [left + cell * j, top + cell * i];
    const place = `data-i="${i}" data-j="${j}" x="${x}" y="${y}" width="${cell}" height="${cell}"`;
    if (hidden && hidden(i, j)) {
      parts.push(`<rect ${place} fill="url(#hatch)"/>`);
    } else {
      const v = value(i, j) / most;
      const kind = signed ? (v < 0 ? "minus" : "plus") : "heat";
      parts.push(`<rect ${place} class="${kind}" fill-opacity="${Math.min(1, Math.abs(v)).toFixed(3)}"/>`);
    }
  }));
  const box = svg(left + width + slant + 4, top + height + 4, hatch + parts.join(""), label);
  box.firstChild.tip = ({target}) =>
    target.dataset.i === undefined ? null : words(Number(target.dataset.i), Number(target.dataset.j));
  return box;
}

const hatch = '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
  + 'patternTransform="rotate(45)"><line class="hatch" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>';

// Beside each other where they are narrow.
const panels = (columns) => make("div", {class: columns.length > CROWDED ? "panels wide" : "panels"});

const panel = (title, note, picture) =>
  make("figure", {}, make("figcaption", {}, title, make("span", {}, note)), picture);

// Three to eight round numbers that cover low..high.
function round(low, high) {
  const raw = (high - low || 1) / 4, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= raw), ticks = [];
  for (let k = Math.floor(low / step); (k - 1) * step < high || ticks.length < 2; k++) {
    ticks.push(Number((k * step).toPrecision(6)));
  }
  return ticks;
}

// Lines over shared points: series = [{name, kind, values}], points = names on the x axis.
function lines({series, points, label, axis, words}) {
  const all = series.flatMap((s) => s.values).filter((v) => v !== null), ticks = round(Math.min(0, ...all), Math.max(0, ...all));
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const [left, top, height] = [48, 22, 190];
  const step = Math.max(points.length > 24 ? 9 : 40, Math.min(110, 720 / Math.max(1, points.length - 1)));
  const x = (i) => left + i * step, y = (v) => top + height * (1 - (v - low) / (high - low));
  const every = Math.ceil(36 / step), parts = [];
  for (const v of ticks) {
    parts.push(`<line class="grid" x1="${left}" x2="${x(points.length - 1)}" y1="${y(v)}" y2="${y(v)}"/>`);
    parts.push(text(left - 7, y(v) + 4, String(v).replace("-", "−"), 'class="quiet" text-anchor="end"'));
  }
  points.forEach((name, i) => i % every === 0
    && parts.push(text(x(i), top + height + 18, name, 'class="quiet" text-anchor="middle"')));
  parts.push(text(4, 11, axis, 'class="quiet"'));
  for (const {name, kind, values} of series) {
    const path = values.flatMap((v, i) => v === null ? [] : [`${x(i).toFixed(1)},${y(v).toFixed(1)}`]).join(" ");
    parts.push(`<polyline class="touch" data-name="${escape(name)}" points="${path}"/>`);
    parts.push(`<polyline class="thread ${kind}" pointer-events="none" points="${path}"/>`);
  }
  const box = svg(x(points.length - 1) + 44, top + height + 28, parts.join(""), label);
  const drawing = box.firstChild;
  drawing.tip = ({target, clientX}) => {
    const found = series.find((s) => s.name === target.dataset.name);
    if (!found) return null;
    const i = Math.round((clientX - drawing.getBoundingClientRect().left - left) / step);
    const near = Math.min(points.length - 1, Math.max(0, i));
    return words(found.name, near, found.values[near]);
  };
  return box;
}

// Horizontal bars: [[name, share of the full width, value as text, hover], ...].
const bars = (entries) => make("div", {class: "bars"}, entries.flatMap(([name, share, value, words]) => {
  const bar = make("i");
  bar.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return [make("div", {class: "name"}, name), make("div", {class: "track", "data-tip": words}, bar),
    make("div", {class: "value"}, value)];
}));
