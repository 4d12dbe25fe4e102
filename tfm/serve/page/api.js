// Requests to this server. Texts go in bodies, never in an address.

const TRIES = 4;

/** An answer that is no success: its status, and the server's own sentence. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Translates lines; a server that is busy is asked again after the time that it names.
 * @param {{texts: string[], source: string, target: string, alternatives?: number}} request
 * @param {AbortSignal} signal
 * @param {(seconds: number) => void} onBusy
 */
export async function translate(request, signal, onBusy = () => {}) {
  for (let left = TRIES; ; left--) {
    const answer = await post("v1/translate", request, signal);
    if (answer.ok) return answer.json();
    if (answer.status !== 503 || left === 1) throw await refusal(answer);
    const seconds = Math.min(Number(answer.headers.get("Retry-After")) || 1, 30);
    onBusy(seconds);
    await pause(seconds, signal);
  }
}

/** The address of a page that shows every step of one sentence's translation. */
export async function inspect(request, signal) {
  const answer = await post("v1/inspect", request, signal);
  if (!answer.ok) throw await refusal(answer);
  return (await answer.json()).report;
}

/** The language pairs of this server: [{source, target}]. */
export async function pairs() {
  const answer = await fetch("v1/models");
  if (!answer.ok) throw await refusal(answer);
  return (await answer.json()).pairs;
}

const post = (path, body, signal) => fetch(path, {
  method: "POST",
  headers: {"Content-Type": "application/json"},
  body: JSON.stringify(body),
  signal,
});

async function refusal(answer) {
  const text = await answer.text();
  try {
    return new Refusal(answer.status, JSON.parse(text).error);
  } catch {
    return new Refusal(answer.status, `HTTP ${answer.status}`);
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
