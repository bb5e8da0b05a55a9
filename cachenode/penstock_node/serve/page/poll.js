// Asking the node again and again: what it answers, what it refuses, and when it is silent.

export const TIMEOUT_MS = 8000; // Of one answer: as long as a node takes for anything it shows.

/** Why there is no answer: `kind` is what to do about it, `message` what the node said. */
export class Refusal extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

const KINDS = { 401: "closed", 403: "closed", 404: "unknown", 503: "busy" };

/**
 * Return the JSON at `path`.
 *
 * @throws {Refusal} It is refused, or there is no answer.
 */
export async function ask(path, { signal } = {}) {
  const limits = [AbortSignal.timeout(TIMEOUT_MS), ...(signal ? [signal] : [])];
  const options = { signal: AbortSignal.any(limits), headers: { Accept: "application/json" } };
  let answer;
  let text;
  try {
    answer = await fetch(path, options);
    text = await answer.text();
  } catch {
    throw new Refusal("silent", "");
  }
  if (answer.ok) return parsed(text);
  throw new Refusal(KINDS[answer.status] ?? "failed", messageOf(text, answer));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Refusal("failed", "the answer is no JSON: is there another program on this port?");
  }
}

function messageOf(text, { status, statusText }) {
  try {
    const { error, message } = JSON.parse(text);
    return `${error}: ${message}`;
  } catch {
    return text.trim() || `${status} ${statusText}`;
  }
}

/** Asks for a path every so often, while somebody looks: one question at a time. */
export class Poll {
  #everyMs;
  #path;
  #onAnswer;
  #onRefusal;
  #timer = 0;
  #asking = null;
  #isOn = false;

  constructor({ path, everyMs, onAnswer, onRefusal }) {
    this.#path = path;
    this.#everyMs = everyMs;
    this.#onAnswer = onAnswer;
    this.#onRefusal = onRefusal;
  }

  /** Ask now, and go on asking; where that is being done, nothing. */
  start() {
    if (this.#isOn) return;
    this.#isOn = true;
    this.#ask();
  }

  /** Ask no more; what is being asked is given up. */
  stop() {
    this.#isOn = false;
    clearTimeout(this.#timer);
    this.#asking?.abort();
    this.#asking = null;
  }

  async #ask() {
    clearTimeout(this.#timer);
    const asking = new AbortController();
    this.#asking = asking;
    const [answer, refusal] = await this.#answer(asking.signal);
    if (this.#asking !== asking) return; // Stopped, or started anew, meanwhile.
    this.#asking = null;
    if (refusal) this.#onRefusal(refusal);
    else this.#onAnswer(answer);
    if (this.#isOn) this.#timer = setTimeout(() => this.#ask(), this.#everyMs);
  }

  async #answer(signal) {
    try {
      return [await ask(this.#path, { signal }), null];
    } catch (error) {
      if (error instanceof Refusal) return [null, error];
      throw error;
    }
  }
}
