// A publisher's file, dropped on the page: for each row the difference from our count to theirs, and sentences to send.

import { $, button, make } from "./dom.js";
import { copied } from "./out.js";
import { percent, whole } from "./words.js";
import { BANDS, signed, waterfall } from "./waterfall.js";

const LONGEST = 1 << 20;
let file = null;

function claim(row) {
  const name = `${row.scope} ${row.id}`, when = row.counted === "impressions" ? row.when : `${row.when}, ${row.counted.replaceAll("_", " ")}`;
  const share = row.share === null ? "" : ` (${percent(row.share, 1)})`, area = Object.assign(make("textarea"), { readOnly: true, value: row.letter, rows: 5, ariaLabel: `Sentences about ${name}, ${when}` });
  return make("article", "claim", make("h3", "", make("bdi", "", name), `, ${when}`),
    make("p", `band ${row.ours === null ? "none" : row.band}`, row.ours === null ? `Theirs ${whole(row.theirs)}, ours is not known: ${row.note ?? ""}` : `Theirs ${whole(row.theirs)}, ours ${whole(row.ours)}: ${signed(row.difference)}${share}, ${BANDS[row.band] ?? row.band}`),
    ...(row.ours === null ? [] : waterfall(row, Math.min(760, Math.max(280, $("compare-made").clientWidth)))),
    make("div", "made", make("div", "made-head", make("strong", "", "To send"), button("Copy", () => copied(row.letter, "sentences"), { ariaLabel: `Copy the sentences about ${name}` })), area));
}

function trouble(words) {
  $("compare-made").replaceChildren(make("p", "trouble", words));
}

async function send(chosen) {
  file = chosen;
  if (!file) return;
  if (file.size > LONGEST) { trouble(`${file.name} is larger than 1 MB.`); return; }
  $("compare-made").replaceChildren(make("p", "soft", `Comparing ${file.name}.`));
  try {
    const answer = await fetch("/api/discrepancy", { method: "POST", headers: { "content-type": "text/csv" }, body: file }), body = await answer.json();
    if (body.error) { trouble(body.error); return; }
    const far = body.rows.filter(({ band }) => band === "breach").length, unknown = body.rows.filter(({ ours }) => ours === null).length;
    $("compare-made").replaceChildren(
      make("p", "", `${whole(body.rows.length)} row${body.rows.length === 1 ? "" : "s"} of ${file.name}: ${whole(far)} over the tolerance${unknown ? `, ${whole(unknown)} without a number of ours` : ""}. `, button("Print", () => print())),
      ...body.rows.map(claim));
  } catch { trouble("The exporter compares no files for this reader."); }
}

const drop = $("compare-drop");
$("compare-file").addEventListener("change", (event) => send(event.target.files[0]));
for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => { event.preventDefault(); send(event.dataTransfer.files[0]); });
