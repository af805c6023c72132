/** What a run did, on the node that did it: the server's event "sun.run", and the text of SUN Adapter Info. */

import { api } from "../../../scripts/api.js";
import { tell } from "./conversion.js";
import { showOn } from "./faces.js";
import { address, nodeAtPath, rootGraph } from "./graphs.js";
import { announcesAutomatic } from "./settings.js";
import { word } from "./words.js";

const told = new Map(); // node -> what its last run did; kept here as undo makes nodes anew
const announced = new Set(); // node and changes; once is enough, however many samplers a node serves
const lasted = new Map(); // node -> seconds that it last ran, SUN or not
let running = null; // the node that runs now, and since when

/** `onEnd` is called when a workflow has run. */
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
      running = null; // half a time says nothing
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

/** Shows the last run of a node, also after it was made anew. */
export function showRun(node) {
  const run = told.get(runKey(node));
  if (run) showOn(node, { run: inWords(run) });
}

/** The last time of a sampler without SUN, in no line or one; `sampler` is {graph, node, label}. */
export function plainRun(sampler) {
  const seconds = lasted.get(key(sampler));
  return seconds ? [word("sun.plain", { node: sampler.label, seconds: seconds.toFixed(1) })] : [];
}

/** The server's own text is English. */
function inWords({ text, steps, evaluations, seconds, changes }) {
  const automatic = changes && word("sun.ranAutomatic", { changes }, "");
  return word("sun.ran", { steps, evaluations, seconds: seconds.toFixed(1), automatic }, text);
}

/** With its type: a new node can have the id of one that is gone. */
function runKey(node) {
  return `${key(address(node))} ${node.type}`;
}

function key({ graph, node }) {
  return `${rootGraph().id}/${graph}/${node}`;
}
