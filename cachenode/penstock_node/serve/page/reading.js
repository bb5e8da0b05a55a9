// Reading a picture by pointer or keys: which of its positions is looked at.

// Up is more, as sliders have it; but where positions lie in rows, it is the row above.
const KEYS = {
  ArrowRight: (at) => at + 1,
  ArrowLeft: (at) => at - 1,
  ArrowUp: (at, { row }) => (row ? at - row() : at + 1),
  ArrowDown: (at, { row }) => (row ? at + row() : at - 1),
  PageUp: (at, { step }) => at + step,
  PageDown: (at, { step }) => at - step,
  Home: () => 0,
  End: (_, { count }) => count() - 1,
};

/**
 * Make `target` a slider over the positions of a picture.
 *
 * @param {HTMLElement} target what is pointed at, and gets the focus.
 * @param {object} how `label` of it; `count()` of positions; `at(event)` the position under the
 *   pointer, or null; `text(position)` what is read out; `show(position)` draws it, null nothing;
 *   `first()` where the keys begin; `step`, the positions of Page Up and Page Down;
 *   `row()`, where positions lie in rows, how many in each; `open(position)`, if that can be done.
 * @returns {() => void} to be called when the picture has changed: what is looked at is read anew.
 */
export function readable(target, how) {
  let position = null;
  let isKept = false; // By the keyboard: the pointer's leaving does not end it.
  target.tabIndex = 0;
  target.setAttribute("role", "slider");
  target.setAttribute("aria-label", how.label);
  target.setAttribute("aria-valuemin", "1");

  function look(wanted) {
    position = wanted === null ? null : Math.max(0, Math.min(how.count() - 1, wanted));
    how.show(position);
    if (position === null || !isKept) return;
    target.setAttribute("aria-valuenow", String(position + 1));
    target.setAttribute("aria-valuetext", how.text(position));
  }

  function onKey(event) {
    const { key } = event;
    if (key === "Escape") leave();
    else if (key === "Enter" && position !== null && how.open) how.open(position);
    else if (key in KEYS && how.count() > 0) {
      isKept = true;
      // The first key shows where one is.
      look(position === null ? how.first() : KEYS[key](position, how));
    } else return;
    event.preventDefault();
  }

  function leave() {
    isKept = false;
    look(null);
  }

  target.addEventListener("keydown", onKey);
  target.addEventListener("blur", leave);
  target.addEventListener("pointermove", (event) => {
    isKept = false;
    look(how.at(event));
  });
  target.addEventListener("pointerleave", () => isKept || look(null));
  if (how.open) {
    target.addEventListener("click", (event) => {
      const pointed = how.at(event);
      if (pointed !== null) how.open(pointed);
    });
  }
  return function changed() {
    const last = Math.max(0, how.count() - 1);
    target.setAttribute("aria-valuemax", String(last + 1));
    if (position === null) {
      const first = Math.max(0, Math.min(last, how.first()));
      target.setAttribute("aria-valuenow", String(first + 1));
      target.setAttribute("aria-valuetext", how.count() > 0 ? how.text(first) : "nothing yet");
    } else look(position);
  };
}
