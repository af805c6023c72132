/** Calls to the pack's routes on ComfyUI's server. */

import { api } from "../../../scripts/api.js";

/** Return the JSON of GET /sun/<path>, or of a POST if there is a body; throw an Error with the server's sentence. */
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

/** Fetch the words of all packs: {locale: main, nodeDefs, commands and settings merged}; {} if that fails. */
export async function fetchTranslations() {
  try {
    return await (await api.fetchApi("/i18n")).json();
  } catch {
    return {};
  }
}
