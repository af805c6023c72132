/** Which adapters the server has, and the released one that it may lack. */

import { ask } from "./server.js";

/** The pack's version, the names of the usable files, and released: {name, url, bytes, license, folder}. */
export let files = { version: "", names: [], released: null };

let latest = 0;

/** Ask the server, when the page starts and when files came or went; keep what is known if it does not answer. */
export async function readAdapters() {
  const turn = ++latest;
  try {
    const { version, adapters, released } = await ask("adapters");
    if (turn !== latest) return; // a newer answer is there or will come
    const names = adapters.filter((adapter) => !adapter.error).map((adapter) => adapter.name);
    files = { version, names, released };
  } catch (error) {
    console.warn(`SUN: ${error.message}`);
  }
}
