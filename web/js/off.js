/** A SUN node that is turned off, while the samplers behind it keep the settings that only work with SUN. */

import { word } from "./words.js";

const MUTED = 2;
const BYPASSED = 4;

/** Return the badge of such a node, or null; the settings before "Speed up with SUN" are in its record. */
export function badgeOfOff(node) {
  const settings = isOff(node) ? (node.properties.sun_restore?.settings ?? []) : [];
  for (const { node: id, widget, value } of settings) {
    const sampler = widget === "steps" && node.graph.getNodeById(id);
    const steps = sampler?.widgets?.find(({ name }) => name === "steps")?.value;
    if (steps === undefined || steps === value) continue;
    const detail = word("sun.offDetail", { node: sampler.title, steps, former: value });
    return { text: word("sun.off"), detail, restore: true };
  }
  return null;
}

/** Whether a node is bypassed, muted or at strength 0. A strength that comes over a link is not known. */
export function isOff(node) {
  if (node.mode === MUTED || node.mode === BYPASSED) return true;
  const strengths = (node.widgets ?? []).filter(({ name }) => name.endsWith("strength"));
  return strengths.length > 0 && strengths.every(({ name, value }) => value === 0 && !isLinked(node, name));
}

function isLinked(node, widget) {
  return (node.inputs ?? []).some((slot, index) => slot.widget?.name === widget && node.getInputLink(index));
}
