/** The menus, the toolbox and the commands: "Speed up with SUN", "Let the negative prompt count", "Restore", "Fix". */

import { app } from "../../../scripts/app.js";
import { compare } from "./compare.js";
import { convert, tell } from "./conversion.js";
import { address, allNodes } from "./graphs.js";
import { lineBefore, mayShareLine, sunsServing } from "./lines.js";
import { badgedInside, ownBadge } from "./notes.js";
import { hasNote, isRestorable } from "./restorable.js";
import { word } from "./words.js";

const SUN_ON_MODEL = ["SUNSpeedUp", "SUNApply"];
const STEPS = [2, 4, 6, 8];
const SAMPLER_SETTINGS = ["steps", "cfg", "sampler_name", "scheduler"];
// Up to these the page takes settings for those of a few-step model; the server knows better, and says so.
const LOW_CFG = 2;
const FEW_STEPS = 12;

export const commands = [
  command("SUN.SpeedUp", "pi pi-bolt", () => convertSelected("speed_up", startingPoints)),
  command("SUN.Negative", "pi pi-minus-circle", () => convertSelected("negative", startingPoints)),
  command("SUN.Restore", "pi pi-replay", () => convertSelected("restore", restorablePoints)),
  command("SUN.Fix", "pi pi-wrench", () => convertSelected("fix", fixable)),
  command("SUN.Compare", "pi pi-clone", compare),
  ...STEPS.map((steps) =>
    command(`SUN.Steps${steps}`, "pi pi-forward", () => convertSelected(`steps_${steps}`, pointsAtSteps)),
  ),
];

export function nodeMenu(node) {
  const items = [];
  const offer = (text, action, nodes) => {
    if (nodes.length) items.push({ content: text, callback: () => convert(action, nodes.map(address)) });
  };
  const badge = ownBadge(node);
  if (badge) offer(`${word("sun.fixMenu")}: ${withoutTags(badge.text)}`, "fix", fixable(node));
  offer(word("sun.speedUp"), "speed_up", slowPoints(node));
  offer(word("sun.negative"), "negative", unheardPoints(node));
  for (const steps of STEPS) offer(word("sun.setSteps", { steps }), `steps_${steps}`, stepsPoints(node));
  if (isSunOnModel(node)) items.push({ content: word("sun.compare"), callback: compare });
  offer(word("sun.restore"), "restore", restorablePoints(node));
  return items;
}

export function canvasMenu() {
  const items = [{ content: word("sun.speedUpAll"), callback: () => convert("speed_up", null) }];
  if (allNodes().some(isUnheard)) {
    items.push({ content: word("sun.negativeAll"), callback: () => convert("negative", null) });
  }
  if (allNodes().some(isRestorable)) items.push({ content: word("sun.restoreAll"), callback: () => convert("restore", null) });
  if (allNodes().some(isSunOnModel)) items.push({ content: word("sun.compare"), callback: compare });
  return items;
}

/** Return the ids of the toolbox commands for a selected item, which may also be a group or a reroute. */
export function toolboxCommands(item) {
  if (!item.inputs) return [];
  const ids = [];
  if (slowPoints(item).length) ids.push("SUN.SpeedUp");
  if (unheardPoints(item).length) ids.push("SUN.Negative");
  if (restorablePoints(item).length) ids.push("SUN.Restore");
  if (fixable(item).length) ids.push("SUN.Fix");
  if (isSunOnModel(item)) ids.push("SUN.Compare");
  return ids;
}

/** Convert what `points` finds in the selection; if nothing is selected, the whole graph. */
function convertSelected(action, points) {
  const items = [...new Set([...(app.canvas.selectedItems ?? [])].flatMap(inside))];
  if (!items.length) return convert(action, null);
  const nodes = items.filter((item) => "inputs" in item && item.inputs).flatMap(points);
  if (nodes.length) return convert(action, nodes.map(address));
  return tell("info", word("sun.failed"), word("sun.notSelected"));
}

/** Return what a group holds, or the item itself. */
function inside(item) {
  return item.children ? [...item.children].flatMap(inside) : [item];
}

/** Return the samplers, parts of samplers and loaders that a node stands for: itself, or those inside a subgraph. */
function startingPoints(node) {
  if (node.subgraph) return node.subgraph.nodes.flatMap(startingPoints);
  return isSampler(node) || isPartOfSampler(node) || isLoader(node) ? [node] : [];
}

/** Return the starting points at which a negative prompt may hardly count, or that may lead to such a sampler. */
function unheardPoints(node) {
  const leadsToOne = (point) => (valueOf(point, "cfg") ? isUnheard(point) : allNodes().some(isUnheard));
  return startingPoints(node).filter(leadsToOne);
}

/** Whether a sampler or guider has the settings of a few-step model, and no SUN node before it. */
function isUnheard(node) {
  const cfg = valueOf(node, "cfg");
  if (!cfg || isOurs(node) || isBehindOurs(node)) return false;
  return cfg <= LOW_CFG || valueOf(node, "steps") <= FEW_STEPS;
}

/** Return the starting points at which SUN does not work yet. */
function slowPoints(node) {
  return startingPoints(node).filter((point) => !sunsServing(point).some(isSunOnModel));
}

/** Whether a SUN node comes before a node on its MODEL line, also one that is off in the node's own graph. */
function isBehindOurs(node) {
  return sunsServing(node).length > 0 || [...lineBefore(node)].some(isOurs);
}

function valueOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)?.value;
}

function restorablePoints(node) {
  if (node.subgraph) return node.subgraph.nodes.flatMap(restorablePoints);
  if (isRestorable(node)) return [node];
  const isStart = startingPoints(node).length > 0;
  if (!isStart && !hasNote(node)) return []; // called for every selected node
  const restorable = allNodes().filter(isRestorable);
  if (!isStart) return restorable.length ? [node] : [];
  const isNear = (one) => isPartOfSampler(node) || isPartOfSampler(one) || mayShareLine(one, node);
  return restorable.some(isNear) ? [node] : [];
}

function fixable(node) {
  return (node.subgraph ? badgedInside(node) : [node]).filter((one) => ownBadge(one)?.fix);
}

/** Return the node if its menu sets the steps of samplers: those behind it, or its own. */
function stepsPoints(node) {
  return isSunOnModel(node) || node.type === "SUNSampler" ? [node] : [];
}

/** Return the same, and the starting points, of which the server knows which are behind SUN. */
function pointsAtSteps(node) {
  if (node.subgraph) return node.subgraph.nodes.flatMap(pointsAtSteps);
  return [...stepsPoints(node), ...startingPoints(node)];
}

/** Whether a node puts SUN on a MODEL, and is neither muted nor bypassed. */
function isSunOnModel(node) {
  return SUN_ON_MODEL.includes(node.type) && node.mode === LiteGraph.ALWAYS;
}

/** Whether a node samples: it gives a LATENT, or it has a sampler's settings, as detailers and upscalers of packs do. */
function isSampler(node) {
  if (isOurs(node) || !node.inputs.some(isA("MODEL", "GUIDER"))) return false;
  const settings = (node.widgets ?? []).map((widget) => widget.name);
  return node.outputs.some(isA("LATENT")) || SAMPLER_SETTINGS.every((name) => settings.includes(name));
}

/** Whether a node is a guider, sigmas or sampler choice for SamplerCustom and SamplerCustomAdvanced. */
function isPartOfSampler(node) {
  return !isOurs(node) && node.outputs.some(isA("GUIDER", "SIGMAS", "SAMPLER"));
}

function isOurs(node) {
  return node.type.startsWith("SUN");
}

function isLoader(node) {
  return node.outputs.some(isA("MODEL")) && !node.inputs.some(isA("MODEL"));
}

function isA(...types) {
  return (slot) => types.includes(slot.type);
}

/** Remove tags: older pages insert menu texts as HTML, and a badge can quote text of a workflow. */
function withoutTags(text) {
  return text.replace(/[<>&]/g, "");
}

function command(id, icon, run) {
  return { id, icon, label: word(`commands.${id.replace(".", "_")}.label`), function: run };
}
