/** A SUN node that was put in by hand leaves notes on its samplers when it is deleted, so that they can say so. */

import { setProperties } from "./edits.js";

const notes = new WeakMap(); // SUN node -> the edits that the server's latest check named

export function keepForDeletion(node, edits) {
  notes.set(node, edits);
}

/**
 * The page calls onRemoved also when it clears the graph for another one, and then the samplers go too; and when it moves
 * the node into a subgraph, where the notes that it leaves outside say nothing as long as it is on.
 */
export function watchDeletion(node) {
  const { onRemoved } = node;
  node.onRemoved = function (...given) {
    onRemoved?.apply(this, given);
    setProperties(notes.get(this) ?? []);
  };
}
