// The translation of a file: its lines in batches, with progress, and a file to download.

import * as api from "./api.js";
import * as files from "./files.js";
import {words} from "./i18n.js";

const LINES = 32;  // a request

const $ = id => document.getElementById(id);
let job = null;

/** Stops the file that is being translated. */
export const stop = () => job?.abort();

/** Translates a file between the chosen languages; one at a time. */
export async function translateFile(file) {
  job?.abort();
  const mine = job = new AbortController();
  $("job").hidden = false;
  $("job-name").textContent = file.name;
  $("job-progress").value = 0;
  $("job-state").textContent = "";
  try {
    const opened = await files.open(file);
    if (!opened) throw new Error(words("kind"));
    const done = await translateLines(opened.lines, mine.signal);
    save(opened.join(done), files.nameOf(file.name, $("to").value));
  } catch (error) {
    if (mine !== job) return;
    const why = error instanceof api.Refusal ? words("failed", error.message) : words("unreadable", file.name, error.message);
    $("job-state").textContent = mine.signal.aborted ? words("stopped") : why;
  }
}

async function translateLines(lines, signal) {
  const done = [], [source, target] = [$("from").value, $("to").value];
  for (let i = 0; i < lines.length; i += LINES) {
    const texts = lines.slice(i, i + LINES);
    const answer = await api.translate({texts, source, target, plain: true}, signal, seconds => {
      $("job-state").textContent = words("busy", seconds);
    });
    done.push(...answer.translations.map(t => t.text));
    $("job-progress").value = done.length / lines.length;
    $("job-state").textContent = words("lines", done.length, lines.length);
  }
  return done;
}

function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  $("job-state").textContent = words("saved", name);
}
