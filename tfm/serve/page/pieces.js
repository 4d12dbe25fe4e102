// Texts as their pieces: which characters belong to a piece, and which pieces belong together.

/**
 * Where each piece stands in a text: [[start, end], ...], or null for a piece that is not found,
 * as when the tokenizer replaced a character. "▁" is SentencePiece's sign for a space.
 */
export function spans(text, pieces) {
  const found = [];
  let from = 0;
  for (const piece of pieces) {
    const letters = piece.replaceAll("▁", " ").trim();
    const at = letters ? text.indexOf(letters, from) : -1;
    // A piece far ahead is a later piece of the same letters, not this one.
    const near = at >= 0 && at - from <= 24;
    found.push(near ? [at, at + letters.length] : null);
    if (near) from = at + letters.length;
  }
  return found;
}

/** 0 for the least sure to 3 for the surest, of a probability. */
export const level = p => (p < 0.3 ? 0 : p < 0.6 ? 1 : p < 0.85 ? 2 : 3);

/**
 * Fills `element` with `text`, of which every span becomes an element of its own.
 * @param {(i: number, e: HTMLElement) => void} each is called with each of them
 */
export function write(element, text, found, each) {
  const parts = [];
  let from = 0;
  found.forEach((span, i) => {
    if (!span) return;
    parts.push(text.slice(from, span[0]));
    const e = document.createElement("span");
    e.textContent = text.slice(...span);
    each(i, e);
    parts.push(e);
    from = span[1];
  });
  parts.push(text.slice(from));
  element.append(...parts);
}
