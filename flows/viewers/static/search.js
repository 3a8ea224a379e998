// Searches the documents: headings, first sentences and code words, all words of a query in any order.
// A heading with all words comes first, then code words, then sentences. Texts are set as text, never as markup.

const box = document.querySelector("body > header search");
const [field, status, list] = box.children;
const MOST = 12;
let sections; // of /docs/search.json, from the first letter on

/** The rank of a section, 0 the best; Infinity if the section lacks a word. */
function rank([address, heading, sentence, codes], words) {
  const texts = [`${heading} ${address.split(".")[0]}`, codes, sentence].map((text) => text.toLowerCase());
  const first = texts.findIndex((text) => words.every((word) => text.includes(word)));
  if (first >= 0) return first;
  return words.every((word) => texts.some((text) => text.includes(word))) ? texts.length : Infinity;
}

function shown([address, heading, sentence]) {
  const item = document.createElement("li"), link = document.createElement("a"), small = document.createElement("small");
  link.href = `/docs/${address}`;
  link.textContent = `${address.split(".")[0].replaceAll("-", " ")} › ${heading}`;
  small.textContent = sentence;
  item.append(link, small);
  return item;
}

async function search() {
  const query = field.value, words = query.toLowerCase().split(/\s+/).filter(Boolean);
  let ranked = [];
  try {
    if (words.length) ranked = (await (sections ??= fetch("/docs/search.json").then((answer) => answer.json()))).map((section) => [rank(section, words), section]);
  } catch {
    sections = undefined;
    status.textContent = "The search cannot be read: is the exporter away?";
    return;
  }
  if (field.value !== query) return; // a later letter has its own search
  ranked = ranked.filter(([place]) => place < Infinity).sort(([a], [b]) => a - b);
  status.textContent = words.length ? (ranked.length > MOST ? `the first ${MOST} of ${ranked.length}` : `${ranked.length} found`) : "";
  list.replaceChildren(...ranked.slice(0, MOST).map(([, section]) => shown(section)));
}

box.hidden = false;
field.addEventListener("input", search);
field.addEventListener("keydown", (event) => {
  if (event.key === "Enter") list.querySelector("a")?.click();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") (field.value = ""), search();
  if (event.key === "/" && event.target !== field && !event.ctrlKey && !event.metaKey) event.preventDefault(), field.focus();
});
list.addEventListener("click", () => setTimeout(() => ((field.value = ""), search()))); // after the browser has followed an anchor of this page
