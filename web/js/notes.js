/** What SUN says above titles: of nodes that have no face, such as the samplers behind SUN. Nothing of it is saved. */

import { app } from "../../../scripts/app.js";
import { tell } from "./conversion.js";
import { badgeOf, hasFace } from "./faces.js";
import { isMutedOrBypassed } from "./off.js";
import { box, styles } from "./text.js";

const COLORS = { note: { fgColor: "#fff", bgColor: "#3d4654" }, badge: { fgColor: "#000", bgColor: "#e8b339" } };
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

/** Return the badge of a node: of its face, or above its title. */
export function badgeIn(node) {
  return hasFace(node) ? badgeOf(node) : badgeAbove(node);
}

/** Return one badge for all nodes inside of a subgraph's node, or null: from outside nothing else shows theirs. */
export function badgeInside(node) {
  const [first, ...others] = badgesInside(node);
  if (!others.length) return first ?? null;
  const detail = [...new Set([first, ...others].map((badge) => badge.detail))].join("\n");
  return { text: `${first.text} (+${others.length})`, detail };
}

function badgesInside(node) {
  if (isMutedOrBypassed(node)) return [];
  return node.subgraph.nodes.flatMap((inner) => (inner.subgraph ? badgesInside(inner) : (badgeIn(inner) ?? [])));
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
