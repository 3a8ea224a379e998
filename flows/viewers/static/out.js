// Exports of the page: copies, and the CSV of the rows that are shown.

import { unitOf } from "./columns.js";
import { currencyOf, desk } from "./data.js";
import { make, say } from "./dom.js";
import { scope, table } from "./table.js";

/** Copies a text and confirms it. Over plain HTTP a browser has no clipboard, only execCommand. */
export async function copied(words, what) {
  try {
    await navigator.clipboard.writeText(words);
  } catch {
    const area = make("textarea");
    area.value = words;
    document.body.append(area);
    const back = document.activeElement;
    area.select();
    document.execCommand("copy");
    area.remove();
    back?.focus();
  }
  say(`${what} copied`);
  flash(`${what} copied`);
}

let timer = 0;
function flash(words) {
  const note = document.getElementById("note");
  note.textContent = words;
  note.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => { note.hidden = true; }, 2000);
}

/** A cell of CSV. A text that a spreadsheet would take for a formula begins with an apostrophe, by the letters of rows_json.py. */
function cell(value) {
  const words = typeof value === "string" && /^[=+\-@\t\r\n＝＋－＠]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
}

function raw(column, row) {
  if (column.csv) { const words = column.csv(row); return words === "–" || words === "" || words === "NaN" ? "" : Number.isNaN(Number(words)) ? words : Number(words); }
  if (column.key === "state") return column.text(row);
  const value = column.value(row);
  return typeof value === "number" ? (Number.isFinite(value) ? Number(value.toFixed(6)) : "") : value;
}

const CURRENCY = { key: "currency", title: "currency", unit: "", value: (row) => currencyOf(row) ?? "" };

/** The CSV of the shown rows and columns, without sums. A column has each row's currency if the headings have none. */
export function csv() {
  const first = desk.currency === null && table.columns.find(({ unit }) => unit === "money");
  const columns = table.columns.flatMap((one) => (one === first ? [CURRENCY, one] : [one]));
  const heads = columns.map((one) => one.csvTitle ?? [one.key === "id" ? scope() : one.title, unitOf(one) && `(${unitOf(one)})`].filter(Boolean).join(" "));
  const lines = table.shown.flatMap((item) => (item.sum ? (item.folded ? item.rows : []) : [item])).map((row) => columns.map((one) => cell(raw(one, row))).join());
  return [heads.map(cell).join(), ...lines].join("\r\n") + "\r\n";
}

export function saveCsv() {
  const url = URL.createObjectURL(new Blob(["\ufeff", csv()], { type: "text/csv;charset=utf-8" }));
  const anchor = Object.assign(make("a"), { href: url, download: `audiopixel-${scope()}s-${new Date().toISOString().slice(0, 16).replace(":", "")}.csv` });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  flash("CSV saved");
}
