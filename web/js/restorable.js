/** For which nodes Restore has something to bring back. The server tells of samplers; the others tell it themselves. */

const NOTES = ["sun_restore", "sun_negative_restore"]; // the properties that conversion/notes.py writes
const PUT_IN = ["SUNSpeedUp", "SUNNegative"]; // by the menus; others of ours are changed as any node is
const BYPASSED = 4;
const leftBehind = new WeakSet(); // samplers that still have the settings of a SUN node that is off or gone

/** Keep what the server's check found of a node without a face, also if badges are switched off. */
export function noteLeftBehind(node, isLeftBehind) {
  if (isLeftBehind) leftBehind.add(node);
  else leftBehind.delete(node);
}

/** Whether SUN put a node in or changed it, though it may have been changed again since. */
export function hasNote(node) {
  return NOTES.some((name) => node.properties?.[name]);
}

export function isRestorable(node) {
  if (!hasNote(node)) return false;
  if (PUT_IN.includes(node.type)) return true;
  return isBypassedBySun(node) || leftBehind.has(node);
}

function isBypassedBySun(node) {
  return node.mode === BYPASSED && typeof node.properties.sun_restore?.mode === "number";
}
