/** Register with ComfyUI's page everything that the other files here define. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { files, readAdapters } from "./adapters.js";
import { checkSoon, watchNodes } from "./checks.js";
import { watchDeletion } from "./deletion.js";
import { addFace, hasFace } from "./faces.js";
import { canvasMenu, commands, nodeMenu, toolboxCommands } from "./menu.js";
import { allNodes } from "./graphs.js";
import { listenToRuns } from "./runs.js";
import { settingDefinitions } from "./settings.js";
import { translateDefinitions, translateNode } from "./translation.js";

const PACK = "sun-for-comfyui"; // its name in the registry
const HOME = "https://arxiv.org/abs/2312.08887"; // what the pack implements
await readAdapters();

app.registerExtension({
  name: "sun4stepspeedup", // the pack's DisplayName as one word: of two extensions with one name, ComfyUI drops one
  commands,
  menuCommands: [{ path: ["SUN"], commands: commands.map(({ id }) => id) }],
  keybindings: [{ commandId: "SUN.SpeedUp", combo: { key: "l", ctrl: true, shift: true } }],
  settings: settingDefinitions(checkSoon),
  aboutPageBadges: [{ label: `SUN ${files.version}`, url: HOME, icon: "pi pi-bolt" }],
  getNodeMenuItems: nodeMenu,
  getCanvasMenuItems: canvasMenu,
  getSelectionToolboxCommands: toolboxCommands,
  addCustomNodeDefs: translateDefinitions,

  setup() {
    listenToRuns(checkSoon);
    api.addEventListener("graphChanged", checkSoon);
    watchNodes();
  },

  nodeCreated(node) {
    translateNode(node);
    addFace(node);
    namePack(node);
    nameReleasedAdapter(node);
    if (!hasFace(node)) return;
    watchDeletion(node);
    checkSoon(); // the only event if the page reads the API format
  },

  afterConfigureGraph() {
    checkSoon();
  },

  /** Called after the page has reloaded the node definitions and refilled the combos. */
  async refreshComboInNodes() {
    await readAdapters();
    allNodes().forEach(nameReleasedAdapter);
    checkSoon();
  },
});

/** Save with a node which pack of the registry it comes from, so that others are offered that pack if they lack it. */
function namePack(node) {
  if (node.comfyClass?.startsWith("SUN")) node.properties.cnr_id = PACK;
}

/**
 * Tell the page's own list of missing models where to download the released adapter. If the server has no adapter at
 * all, its combo still offers this name, so that new nodes show it; newer pages would think it is installed.
 */
function nameReleasedAdapter(node) {
  const { names, released } = files;
  const chooser = node.comfyClass?.startsWith("SUN") && node.widgets?.find(({ name }) => name === "adapter_name");
  if (!chooser || !released) return;
  node.properties.models = [{ name: released.name, url: released.url, directory: released.folder }];
  if (!names.includes(released.name) && Array.isArray(chooser.options.values)) {
    chooser.options.values = chooser.options.values.filter((name) => name !== released.name);
  }
}
