/** Which adapters the server has, and the released one that it may lack. */

import { ask } from "./server.js";

const NOTHING = { version: "", names: [], released: null };
let answer = null;

/** {version of the pack, names of the usable files, released: {name, url, bytes, license, folder}}. */
export function adapterFiles() {
  answer ??= ask("adapters").then(
    ({ version, adapters, released }) => ({
      version,
      names: adapters.filter((adapter) => !adapter.error).map((adapter) => adapter.name),
      released,
    }),
    () => NOTHING,
  );
  return answer;
}

/** Makes the next question go to the server: files came or went. */
export function forgetAdapters() {
  answer = null;
}
