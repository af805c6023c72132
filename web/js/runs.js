/** What a run did, on the node that did it: the server's event "sun.run", and the text of SUN Adapter Info. */

import { api } from "../../../scripts/api.js";
import { tell } from "./conversion.js";
import { showOn } from "./faces.js";
import { address, nodeAtPath, rootGraph } from "./graphs.js";
import { announcesAutomatic } from "./settings.js";
import { word } from "./words.js";

const told = new Map(); // node -> {text, changes} of its last run; kept here as undo makes nodes anew

export function listenToRuns() {
  api.addEventListener("sun.run", ({ detail: { node: path, text, changes } }) => {
    const node = nodeAtPath(path);
    if (!node) return;
    const before = told.get(key(node));
    told.set(key(node), { text, changes });
    showRun(node);
    if (changes && changes !== before?.changes && announcesAutomatic()) {
      tell("info", word("sun.automatic"), changes);
    }
  });
  api.addEventListener("executed", ({ detail: { node: path, output } }) => {
    const node = nodeAtPath(path);
    if (node?.comfyClass === "SUNAdapterInfo") showOn(node, { output: output?.text?.[0]?.split("\n") ?? [] });
  });
}

/** Shows the last run of a node, also after it was made anew. */
export function showRun(node) {
  const run = told.get(key(node));
  if (run) showOn(node, { run: run.text });
}

function key(node) {
  const { graph, node: id } = address(node);
  return `${rootGraph().id}/${graph}/${id}`;
}
