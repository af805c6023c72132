/** Elements with text in them, and the style sheet that they bring with them. */

const STYLES = new URL("./faces.css", import.meta.url).href;

/** Insert text as text, since titles and metadata come from other people's files; only `these` become code. */
export function box(className, text = "") {
  const element = Object.assign(document.createElement("div"), { className });
  const parts = text.split(/`([^`]+)`/);
  element.append(...parts.map((part, index) => (index % 2 ? code(part) : part)));
  return element;
}

function code(text) {
  return Object.assign(document.createElement("code"), { textContent: text });
}

/** Link the style sheet beside our own elements, so that nothing of the page's own document is changed. */
export function styles() {
  return Object.assign(document.createElement("link"), { rel: "stylesheet", href: STYLES });
}
