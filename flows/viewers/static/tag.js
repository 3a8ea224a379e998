// The tag builder: a form that answers with tags for a vendor's form, or with a snippet for a site's page.

import { $, button, linked, make, say } from "./dom.js";
import { copied } from "./out.js";
import { link, view } from "./view.js";

let choices = null;

/** Loads the form's choices, once the form is visible. */
export async function showTag() {
  if (view.view !== "tag" || choices) return;
  choices = await request({});
  if (choices.error) { $("tag-trouble").textContent = choices.error; choices = null; return; }
  $("tag-dialect").replaceChildren(...choices.dialects.map(({ name, use, known_how: how }) => new Option(`${name} (${use}, ${how})`, name)));
  $("tag-dialect").value = choices.dialects.some(({ name }) => name === "native") ? "native" : choices.dialects[0]?.name;
  $("tag-names").replaceChildren(...choices.names.map((name) => field(name, name[0].toUpperCase() + name.slice(1), name === "placement")));
  $("tag-events").replaceChildren(make("legend", "", "Events"), ...[...new Set([...choices.usual_events, ...choices.events])].map((event) => {
    const box = Object.assign(make("input"), { type: "checkbox", name: "event", value: event, checked: choices.usual_events.includes(event) });
    return make("label", "", box, event);
  }));
  $("tag-conversion").replaceChildren(...choices.conversions.map((kind) => new Option(kind.replaceAll("_", " "), kind)));
  $("tag-base").value = choices.base ?? "";
  $("site-base").value = choices.base ?? "";
  $("tag-signs").textContent = choices.signs ? "Tags are signed: change none by hand." : "No signing key is set: these tags are unsigned, and a collector that wants signed ones rejects them.";
  vendor();
}

function field(name, title, needed) {
  const input = Object.assign(make("input"), { name, required: needed, maxLength: 128, autocomplete: "off", spellcheck: false });
  return make("label", "stacked", make("span", "", title, ...(needed ? [make("small", "", "needed")] : [])), input);
}

async function request(body) {
  try {
    const answer = await fetch("/api/tag", Object.keys(body).length ? { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) } : {});
    return await answer.json();
  } catch {
    return { error: "The exporter does not build tags." };
  }
}

/** Shows the facts about the chosen vendor. */
function vendor() {
  const one = choices?.dialects.find(({ name }) => name === $("tag-dialect").value);
  if (!one) return;
  const known = { documented: "documented by the vendor or a standard", seen: "seen in public code or live URLs alone: try the tag first", inferred: "inferred by us: try the tag first" };
  $("tag-vendor").textContent = [known[one.known_how] ?? one.known_how, one.urls ? `takes ${one.urls} URLs` : "", one.note].filter(Boolean).join("; ");
}

function result(box, texts, warnings = []) {
  box.replaceChildren(
    ...texts.map(([title, words]) => {
      const area = Object.assign(make("textarea"), { readOnly: true, value: words, rows: Math.min(16, Math.max(2, words.split("\n").length)), ariaLabel: title, spellcheck: false });
      return make("div", "made", make("div", "made-head", make("strong", "", title), button("Copy", () => copied(words, title), { ariaLabel: `Copy ${title}` })), area);
    }),
    ...(warnings.length ? [make("h4", "", "What this vendor does not send"), make("ul", "warnings", ...warnings.map((words) => make("li", "", words)))] : []),
  );
  say(texts.length ? `${texts.length} results` : warnings[0] ?? "");
}

async function build(event) {
  event.preventDefault();
  const form = new FormData($("tag-form")), fields = { dialect: form.get("dialect"), base: form.get("base"), click: form.get("click") };
  for (const name of choices?.names ?? []) fields[name] = form.get(name) ?? "";
  const events = form.getAll("event");
  if (events.join() !== choices?.usual_events.join()) fields.events = events.join();
  const answer = await request(Object.fromEntries(Object.entries(fields).filter(([, value]) => value)));
  $("tag-trouble").textContent = answer.error ?? "";
  if (answer.error) { $("tag-made").replaceChildren(); return; }
  result($("tag-made"), [...answer.tags.map(({ event: name, url }) => [name, url]), ...(answer.vast ? [["VAST", answer.vast]] : []), ...(answer.curl ? [["one impression from a terminal, with its verdict", answer.curl]] : [])], answer.warnings);
  $("tag-made").prepend(make("p", "soft", "Paste each as it is. Then fire one play and ", linked(`watch ${fields.placement}`, link({ view: "placements", open: fields.placement })), ", and ", linked("its calls", link({ view: "live", q: `"${fields.placement}"`, open: "" })), "."));
}

async function site(event) {
  event.preventDefault();
  const form = new FormData($("site-form"));
  const answer = await request(Object.fromEntries([...form].filter(([, value]) => value)));
  $("site-trouble").textContent = answer.error ?? "";
  result($("site-made"), answer.error ? [] : [["the snippet", answer.snippet]]);
}

async function check(event) {
  event.preventDefault();
  const answer = await request({ check: $("check-url").value });
  $("check-made").replaceChildren(...(answer.error ? [make("p", "trouble", answer.error)] : [
    make("p", answer.good ? "good" : "trouble", answer.good ? "This tag is good." : "This tag must be corrected."),
    make("ul", "warnings", ...answer.findings.map(({ level, words }) => make("li", level, `${level}: ${words}`))),
  ]));
}

$("tag-dialect").addEventListener("change", vendor);
$("tag-form").addEventListener("submit", build);
$("site-form").addEventListener("submit", site);
$("check-form").addEventListener("submit", check);
