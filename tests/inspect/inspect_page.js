// Uses a page of `tfm inspect` as a reader would: clicks every button, hovers over every mark, and
// writes what came of it into the page, where test_browser.py reads it.

const WRONG = /NaN|undefined|null|Infinity|\[object/;
// Whatever stands for a number has one to show.
const MARKS = "canvas, svg rect[data-i], svg .dot, svg .link, svg .touch, svg g[data-tip],"
  + " .chip, .zeros, .track, .steps button, .heads button";
const seen = {errors, ready: false, groups: [], marks: {}, wrong: [], silent: [], strange: [], themes: []};
const tip = document.getElementById("tip");
const note = (list, what) => { if (list.length < 20 && !list.includes(what)) list.push(what); };

function point(element, type, x, y) {
  const box = element.getBoundingClientRect();
  const place = {clientX: box.left + x * box.width, clientY: box.top + y * box.height};
  element.dispatchEvent(new PointerEvent(type, {bubbles: true, ...place}));
}

// Corners too: numbers are found from where the pointer is. What a click did not draw anew is known.
const known = new WeakSet();
function hover(mark) {
  if (known.has(mark)) return;
  known.add(mark);
  const name = `${mark.tagName} ${mark.getAttribute("class") ?? ""}`.trim().toLowerCase();
  const above = mark.closest("section").id;
  seen.marks[name] = (seen.marks[name] ?? 0) + 1;
  for (const [x, y] of mark.dataset.i ? [[.5, .5]] : [[0, 0], [.5, .5], [1, 1]]) {
    tip.hidden = true;
    point(mark, "pointermove", x, y);
    if (tip.hidden || !/\d/.test(tip.textContent)) note(seen.silent, `${above}: ${name}`);
    if (WRONG.test(tip.textContent)) note(seen.wrong, `${above}: ${name}: ${tip.textContent}`);
  }
}

function read(section) {
  if (WRONG.test(section.innerText)) note(seen.wrong, `${section.id}: ${section.innerText.match(WRONG)}`);
  for (const element of section.querySelectorAll("svg, svg *, [style]")) {
    for (const {name, value} of element.attributes) {
      if (name !== "data-tip" && /NaN|undefined|Infinity/.test(value)) note(seen.wrong, `${section.id}: ${name}=${value}`);
    }
  }
}

// Buttons beside each other, of which one is chosen; each draws the panels behind them anew.
function choose(box) {
  const buttons = [...box.children].filter((e) => e.tagName === "BUTTON"), section = box.closest("section");
  const panels = () => {
    const copy = section.cloneNode(true);
    copy.querySelectorAll("button").forEach((b) => b.remove());
    return copy.innerHTML;
  };
  const states = new Set(), names = new Set();
  for (const button of buttons) {
    point(button, "pointerdown", .5, .5);
    button.click();
    const pressed = buttons.filter((b) => b.getAttribute("aria-pressed") === "true");
    if (pressed.length !== 1 || pressed[0] !== button) note(seen.strange, `${section.id}: pressed ${pressed.length}`);
    states.add(panels());
    names.add(button.ariaLabel ?? button.textContent);
    read(section);
    section.querySelectorAll(MARKS).forEach(hover);
  }
  seen.groups.push({section: section.id, buttons: buttons.length, names: names.size, states: states.size});
}

// The other theme paints canvases in other colours, and back.
function turn() {
  for (let i = 0; i < 2; i++) {
    document.getElementById("theme").click();
    const pictures = [...document.querySelectorAll("section canvas")].map((c) => c.toDataURL());
    seen.themes.push([document.documentElement.dataset.theme, pictures]);
  }
}

try {
  const used = new Set();
  document.querySelectorAll("section").forEach((section) => {
    read(section);
    section.querySelectorAll(MARKS).forEach(hover);
  });
  for (const button of document.querySelectorAll("section button")) {
    if (!used.has(button.parentElement)) choose(button.parentElement);
    used.add(button.parentElement);
  }
  turn();
  document.querySelectorAll("nav a").forEach((a) => {
    if (!document.querySelector(a.getAttribute("href"))) note(seen.strange, a.href);
  });
  seen.others = document.querySelectorAll("select, input, textarea, details").length; // not used above
} catch (error) {
  errors.push(`${error.stack}`);
}
seen.ready = document.documentElement.dataset.ready === "true";
seen.sections = [...document.querySelectorAll("section")].map((s) => s.id);
seen.pictures_of_positions = document.querySelectorAll("#positions canvas").length;
seen.heads = [...document.querySelectorAll("#encoder .heads button")].map((b) => b.dataset.tip);
const summary = document.createElement("pre");
summary.id = "summary";
summary.textContent = JSON.stringify(seen);
document.body.append(summary);
