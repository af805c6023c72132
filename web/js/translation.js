/** Titles, inputs and tooltips in the user's language; frontends before 1.33.13 lose the translations of packs. */

import { chosen } from "./words.js";

const table = chosen.nodeDefs ?? {};

/** Put the words into the node definitions that the page is about to register. */
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

/**
 * Name the inputs, widgets and outputs of a new node. Slots get a `localized_name`, which every page sets anew; a
 * `label` would be saved with the workflow and show this language to other people.
 */
export function translateNode(node) {
  const words = node.comfyClass?.startsWith("SUN") && table[node.comfyClass];
  if (!words) return;
  for (const input of node.inputs ?? []) {
    input.localized_name = words.inputs?.[input.name]?.name ?? input.localized_name;
  }
  for (const widget of node.widgets ?? []) {
    widget.label = words.inputs?.[widget.name]?.name ?? widget.label;
  }
  for (const [index, output] of (node.outputs ?? []).entries()) {
    output.localized_name = words.outputs?.[index]?.name ?? output.localized_name;
  }
}
