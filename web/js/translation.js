/** Titles, inputs and tooltips in the user's language, on frontends before 1.33.13 too, which lose those of packs. */

import { chosen } from "./words.js";

const table = chosen.nodeDefs ?? {};

/** Puts the words into the node definitions that the page is about to register. */
export function translateDefinitions(definitions) {
  for (const [id, words] of Object.entries(table)) {
    const definition = id.startsWith("SUN") && definitions[id];
    if (!definition) continue;
    definition.display_name = words.display_name ?? definition.display_name;
    definition.description = words.description ?? definition.description;
    for (const inputs of Object.values(definition.input ?? {})) {
      for (const [name, spec] of Object.entries(inputs)) {
        if (words.inputs?.[name]?.tooltip) spec[1] = { ...spec[1], tooltip: words.inputs[name].tooltip };
      }
    }
    definition.output_tooltips = (definition.output_tooltips ?? []).map(
      (tooltip, index) => words.outputs?.[index]?.tooltip ?? tooltip,
    );
  }
}

/** Labels the inputs, widgets and outputs of a new node. */
export function translateNode(node) {
  const words = node.comfyClass?.startsWith("SUN") && table[node.comfyClass];
  if (!words) return;
  for (const slot of [...(node.inputs ?? []), ...(node.widgets ?? [])]) {
    slot.label = words.inputs?.[slot.name]?.name ?? slot.label;
  }
  for (const [index, output] of (node.outputs ?? []).entries()) {
    output.label = words.outputs?.[index]?.name ?? output.label;
  }
}
