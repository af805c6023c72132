/** The live graph: its root, its subgraphs, and nodes by what the server calls them. */

import { app } from "../../../scripts/app.js";

const contents = new WeakMap(); // workflow as saved -> its content

export function rootGraph() {
  return app.rootGraph ?? app.graph;
}

/** The root (null) or a subgraph's definition by its id; undefined if it does not exist. */
export function graphOf(id) {
  return id === null ? rootGraph() : rootGraph().subgraphs?.get(id);
}

/** How the server names a node: {graph: null or the subgraph's id, node: id}. */
export function address(node) {
  return { graph: node.graph === rootGraph() ? null : node.graph.id, node: asSaved(node.id) };
}

/** Ids are numbers in saved workflows. In a graph that came from the API's format they can be words. */
function asSaved(id) {
  return String(Number(id)) === String(id) ? Number(id) : id;
}

/** The node that the server runs as `path`: "7", or "5:7" for node 7 in the subgraph node 5 (or a node with that id). */
export function nodeAtPath(path) {
  const [last, ...outer] = String(path).split(":").reverse();
  let graph = rootGraph();
  for (const id of outer.reverse()) graph = graph?.getNodeById(id)?.subgraph;
  return graph?.getNodeById(last) ?? rootGraph()?.getNodeById(path);
}

/** The workflow as saved, but each node with the title that it shows: titles in the user's language are not saved. */
export function workflowAsShown() {
  const workflow = rootGraph().serialize();
  for (const graph of [workflow, ...(workflow.definitions?.subgraphs ?? [])]) {
    const live = graphOf(graph === workflow ? null : graph.id);
    graph.nodes = graph.nodes.map((node) => ({ ...node, title: node.title ?? live?.getNodeById(node.id)?.title }));
  }
  return workflow;
}

/** All nodes of the root and of every subgraph's definition. */
export function allNodes() {
  const root = rootGraph();
  if (!root) return []; // the page is still starting
  return [root, ...(root.subgraphs?.values() ?? [])].flatMap((graph) => graph.nodes);
}

/** What a saved workflow does, as a text to compare, made once for each: where its nodes stand is left out. */
export function contentOf(workflow) {
  if (!contents.has(workflow)) contents.set(workflow, textOf(workflow));
  return contents.get(workflow);
}

function textOf(workflow) {
  const graphs = [workflow, ...(workflow.definitions?.subgraphs ?? [])];
  const nodes = graphs.map((graph) => graph.nodes.map(({ id, type, mode, widgets_values }) => [id, type, mode, widgets_values]));
  return JSON.stringify([nodes, graphs.map(({ links }) => links)]);
}

/** The address and the type of the node that the server runs as `path` in a workflow as saved, or null. */
export function placeAtPath(workflow, path) {
  const [last, ...outer] = String(path).split(":").reverse();
  const nodeOf = (graph, id) => graph?.nodes.find((node) => String(node.id) === id);
  let [graph, inside] = [null, workflow];
  for (const id of outer.reverse()) {
    graph = nodeOf(inside, id)?.type;
    inside = workflow.definitions?.subgraphs?.find((subgraph) => subgraph.id === graph);
  }
  const found = nodeOf(inside, last);
  return found ? { graph, node: asSaved(found.id), type: found.type } : null;
}
