/** Which adapters the server has, and the released one that it may lack. */

import { ask } from "./server.js";

/** {version of the pack, names of the usable files, released: {name, url, bytes, license, folder}}. */
export let files = { version: "", names: [], released: null };

/** Asks the server, at the page's start and when files came or went; what was known stays where it does not answer. */
export async function readAdapters() {
  try {
    const { version, adapters, released } = await ask("adapters");
    const names = adapters.filter((adapter) => !adapter.error).map((adapter) => adapter.name);
    files = { version, names, released };
  } catch (error) {
    console.warn(`SUN: ${error.message}`);
  }
}
