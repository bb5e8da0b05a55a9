// Saying that the picture is old, why, and what to do about it.

import { Text, byId } from "./dom.js";
import { duration } from "./units.js";

const TITLES = {
  silent: "The node does not answer",
  closed: "The node shows its cluster on its own machine only",
  unknown: "The node does not know this",
  busy: "The node cannot tell right now",
  failed: "The node could not answer",
};

function advice(kind) {
  const { hostname, port, protocol } = location;
  switch (kind) {
    case "silent":
      return "See whether it runs on its machine, or open this page at another node.";
    case "closed":
      return (
        "Set admin_open = true in the node's configuration, or come by way of its machine: " +
        `ssh -L ${port || 80}:127.0.0.1:${port || 80} ${hostname}, then ` +
        `${protocol}//127.0.0.1:${port || 80}/ here.`
      );
    case "busy":
      return "It is joining its cluster, or stopping. If it stays so, see its log.";
    default:
      return "penstock status, with the address of any node, tells the same.";
  }
}

/** The line below the header, there while something is wrong. */
export class Trouble {
  #frame = byId("trouble");
  #title = new Text(byId("trouble-title"));
  #advice = new Text(byId("trouble-advice"));
  #age = new Text(byId("trouble-age"));

  /** Show why there is no answer. */
  show({ kind, message }) {
    document.body.dataset.stale = kind;
    this.#title.write(`${TITLES[kind]}.`);
    // What a closed node says is the same as the advice, in other words.
    const said = kind === "closed" || message === "" ? "" : `It says: ${message.trim()}. `;
    this.#advice.write(said + advice(kind));
    this.#frame.hidden = false;
  }

  /** All is well again. */
  clear() {
    delete document.body.dataset.stale;
    this.#frame.hidden = true;
    this.#title.write("");
    this.#advice.write("");
  }

  /** Say how old what is shown is, in seconds; null where nothing has been shown. */
  age(seconds) {
    const old = seconds === null ? "" : `What is shown is ${duration(seconds)} old.`;
    this.#age.write(`${old} The page goes on asking.`.trim());
  }
}
