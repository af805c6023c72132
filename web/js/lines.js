/** What the page knows of MODEL lines: its own graphs node by node, and from the server which samplers SUN serves. */

const served = new WeakMap(); // sampler or guider -> the SUN nodes that are on and that the server found before it

/** Keep what the server's check found of a node. */
export function noteServed(node, suns) {
  served.set(node, suns);
}

/** The SUN nodes that serve a sampler or its guider, also from outside of their subgraph; not those deleted since. */
export function sunsServing(node) {
  return [node, ...lineBefore(node)].flatMap((one) => served.get(one) ?? []).filter(({ graph }) => graph);
}

/** Return the nodes before one on its MODEL line, as far as the node's own graph shows the line. */
export function lineBefore(node) {
  const [line, waiting] = [new Set(), [node]];
  while (waiting.length) {
    const next = waiting.pop();
    for (const [index, slot] of next.inputs.entries()) {
      const feeder = isOfModel(slot) && next.getInputNode(index);
      if (!feeder || line.has(feeder)) continue;
      line.add(feeder);
      waiting.push(feeder);
    }
  }
  return line;
}

/** Whether a line goes through two nodes, or may: the page does not follow one into subgraphs. */
export function mayShareLine(one, other) {
  if (one.graph !== other.graph) return true;
  return lineBefore(one).has(other) || lineBefore(other).has(one) || sunsServing(other).includes(one);
}

function isOfModel({ type }) {
  return ["MODEL", "GUIDER", "*"].includes(type);
}
