// The page: two panes, the languages between them, and what is known about each translation.

import * as api from "./api.js";
import * as history from "./history.js";
import {languageName, switchLanguage, words, writeWords} from "./i18n.js";
import * as job from "./job.js";
import {caretMoved, show, shown, translated} from "./result.js";

const PAUSE = 350;  // milliseconds without a keystroke until the text is translated
const ALTERNATIVES = 3;

const $ = id => document.getElementById(id);
let pairs = [], running = null, timer = 0;

// ---- Languages

function fillLanguages() {
  const [from, to] = [$("from").value, $("to").value];
  const sources = [...new Set(pairs.map(p => p.source))];
  fill($("from"), sources.length > 1 ? ["auto", ...sources] : sources, from);
  fillTargets(to);
}

function fillTargets(chosen) {
  const from = $("from").value;
  const targets = pairs.filter(p => from === "auto" || p.source === from).map(p => p.target);
  fill($("to"), [...new Set(targets)], chosen);
  const swapped = pairs.some(p => p.source === $("to").value && (p.target === from || from === "auto"));
  $("swap").disabled = !swapped;
}

function fill(select, codes, chosen) {
  select.replaceChildren(...codes.map(code => {
    const option = new Option(code === "auto" ? words("auto") : languageName(code), code);
    option.selected = code === chosen;
    return option;
  }));
}

function swap() {
  const detected = shown()?.detected;
  const from = $("from").value === "auto" ? detected : $("from").value;
  const to = $("to").value, text = shown() ? translated() : $("source").value;
  if (!from || !pairs.some(p => p.source === to && p.target === from)) return;
  fill($("from"), [...$("from").options].map(o => o.value), to);
  fillTargets(from);
  setText(text);
  translateNow();
}

// ---- Translation

function typed() {
  resize();
  clearTimeout(timer);
  running?.abort();
  if (!$("source").value.trim()) return show(null);
  timer = setTimeout(translateNow, PAUSE);
}

async function translateNow() {
  clearTimeout(timer);
  running?.abort();
  const text = $("source").value;
  if (!text.trim()) return show(null);
  const mine = running = new AbortController();
  const [source, target] = [$("from").value, $("to").value];
  $("target").setAttribute("aria-busy", "true");
  $("state").textContent = words("translating");
  try {
    const lines = text.split("\n");
    const request = {texts: lines, source, target, alternatives: ALTERNATIVES};
    const answer = await api.translate(request, mine.signal, busy);
    notice("");
    show({...answer, lines});
    history.add({source, target, text, translation: translated()});
    showHistory();
  } catch (error) {
    if (mine.signal.aborted) return;
    $("target").removeAttribute("aria-busy");
    $("state").textContent = "";
    notice(reason(error));
  }
}

const busy = seconds => {
  $("state").textContent = words("busy", seconds);
};

const reason = error => (error instanceof api.Refusal
  ? words("failed", error.message) : words("offline"));

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function setText(text) {
  $("source").value = text;
  resize();
}

function resize() {
  const field = $("source");
  $("count").textContent = `${[...field.value].length} ${words("characters")}`;
  $("mirror").textContent = `${field.value}\n`;  // as high as the text, and so is the field
}

// ---- Every step

async function showSteps() {
  const text = shown().lines.find(line => line.trim());
  const source = $("from").value === "auto" ? shown().detected : $("from").value;
  $("steps").disabled = true;
  $("steps").textContent = words("stepsBusy");
  try {
    const language = document.documentElement.lang.startsWith("zh") ? "zh" : "en";
    $("report-frame").src = await api.inspect({text, source, target: $("to").value, language});
    $("report").hidden = false;
    $("report").scrollIntoView({block: "start"});
    notice("");
  } catch (error) {
    notice(reason(error));
  } finally {
    $("steps").textContent = words("steps");
    $("steps").disabled = false;
  }
}

// ---- History

function showHistory() {
  const all = history.entries();
  $("forget").hidden = !all.length;
  $("history").replaceChildren(...all.map(entry => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    const text = document.createElement("span"), translation = document.createElement("span");
    text.textContent = entry.text;
    translation.textContent = entry.translation;
    translation.className = "quiet";
    button.append(text, translation);
    button.addEventListener("click", () => {
      fill($("from"), [...$("from").options].map(o => o.value), entry.source);
      fillTargets(entry.target);
      setText(entry.text);
      translateNow();
    });
    item.append(button);
    return item;
  }));
  if (!all.length) $("history").textContent = words("nothing");
}

// ---- The page's own settings

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  const other = theme === "dark" ? "light" : "dark";
  $("theme").textContent = words(other);
  $("theme").setAttribute("aria-label", words("themeLabel", words(theme), words(other)));
}

const theme = () => localStorage.getItem("theme")
  || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

function writePage() {
  writeWords();
  setTheme(theme());
  fillLanguages();
  resize();
  show(shown());
  showHistory();
}

function listen() {
  const on = (id, event, f) => $(id).addEventListener(event, f);
  on("source", "input", typed);
  on("source", "keydown", e => {
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) translateNow();
  });
  document.addEventListener("selectionchange", caretMoved);
  on("source", "blur", caretMoved);
  document.addEventListener("keydown", e => {
    if (e.altKey && e.code === "KeyS") swap();
  });
  on("from", "change", () => {
    fillTargets($("to").value);
    translateNow();
  });
  on("to", "change", () => {
    fillTargets($("to").value);
    translateNow();
  });
  on("swap", "click", swap);
  on("clear", "click", () => {
    setText("");
    typed();
    $("source").focus();
  });
  on("copy", "click", async () => {
    await navigator.clipboard.writeText(translated());
    $("state").textContent = words("copied");
  });
  on("shade", "click", () => {
    const shaded = $("target").classList.toggle("shaded");
    $("shade").setAttribute("aria-pressed", shaded);
    $("legend").hidden = !shaded;
  });
  on("steps", "click", showSteps);
  on("close-report", "click", () => {
    $("report").hidden = true;
    $("steps").focus();
  });
  on("file", "change", e => {
    if (e.target.files[0]) job.translateFile(e.target.files[0]);
    e.target.value = "";
  });
  on("job-stop", "click", () => job.stop());
  for (const event of ["dragover", "dragleave", "drop"]) {
    on("drop", event, e => {
      e.preventDefault();
      $("drop").classList.toggle("over", event === "dragover");
      if (event === "drop" && e.dataTransfer.files[0]) job.translateFile(e.dataTransfer.files[0]);
    });
  }
  on("forget", "click", () => {
    history.forget();
    showHistory();
  });
  on("interface", "click", () => {
    switchLanguage();
    writePage();
  });
  on("theme", "click", () => {
    localStorage.setItem("theme", theme() === "dark" ? "light" : "dark");
    setTheme(theme());
  });
}

async function begin() {
  listen();
  writePage();
  try {
    pairs = await api.pairs();
    fillLanguages();
    if (!pairs.length) notice(words("noModel"));
  } catch (error) {
    notice(reason(error));
  }
  $("source").focus();
}

begin();
