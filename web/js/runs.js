/** What a run did, on the node that did it: the server's event "sun.run", and the text of SUN Adapter Info. */

import { api } from "../../../scripts/api.js";
import { tell } from "./conversion.js";
import { showOn } from "./faces.js";
import { address, nodeAtPath, rootGraph } from "./graphs.js";
import { announcesAutomatic } from "./settings.js";
import { word } from "./words.js";

const told = new Map(); // node -> what its last run did; kept here as undo makes nodes anew

export function listenToRuns() {
  api.addEventListener("sun.run", ({ detail: run }) => {
    const node = nodeAtPath(run.node);
    if (!node) return;
    const { changes } = run;
    const before = told.get(key(node));
    told.set(key(node), run);
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
  if (run) showOn(node, { run: inWords(run) });
}

/** The server's own text is English. */
function inWords({ text, steps, evaluations, seconds, changes }) {
  const automatic = changes && word("sun.ranAutomatic", { changes }, "");
  return word("sun.ran", { steps, evaluations, seconds: seconds.toFixed(1), automatic }, text);
}

function key(node) {
  const { graph, node: id } = address(node);
  return `${rootGraph().id}/${graph}/${id}`;
}
