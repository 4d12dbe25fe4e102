// What was translated, in this browser's own storage.

const KEY = "history", MOST = 50;

/** All entries, newest first: [{source, target, text, translation}]. */
export function entries() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) || [];
  } catch {
    return [];
  }
}

/** Adds an entry. One that continues the newest, as while a person types, takes its place. */
export function add(entry) {
  const [newest, ...older] = entries();
  const continues = newest && newest.source === entry.source && newest.target === entry.target
    && (entry.text.startsWith(newest.text) || newest.text.startsWith(entry.text));
  const kept = continues ? older : [newest, ...older].filter(Boolean);
  try {
    localStorage.setItem(KEY, JSON.stringify([entry, ...kept].slice(0, MOST)));
  } catch {
    // No room left: the page works without a history.
    forget();
  }
}

export const forget = () => localStorage.removeItem(KEY);
