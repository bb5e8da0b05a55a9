// The page: which view is shown, what it asks for, and how fresh that is.

import { Text, byId } from "./dom.js";
import { History } from "./history.js";
import { Models } from "./models.js";
import { ModelView } from "./model_view.js";
import { NodeView } from "./node_view.js";
import { Nodes } from "./nodes.js";
import { Poll } from "./poll.js";
import { Ring } from "./ring.js";
import { Totals } from "./totals.js";
import { Trouble } from "./trouble.js";
import { duration } from "./units.js";
import { Work } from "./work.js";

const OVERVIEW_MS = 2000;
const HISTORY_MS = 10000; // As often as there is a new sample.
const CHUNKS_MS = 5000;
const AGE_MS = 1000;

const trouble = new Trouble();
const panels = [new Totals(), new Ring(), new Work(), new Models(), new Nodes()];
const clusterHistory = new History(byId("charts"));
const modelView = new ModelView();
const nodeView = new NodeView();

const cluster = new Text(byId("cluster"));
const about = new Text(byId("about"));
const age = new Text(byId("age"));

let overview = null; // The last answer, which every view is drawn from.
let answeredMs = null; // When it came, by the browser's own clock.
let isPaused = false;
let view = { name: "", argument: "" };

const overviewPoll = new Poll({
  path: "api/overview",
  everyMs: OVERVIEW_MS,
  onAnswer: onOverview,
  onRefusal: (refusal) => {
    trouble.show(refusal);
    showAge();
  },
});
let viewPoll = null;

function onOverview(answer) {
  const isFirst = overview === null;
  overview = answer;
  answeredMs = performance.now();
  trouble.clear();
  showOverview();
  showAge();
  if (isFirst) requestAnimationFrame(() => setTimeout(() => performance.mark("drawn")));
}

function showOverview() {
  document.body.dataset.drawn = "true";
  cluster.write(overview.cluster);
  about.write(`epoch ${overview.epoch} · told by ${overview.node} · ${overview.version}`);
  if (view.name === "cluster") for (const panel of panels) panel.show(overview);
  if (view.name === "node") nodeView.show(overview);
}

function showAge() {
  const seconds = answeredMs === null ? null : (performance.now() - answeredMs) / 1000;
  trouble.age(seconds);
  if (isPaused) age.write("paused");
  else if (seconds === null) age.write("no answer yet");
  else age.write(seconds < (2 * OVERVIEW_MS) / 1000 ? "live" : `${duration(seconds)} old`);
}

/** What the address names: `#/model?url=…`, `#/node?id=…`, else the cluster. */
function wantedView() {
  const [path, query] = location.hash.slice(1).split("?");
  const given = new URLSearchParams(query);
  if (path === "/model" && given.get("url")) return { name: "model", argument: given.get("url") };
  if (path === "/node" && given.get("id")) return { name: "node", argument: given.get("id") };
  return { name: "cluster", argument: "" };
}

function openView() {
  const isFirst = view.name === "";
  view = wantedView();
  for (const name of ["cluster", "model", "node"]) byId(`view-${name}`).hidden = name !== view.name;
  if (view.name === "model") modelView.open(view.argument);
  if (view.name === "node") nodeView.open(view.argument);
  viewPoll?.stop();
  viewPoll = new Poll(viewQuestion());
  if (overview !== null) showOverview();
  document.title = view.argument ? `${view.argument} – Penstock` : "Penstock";
  if (!isFirst) {
    window.scrollTo(0, 0);
    byId(`view-${view.name}`).querySelector("h1").focus({ preventScroll: true });
  }
  goOn();
}

function viewQuestion() {
  const named = encodeURIComponent(view.argument);
  const ignored = () => {}; // What fails here fails in the overview too, which tells.
  if (view.name === "model") {
    return {
      path: `api/chunks?url=${named}`,
      everyMs: CHUNKS_MS,
      onAnswer: (answer) => modelView.show(answer),
      onRefusal: (refusal) => modelView.refuse(refusal),
    };
  }
  const isNode = view.name === "node";
  return {
    path: isNode ? `api/history?node=${named}` : "api/history",
    everyMs: HISTORY_MS,
    onAnswer: (answer) => (isNode ? nodeView.showHistory(answer) : clusterHistory.show(answer)),
    onRefusal: ignored,
  };
}

/** Ask, or stop asking, as there is somebody who looks. */
function goOn() {
  const isOn = !document.hidden && !isPaused;
  for (const poll of [overviewPoll, viewPoll]) {
    if (isOn) poll.start();
    else poll.stop();
  }
  showAge();
}

function togglePause() {
  isPaused = !isPaused;
  document.body.toggleAttribute("data-paused", isPaused);
  byId("pause").textContent = isPaused ? "Resume" : "Pause";
  goOn();
}

function skip(event) {
  event.preventDefault(); // The address names the view.
  byId("content").focus();
}

byId("skip").addEventListener("click", skip);
byId("pause").addEventListener("click", togglePause);
document.addEventListener("visibilitychange", goOn);
addEventListener("hashchange", openView);
setInterval(() => document.hidden || isPaused || showAge(), AGE_MS);
openView();
