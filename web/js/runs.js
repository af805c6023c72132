/** Show on each node what its run did: the server's event "sun.run", and the text of SUN Adapter Info. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { tell } from "./conversion.js";
import { foretellsChanges, showOn } from "./faces.js";
import { address, contentOf, nodeAtPath, placeAtPath, rootGraph } from "./graphs.js";
import { isOff } from "./off.js";
import { announcesAutomatic } from "./settings.js";
import { word } from "./words.js";

const told = new Map(); // node -> what its last run did; kept here since undo recreates nodes
const announced = new Set(); // node and changes: announced once, however many samplers a node serves
const lastedPlain = new Map(); // node -> {seconds, steps} of its last run without SUN
const lastedWithoutSun = new Map(); // the same, when the whole graph ran without SUN
const withoutSun = new Set(); // ids of such prompts
const queuedFrom = new Map(); // id of a prompt -> {workflow: the open one that it came from, output: what was queued}
let prompt = null; // the id of the prompt that is running, or ran last
let running = null; // the node that is running: {key, path, since, hasSun}

/** Listen to the server; call `onEnd` when a workflow has run. */
export function listenToRuns(onEnd) {
  watchQueue();
  api.addEventListener("sun.run", ({ detail: run }) => {
    const place = placeOfRun(run.node);
    if (running && !isForNegative(place)) running.hasSun = true;
    if (!place) return;
    told.set(runKey(place), withEarlier(run, told.get(runKey(place))));
    const node = nodeOfRun(run.node);
    if (!node) return; // it shows what it did when its tab is open again
    showRun(node);
    announce(place, run.changes);
  });
  api.addEventListener("execution_start", ({ detail }) => {
    prompt = detail.prompt_id;
  });
  api.addEventListener("executing", ({ detail: path }) => {
    noteTime();
    const place = path && placeOfRun(path);
    running = place ? { key: key(place), path, since: now(), hasSun: false } : null;
    if (path) return;
    const found = [...told.values()].filter((run) => run.prompt === prompt && run.found.length);
    const content = found.length ? contentOfRun() : null; // at the end, when nodes have taken in what they show
    for (const run of found) run.content = content;
    queuedFrom.delete(prompt);
    onEnd();
  });
  for (const ended of ["execution_error", "execution_interrupted"]) {
    api.addEventListener(ended, () => {
      running = null; // an interrupted run has no time
    });
  }
  api.addEventListener("executed", ({ detail: { node: path, output } }) => {
    const node = nodeOfRun(path);
    if (node?.comfyClass === "SUNAdapterInfo") showOn(node, { output: output?.text?.[0]?.split("\n") ?? [] });
  });
}

/** A run of a node, joined with those of other samplers behind it in the same prompt. */
function withEarlier(run, before) {
  const found = run.findings ?? [];
  if (before?.prompt !== prompt || before.idle) return { ...run, prompt, found, samplings: 1 };
  return {
    ...run,
    prompt,
    found: [...new Set([...before.found, ...found])],
    samplings: before.samplings + 1,
    steps: before.steps + run.steps,
    evaluations: before.evaluations + run.evaluations,
    seconds: before.seconds + run.seconds,
    changes: run.changes || before.changes,
  };
}

/** Negative Prompt at CFG 1 speeds nothing up. */
function isForNegative(place) {
  return place?.type === "SUNNegative";
}

function noteTime() {
  if (!running || running.hasSun) return;
  const times = withoutSun.has(prompt) ? lastedWithoutSun : lastedPlain;
  times.set(running.key, { seconds: now() - running.since, steps: stepsOf(running.path) });
}

/** How many steps a sampler was queued with, if an input of its own says it. */
function stepsOf(path) {
  const steps = queuedFrom.get(prompt)?.output?.[path]?.inputs?.steps;
  return typeof steps === "number" ? steps : null;
}

function now() {
  return performance.now() / 1000;
}

/** Remember from which workflow each prompt comes: open ones can have nodes of the same ids. */
function watchQueue() {
  const { queuePrompt } = api;
  api.queuePrompt = async (...given) => {
    const workflow = openWorkflow();
    const answer = await queuePrompt.apply(api, given);
    const output = given[1]?.output;
    if (answer?.prompt_id) queuedFrom.set(answer.prompt_id, { workflow, output }); // another pack may answer for the page
    return answer;
  };
  api.addEventListener("status", ({ detail }) => {
    if (detail?.exec_info?.queue_remaining !== 0) return;
    const left = [...queuedFrom.keys()].slice(0, -1); // the latest may have been queued after the server counted
    for (const id of left.filter((id) => id !== prompt)) queuedFrom.delete(id); // they were removed from the queue
  });
}

/** Whether the prompt that runs comes from the open workflow, or from one of which that is a copy: "Save as" makes one. */
function isOfOpenWorkflow() {
  const [from, open] = [queuedFrom.get(prompt)?.workflow, openWorkflow()];
  if (!from || from === open) return true;
  return Boolean(from.activeState && open.activeState) && contentOf(from.activeState) === contentOf(open.activeState);
}

function nodeOfRun(path) {
  return isOfOpenWorkflow() ? nodeAtPath(path) : null;
}

/** Return {root, graph, node, type} of what runs as `path`, also in another tab; null if that was closed. */
function placeOfRun(path) {
  if (isOfOpenWorkflow()) {
    const node = nodeAtPath(path);
    return node ? placeOf(node) : null;
  }
  const saved = queuedFrom.get(prompt).workflow.activeState;
  if (saved?.id === rootGraph().id) return null; // older pages give a duplicate the id of its original
  const place = saved && placeAtPath(saved, path);
  return place ? { root: saved.id, ...place } : null;
}

function placeOf(node) {
  return { root: rootGraph().id, ...address(node), type: node.type };
}

function contentOfRun() {
  const saved = isOfOpenWorkflow() ? rootGraph().serialize() : queuedFrom.get(prompt).workflow.activeState;
  return saved && contentOf(saved);
}

function openWorkflow() {
  return app.extensionManager.workflow.activeWorkflow;
}

function announce(place, changes) {
  const news = `${runKey(place)}: ${changes}`;
  if (!changes || announced.has(news) || !announcesAutomatic()) return;
  announced.add(news);
  tell("info", word("sun.automatic"), changes);
}

/** Show the last run of a node that is on, even if the node was recreated since. */
export function showRun(node) {
  const run = isOff(node) ? null : told.get(runKey(placeOf(node)));
  showOn(node, { run: run ? inWords(run, !foretellsChanges(node)) : null });
}

/** Return what the last run of a node found wrong, until the workflow changes: `saved` returns it as it is now. */
export function findingsOfRun(node, saved) {
  const run = told.get(runKey(placeOf(node)));
  return run?.found.length && run.content === contentOf(saved()) ? run.found : [];
}

/** Keep apart the times of a prompt that runs the graph without SUN. */
export function noteRunWithoutSun(promptId) {
  withoutSun.add(promptId);
}

/** Return at most one line: how long a sampler last took without SUN; `sampler` is {graph, node, label}. */
export function plainRun(sampler) {
  return inSeconds(sampler, lastedPlain);
}

/** Return the same for a sampler behind SUN, from the last comparison. */
export function runWithoutSun(sampler) {
  return inSeconds(sampler, lastedWithoutSun);
}

function inSeconds(sampler, times) {
  const time = times.get(key(sampler));
  if (!time) return [];
  const given = { node: sampler.label, seconds: time.seconds.toFixed(1), steps: time.steps };
  return [word(time.steps ? "sun.plainSteps" : "sun.plain", given)];
}

/** Describe a run in the user's language; the server's own text, for the log, is English. */
function inWords({ steps, evaluations, seconds, changes, idle, samplings }, withChanges) {
  if (idle) return word("sun.idle");
  const automatic = changes && withChanges ? word("sun.ranAutomatic", { changes }) : "";
  const given = { samplings, steps, evaluations, seconds: seconds.toFixed(1), automatic };
  return word(samplings > 1 ? "sun.ranSeveral" : "sun.ran", given);
}

/** Include the type, since a new node can reuse the id of a deleted one. */
function runKey(place) {
  return `${key(place)} ${place.type}`;
}

function key({ root = rootGraph().id, graph, node }) {
  return `${root}/${graph}/${node}`;
}
