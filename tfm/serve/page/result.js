// A translation on the page: its pieces, where they come from, how sure they are, and the others.

import {languageName, words} from "./i18n.js";
import {level, spans, write} from "./pieces.js";

const $ = id => document.getElementById(id);
let result = null;

/** The translation that is shown, as the server answered it, with the lines that it is of. */
export const shown = () => result;

/** Its text, line by line. */
export const translated = () => result.translations.map(t => t.text).join("\n");

/** Shows a translation; nothing for null. */
export function show(found) {
  result = found;
  const pane = $("target");
  pane.removeAttribute("aria-busy");
  pane.replaceChildren();
  $("mirror").textContent = `${$("source").value}\n`;
  const single = found && found.lines.filter(line => line.trim()).length === 1;
  $("steps").disabled = !single;
  $("copy").disabled = $("shade").disabled = !found;
  $("state").textContent = found ? stateOf(found) : "";
  showAlternatives(single ? found.translations.find(t => t.text) : null);
  if (!found) return;
  $("mirror").replaceChildren();
  found.translations.forEach((t, i) => {
    if (i) $("mirror").append("\n");
    if (i) pane.append("\n");
    writeLine(pane, found.lines[i], t);
  });
  $("mirror").append("\n");
}

function stateOf(found) {
  const detected = found.detected && $("from").value === "auto"
    ? ` · ${words("detected")}: ${languageName(found.detected)}` : "";
  return words("done") + detected;
}

/** One line on both sides; pieces that belong together light up together. */
function writeLine(pane, line, t) {
  const sources = [], targets = [];
  const group = document.createElement("span");
  write($("mirror"), line, spans(line, t.pieces?.source ?? []), (i, e) => {
    sources[i] = e;
  });
  write(group, t.text, spans(t.text, t.pieces?.target ?? []), (j, e) => {
    const p = t.confidence?.[j];
    e.className = p === undefined ? "piece" : `piece c${level(p)}`;
    if (p !== undefined) e.title = words("probability", `${Math.round(100 * p)} %`);
    targets[j] = e;
  });
  const link = (j, on) => {
    for (const [s, k] of t.alignment ?? []) if (k === j) sources[s]?.classList.toggle("linked", on);
  };
  targets.forEach((e, j) => {
    e.addEventListener("pointerenter", () => link(j, true));
    e.addEventListener("pointerleave", () => link(j, false));
  });
  linkSource(line, t, targets);
  pane.append(group);
}

/** The caret in the source lights up the pieces of the translation that come from there. */
const carets = [];

function linkSource(line, t, targets) {
  if (result.translations.indexOf(t) === 0) carets.length = 0;
  const before = result.lines.slice(0, result.translations.indexOf(t));
  const start = before.reduce((sum, text) => sum + text.length + 1, 0);
  spans(line, t.pieces?.source ?? []).forEach((span, s) => {
    if (!span) return;
    const own = (t.alignment ?? []).filter(pair => pair[0] === s).map(pair => targets[pair[1]]);
    carets.push({from: start + span[0], to: start + span[1], targets: own.filter(Boolean)});
  });
}

/** Lights up what the characters at the caret became. */
export function caretMoved() {
  const {selectionStart: from, selectionEnd: to} = $("source");
  for (const c of carets) for (const e of c.targets) e.classList.remove("linked");
  if (!result || document.activeElement !== $("source")) return;
  for (const c of carets) {
    const inside = from === to ? c.from <= from && from < c.to : c.from < to && from < c.to;
    if (inside) for (const e of c.targets) e.classList.add("linked");
  }
}

function showAlternatives(t) {
  const others = t?.alternatives ?? [];
  $("alternatives").hidden = !others.length;
  $("alternatives").querySelector("ol").replaceChildren(...others.map(other => {
    const item = document.createElement("li");
    const text = document.createElement("span"), share = document.createElement("span");
    text.textContent = other.text ?? other;
    if (other.log_prob !== undefined) {
      share.className = "quiet";
      share.textContent = words("probability", `${(100 * Math.exp(other.log_prob)).toPrecision(2)} %`);
    }
    item.append(text, share);
    return item;
  }));
}
