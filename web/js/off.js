/** A SUN node that is turned off. */

const MUTED = 2;
const BYPASSED = 4;

/** Whether a node is bypassed, muted or at strength 0. A strength that comes over a link is not known. */
export function isOff(node) {
  if (node.mode === MUTED || node.mode === BYPASSED) return true;
  const strengths = (node.widgets ?? []).filter(({ name }) => name.endsWith("strength"));
  return strengths.length > 0 && strengths.every(({ name, value }) => value === 0 && !isLinked(node, name));
}

/** Whether a widget's value comes over a link, so that the one that it holds does not count. */
export function isLinked(node, widget) {
  return (node.inputs ?? []).some((slot, index) => slot.widget?.name === widget && node.getInputLink(index));
}
