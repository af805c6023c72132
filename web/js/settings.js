/** The pack's entries in the settings dialog. */

import { app } from "../../../scripts/app.js";
import { files } from "./adapters.js";
import { word } from "./words.js";

const DEFAULT_ADAPTER = "SUN.DefaultAdapter";
const SHOW_BADGES = "SUN.ShowBadges";
const ANNOUNCE = "SUN.AnnounceAutomatic";
const REPLAY = "SUN.ReplayForwards"; // read by nodes/settings.py
const FITTING = "fitting"; // no file's name, since that has an extension; newer pages do not show an empty value

/** Define the settings for registerExtension; `onBadges` is called when badges are turned on or off. */
export function settingDefinitions(onBadges) {
  return [
    setting(ANNOUNCE, { type: "boolean", defaultValue: true }),
    setting(SHOW_BADGES, { type: "boolean", defaultValue: true, onChange: onBadges }),
    setting(DEFAULT_ADAPTER, {
      type: "combo",
      defaultValue: FITTING,
      migrateDeprecatedValue: (value) => value || FITTING,
      options: adapterChoices, // looked up when the dialog opens: files come and go
    }),
    setting(REPLAY, { type: "boolean", defaultValue: true }),
  ];
}

function adapterChoices() {
  const names = files.names.map((name) => ({ text: name, value: name }));
  return [{ text: word("sun.adapterThatFits"), value: FITTING }, ...names];
}

/** Return the file name of the chosen adapter; null for whichever fits. */
export function defaultAdapter() {
  const chosen = app.extensionManager.setting.get(DEFAULT_ADAPTER);
  return chosen === FITTING ? null : chosen || null;
}

export function showsBadges() {
  return app.extensionManager.setting.get(SHOW_BADGES);
}

export function announcesAutomatic() {
  return app.extensionManager.setting.get(ANNOUNCE);
}

function setting(id, more) {
  const words = `settings.${id.replace(".", "_")}`;
  const name = word(`${words}.name`);
  return { id, name, category: ["SUN", "SUN", name], tooltip: word(`${words}.tooltip`), ...more };
}
