// Files: which of their text is translated, and how they are put together again.

const WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main";

/**
 * Takes a file apart.
 * @returns {Promise<{lines: string[], join: (translations: string[]) => Blob}>}
 */
export async function open(file) {
  const kind = file.name.toLowerCase().split(".").pop();
  if (kind === "docx") return docx(new Uint8Array(await file.arrayBuffer()));
  const text = new TextDecoder("utf-8", {fatal: true}).decode(await file.arrayBuffer());
  return {txt, tsv, srt}[kind]?.(text);
}

/** `photo.txt` in English is `photo.en.txt`. */
export const nameOf = (name, language) => name.replace(/(\.\w+)$/, `.${language}$1`);

const blob = text => new Blob([text], {type: "text/plain;charset=utf-8"});

function txt(text) {
  return {lines: text.split(/\r?\n/), join: done => blob(done.join("\n"))};
}

/** The first column is translated; the others stay. */
function tsv(text) {
  const rows = text.split(/\r?\n/).map(line => line.split("\t"));
  return {
    lines: rows.map(row => row[0]),
    join: done => blob(rows.map((row, i) => [done[i], ...row.slice(1)].join("\t")).join("\n")),
  };
}

/** Subtitles: the lines of a block that are neither its number nor its times are one text. */
function srt(text) {
  const blocks = text.replaceAll("\r\n", "\n").split(/\n{2,}/).map(block => {
    const lines = block.split("\n");
    const head = lines.findIndex(line => line.includes("-->")) + 1;
    return {head: lines.slice(0, head), body: lines.slice(head).join(" ").trim()};
  });
  return {
    lines: blocks.map(block => block.body),
    join: done => blob(blocks.map((block, i) => [...block.head, done[i]].join("\n")).join("\n\n")),
  };
}

/** Word: each paragraph is one text, written back into the first of its runs. */
function docx(bytes) {
  const parts = fflate.unzipSync(bytes);
  const path = "word/document.xml";
  const xml = new DOMParser().parseFromString(fflate.strFromU8(parts[path]), "application/xml");
  const paragraphs = [...xml.getElementsByTagNameNS(WORD, "p")]
    .map(p => [...p.getElementsByTagNameNS(WORD, "t")].filter(t => owner(t) === p))
    .filter(runs => runs.length);
  return {
    lines: paragraphs.map(runs => runs.map(t => t.textContent).join("")),
    join: done => {
      paragraphs.forEach((runs, i) => runs.forEach((t, j) => {
        t.textContent = j ? "" : done[i];
        t.setAttribute("xml:space", "preserve");
      }));
      const text = new XMLSerializer().serializeToString(xml);
      return new Blob([fflate.zipSync({...parts, [path]: fflate.strToU8(text)})]);
    },
  };
}

/** The paragraph that a run belongs to: of a text box in a paragraph, the box's own. */
function owner(run) {
  let e = run.parentElement;
  while (e && !(e.localName === "p" && e.namespaceURI === WORD)) e = e.parentElement;
  return e;
}
