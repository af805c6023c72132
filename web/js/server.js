/** What the pack's routes on ComfyUI's server answer. */

import { api } from "../../../scripts/api.js";

/** The JSON of GET /sun/<path>, or of a POST where there is a body; throws an Error with the server's own sentence. */
export async function ask(path, body) {
  const post = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  const answer = await api.fetchApi(`/sun/${path}`, post);
  if (answer.ok) return answer.json();
  const text = await answer.text();
  throw new Error(sentence(text) || `${answer.status} ${answer.statusText}`);
}

function sentence(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return text;
  }
}

/** Words from the server: {locale: {main, nodeDefs, commands and settings, merged}} of all packs; {} if there are none. */
export async function fetchTranslations() {
  try {
    return await (await api.fetchApi("/i18n")).json();
  } catch {
    return {};
  }
}
