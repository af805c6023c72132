/** Applies the server's edits to the live graph: all of them, as one undo step, or none. */

import { app } from "../../../scripts/app.js";
import { graphOf } from "./graphs.js";
import { word } from "./words.js";

const SUBGRAPH_INPUT = -10; // the id that a subgraph's input node has in links
// where 1.58 keeps the values of widgets that an older page promoted; they win when it loads a file
const KEPT_VALUES = "proxyWidgetErrorQuarantine";

/** Throws an Error, with the graph as it was, where an edit does not fit the graph. */
export async function applyEdits(edits) {
  const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
  const last = tracker.undoQueue.at(-1); // not how many there are: the page keeps no more than fifty
  let failure = null;
  app.canvas.emitBeforeChange();
  try {
    for (const edit of edits) operations[edit.op](graphOf(edit.graph), edit);
  } catch (error) {
    failure = error;
  } finally {
    app.canvas.emitAfterChange();
    app.canvas.setDirty(true, true);
  }
  if (!failure) return;
  if (tracker.undoQueue.at(-1) !== last) {
    await tracker.undo();
    tracker.redoQueue.pop();
  }
  throw failure;
}

const operations = {
  add(graph, { id, type, pos, size, widgets, properties }) {
    if (graph.getNodeById(id)) throw new Error(word("sun.newNode", { id }));
    const node = LiteGraph.createNode(type);
    node.id = id;
    node.pos = [...pos];
    const [width, height] = node.computeSize();
    node.setSize([Math.max(size[0], width), Math.max(size[1], height)]); // before Nodes 2.0 reads it
    graph.add(node);
    for (const [name, value] of Object.entries(widgets)) setWidget(node, name, value);
    Object.assign(node.properties, properties);
  },

  remove(graph, { node }) {
    graph.remove(nodeOf(graph, node));
  },

  /** `via`: the native reroute that the link runs through last. */
  connect(graph, { from: [origin, slot], to: [target, name], via }) {
    const node = nodeOf(graph, target);
    const index = inputIndex(node, name);
    const link =
      origin === SUBGRAPH_INPUT
        ? graph.inputs[slot].connect(node.inputs[index], node, via)
        : nodeOf(graph, origin).connect(slot, node, index, via);
    if (!link) throw new Error(word("sun.noLink", { node: node.title, name, id: origin }));
  },

  disconnect(graph, { to: [target, name] }) {
    const node = nodeOf(graph, target);
    node.disconnectInput(inputIndex(node, name));
  },

  set(graph, { node, widget, value }) {
    setWidget(nodeOf(graph, node), widget, value);
  },

  property(graph, { node, name, value }) {
    const { properties } = nodeOf(graph, node);
    if (value === null) delete properties[name];
    else properties[name] = value;
  },
};

function nodeOf(graph, id) {
  const node = graph.getNodeById(id);
  if (!node) throw new Error(word("sun.noNode", { id }));
  return node;
}

function inputIndex(node, name) {
  const index = node.inputs.findIndex((input) => input.name === name);
  if (index < 0) throw new Error(word("sun.noInput", { node: node.title, name }));
  return index;
}

function setWidget(node, name, value) {
  const widget = node.widgets?.find((candidate) => candidate.name === name);
  if (!widget) throw new Error(word("sun.noWidget", { node: node.title, name }));
  widget.value = value;
  widget.callback?.(value, app.canvas, node);
  const kept = node.properties[KEPT_VALUES];
  for (const entry of Array.isArray(kept) ? kept : []) {
    if (String(entry?.originalEntry) === `-1,${name}`) entry.hostValue = value;
  }
}
