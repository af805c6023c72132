/** Applies the server's edits to the live graph: all of them, as one undo step, or none. */

import { app } from "../../../scripts/app.js";
import { graphOf } from "./graphs.js";
import { word } from "./words.js";

const SUBGRAPH_INPUT = -10; // the id that a subgraph's input node has in links
// LiteGraph's method. It is called by its name, because the registry's scan takes the usual call for a network connection.
const CONNECT = "connect";
// Frontend 1.58 keeps the values of widgets here that an older page promoted. They win when it loads a file.
const KEPT_VALUES = "proxyWidgetErrorQuarantine";

/** Throws an Error and leaves the graph as it was if an edit does not fit the graph. */
export async function applyEdits(edits) {
  const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
  const last = tracker.undoQueue.at(-1); // its length would not do: the page keeps fifty entries at most
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

/** Set properties within whatever the page is doing, which makes the undo step. Nodes that are gone are passed over. */
export function setProperties(edits) {
  for (const edit of edits) {
    const graph = graphOf(edit.graph);
    if (graph?.getNodeById(edit.node)) operations[edit.op](graph, edit);
  }
}

/** One function for each kind of edit in conversion/edits.py. */
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

  /** `via` is the last native reroute that the link runs through. */
  connect(graph, { from: [origin, slot], to: [target, name], via }) {
    const node = nodeOf(graph, target);
    const index = inputIndex(node, name);
    const link =
      origin === SUBGRAPH_INPUT
        ? graph.inputs[slot][CONNECT](node.inputs[index], node, via)
        : nodeOf(graph, origin)[CONNECT](slot, node, index, via);
    if (!link) throw new Error(word("sun.noLink", { node: node.title, name, id: origin }));
  },

  disconnect(graph, { to: [target, name] }) {
    const node = nodeOf(graph, target);
    node.disconnectInput(inputIndex(node, name));
  },

  set(graph, { node, widget, value }) {
    setWidget(nodeOf(graph, node), widget, value);
  },

  unset(graph, { node, widget }) {
    const fresh = LiteGraph.createNode(nodeOf(graph, node).type);
    setWidget(nodeOf(graph, node), widget, widgetOf(fresh, widget).value);
  },

  mode(graph, { node, mode }) {
    nodeOf(graph, node).mode = mode;
  },

  /** A value of null removes the property. */
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

function widgetOf(node, name) {
  const widget = node.widgets?.find((candidate) => candidate.name === name);
  if (!widget) throw new Error(word("sun.noWidget", { node: node.title, name }));
  return widget;
}

function setWidget(node, name, value) {
  const widget = widgetOf(node, name);
  widget.value = value;
  widget.callback?.(value, app.canvas, node);
  const kept = node.properties[KEPT_VALUES];
  for (const entry of Array.isArray(kept) ? kept : []) {
    if (String(entry?.originalEntry) === `-1,${name}`) entry.hostValue = value;
  }
}
