/** Speed up, let the negative prompt count, restore and fix: ask the server for a plan, apply it, say what was done. */

import { app } from "../../../scripts/app.js";
import { applyEdits } from "./edits.js";
import { workflowAsShown } from "./graphs.js";
import { ask } from "./server.js";
import { defaultAdapter } from "./settings.js";
import { locale, word } from "./words.js";

const SECONDS_SHOWN = { success: 6, info: 9, warn: 12, error: 15 };

/** `action` is a key of ACTIONS in conversion/plan.py; `targets` are addresses of nodes, null for the whole graph. */
export async function convert(action, targets) {
  const open = openWorkflow();
  try {
    const asked = { action, targets, workflow: workflowAsShown(), adapter: defaultAdapter(), locale };
    const plan = await ask("plan", asked);
    if (openWorkflow() !== open) throw new Error(word("sun.switched"));
    await applyEdits(plan.edits);
    tell(plan.severity, plan.summary, plan.detail);
  } catch (error) {
    tell("error", word("sun.failed"), error.message);
  }
}

function openWorkflow() {
  return app.extensionManager.workflow.activeWorkflow.path;
}

export function tell(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail, life: 1000 * SECONDS_SHOWN[severity] });
}
