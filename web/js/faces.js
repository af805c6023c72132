/** The face of a SUN node: a DOM widget with text, which is not part of the saved workflow. */

import { app } from "../../../scripts/app.js";
import { address } from "./graphs.js";
import { box, styles } from "./text.js";
import { word } from "./words.js";

const WIDGET = "sun_face";
const SPEAKING = new Set(["SUNSpeedUp", "SUNApply", "SUNLoadAdapter", "SUNSampler", "SUNAdapterInfo", "SUNNegative"]);
const HEIGHT = 84; // of five lines
const WIDTH = 280; // at which titles and widget names are whole
const faces = new WeakMap(); // node -> Face

class Face {
  lines = [];
  output = [];
  run = null;
  found = [];
  plain = [];
  badge = null;
  missing = null;
  onFix = null;
  element = box("sun-face");
  text = box("sun-text");

  constructor() {
    this.element.append(styles(), this.text);
    new ResizeObserver(() => this.hangOut()).observe(this.text);
  }

  draw() {
    const lines = [...this.lines, ...this.output, ...(this.run ? [this.run] : []), ...this.found, ...this.plain];
    const parts = lines.map((text) => box("sun-line", text));
    if (this.badge) parts.unshift(remedy(this.badge, this.onFix, this.missing));
    else if (this.missing) parts.unshift(notInstalled(this.missing));
    this.text.replaceChildren(...parts);
  }

  /** Mark text that is higher than its node leaves room for. */
  hangOut() {
    this.element.classList.toggle("sun-hangs-out", this.text.offsetHeight > this.element.offsetHeight + 1);
  }
}

/** Give a new SUN node its face. */
export function addFace(node) {
  if (!SPEAKING.has(node.comfyClass)) return;
  const face = new Face();
  faces.set(node, face);
  handOn(face.element);
  const options = { serialize: false, hideInPanel: true, getMinHeight: () => HEIGHT, getValue: () => "" };
  const widget = node.addDOMWidget(WIDGET, WIDGET, face.element, options);
  widget.serialize = false;
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, WIDTH), height]);
  // Nodes 2.0 would show an earlier text: it does not read badges again when they change
  const text = () => (LiteGraph.vueNodesMode ? "" : (face.badge?.text ?? ""));
  node.badges.push(() => new LGraphBadge({ text: text(), fgColor: "#000", bgColor: "#e8b339" }));
}

/** On litegraph's canvas an element swallows the events for the node below it; Nodes 2.0 passes them on by itself. */
function handOn(element) {
  const isMeantForNode = ({ target }) => !element.closest(".lg-node") && !target.closest("a");
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 && isMeantForNode(event)) app.canvas.processMouseDown(event); // its menu, or panning
  });
  element.addEventListener("contextmenu", (event) => {
    if (isMeantForNode(event)) event.preventDefault(); // the browser's own menu
  });
  element.addEventListener("wheel", (event) => {
    const text = element.querySelector(".sun-text");
    const canScroll = text.scrollHeight > text.clientHeight && !event.ctrlKey;
    if (canScroll || !isMeantForNode(event)) return;
    event.preventDefault();
    app.canvas.processMouseWheel(event);
  });
}

export function hasFace(node) {
  return faces.has(node);
}

export function badgeOf(node) {
  return faces.get(node)?.badge;
}

/** Whether a face says already, from the settings alone, what automatic settings change. */
export function foretellsChanges(node) {
  return faces.get(node)?.lines.some((line) => line.includes("->")) ?? false;
}

/**
 * Show what changed of {lines, output, run, found: lines, plain: lines, badge: {text, detail, fix}, missing: the
 * adapter to download, onFix}.
 */
export function showOn(node, changed) {
  const face = faces.get(node);
  if (!face) return;
  Object.assign(face, changed);
  face.draw();
  takePlace(node, face.element);
  app.canvas.setDirty(true, true);
}

/** After undo and redo, Nodes 2.0 still shows the element of a former node with this id: replace it with ours. */
function takePlace(node, element) {
  const { graph, node: id } = address(node);
  element.dataset.place = `${graph ?? "root"}:${id}`;
  if (element.isConnected || node.graph !== app.canvas.graph) return;
  document.querySelector(`.lg-node[data-node-id="${CSS.escape(id)}"] .sun-face`)?.replaceWith(element);
}

function remedy(badge, onFix, missing) {
  const line = box("sun-badge");
  line.append(box("sun-short", badge.text), box("sun-detail", badge.detail));
  if (badge.fix) {
    const button = document.createElement("button");
    button.className = "sun-fix";
    button.textContent = word("sun.fix");
    button.addEventListener("click", onFix);
    line.append(button);
  }
  if (missing) line.append(downloadLink(missing));
  return line;
}

/** For a face without a badge, which would say it. */
function notInstalled(adapter) {
  const { name, license, folder, bytes } = adapter;
  const line = box("sun-missing", word("sun.missing", { name, license, folder, megabytes: (bytes / 1e6).toFixed(1) }));
  line.append(" ", downloadLink(adapter));
  return line;
}

function downloadLink({ url }) {
  const link = document.createElement("a");
  link.className = "sun-download";
  link.textContent = word("sun.download");
  if (/^https:/.test(url)) link.href = url;
  link.target = "_blank";
  link.rel = "noopener";
  return link;
}
