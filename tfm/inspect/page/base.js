// What every picture needs: data, words, elements, numbers, hover, theme.

const {trace: T, labels: L} = JSON.parse(document.getElementById("data").textContent);

// A word of the report, its {names} filled in.
const say = (key, values = {}) =>
  L[key].replace(/\{(\w+)\}/g, (whole, name) => name in values ? values[name] : whole);

const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

// A number for people: three or four digits.
function short(x) {
  if (!Number.isFinite(x)) return x < 0 ? "−∞" : "–";
  const size = Math.abs(x);
  const text = size >= 1000 ? x.toFixed(0) : size >= 100 ? x.toFixed(1) : size >= 1 ? x.toFixed(2)
    : size >= 0.001 || x === 0 ? x.toFixed(3) : x.toExponential(1);
  return text.replace("-", "−");
}

const percent = (p) => p >= 0.0995 ? `${(100 * p).toFixed(0)} %` : p >= 0.001
  ? `${(100 * p).toFixed(1)} %` : "< 0.1 %";

// {shape, f16: base64 of little-endian float16} as a function of indices.
function array({shape, f16}) {
  const bytes = Uint8Array.from(atob(f16), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const values = Float32Array.from({length: bytes.length / 2}, (_, i) => half(view.getUint16(2 * i, true)));
  const at = (...indices) => values[indices.reduce((sum, i, axis) => sum * shape[axis] + i, 0)];
  return Object.assign(at, {shape, values, largest: values.reduce((m, v) => Math.max(m, Math.abs(v)), 0)});
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

// An element: make("p", {class: "quiet", onclick: f}, child, "text", ...).
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat());
  return element;
}

// An SVG from its markup; the parser of HTML knows its namespace.
function svg(width, height, markup, label) {
  const box = make("div", {class: "scroll"});
  box.innerHTML = `<svg width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img"`
    + ` aria-label="${escape(label)}">${markup}</svg>`;
  return box;
}

const text = (x, y, content, attributes = "") =>
  `<text x="${x}" y="${y}" ${attributes}>${escape(content)}</text>`;

// About how many pixels a text takes at 12 px: Chinese letters are twice as wide as others.
const wide = (content, size = 12) =>
  [...content].reduce((sum, c) => sum + (c.codePointAt(0) > 0x2e80 ? size : size * 0.58), 0);

const clip = (content, letters = 9) => {
  const all = [...content];
  return all.length > letters ? all.slice(0, letters - 1).join("") + "…" : content;
};

// Hover: any element with data-tip, or a canvas or SVG with a function on its `tip` property.
const tip = document.getElementById("tip");
function hover(event) {
  let words = null;
  for (let e = event.target; e instanceof Element && words === null; e = e.parentElement) {
    if (e.dataset.tip !== undefined) words = e.dataset.tip;
    else if (e.tip) words = e.tip(event);
  }
  tip.hidden = words === null;
  if (words === null) return;
  tip.textContent = words;
  const box = tip.getBoundingClientRect(), gap = 14;
  const left = event.clientX + gap + box.width > innerWidth ? event.clientX - gap - box.width : event.clientX + gap;
  const top = event.clientY + gap + box.height > innerHeight ? event.clientY - gap - box.height : event.clientY + gap;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}
document.addEventListener("pointermove", hover);
document.addEventListener("pointerdown", hover);
document.addEventListener("scroll", () => { tip.hidden = true; }, {passive: true});

// Theme: the system's, until the button says otherwise. Canvases are painted anew.
const painters = [];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
function wear(theme) {
  document.documentElement.dataset.theme = theme;
  painters.forEach((paint) => paint());
}
const dark = matchMedia("(prefers-color-scheme: dark)");
wear(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => wear(dark.matches ? "dark" : "light"));
const turn = () => wear(document.documentElement.dataset.theme === "dark" ? "light" : "dark");

// Sections number themselves and enter the list of contents.
const contents = make("ol");
function section(id, key, ...children) {
  const number = document.querySelectorAll("main > section").length + 1;
  const heading = make("h2", {}, make("span", {class: "number"}, String(number)), L[key]);
  document.getElementById("steps").append(make("section", {id}, heading, ...children));
  contents.append(make("li", {}, make("a", {href: `#${id}`}, L[key])));
}
const paragraph = (key, values) => make("p", {}, say(key, values));

// Buttons of which one is chosen; `show(i)` runs at once for the first.
function chooser(box, buttons, show, first = 0) {
  const press = (chosen) => {
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(i === chosen)));
    show(chosen);
  };
  buttons.forEach((b, i) => { b.type = "button"; b.onclick = () => press(i); });
  box.append(...buttons);
  press(first);
  return box;
}
