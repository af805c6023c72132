/** A short time after the last change: ask the server what the SUN nodes of the graph should show, and show it. */

import { files } from "./adapters.js";
import { convert } from "./conversion.js";
import { hasFace, showOn } from "./faces.js";
import { address, allNodes, rootGraph } from "./graphs.js";
import { badgeOfOff } from "./off.js";
import { plainRun, showRun } from "./runs.js";
import { ask } from "./server.js";
import { showsBadges } from "./settings.js";
import { locale } from "./words.js";

const QUIET = 250; // milliseconds without a change
let timer = null;
let latest = 0;

export function checkSoon() {
  clearTimeout(timer);
  timer = setTimeout(check, QUIET);
}

async function check() {
  const turn = ++latest;
  if (!allNodes().some(hasFace)) return;
  const entries = await findings();
  if (turn !== latest) return; // the graph changed meanwhile, so a newer answer will come
  for (const node of allNodes().filter(hasFace)) {
    const entry = entries.get(key(address(node)));
    const off = badgeOfOff(node);
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
