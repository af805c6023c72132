/** The page's own words in the user's language, from locales/<language>/*.json. */

import { app } from "../../../scripts/app.js";
import { fetchTranslations } from "./server.js";

/** The user's language, in which the server answers too. */
export const locale = String(app.extensionManager?.setting.get("Comfy.Locale") ?? "en");

const translations = await fetchTranslations();
const english = translations.en ?? {};

/** The words in the user's language; in English if there is no translation. */
export const chosen = locale === "en" ? english : (translations[locale] ?? english);

/** Return the text at a path such as "sun.restore", with {name} filled in from `values`, or else `otherwise`. */
export function word(path, values = {}, otherwise = path) {
  const found = at(chosen, path) ?? at(english, path) ?? otherwise;
  return found.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

function at(table, path) {
  return path.split(".").reduce((branch, key) => branch?.[key], table);
}
