/** Show on each node what its run did: the server's event "sun.run", and the text of SUN Adapter Info. */

import { api } from "../../../scripts/api.js";
import { tell } from "./conversion.js";
import { foretellsChanges, showOn } from "./faces.js";
import { address, nodeAtPath, rootGraph } from "./graphs.js";
import { announcesAutomatic } from "./settings.js";
import { word } from "./words.js";

const told = new Map(); // node -> what its last run did; kept here since undo recreates nodes
const announced = new Set(); // node and changes: announced once, however many samplers a node serves
const lasted = new Map(); // node -> seconds of its last run, with SUN or without
let running = null; // the node that is running, and since when

/** Listen to the server; call `onEnd` when a workflow has run. */
export function listenToRuns(onEnd) {
  api.addEventListener("sun.run", ({ detail: run }) => {
    const node = nodeAtPath(run.node);
    if (!node) return;
    told.set(runKey(node), run);
    showRun(node);
    announce(node, run.changes);
  });
  api.addEventListener("executing", ({ detail: path }) => {
    const now = performance.now() / 1000;
    if (running) lasted.set(running.key, now - running.since);
    const node = path && nodeAtPath(path);
    running = node ? { key: key(address(node)), since: now } : null;
    if (!path) onEnd();
  });
  for (const ended of ["execution_error", "execution_interrupted"]) {
    api.addEventListener(ended, () => {
      running = null; // an interrupted run has no time
    });
  }
  api.addEventListener("executed", ({ detail: { node: path, output } }) => {
    const node = nodeAtPath(path);
    if (node?.comfyClass === "SUNAdapterInfo") showOn(node, { output: output?.text?.[0]?.split("\n") ?? [] });
  });
}

function announce(node, changes) {
  const news = `${runKey(node)}: ${changes}`;
  if (!changes || announced.has(news) || !announcesAutomatic()) return;
  announced.add(news);
  tell("info", word("sun.automatic"), changes);
}

/** Show the last run of a node, even if the node was recreated since. */
export function showRun(node) {
  const run = told.get(runKey(node));
  if (run) showOn(node, { run: inWords(run, !foretellsChanges(node)) });
}

/** Return at most one line: how long a sampler without SUN last took; `sampler` is {graph, node, label}. */
export function plainRun(sampler) {
  const seconds = lasted.get(key(sampler));
  return seconds ? [word("sun.plain", { node: sampler.label, seconds: seconds.toFixed(1) })] : [];
}

/** Describe a run in the user's language; the server's own text, for the log, is English. */
function inWords({ steps, evaluations, seconds, changes, idle }, withChanges) {
  if (idle) return word("sun.idle");
  const automatic = changes && withChanges ? word("sun.ranAutomatic", { changes }) : "";
  return word("sun.ran", { steps, evaluations, seconds: seconds.toFixed(1), automatic });
}

/** Include the type, since a new node can reuse the id of a deleted one. */
function runKey(node) {
  return `${key(address(node))} ${node.type}`;
}

function key({ graph, node }) {
  return `${rootGraph().id}/${graph}/${node}`;
}
