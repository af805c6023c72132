/** What SUN says above titles: of nodes that have no face, such as the samplers behind SUN. Nothing of it is saved. */

import { app } from "../../../scripts/app.js";
import { tell } from "./conversion.js";
import { badgeOf, hasFace } from "./faces.js";
import { isMutedOrBypassed } from "./off.js";
import { box, styles } from "./text.js";

const COLORS = { note: { fgColor: "#fff", bgColor: "#3d4654" }, badge: { fgColor: "#000", bgColor: "#e8b339" } };
const MOST_DETAILS = 6; // that one message says
const notes = new WeakMap(); // node -> {note: text, badge: {text, detail, fix}}, or null for either

/** Show a note and a badge, or take away what is null. */
export function showNotes(node, { note, badge }) {
  if (!notes.has(node)) {
    if (!note && !badge) return;
    node.badges.push(...Object.keys(COLORS).map((kind) => badgeOfKind(node, kind)));
  }
  notes.set(node, { note, badge });
  app.canvas.setDirty(true, true);
}

/** Return what a node itself shows: the badge of its face, or the one above its title. */
export function ownBadge(node) {
  return hasFace(node) ? badgeOf(node) : badgeAbove(node);
}

/** Return the nodes with a badge inside of a subgraph's node, each once; none where it is muted or bypassed. */
export function badgedInside(node) {
  if (isMutedOrBypassed(node)) return [];
  const inside = (inner) => (inner.subgraph ? badgedInside(inner) : ownBadge(inner) ? [inner] : []);
  return [...new Set(node.subgraph.nodes.flatMap(inside))];
}

/** Return one badge for all inside of a subgraph's node, or null: from outside nothing else shows theirs. */
export function badgeForSubgraph(node) {
  const badges = badgedInside(node).map(ownBadge);
  const [first, ...others] = badges.sort((one, other) => Number(Boolean(other.fix)) - Number(Boolean(one.fix)));
  if (!others.length) return first ?? null;
  const details = [...new Set(badges.map(({ detail }) => detail))].slice(0, MOST_DETAILS);
  return { text: `${first.text} (+${others.length})`, detail: details.join("\n") };
}

function badgeAbove(node) {
  return notes.get(node)?.badge;
}

/** Litegraph asks for it in every frame, and at a click for the one that it drew. Nodes 2.0 reads it once. */
function badgeOfKind(node, kind) {
  const badge = new LGraphBadge({ text: "", ...COLORS[kind] });
  return () => {
    badge.text = LiteGraph.vueNodesMode ? "" : textOf(node, kind);
    badge.onClick = badge.text && kind === "badge" ? () => explain(node) : undefined; // where it was drawn, it still is
    return badge;
  };
}

function textOf(node, kind) {
  return (kind === "badge" ? badgeShown(node)?.text : notes.get(node)?.note) ?? "";
}

/** The badge of a face is above the title too while the node is collapsed: Nodes 2.0 hides the face. */
function badgeShown(node) {
  return hasFace(node) && node.flags.collapsed ? badgeOf(node) : badgeAbove(node);
}

function explain(node) {
  const badge = badgeShown(node);
  if (badge) tell("warn", badge.text, badge.detail);
}

/** Put the notes of Nodes 2.0 in place, which makes the elements of nodes anew whenever it likes. */
export function placeNotes() {
  for (const element of document.querySelectorAll(".lg-node")) {
    const node = app.canvas.graph?.getNodeById(element.getAttribute("data-node-id"));
    const texts = node ? Object.keys(COLORS).map((kind) => textOf(node, kind)) : [];
    const place = element.querySelector(":scope > .sun-notes");
    if ((place?.getAttribute("data-texts") ?? "") === texts.join("\n").trim()) continue;
    place?.remove();
    if (texts.some(Boolean)) element.append(above(node, texts));
  }
}

function above(node, texts) {
  const element = box("sun-notes");
  element.dataset.texts = texts.join("\n").trim();
  const shown = Object.keys(COLORS).map((kind, index) => texts[index] && box(`sun-above sun-${kind}-above`, texts[index]));
  element.append(styles(), ...shown.filter(Boolean));
  element.querySelector(".sun-badge-above")?.addEventListener("click", () => explain(node));
  return element;
}
