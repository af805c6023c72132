/** Nodes that are turned off. */

const MUTED = 2;
const BYPASSED = 4;
const NEUTRAL = { scale: 1, alpha: 0 }; // of Negative Prompt at CFG 1

/**
 * Whether a node of SUN's is bypassed, muted or at values at which it does nothing. A value that comes over a link is
 * not known.
 */
export function isOff(node) {
  if (isMutedOrBypassed(node)) return true;
  const widgets = (node.widgets ?? []).filter(({ name }) => !isLinked(node, name));
  if (node.type === "SUNNegative") return widgets.some(({ name, value }) => name in NEUTRAL && NEUTRAL[name] === value);
  const strengths = (node.widgets ?? []).filter(({ name }) => name.endsWith("strength"));
  return strengths.length > 0 && strengths.every((widget) => widgets.includes(widget) && widget.value === 0);
}

export function isMutedOrBypassed(node) {
  return node.mode === MUTED || node.mode === BYPASSED;
}

function isLinked(node, widget) {
  return (node.inputs ?? []).some((slot, index) => slot.widget?.name === widget && node.getInputLink(index));
}
