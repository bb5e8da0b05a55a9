// Which of many rows of one height are near what is looked at: only those are in the document.

const AROUND = 12; // Rows above and below, so that scrolling and the Tab key find more of them.
const HEIGHT_GUESS = 45;

/** The rows of `body` that are in view, as the page is scrolled. */
export class InView {
  #body;
  #height = HEIGHT_GUESS;
  #first = 0;
  #last = 0;
  #isWaiting = false;

  /** `changed()` is called when other rows have come into view. */
  constructor(body, changed) {
    this.#body = body;
    const look = () => this.#lookSoon(changed);
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
  }

  /** The rows to show of `count`: from the first up to, and without, the last. */
  range(count) {
    const { top } = this.#body.getBoundingClientRect();
    const above = Math.floor(-top / this.#height) - AROUND;
    const below = Math.ceil((innerHeight - top) / this.#height) + AROUND;
    this.#first = Math.max(0, Math.min(above, count - AROUND));
    this.#last = Math.max(this.#first, Math.min(count, Math.max(below, this.#first + AROUND)));
    return [this.#first, this.#last];
  }

  /** Keep the room of those of `count` that are not shown. */
  makeRoom(count) {
    this.#body.style.paddingTop = `${this.#first * this.#height}px`;
    this.#body.style.paddingBottom = `${(count - this.#last) * this.#height}px`;
  }

  /** Learn how high a row is; tell whether it was another height before. */
  measure(row) {
    const before = this.#height;
    this.#height = row?.getBoundingClientRect().height || before;
    return Math.abs(before - this.#height) > 0.01;
  }

  #lookSoon(changed) {
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    requestAnimationFrame(() => {
      this.#isWaiting = false;
      if (this.#body.offsetParent !== null) changed();
    });
  }
}
