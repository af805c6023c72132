/** Draw the open graph twice with the same seeds: as it is, and without SUN. The graph itself stays as it is. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { tell } from "./conversion.js";
import { noteRunWithoutSun } from "./runs.js";
import { ask } from "./server.js";
import { locale, word } from "./words.js";

/** Queue both, SUN last: the nodes that save or show pictures then end with that of the graph as it is. */
export async function compare() {
  let queued = null;
  try {
    const { output, workflow } = await app.graphToPrompt();
    const plain = await ask("plain", { workflow, prompt: output, locale });
    queued = await api.queuePrompt(0, { output: plain.prompt, workflow: plain.workflow });
    noteRunWithoutSun(queued.prompt_id);
    await api.queuePrompt(0, { output, workflow });
    tell("success", word("sun.compared"), word("sun.comparedDetail", { settings: plain.settings }));
  } catch (error) {
    tell("error", word("sun.notCompared"), error.message);
    if (queued) await withdraw(queued.prompt_id);
  }
}

/** Take a prompt out of the queue, or end it if it runs already. */
async function withdraw(id) {
  await api.deleteItem("queue", id);
  await api.interrupt(id);
}
