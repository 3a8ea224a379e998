// Elements: every value from outside goes through textContent or attributes of numbers, never through markup.

export const $ = (id) => document.getElementById(id);

/** Writes a text if it differs from the last text written. */
export function setText(element, value) {
  if (element.shown !== value) element.textContent = element.shown = value;
}

/** Writes texts and elements, such as names with their own text direction, if they differ from the last ones written. */
export function setParts(element, ...parts) {
  const whole = parts.map((part) => part.textContent ?? part).join("");
  if (element.shown === whole) return;
  element.shown = whole;
  element.replaceChildren(...parts);
}

export function make(name, className = "", ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

export function button(words, act, more = {}) {
  const element = Object.assign(make("button", "", words), { type: "button" }, more);
  element.addEventListener("click", act);
  return element;
}

/** A link to the documents. */
export const linked = (words, href) => Object.assign(make("a", "", words), { href });

/** A line of a list of terms. */
export const term = (name, words) => make("div", "", make("dt", "", name), make("dd", "", words));

/** Has a screen reader read words, once. */
export function say(words) {
  setText($("said"), "");
  setText($("said"), words);
}

/** The browser's storage for this reader; empty in a browser that forbids it. */
export const storage = {
  get(name) { try { return localStorage.getItem(name); } catch { return null; } },
  set(name, value) { try { localStorage.setItem(name, value); } catch { /* forbidden */ } },
};

export const narrow = matchMedia("(max-width: 640px), (max-height: 420px)");
