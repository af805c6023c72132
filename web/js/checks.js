/** A short time after the last change: ask the server what the SUN nodes of the graph should show, and show it. */

import { files } from "./adapters.js";
import { convert } from "./conversion.js";
import { hasFace, showOn } from "./faces.js";
import { address, allNodes, rootGraph } from "./graphs.js";
import { badgeOfOff, isOff } from "./off.js";
import { plainRun, showRun } from "./runs.js";
import { ask } from "./server.js";
import { showsBadges } from "./settings.js";
import { locale } from "./words.js";

const QUIET = 250; // milliseconds without a change
const EVERY = 500; // milliseconds; newer pages tell of a bypass only with the next click
let timer = null;
let latest = 0;
let switches = ""; // which nodes were off when the latest check began

export function checkSoon() {
  clearTimeout(timer);
  timer = setTimeout(check, QUIET);
}

/** Check anew when a node was turned on or off since the latest check. */
export function watchSwitches() {
  setInterval(() => {
    if (switchesOf(allNodes().filter(hasFace)) !== switches) checkSoon();
  }, EVERY);
}

async function check() {
  const turn = ++latest;
  const nodes = allNodes().filter(hasFace);
  switches = switchesOf(nodes);
  if (!nodes.length) return;
  const badgesOfOff = new Map(nodes.map((node) => [node, badgeOfOff(node)]));
  const entries = await findings();
  if (turn !== latest) return; // the graph changed meanwhile, so a newer answer will come
  for (const node of nodes) {
    const entry = entries.get(key(address(node)));
    const off = badgesOfOff.get(node);
    showOn(node, {
      lines: entry?.face ?? [],
      plain: (entry?.plain ?? []).flatMap(plainRun),
      badge: showsBadges() ? (off ?? entry?.badge ?? null) : null,
      missing: isMissing(node) ? files.released : null,
      onFix: () => convert(off ? "restore" : "fix", [address(node)]),
    });
    showRun(node);
  }
}

function switchesOf(nodes) {
  return nodes.map(isOff).join();
}

async function findings() {
  try {
    const { nodes } = await ask("check", { workflow: rootGraph().serialize(), locale });
    return new Map(nodes.map((entry) => [key(entry), entry]));
  } catch (error) {
    console.warn(`SUN: ${error.message}`);
    return new Map();
  }
}

/** Whether a node wants the released adapter and the server lacks it, or the server has no adapter at all. */
function isMissing(node) {
  const { names, released } = files;
  const chosen = node.widgets.find((widget) => widget.name === "adapter_name");
  return chosen && released && !names.includes(released.name) && (chosen.value === released.name || !names.length);
}

function key({ graph, node }) {
  return `${graph}/${node}`;
}
