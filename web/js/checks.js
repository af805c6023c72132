/** A short time after the last change: ask the server what the SUN nodes of the graph should show, and show it. */

import { files } from "./adapters.js";
import { convert } from "./conversion.js";
import { keepForDeletion } from "./deletion.js";
import { hasFace, showOn } from "./faces.js";
import { address, allNodes, rootGraph, workflowAsShown } from "./graphs.js";
import { noteServed } from "./lines.js";
import { badgeForSubgraph, placeNotes, showNotes } from "./notes.js";
import { isMutedOrBypassed, isOff } from "./off.js";
import { hasNote, noteLeftBehind } from "./restorable.js";
import { findingsOfRun, plainRun, runWithoutSun, showRun } from "./runs.js";
import { ask } from "./server.js";
import { showsBadges } from "./settings.js";
import { locale, word } from "./words.js";

const QUIET = 250; // milliseconds without a change
const EVERY = 500; // milliseconds; newer pages tell of a bypass only with the next click
let timer = null;
let latest = 0;
let switches = ""; // which nodes were off when the latest check began

export function checkSoon() {
  clearTimeout(timer);
  timer = setTimeout(check, QUIET);
}

/** Check anew when a node was turned on or off since the latest check; put back what Nodes 2.0 has dropped. */
export function watchNodes() {
  setInterval(() => {
    if (switchesOf(allNodes()) !== switches) checkSoon();
    placeNotes();
  }, EVERY);
}

async function check() {
  const turn = ++latest;
  const nodes = allNodes();
  switches = switchesOf(nodes);
  const entries = nodes.some(hasToDoWithSun) ? await findings() : new Map();
  if (turn !== latest) return; // the graph changed meanwhile, so a newer answer will come
  const here = nodes.filter(({ graph }) => graph);
  let workflow = null;
  const saved = () => (workflow ??= rootGraph().serialize()); // once, however many SUN nodes ask for it
  const notes = new Map(); // by sampler: what it shows
  const suns = new Map(); // by sampler: the SUN nodes that serve it
  for (const node of here) {
    for (const sampler of entries.get(key(address(node)))?.samplers ?? []) {
      notes.set(key(sampler), sampler.note);
      suns.set(key(sampler), [...(suns.get(key(sampler)) ?? []), node]);
    }
  }
  for (const node of here) {
    const entry = entries.get(key(address(node)));
    noteServed(node, suns.get(key(address(node))) ?? []);
    if (hasFace(node)) {
      showFindings(node, entry, saved);
      keepForDeletion(node, entry?.on_delete ?? []);
    } else if (!isSubgraph(node)) {
      const note = notes.get(key(address(node))) ?? null;
      noteLeftBehind(node, Boolean(entry?.badge?.fix));
      showNotes(node, showsBadges() ? { note, badge: entry?.badge ?? null } : { note: null, badge: null });
    }
  }
  for (const node of here.filter(isSubgraph)) {
    showNotes(node, { note: null, badge: showsBadges() ? badgeForSubgraph(node) : null });
  }
  placeNotes();
}

function showFindings(node, entry, saved) {
  const found = findingsOfRun(node, saved);
  const ofSettings = entry?.badge ?? null;
  const ofRun = found.length && !ofSettings ? { text: word("sun.found"), detail: found.join("\n") } : null;
  showOn(node, {
    lines: entry?.face ?? [],
    found: ofRun && showsBadges() ? [] : found,
    plain: [...(entry?.plain ?? []).flatMap(plainRun), ...(entry?.samplers ?? []).flatMap(runWithoutSun)],
    badge: showsBadges() ? (ofSettings ?? ofRun) : null,
    missing: isMissing(node) ? files.released : null,
    onFix: () => convert("fix", [address(node)]),
  });
  showRun(node);
}

/** Whether the server may have something to say of a node, or of others because of it. */
function hasToDoWithSun(node) {
  return hasFace(node) || hasNote(node);
}

/** Of SUN's nodes, and of those of subgraphs, which show the badges inside while they are on. */
function switchesOf(nodes) {
  const isThisOff = (node) => (hasFace(node) ? isOff(node) : isSubgraph(node) ? isMutedOrBypassed(node) : []);
  return nodes.flatMap(isThisOff).join();
}

function isSubgraph(node) {
  return Boolean(node.subgraph);
}

async function findings() {
  try {
    const { nodes } = await ask("check", { workflow: workflowAsShown(), locale });
    return new Map(nodes.map((entry) => [key(entry), entry]));
  } catch (error) {
    console.warn(`SUN: ${error.message}`);
    return new Map();
  }
}

/** Whether a node wants the released adapter, and the server lacks it. For another name the released one may not fit. */
function isMissing(node) {
  const { names, released } = files;
  const chosen = node.widgets.find((widget) => widget.name === "adapter_name");
  return chosen && released && chosen.value === released.name && !names.includes(released.name);
}

function key({ graph, node }) {
  return `${graph}/${node}`;
}
